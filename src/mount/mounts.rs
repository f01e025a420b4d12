//! The mount table.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{fuse, sys};

/// Type of our mounts in the mount table.
const KIND: &str = "fuse.kvfs";

/// A place in the mount table where a kvfs mount, or a part of one, is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The path of the mount point.
    pub path: PathBuf,
    /// The part of the mount that is bound there: `/` is all of it, `/app` the key or the directory `app`.
    pub root: PathBuf,
    /// The source field of the table.
    pub source: String,
    /// The user who mounted it.
    pub owner: Option<u32>,
    /// The number of its connection to the daemon.
    pub connection: String,
}

impl Place {
    /// Whether the whole mount is there.
    pub fn is_whole(&self) -> bool {
        self.root == Path::new("/")
    }
}

/// All places of kvfs mounts that this process can see, in the order of mounting.
pub fn ours() -> io::Result<Vec<Place>> {
    Ok(table()?.into_iter().filter_map(|entry| entry.ours).collect())
}

/// The kvfs mount at `path`, links resolved, if it is the topmost there.
pub fn find(path: &Path) -> io::Result<Option<Place>> {
    let found = holding(path)?.filter(|(_, within)| within.as_os_str().is_empty());
    Ok(found.map(|(place, _)| place))
}

/// The kvfs mount that `path`, links resolved, lies in, and the path within it, which need not exist.
pub fn holding(path: &Path) -> io::Result<Option<(Place, PathBuf)>> {
    let path = resolve(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    let table = table()?;
    let top = |above: &Path| table.iter().rfind(|entry| entry.path == above);
    let Some((above, top)) = path.ancestors().find_map(|above| Some((above, top(above)?))) else {
        return Ok(None);
    };
    let within = path.strip_prefix(above).unwrap_or(&path);
    Ok(top.ours.clone().map(|place| (place, within.to_owned())))
}

/// `path` with links resolved as far as it exists: in a dead mount nothing can be resolved.
fn resolve(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, resolved)) = there else { return path.to_owned() };
    match path.strip_prefix(above) {
        Ok(rest) if !rest.as_os_str().is_empty() => resolved.join(rest),
        _ => resolved,
    }
}

fn table() -> io::Result<Vec<Entry>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// How long a mount may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads the status document of the mount at `path`. Fails with `ENOTCONN` or `ECONNABORTED` if it is
/// gone, and with `TimedOut` if it does not answer.
pub fn ask(path: &Path) -> io::Result<Vec<u8>> {
    patiently(path, fuse::STATUS)
}

/// Whether the daemon of a mount is gone.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

/// Has the daemon of the mount at `path` call its store. The result is empty if the store answers, else its error.
pub(super) fn probe(path: &Path) -> io::Result<Vec<u8>> {
    patiently(path, fuse::CHECK)
}

/// The recent refusals of the file, or in the directory, at `path`, from the daemon of its mount.
pub fn refusals(path: &Path) -> io::Result<Vec<u8>> {
    patiently(path, fuse::REFUSALS)
}

fn patiently(path: &Path, name: &'static str) -> io::Result<Vec<u8>> {
    let path = path.to_owned();
    within_patience(move || sys::get_xattr(&path, name))
}

/// What a mount answers to `ask`, or `TimedOut`. A thread that waits in the kernel for a stuck daemon cannot be interrupted.
pub(super) fn within_patience(
    ask: impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static,
) -> io::Result<Vec<u8>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::Builder::new().spawn(move || _ = sender.send(ask()))?;
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads a cursor into the changes of the mount at `path`, at their current end.
pub fn changes_begin(path: &Path) -> io::Result<Vec<u8>> {
    patiently(path, fuse::CHANGES)
}

/// Reads the changes after `cursor`.
pub fn changes_after(path: &Path, cursor: &str) -> io::Result<Vec<u8>> {
    sys::get_xattr(path, &format!("{}.{cursor}", fuse::CHANGES))
}

/// Whether a mount at `path` is of kvfs.
pub(super) fn is_ours(path: &Path) -> bool {
    ours().is_ok_and(|places| places.iter().any(|place| place.path == path))
}

/// How many mounts lie at `path`, one over the other.
pub(super) fn count(path: &Path) -> usize {
    table().map_or(0, |table| table.iter().filter(|entry| entry.path == path).count())
}

/// A mount that lies below `path`.
pub(super) fn below(path: &Path) -> Option<PathBuf> {
    let is_below = |entry: &Entry| entry.path != path && entry.path.starts_with(path);
    table().ok()?.into_iter().find(is_below).map(|entry| entry.path)
}

/// A line of the mount table.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    ours: Option<Place>,
}

fn parse(table: &[u8]) -> Vec<Entry> {
    table.split(|byte| *byte == b'\n').filter_map(entry).collect()
}

fn entry(line: &[u8]) -> Option<Entry> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let path = unescape(fields.get(4)?);
    // proc(5): optional fields end with a dash; type, source and options follow it.
    let dash = fields.iter().position(|field| *field == b"-")?;
    let [kind, source, options] = fields.get(dash + 1..dash + 4)? else { return None };
    // The device, 0:33. Its minor number is the name of the connection.
    let connection = fields.get(2)?.strip_prefix(b"0:").filter(|_| *kind == KIND.as_bytes());
    let ours = connection.map(|connection| Place {
        path: path.clone(),
        root: unescape(fields[3]),
        source: unescape(source).to_string_lossy().into_owned(),
        owner: owner(options),
        connection: String::from_utf8_lossy(connection).into_owned(),
    });
    Some(Entry { path, ours })
}

/// The user that mounted.
fn owner(options: &[u8]) -> Option<u32> {
    let mut options = options.split(|byte| *byte == b',');
    let id = options.find_map(|option| option.strip_prefix(b"user_id="))?;
    std::str::from_utf8(id).ok()?.parse().ok()
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
            40 22 0:33 / /mnt/my\\040kv rw,nosuid - fuse.kvfs sqlite:/x rw,user_id=12,group_id=0\n\
            41 22 0:34 / /mnt/other rw - fuse.sshfs host: rw\n\
            42 22 0:33 /app /etc/app rw shared:2 - fuse.kvfs sqlite:/x rw,user_id=12,group_id=0\n";
        let place = |path: &str, root: &str| Place {
            path: path.into(),
            root: root.into(),
            source: "sqlite:/x".into(),
            owner: Some(12),
            connection: "33".into(),
        };
        let all = parse(table);
        assert_eq!(all.len(), 4);
        let ours: Vec<Place> = all.into_iter().filter_map(|entry| entry.ours).collect();
        assert_eq!(ours, [place("/mnt/my kv", "/"), place("/etc/app", "/app")]);
        assert!(ours[0].is_whole() && !ours[1].is_whole());
    }
}
