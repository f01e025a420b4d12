//! An ordinary user with a `/dev/fuse` that is open to all, as machines have it. In namespaces of their own, so that nothing
//! of it is seen outside, and nothing of it is left.

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::KVFS;

/// As root: what a machine would have had before.
const SETUP: &str = r#"
set -e
# Mounts of other tests would live as long as this namespace.
awk '$3 == "fuse.kvfs" { print $2 }' /proc/mounts | while read -r mount; do umount -l "$mount" 2> /dev/null || true; done
mount -t tmpfs -o dev,mode=755 tmpfs "$T"
mknod "$T/fuse" c 10 229; chmod 666 "$T/fuse"; mount --bind "$T/fuse" /dev/fuse
cp /etc/passwd "$T/passwd"; echo "someone:x:$ID:$ID::/:/bin/sh" >> "$T/passwd"; mount --bind "$T/passwd" /etc/passwd
touch "$T/kvfs"; mount --bind "$KVFS" "$T/kvfs"
mkdir "$T/home"; chown "$ID:$ID" "$T/home"; cd "$T/home"
export KVFS_QUIET=1 PATH="$T:$PATH" HOME="$T/home" XDG_DATA_HOME="$T/home/data" XDG_STATE_HOME="$T/home/state"
as_user() { setpriv --reuid "$ID" --regid "$ID" --clear-groups "$@"; }
"#;

/// What hangs on the mount is let go, whatever became of it.
const RUN: &str = r#"
code=0; as_user sh -c "$SCRIPT" || code=$?
umount -f "$T/home/mnt" 2> /dev/null || :; exit $code
"#;

/// Runs `before` as root and then `script` as an ordinary user in that user's home, where `kvfs` is the binary under test.
/// Whatever still runs is ended.
pub(super) fn run(before: &str, script: &str) -> Output {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // A limit on processes counts all of a user.
    let id = 1_000_000 + std::process::id() * 8 + COUNT.fetch_add(1, Ordering::Relaxed);
    let place = tempfile::TempDir::new().unwrap();
    Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"])
        .arg(format!("{SETUP}\n{before}\n{RUN}"))
        .env("T", place.path())
        .env("KVFS", KVFS)
        .env("ID", id.to_string())
        .env("SCRIPT", script)
        .env_remove("KVFS_STORE")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The output of `script`, both streams.
pub(super) fn says(before: &str, script: &str) -> String {
    let out = run(before, script);
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}
