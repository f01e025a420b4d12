//! The mount table.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{fuse, sys};

/// Type of our mounts in the mount table.
const KIND: &str = "fuse.kvfs";

/// A kvfs mount.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    path: PathBuf,
    /// The number of its connection to the daemon.
    connection: String,
}

/// Mount points of all kvfs mounts that this process can see, in the order of mounting.
pub fn ours() -> io::Result<Vec<PathBuf>> {
    Ok(table()?.into_iter().map(|mount| mount.path).collect())
}

/// The kvfs mount that `path` names, itself or by way of links.
pub fn find(path: &Path) -> io::Result<Option<PathBuf>> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // A dead mount cannot be resolved, but is listed under its own name.
    let resolved = absolute.canonicalize().ok();
    Ok(ours()?.into_iter().find(|mount| *mount == absolute || Some(mount) == resolved.as_ref()))
}

/// The number of the connection to its daemon that the topmost kvfs mount at `path` has.
pub(super) fn connection(path: &Path) -> io::Result<String> {
    let mount = table()?.into_iter().rfind(|mount| mount.path == path);
    mount.map(|mount| mount.connection).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn table() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// How long a mount may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the daemon of the mount at `path` for its status document. Fails with `ENOTCONN` or `ECONNABORTED` if it is
/// gone, and with `TimedOut` if it does not answer.
pub fn ask(path: &Path) -> io::Result<Vec<u8>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let path = path.to_owned();
    // Nothing can call a thread back that waits in the kernel for a stuck daemon.
    std::thread::spawn(move || _ = sender.send(sys::get_xattr(&path, fuse::STATUS)));
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Asks the daemon of the mount at `path` what changed after `cursor`; the empty one stands for now.
pub fn changes(path: &Path, cursor: &str) -> io::Result<Vec<u8>> {
    let name =
        if cursor.is_empty() { fuse::CHANGES.to_owned() } else { format!("{}.{cursor}", fuse::CHANGES) };
    sys::get_xattr(path, &name)
}

/// Whether the topmost mount at `path` is of kvfs.
pub(super) fn is_ours(path: &Path) -> bool {
    ours().is_ok_and(|mounts| mounts.iter().any(|mount| mount == path))
}

fn parse(table: &[u8]) -> Vec<Mount> {
    let lines = table.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            // proc(5): optional fields end with a dash; the type follows it.
            let dash = fields.iter().position(|field| *field == b"-")?;
            let ours = fields.get(dash + 1) == Some(&KIND.as_bytes());
            // The device, 0:33. The kernel names the connection after its second part.
            let connection = fields.get(2)?.strip_prefix(b"0:")?;
            ours.then(|| Mount {
                path: unescape(fields.get(4).copied().unwrap_or_default()),
                connection: String::from_utf8_lossy(connection).into_owned(),
            })
        })
        .collect()
}

/// Blanks and backslashes are written as `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::new();
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits =
            tail.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        path.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_mounts_are_found_and_names_are_unescaped() {
        let table = b"22 1 8:1 / / rw shared:1 - ext4 /dev/vda rw\n\
            40 22 0:33 / /mnt/my\\040kv rw,nosuid - fuse.kvfs sqlite:/x rw\n\
            41 22 0:34 / /mnt/other rw - fuse.sshfs host: rw\n";
        let ours = Mount { path: "/mnt/my kv".into(), connection: "33".into() };
        assert_eq!(parse(table), [ours]);
    }
}
