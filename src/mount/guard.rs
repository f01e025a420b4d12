//! The guard: a second process that aborts the FUSE connection of a killed daemon. The thread that invalidates the kernel's
//! caches may wait in the kernel for a program that waits for the daemon's answer. If the daemon is killed then, that thread
//! keeps the connection open, and every program on the mount hangs in an uninterruptible wait. Where the guard may not abort the
//! connection (an ordinary user, and fusectl is not mounted), it answers in the place of the daemon until that thread has ended.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use parking_lot::Mutex;

use super::{daemon, point};
use crate::fuse;
use crate::sys::{self, MountOf};

/// The name of the process: not that of the daemon, so that `killall -9 kvfs` spares the guard.
const PROCESS_NAME: &str = "kvfs-guard";

/// The daemon's handle on its guard.
#[derive(Default)]
pub(super) struct Guard(Mutex<Option<Child>>);

impl Guard {
    /// Starts the guard of `mount` at `mountpoint`, which has this `device`, and with `unmounts` also unmounts it. Called by the
    /// main thread: the guard waits for the end of that thread.
    pub(super) fn start(&self, mountpoint: &Path, mount: MountOf, device: OwnedFd, unmounts: bool) {
        match spawn(mountpoint, mount, device, unmounts) {
            Ok(child) => *self.0.lock() = Some(child),
            Err(error) => {
                let shown = mountpoint.display();
                tracing::warn!(
                    "{shown} has no guard ({error}); should kvfs be killed, end it with `umount -f {shown}`"
                );
            }
        }
    }

    /// Ends the guard, because the mount has ended: it must not touch another mount at that place.
    pub(super) fn dismiss(&self) {
        if let Some(mut child) = self.0.lock().take() {
            // Both fail only if the guard has exited.
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// The connection's `abort` file is the guard's standard output, if it can be opened. Else the guard finds the mount by its id:
/// another mount may be at that place by then, and have the number of the connection. Where it may not abort that, the device is its
/// standard input.
fn spawn(mountpoint: &Path, mount: MountOf, device: OwnedFd, unmounts: bool) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(daemon::GUARD)
        .arg(std::process::id().to_string())
        .arg(mountpoint)
        .arg(mount.id.to_string())
        .env_clear()
        .current_dir("/");
    command.stdin(Stdio::null());
    // Requires a mounted fusectl; root does not need it.
    let abort = format!("/sys/fs/fuse/connections/{}/abort", mount.connection);
    match OpenOptions::new().write(true).open(abort) {
        Ok(abort) => command.stdout(abort),
        Err(_) if sys::may_mount() => command.stdout(Stdio::null()).arg("--by-id"),
        Err(_) => command.stdin(device).stdout(Stdio::null()).arg("--by-refusals"),
    };
    if unmounts {
        command.arg("--unmount");
    }
    sys::signal_at_end_of_parent(&mut command);
    command.spawn()
}

/// The arguments of a guard.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The process to wait for.
    pub daemon: u32,
    /// The mount point.
    pub mountpoint: PathBuf,
    /// The id of the mount.
    pub mount: u64,
    /// Find the connection by the id, because its file could not be opened.
    pub by_id: bool,
    /// Answer in the place of the daemon, because its connection cannot be aborted.
    pub by_refusals: bool,
    /// Unmount as well.
    pub unmount: bool,
}

/// The guard's process: waits for the end of the daemon, then aborts its connection.
pub fn watch(watched: &Watched) -> std::io::Result<()> {
    // For ps(1) only.
    _ = std::fs::write("/proc/self/comm", PROCESS_NAME);
    if parent_id() == watched.daemon {
        sys::wait_for_end_of_parent();
    }
    let (path, mount) = (&watched.mountpoint, watched.mount);
    if watched.by_id {
        abort(path, mount)?;
    } else if watched.by_refusals {
        let device = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        fuse::refuse_all(&device, || daemon::has_ended(watched.daemon))?;
    } else {
        File::from(std::io::stdout().as_fd().try_clone_to_owned()?).write_all(b"1")?;
    }
    let is_there = || std::io::Result::Ok(sys::mount_of(&open(path)?)?.id == mount);
    if watched.unmount && is_there()? && !point::unmount(path, true) {
        return Err(std::io::Error::other("it cannot be unmounted"));
    }
    Ok(())
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(sys::PATH_ONLY).open(path)
}

/// Aborts the connection of the mount at `path`, if it is `mount`, and leaves the dead mount there.
fn abort(path: &Path, mount: u64) -> std::io::Result<()> {
    // The open file keeps the mount busy, so that it is not unmounted: programs must not see the directory below.
    let busy = open(path)?;
    if sys::mount_of(&busy)?.id == mount { sys::abort_mount(&busy) } else { Ok(()) }
}
