//! What a killed daemon cannot do for itself. A thread that tells the kernel what to drop may wait there for a
//! program that waits for the daemon's answer. If the daemon is killed then, that thread stays in the kernel and keeps
//! the connection open, so that every program on the mount hangs, deaf to SIGKILL. A second process ends the
//! connection once the first is gone.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use parking_lot::Mutex;

use super::{daemon, point};
use crate::sys::{self, MountOf};

/// Not that of the daemon, so that `killall -9 kvfs` leaves the guard to do its work.
const PROCESS_NAME: &str = "kvfs-guard";

/// The guard of a mount, as its daemon sees it.
#[derive(Default)]
pub(super) struct Guard(Mutex<Option<Child>>);

impl Guard {
    /// Starts the guard of `mount`, which also `unmounts` it where that is wanted, at `mountpoint`. Called by the main thread: it is that thread's end which
    /// the guard waits for.
    pub(super) fn start(&self, mountpoint: &Path, mount: MountOf, unmounts: bool) {
        match spawn(mountpoint, mount, unmounts) {
            Ok(child) => *self.0.lock() = Some(child),
            Err(error) => {
                let shown = mountpoint.display();
                tracing::warn!(
                    "{shown} has no guard ({error}); should kvfs be killed, end it with `umount -f {shown}`"
                );
            }
        }
    }

    /// The mount has ended: what is at its place from now on is not the guard's business.
    pub(super) fn dismiss(&self) {
        if let Some(mut child) = self.0.lock().take() {
            // Both fail only for a guard that is gone.
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// The file that ends the connection is the guard's standard output, if it can be had. Else the mount is found by its id:
/// another mount may be at that place, and have the number of the connection, by the time that it is needed.
fn spawn(mountpoint: &Path, mount: MountOf, unmounts: bool) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(daemon::GUARD)
        .arg(std::process::id().to_string())
        .arg(mountpoint)
        .arg(mount.id.to_string())
        .env_clear()
        .current_dir("/");
    command.stdin(Stdio::null());
    // Only where fusectl is mounted; root does without.
    let abort = format!("/sys/fs/fuse/connections/{}/abort", mount.connection);
    match OpenOptions::new().write(true).open(abort) {
        Ok(abort) => command.stdout(abort),
        Err(_) => command.stdout(Stdio::null()).arg("--by-id"),
    };
    if unmounts {
        command.arg("--unmount");
    }
    sys::signal_at_end_of_parent(&mut command);
    command.spawn()
}

/// What a guard watches over.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The process to wait for.
    pub daemon: u32,
    /// Where it has mounted.
    pub mountpoint: PathBuf,
    /// The id of the mount.
    pub mount: u64,
    /// Find the connection by the id, for its file is not at hand.
    pub by_id: bool,
    /// Unmount as well.
    pub unmount: bool,
}

/// The guard's process: waits for the end of the daemon, then ends what it may have left of its connection.
pub fn watch(watched: &Watched) -> std::io::Result<()> {
    // A name for people; nothing depends on it.
    _ = std::fs::write("/proc/self/comm", PROCESS_NAME);
    if parent_id() == watched.daemon {
        sys::wait_for_end_of_parent();
    }
    let (path, mount) = (&watched.mountpoint, watched.mount);
    if watched.by_id {
        abort(path, mount)?;
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

/// Ends the connection of the mount at `path` to its daemon, if it is `mount`, and leaves it there, dead.
fn abort(path: &Path, mount: u64) -> std::io::Result<()> {
    // Held open, it is too busy to be unmounted: programs must not find the directory below instead.
    let busy = open(path)?;
    if sys::mount_of(&busy)?.id == mount { sys::abort_mount(&busy) } else { Ok(()) }
}
