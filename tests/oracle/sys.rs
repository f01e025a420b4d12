//! System calls whose result is told in words.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A value, or the name of an errno.
pub(super) fn told<T: Debug>(result: io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => errno(error.raw_os_error().unwrap()),
    }
}

fn errno(number: i32) -> String {
    let known = [
        (libc::EPERM, "EPERM"),
        (libc::EACCES, "EACCES"),
        (libc::ENOENT, "ENOENT"),
        (libc::EBADF, "EBADF"),
        (libc::EBUSY, "EBUSY"),
        (libc::EEXIST, "EEXIST"),
        (libc::ENOTDIR, "ENOTDIR"),
        (libc::EISDIR, "EISDIR"),
        (libc::EINVAL, "EINVAL"),
        (libc::EFBIG, "EFBIG"),
        (libc::ESPIPE, "ESPIPE"),
        (libc::ENAMETOOLONG, "ENAMETOOLONG"),
        (libc::ENOTEMPTY, "ENOTEMPTY"),
        (libc::ELOOP, "ELOOP"),
        (libc::ENODATA, "ENODATA"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::ESTALE, "ESTALE"),
        (libc::ENOSYS, "ENOSYS"),
    ];
    let name = known.iter().find(|(known, _)| *known == number);
    name.map_or_else(|| format!("errno {number}"), |(_, name)| (*name).to_owned())
}

/// open(2) with flags in any combination.
pub(super) fn open(path: &Path, flags: i32) -> io::Result<File> {
    let access = flags & libc::O_ACCMODE;
    let mut options = OpenOptions::new();
    options.read(access != libc::O_WRONLY).write(access != libc::O_RDONLY);
    options.custom_flags(flags & !libc::O_ACCMODE).mode(0o644).open(path)
}

/// close(2), with the errno that dropping a `File` swallows.
pub(super) fn close(file: File) -> io::Result<()> {
    // SAFETY: the descriptor is ours alone and is not used again.
    outcome(unsafe { libc::close(file.into_raw_fd()) })
}

/// lseek(2) with any offset and origin.
pub(super) fn seek(file: &File, offset: i64, origin: i32) -> io::Result<i64> {
    // SAFETY: the descriptor is open.
    let position = unsafe { libc::lseek(file.as_raw_fd(), offset, origin) };
    if position < 0 { Err(io::Error::last_os_error()) } else { Ok(position) }
}

/// fallocate(2).
pub(super) fn allocate(file: &File, mode: i32, offset: i64, length: i64) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    outcome(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) })
}

/// ftruncate(2) with any size.
pub(super) fn truncate(file: &File, size: i64) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    outcome(unsafe { libc::ftruncate(file.as_raw_fd(), size) })
}

/// truncate(2) with any size.
pub(super) fn truncate_path(path: &Path, size: i64) -> io::Result<()> {
    let path = c(path)?;
    // SAFETY: the path is NUL-terminated and outlives the call.
    outcome(unsafe { libc::truncate(path.as_ptr(), size) })
}

/// renameat2(2).
pub(super) fn rename_with(from: &Path, to: &Path, flags: u32) -> io::Result<()> {
    let (from, to) = (c(from)?, c(to)?);
    // SAFETY: both paths are NUL-terminated and outlive the call.
    outcome(unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) })
}

/// mknod(2) of a fifo (`S_IFIFO`), a socket or a regular file.
pub(super) fn make_node(path: &Path, kind: u32) -> io::Result<()> {
    let path = c(path)?;
    // SAFETY: the path is NUL-terminated and outlives the call.
    outcome(unsafe { libc::mknod(path.as_ptr(), kind | 0o644, 0) })
}

/// access(2).
pub(super) fn access(path: &Path, mode: i32) -> io::Result<()> {
    let path = c(path)?;
    // SAFETY: the path is NUL-terminated and outlives the call.
    outcome(unsafe { libc::access(path.as_ptr(), mode) })
}

/// Longest file name, as statvfs(3) tells it.
pub(super) fn longest_name(path: &Path) -> io::Result<u64> {
    let path = c(path)?;
    let mut answer = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path is NUL-terminated, `answer` is writable, and both outlive the call.
    outcome(unsafe { libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) })?;
    // SAFETY: the call succeeded and filled `answer`.
    Ok(unsafe { answer.assume_init() }.f_namemax)
}

fn c(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn outcome(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
