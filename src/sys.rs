//! The few system calls the standard library does not offer. The only module with `unsafe`.
#![allow(unsafe_code)]

pub mod beneath;
mod heap;
pub mod lease;
pub mod mapped;
pub mod moving;
mod private;
pub mod process;

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub use heap::keep_heap_small;
pub use private::{NO_FOLLOW, create_private, create_private_dir_all};

/// True once `fd` can be read; false after `timeout`.
pub fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `poll` is one valid pollfd and outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, millis) > 0 }
}

/// Which mount `path` is on. It is not opened for anything, so that no lock on it ends.
pub fn mount_id(path: &Path) -> io::Result<u64> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
    let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let id = told.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::other("its mount cannot be told"))
}

/// Unmounts `path`; `lazily` at once, where what still has files open there keeps them (`umount -l`).
pub fn unmount(path: &Path, lazily: bool) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = if lazily { libc::MNT_DETACH } else { 0 };
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    if unsafe { libc::umount2(path.as_ptr(), flags) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// Ends the connection of the mount that `place` is on to its daemon (`umount -f`). The mount stays, for `place` keeps it busy.
pub fn abort_mount(place: &File) -> io::Result<()> {
    // The path would lead to what is mounted there by now.
    let path = CString::new(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    if unsafe { libc::umount2(path.as_ptr(), libc::MNT_FORCE) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::ResourceBusy { Ok(()) } else { Err(error) }
}

/// Which mount a file is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountOf {
    /// On Linux 6.8 and later no other mount ever has it, before that none at the same time.
    pub id: u64,
    /// The number of its connection to a daemon, if it is a mount of FUSE.
    pub connection: u32,
}

/// Which mount `file` is on. Nobody is asked, so it may be a dead one.
pub fn mount_of(file: &File) -> io::Result<MountOf> {
    const STATX_MNT_ID_UNIQUE: libc::c_uint = 0x4000;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the descriptor is open, the path is a NUL-terminated string, and all outlive the call.
    let done = unsafe {
        libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, STATX_MNT_ID_UNIQUE, found.as_mut_ptr())
    };
    self::done(done)?;
    // SAFETY: statx succeeded, and zeros are valid for what it left out.
    let found = unsafe { found.assume_init() };
    Ok(MountOf { id: found.stx_mnt_id, connection: found.stx_dev_minor })
}

/// Whether this process has the right to mount without fusermount3: `CAP_SYS_ADMIN`, which is bit 21.
pub fn may_mount() -> bool {
    field_of_status("CapEff:").is_some_and(|mask| mask & 1 << 21 != 0)
}

/// Whether neither this process nor what it starts can gain rights, by way of fusermount3 for example.
pub fn has_no_new_privileges() -> bool {
    field_of_status("NoNewPrivs:") == Some(1)
}

fn field_of_status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

/// What a process gets that was started after [`signal_at_end_of_parent`].
const END_OF_PARENT: libc::c_int = libc::SIGUSR1;

/// Makes the process that `command` starts hear of the end of the thread that starts it, and of no other signal that
/// can be blocked.
pub fn signal_at_end_of_parent(command: &mut Command) {
    at_end_of_parent(command, END_OF_PARENT);
}

fn at_end_of_parent(command: &mut Command, signal: libc::c_int) {
    let prepare = move || {
        let mut all = MaybeUninit::uninit();
        // SAFETY: sigfillset initialises what it is given, and both other calls only read; all of them may be called
        // between fork and exec.
        let done = unsafe {
            libc::sigfillset(all.as_mut_ptr()) == 0
                && libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut()) == 0
                && libc::prctl(libc::PR_SET_PDEATHSIG, signal) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure allocates nothing and takes no locks.
    unsafe { command.pre_exec(prepare) };
}

/// Makes the process that `command` starts end with the thread that starts it, and by no signal that can be blocked.
pub fn kill_at_end_of_parent(command: &mut Command) {
    at_end_of_parent(command, libc::SIGKILL);
}

/// Returns once the parent's thread is gone, in a process started after [`signal_at_end_of_parent`].
pub fn wait_for_end_of_parent() {
    let mut set = MaybeUninit::uninit();
    let mut signal = 0;
    // SAFETY: sigemptyset initialises the set that the other calls use; all pointers outlive the calls.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), END_OF_PARENT);
        libc::sigwait(set.as_ptr(), &raw mut signal);
    }
}

/// The effective user and group of this process.
pub fn owner() -> (u32, u32) {
    // SAFETY: neither call has preconditions or can fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Most bytes that what is known of one user or group takes.
const ACCOUNT: usize = 1 << 20;

/// The number of the user called `name`.
pub fn user_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    let (mut buffer, mut found) = (vec![0; ACCOUNT], std::ptr::null_mut());
    let mut user = MaybeUninit::<libc::passwd>::uninit();
    // SAFETY: `name` is NUL-terminated, the buffer has the length given, and all outlive the call; `found` is null or
    // points to `user`, which is initialised then.
    unsafe {
        libc::getpwnam_r(name.as_ptr(), user.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found);
        found.as_ref().map(|user| user.pw_uid)
    }
}

/// The number of the group called `name`.
pub fn group_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    let (mut buffer, mut found) = (vec![0; ACCOUNT], std::ptr::null_mut());
    let mut group = MaybeUninit::<libc::group>::uninit();
    // SAFETY: as above.
    unsafe {
        libc::getgrnam_r(
            name.as_ptr(),
            group.as_mut_ptr(),
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        );
        found.as_ref().map(|group| group.gr_gid)
    }
}

