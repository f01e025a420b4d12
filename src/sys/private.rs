//! Files and directories of one user.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::done;

/// The flag of open(2) that refuses a symbolic link, and does not wait for a pipe.
pub const NO_FOLLOW: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// Creates `path` and its parents; what is created is 0700.
pub fn create_private_dir_all(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Creates an empty file that is 0600, without opening it: who closes a file ends the locks that its process has on it.
pub fn create_private(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    done(unsafe { libc::mknod(path.as_ptr(), libc::S_IFREG | 0o600, 0) })
}
