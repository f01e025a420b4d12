//! Paths as SQLite's URI syntax wants them.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub(super) fn of(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'~' => uri.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            _ => _ = write!(uri, "%{byte:02X}"),
        }
    }
    uri
}

/// With `immutable=1` SQLite reads no log and makes no index, which it could not on read-only media.
pub(super) fn immutable(path: &Path) -> String {
    format!("{}?immutable=1", of(path))
}
