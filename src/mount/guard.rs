//! What a killed daemon cannot do for itself. A thread that tells the kernel what to drop may wait there for a
//! program that waits for the daemon's answer. If the daemon is killed then, that thread stays in the kernel and keeps
//! the connection open, so that every program on the mount hangs, deaf to SIGKILL. A second process ends the
//! connection once the first is gone.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use parking_lot::Mutex;

use super::mounts;
use crate::sys;

/// The argument that makes this program a guard.
pub const COMMAND: &str = "__guard";
/// Not that of the daemon, so that `killall -9 kvfs` leaves the guard to do its work.
const PROCESS_NAME: &str = "kvfs-guard";

/// The guard of a mount, as its daemon sees it.
#[derive(Default)]
pub(super) struct Guard(Mutex<Option<Child>>);

impl Guard {
    /// Starts the guard of the mount at `mountpoint`. Called by the main thread: it is that thread's end which the
    /// guard waits for.
    pub(super) fn start(&self, mountpoint: &Path) {
        match spawn(mountpoint) {
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

fn spawn(mountpoint: &Path) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(COMMAND).arg(std::process::id().to_string()).arg(mountpoint).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    sys::signal_at_end_of_parent(&mut command);
    command.spawn()
}

/// The guard's process: waits for the end of the daemon, then ends what it may have left of its connection.
pub fn watch(daemon: u32, mountpoint: &Path) -> std::io::Result<()> {
    // A name for people; nothing depends on it.
    _ = std::fs::write("/proc/self/comm", PROCESS_NAME);
    // Opened while it is certain whose connection it is. Only where fusectl is mounted; root does without.
    let connection = mounts::connection(mountpoint)?;
    let abort = OpenOptions::new().write(true).open(format!("/sys/fs/fuse/connections/{connection}/abort"));
    if parent_id() == daemon {
        sys::wait_for_end_of_parent();
    }
    match abort {
        Ok(mut abort) => abort.write_all(b"1"),
        Err(_) => sys::abort_mount(mountpoint),
    }
}
