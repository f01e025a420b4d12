//! The recent refusals, as an extended attribute for `kvfs why`.

use std::sync::Arc;

use fuser::Errno;
use serde_json::{Value, json};

use super::REFUSALS;
use super::errno::errno;
use crate::fs::{Fs, FsError, FsResult, Ino, Kept, Refusal};

/// Below the limit of an extended attribute, 64 KiB.
const MOST: usize = 60 << 10;

/// The names of errors, by number.
const NAMES: [(Errno, &str); 25] = [
    (Errno::ENOENT, "ENOENT"),
    (Errno::EEXIST, "EEXIST"),
    (Errno::EINVAL, "EINVAL"),
    (Errno::ENAMETOOLONG, "ENAMETOOLONG"),
    (Errno::EFBIG, "EFBIG"),
    (Errno::ENOSPC, "ENOSPC"),
    (Errno::EROFS, "EROFS"),
    (Errno::EPERM, "EPERM"),
    (Errno::EISDIR, "EISDIR"),
    (Errno::ENOTDIR, "ENOTDIR"),
    (Errno::ENOTEMPTY, "ENOTEMPTY"),
    (Errno::ESTALE, "ESTALE"),
    (Errno::EOPNOTSUPP, "EOPNOTSUPP"),
    (Errno::ENODATA, "ENODATA"),
    (Errno::EBADF, "EBADF"),
    (Errno::EAGAIN, "EAGAIN"),
    (Errno::EINTR, "EINTR"),
    (Errno::EACCES, "EACCES"),
    (Errno::EBUSY, "EBUSY"),
    (Errno::ETIMEDOUT, "ETIMEDOUT"),
    (Errno::EHOSTUNREACH, "EHOSTUNREACH"),
    (Errno::ENOLCK, "ENOLCK"),
    (Errno::EDQUOT, "EDQUOT"),
    (Errno::EXDEV, "EXDEV"),
    (Errno::EIO, "EIO"),
];

/// The value of an extended attribute.
pub(super) async fn attribute(fs: Arc<Fs>, ino: Ino, name: String) -> FsResult<String> {
    if name == REFUSALS { document(&fs, ino) } else { fs.get_xattr(ino, name).await }
}

/// A JSON array of the refusals in a directory, or of a file, the newest last; as many as fit.
fn document(fs: &Fs, ino: Ino) -> FsResult<String> {
    let mut room = MOST;
    let mut items = Vec::new();
    for (name, refusal) in fs.refusals(ino)?.iter().rev() {
        let item = described(fs, name, refusal).to_string();
        let Some(left) = room.checked_sub(item.len() + 1) else { break };
        room = left;
        items.push(item);
    }
    items.reverse();
    Ok(format!("[{}]", items.join(",")))
}

fn described(fs: &Fs, name: &str, refusal: &Refusal) -> Value {
    let code = refusal.error.as_ref().map(errno);
    let place = match refusal.error.as_ref().map(FsError::reason) {
        Some(FsError::Invalid(fault)) => fault.place(),
        _ => None,
    };
    let (kept, lost) = match &refusal.kept {
        Some(Kept::In(path)) => (Some(path.to_string_lossy()), None),
        Some(Kept::Lost(why)) => (None, Some(why)),
        None => (None, None),
    };
    json!({
        "time": jiff::Timestamp::try_from(refusal.at).map(|time| format!("{time:.3}")).unwrap_or_default(),
        "file": name,
        "key": fs.key_at(&refusal.name),
        "errno": code.map(|code| NAMES.iter().find(|(known, _)| *known == code).map_or("?", |(_, name)| name)),
        "error": code.map(message),
        "reason": refusal.reason,
        "line": place.map(|place| place.line),
        "column": place.map(|place| place.column),
        "kept": kept,
        "lost": lost,
    })
}

/// The message of strerror(3).
fn message(code: Errno) -> String {
    let text = std::io::Error::from_raw_os_error(code.code()).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