/// The umask of this process.
pub fn umask() -> u32 {
    // SAFETY: umask cannot fail; the second call restores what the first one changed, before any other thread runs.
    unsafe {
        let mask = libc::umask(0o022);
        libc::umask(mask);
        mask
    }
}

/// Whether `a` is a thread of the process that thread `b` belongs to. Of 0, which stands for all outside of this PID
/// namespace, it cannot be told: no.
pub fn same_process(a: u32, b: u32) -> bool {
    a != 0 && b != 0 && (a == b || Path::new(&format!("/proc/{a}/task/{b}")).exists())
}

/// Whether the thread or process `id` exists. Of 0, which stands for all outside of this PID namespace, it cannot be
/// told: yes.
pub fn is_alive(id: u32) -> bool {
    id == 0 || Path::new(&format!("/proc/{id}")).exists()
}

/// Whether thread `id` has a signal pending that it neither blocks nor ignores. False if it cannot be told.
pub fn has_pending_signal(id: u32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{id}/status")) else { return false };
    let mask = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).unwrap_or(0)
    };
    (mask("SigPnd:") | mask("ShdPnd:")) & !mask("SigBlk:") & !mask("SigIgn:") != 0
}

/// Leaves the terminal and process group of the parent. Fails only for a process that already leads a group.
pub fn new_session() {
    // SAFETY: setsid has no preconditions.
    _ = unsafe { libc::setsid() };
}

/// Makes `null` standard input and output, and standard error as well where it is not a log.
pub fn redirect_standard_streams(null: &File, with_error: bool) -> io::Result<()> {
    redirect(null, if with_error { &[0, 1, 2] } else { &[0, 1] })
}

/// Makes `log` standard error.
pub fn redirect_standard_error(log: &File) -> io::Result<()> {
    redirect(log, &[2])
}

fn redirect(from: &File, all: &[libc::c_int]) -> io::Result<()> {
    for to in all {
        // SAFETY: both descriptors are open; what `to` was is closed, and nothing in this process relies on it.
        if unsafe { libc::dup2(from.as_raw_fd(), *to) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Opens the file at `path`, made if it is not there, so that every write goes to its end. No link is followed, and nobody is
/// waited for.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)
}

/// Has the mount at `path`, which has the flags of ours, refuse changes or let them through again.
pub fn remount(path: &Path, read_only: bool) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::MS_REMOUNT | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_NOATIME;
    let flags = if read_only { flags | libc::MS_RDONLY } else { flags };
    let nothing = std::ptr::null();
    // SAFETY: `path` is a NUL-terminated string that outlives the call; the others may be null for a remount.
    done(unsafe { libc::mount(nothing, path.as_ptr(), nothing, flags, nothing.cast()) })
}

/// The extended attribute `name` of `path`.
pub fn get_xattr(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let (path, name) = (CString::new(path.as_os_str().as_bytes())?, CString::new(name)?);
    let mut value = vec![0; 64 << 10];
    // SAFETY: the strings are NUL-terminated, the buffer has the length given, and all outlive the call.
    let size =
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let size = usize::try_from(size).map_err(|_| io::Error::last_os_error())?;
    value.truncate(size);
    Ok(value)
}

/// Opens a place without what is there.
pub const PATH_ONLY: i32 = libc::O_PATH | libc::O_DIRECTORY;

/// Opens the file `name` below `directory` for writing.
pub fn open_at(directory: &File, name: &CStr) -> io::Result<File> {
    open_with(directory, name, 0)
}

/// As [`open_at`], for a file that must not exist.
pub fn create_at(directory: &File, name: &CStr) -> io::Result<File> {
    open_with(directory, name, libc::O_CREAT | libc::O_EXCL)
}

fn open_with(directory: &File, name: &CStr, flags: i32) -> io::Result<File> {
    let flags = flags | libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    let fd = unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags, 0o666) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Removes the file `name` below `directory`.
pub fn unlink_at(directory: &File, name: &CStr) -> io::Result<()> {
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    done(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) })
}

