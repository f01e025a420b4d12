//! Where rejected texts are kept if the usual place cannot be written, and the messages if there is none.

use std::process::Command;

use tempfile::TempDir;

use crate::common::{KVFS, can_mount};

/// Runs `script` in a mount namespace of its own, in `home`, where `ro` is a home that cannot be written. Both streams.
fn told(home: &TempDir, script: &str) -> String {
    let script = format!(
        "exec 2>&1; umask 022; mkdir ro tmp; chmod 1777 tmp; mount -t tmpfs none /var/lib
        mount -t tmpfs -o ro none ro; {script}
        \"$KVFS\" umount mnt"
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "bash", "-e", "-c", &script]).current_dir(home.path());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KVFS_")) {
        command.env_remove(name);
    }
    let command = command
        .env("KVFS", KVFS)
        .env("HOME", home.path().join("ro"))
        .env_remove("XDG_STATE_HOME")
        .env_remove("XDG_DATA_HOME");
    let out = command.env("TMPDIR", home.path().join("tmp")).output().unwrap();
    String::from_utf8(out.stdout).unwrap().replace(home.path().to_str().unwrap(), "HOME")
}

/// Prints `kvfs why` and `kvfs status` after a refusal. The text is kept at RELEASE, after close(2).
const REFUSED: &str = r#"echo bad > mnt/db || true; until "$KVFS" why mnt | grep -q "^  the text "; do sleep 0.1; done
    "$KVFS" why mnt | tail -n 1; "$KVFS" status mnt | grep -E '^  (note|rejected|lost) '
    "#;

const FIRST: &str = "HOME/ro/.local/state/kvfs cannot be written: Read-only file system (os error 30)";

#[test]
fn a_home_that_cannot_be_written_has_texts_kept_elsewhere_which_is_told() {
    if !can_mount() {
        return;
    }
    for (deny, place) in [("", "/var/lib/kvfs"), ("mount -o remount,ro /var/lib;", "HOME/tmp/kvfs-0")] {
        let home = TempDir::new().unwrap();
        let text = told(
            &home,
            &format!(
                "{deny} \"$KVFS\" -q memory: mnt; {REFUSED} cat \"${{KEPT:-{}}}\"/rejected/*-db.rejected; stat -c %a \"${{KEPT:-{}}}\"",
                place.replace("HOME", "$PWD"),
                place.replace("HOME", "$PWD")
            ),
        );
        let note = format!("{FIRST}; rejected texts and the log are kept in {place}");
        let lines: Vec<&str> = text.lines().collect();
        let [start, write, why, status, rejected, kept, mode] = lines[..] else { panic!("{text}") };
        assert_eq!(start, format!("kvfs: {note}"));
        assert!(write.ends_with("Invalid argument"), "{write}");
        assert!(why.starts_with(&format!("  the text is kept in {place}/rejected/")), "{why}");
        assert_eq!(status, format!("  note        {note}"));
        assert_eq!(rejected, format!("  rejected    texts 1, kept in {place}/rejected"));
        assert_eq!((kept, mode), ("bad", "700"));
    }
}

#[test]
fn where_nothing_can_be_kept_the_start_says_so_and_each_loss_is_told_with_path_and_reason() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    let deny = "mount -o remount,ro /var/lib; ln -s \"$PWD\" tmp/kvfs-0;";
    let text =
        told(&home, &format!("{deny} \"$KVFS\" ./mnt || true; \"$KVFS\" -q memory: mnt; {REFUSED} ls"));
    let (no_store, text) = text.split_once('\n').unwrap();
    let cannot = "cannot create HOME/ro/.local/share/kvfs: Read-only file system (os error 30)";
    assert_eq!(no_store, format!("kvfs: {cannot}; name a database elsewhere, as in sqlite:/srv/kv.db"));
    let lines: Vec<&str> = text.lines().collect();
    let [start, unlogged, _, why, status, rejected, lost, ..] = lines[..] else { panic!("{text}") };
    let note = format!(
        "rejected texts will be lost, for {FIRST}, nor can /var/lib/kvfs: Read-only file system (os error 30), nor can \
         HOME/tmp/kvfs-0: it is a link; set XDG_STATE_HOME to a directory that can be written"
    );
    let here = "HOME/ro/.local/state/kvfs/rejected: Read-only file system (os error 30)";
    assert_eq!(start, format!("kvfs: {note}"));
    assert!(
        unlogged.starts_with("kvfs: nothing is logged, for HOME/ro/.local/state/kvfs/kvfs.log "),
        "{text}"
    );
    assert_eq!(why, format!("  the text could not be kept: {here}"));
    assert_eq!(status, format!("  note        {note}"));
    assert_eq!(rejected, "  rejected    texts 1, kept in HOME/ro/.local/state/kvfs/rejected");
    assert_eq!(lost, format!("  lost        of these 1, which could not be kept: {here}"));
    assert_eq!(lines[7..], ["mnt", "ro", "tmp"]);
}

#[test]
fn a_disk_that_is_full_leaves_no_empty_file_and_the_loss_is_told_at_the_end_too() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    // A temporary file is judged at the end.
    let script = format!(
        "mkdir state; mount -t tmpfs -o size=64k none state; export XDG_STATE_HOME=$PWD/state
        \"$KVFS\" -f memory: mnt & daemon=$!; until \"$KVFS\" status mnt > /dev/null; do sleep 0.1; done
        cat /dev/zero > state/full || true; {REFUSED} find state -name '*rejected'
        set -C; printf '{{\"a\":' > mnt/tmpabcdefgh; umount mnt; wait $daemon || echo \"exit code $?\""
    );
    let text = told(&home, &script);
    let full = "HOME/state/kvfs/rejected: No space left on device (os error 28)";
    for line in [
        format!("  the text could not be kept: {full}"),
        format!("  lost        of these 1, which could not be kept: {full}"),
        "state/kvfs/rejected".into(),
        format!("kvfs: 1 rejected text is lost: {full}"),
        "exit code 6".into(),
    ] {
        assert!(text.lines().any(|told| told == line), "{line}: {text}");
    }
    assert!(!text.contains("db.rejected"), "{text}");
}
