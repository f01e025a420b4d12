//! The lock of a mount point: one start at a time checks it and mounts there, and the second finds the mount of the first.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::failure::Failure;

/// Longest time that a start holds the lock: its store has answered before.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

/// The lock, until it is dropped or the process ends. An abstract socket: the same for all users, and the kernel removes it with
/// the process.
pub(super) struct Turn(#[allow(dead_code, reason = "it is held")] Option<UnixListener>);

impl Turn {
    /// Waits until no other start has the lock of `path`.
    pub(super) fn wait(path: &Path) -> Result<Self, Failure> {
        Self::wait_for(path, PATIENCE)
    }

    fn wait_for(path: &Path, patience: Duration) -> Result<Self, Failure> {
        let shown = path.display();
        let start = Instant::now();
        let name = name(path);
        loop {
            match SocketAddr::from_abstract_name(&name).and_then(|name| UnixListener::bind_addr(&name)) {
                Ok(socket) => return Ok(Self(Some(socket))),
                Err(error) if error.kind() != ErrorKind::AddrInUse => {
                    tracing::warn!(
                        "another start on {shown} at the same moment would not be noticed: {error}"
                    );
                    return Ok(Self(None));
                }
                Err(_) if start.elapsed() > patience => {
                    return Err(Failure::Mountpoint(format!(
                        "another kvfs has been starting on {shown} for {} seconds; end that one, or try again",
                        patience.as_secs()
                    )));
                }
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }
}

/// The name of the socket, with the mount namespace, in which the path has its meaning. Hashed, because a name has at most 107
/// bytes.
fn name(path: &Path) -> String {
    let namespace = std::fs::read_link("/proc/self/ns/mnt").unwrap_or_default();
    let place = [namespace.as_os_str().as_bytes(), path.as_os_str().as_bytes()].concat();
    format!("kvfs-start-{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, &place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_waited_for_and_not_for_ever() {
        let path = Path::new("/nowhere/at/all");
        let first = Turn::wait(path).unwrap();
        assert!(Turn::wait(Path::new("/somewhere/else")).is_ok());
        let refused = Turn::wait_for(path, Duration::ZERO).err().map(|failure| failure.to_string());
        assert!(refused.unwrap().contains("another kvfs has been starting on /nowhere/at/all"));
        drop(first);
        assert!(Turn::wait_for(path, Duration::ZERO).is_ok());
    }
}