/// Makes a directory below `directory`.
pub fn make_directory_at(directory: &File, name: &CStr) -> io::Result<()> {
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    done(unsafe { libc::mkdirat(directory.as_raw_fd(), name.as_ptr(), 0o777) })
}

/// Removes an empty directory below `directory`.
pub fn remove_directory_at(directory: &File, name: &CStr) -> io::Result<()> {
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    done(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) })
}

/// Renames the file `from` below `directory` to `to`.
pub fn rename_at(directory: &File, from: &CStr, to: &CStr) -> io::Result<()> {
    let directory = directory.as_raw_fd();
    // SAFETY: both names are NUL-terminated strings that outlive the call.
    done(unsafe { libc::renameat(directory, from.as_ptr(), directory, to.as_ptr()) })
}

/// Makes the kernel say that `file` was modified: reserves a byte of space that a file has anyway, which changes neither
/// size nor content.
pub fn touch(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    done(unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, 1) })
}

/// Reserves `size` bytes on the disk for what will be written to `file`, whose size stays.
pub fn reserve(file: &File, size: u64) -> io::Result<()> {
    let size = libc::off_t::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open.
    done(unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, size) })
}

/// Makes `file` `size` bytes long, if it is shorter, with a place on the disk for each. What it has stays.
pub fn allocate(file: &File, size: u64) -> io::Result<()> {
    let off =
        |bytes: u64| libc::off_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let now = file.metadata()?.len();
    if now >= size {
        return Ok(());
    }
    let (now, more) = (off(now)?, off(size - now)?);
    // SAFETY: the descriptor is open.
    done(unsafe { libc::fallocate(file.as_raw_fd(), 0, now, more) })
}

/// Bytes on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// How many it has.
    pub total: u64,
    /// How many are not used.
    pub free: u64,
    /// How many of those are for whoever asks.
    pub available: u64,
}

/// The space of the disk that `path` is on.
pub fn disk_space(path: &Path) -> io::Result<Space> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut told = MaybeUninit::uninit();
    // SAFETY: `path` is a NUL-terminated string, and both pointers outlive the call.
    done(unsafe { libc::statvfs(path.as_ptr(), told.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so it has filled it in.
    let told = unsafe { told.assume_init() };
    let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
    Ok(Space { total: bytes(told.f_blocks), free: bytes(told.f_bfree), available: bytes(told.f_bavail) })
}

/// Makes the kernel say that the attributes of the file at `path` have changed: sets its times to now.
pub fn touch_path(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a NUL-terminated string that outlives the call; no times mean now.
    done(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), std::ptr::null(), 0) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether this process may write the file at `path`, or create files in the directory: by its permissions, and by the
/// media it is on.
pub fn may_write(path: &Path) -> io::Result<()> {
    may(path, libc::W_OK)
}

/// As [`may_write`], for reading.
pub fn may_read(path: &Path) -> io::Result<()> {
    may(path, libc::R_OK)
}

fn may(path: &Path, mode: libc::c_int) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    done(unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS) })
}

/// The name of a user.
pub fn user_name(id: u32) -> Option<String> {
    let (mut buffer, mut found) = (vec![0; ACCOUNT], std::ptr::null_mut());
    let mut user = MaybeUninit::<libc::passwd>::uninit();
    // SAFETY: the buffer has the length given, and all outlive the call; `found` is null or points to `user`, whose name is
    // a NUL-terminated string in the buffer then.
    unsafe {
        libc::getpwuid_r(id, user.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found);
        let name = CStr::from_ptr(found.as_ref()?.pw_name);
        name.to_str().ok().map(str::to_owned)
    }
}
