//! Mounts that move from one place to another.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether the kernel can move a mount beneath another one (Linux 6.5).
pub fn can_go_beneath() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers =
        release.split(|byte: char| !byte.is_ascii_digit()).filter_map(|number| number.parse().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(5))
}

/// A copy of the mount at `path`, which is nowhere yet.
pub fn copy(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    let mount = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let mount = i32::try_from(mount).ok().filter(|mount| *mount >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the descriptor was made by the call, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(mount) })
}

/// Mounts at `place` what [`copy`] gave.
pub fn to(mount: &OwnedFd, place: &Path) -> io::Result<()> {
    move_to(mount, place, 0)
}

/// As [`to`], beneath the mount that is there.
pub fn beneath(mount: &OwnedFd, place: &Path) -> io::Result<()> {
    const MOVE_MOUNT_BENEATH: libc::c_uint = 0x200;
    move_to(mount, place, MOVE_MOUNT_BENEATH)
}

fn move_to(mount: &OwnedFd, place: &Path, flags: libc::c_uint) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
    let place = CString::new(place.as_os_str().as_bytes())?;
    let flags = flags | MOVE_MOUNT_F_EMPTY_PATH;
    // SAFETY: the descriptor is open, the paths are NUL-terminated strings, and all outlive the call.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            place.as_ptr(),
            flags,
        )
    };
    if moved == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Detaches the mount that `root` is the root of, wherever it is and whatever lies over it.
pub fn detach(root: &impl AsRawFd) -> io::Result<()> {
    super::unmount(Path::new(&format!("/proc/self/fd/{}", root.as_raw_fd())), true)
}

/// What ioctl(2) with `command` reads from `file`, at most `most` bytes.
pub fn read_ioctl(file: &File, command: u32, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0_u8; most];
    // SAFETY: the descriptor is open, and the buffer has as many bytes as the command says, and outlives the call.
    let read = unsafe { libc::ioctl(file.as_raw_fd(), libc::Ioctl::from(command), bytes.as_mut_ptr()) };
    bytes.truncate(usize::try_from(read).map_err(|_| io::Error::last_os_error())?);
    Ok(bytes)
}
