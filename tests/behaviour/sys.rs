//! The system calls whose errno or flags the standard library keeps to itself.
#![allow(unsafe_code, dead_code, reason = "each test file uses its own part")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// close(2), with the errno that dropping a `File` swallows.
pub(crate) fn close(file: File) -> io::Result<()> {
    // SAFETY: the descriptor is ours alone and is not used again.
    outcome(unsafe { libc::close(file.into_raw_fd()) }.into()).map(drop)
}

/// renameat2(2) of two absolute paths.
pub(crate) fn rename_with(from: &Path, to: &Path, flags: u32) -> io::Result<()> {
    let (from, to) = (CString::new(from.as_os_str().as_bytes())?, CString::new(to.as_os_str().as_bytes())?);
    let at = libc::AT_FDCWD;
    // SAFETY: both paths are NUL-terminated and outlive the call.
    outcome(unsafe { libc::renameat2(at, from.as_ptr(), at, to.as_ptr(), flags) }.into()).map(drop)
}

fn outcome(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// truncate(2).
pub(crate) fn truncate(path: &Path, size: u64) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is NUL-terminated and outlives the call.
    outcome(unsafe { libc::truncate(path.as_ptr(), size.cast_signed()) }.into()).map(drop)
}

/// fallocate(2) from the start of a file.
pub(crate) fn allocate(file: &File, mode: i32, size: u64) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    outcome(unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, size.cast_signed()) }.into()).map(drop)
}

/// A directory stream of opendir(3).
pub(crate) struct Stream(*mut libc::DIR);

impl Stream {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the path is NUL-terminated and outlives the call.
        let stream = unsafe { libc::opendir(path.as_ptr()) };
        if stream.is_null() { Err(io::Error::last_os_error()) } else { Ok(Self(stream)) }
    }

    pub(crate) fn tell(&self) -> i64 {
        // SAFETY: the stream is open.
        unsafe { libc::telldir(self.0) }
    }

    pub(crate) fn seek(&self, position: i64) {
        // SAFETY: as above; the position is one of this stream.
        unsafe { libc::seekdir(self.0, position) }
    }

    pub(crate) fn rewind(&self) {
        // SAFETY: as above.
        unsafe { libc::rewinddir(self.0) }
    }
}

/// Names but for `.` and `..`; an error reads as the end.
impl Iterator for Stream {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            // SAFETY: the stream is open.
            let entry = unsafe { libc::readdir(self.0) };
            if entry.is_null() {
                return None;
            }
            // SAFETY: the entry is good until the next call, its name NUL-terminated.
            let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) }.to_str().unwrap();
            if name != "." && name != ".." {
                return Some(name.to_owned());
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the stream is open, and not used again.
        unsafe { libc::closedir(self.0) };
    }
}
