//! Whether a file is being written, as the kernel knows it: it grants a lease for reading only while nobody has the file open
//! for writing.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Which signal tells of what happens to a file: of Linux, and not in libc.
const F_SETSIG: libc::c_int = 10;

/// Whether anybody, this process included, has the file at `path` open for writing. A POSIX lock that this process has on
/// the file ends. Fails on a filesystem without leases, and for whom the file does not belong to.
pub fn is_open_for_writing(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let fd = file.as_raw_fd();
    // SAFETY: `fd` is open. Who opens the file for writing in between has SIGURG sent, which does nothing, instead of SIGIO,
    // which ends a process.
    let taken = unsafe {
        if libc::fcntl(fd, F_SETSIG, libc::SIGURG) == -1 {
            return Err(io::Error::last_os_error());
        }
        libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK)
    };
    let error = io::Error::last_os_error();
    match error.kind() {
        // SAFETY: `fd` is open.
        _ if taken != -1 => unsafe {
            libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK);
            Ok(false)
        },
        io::ErrorKind::WouldBlock => Ok(true),
        _ => Err(error),
    }
}
