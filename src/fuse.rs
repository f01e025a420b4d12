//! The FUSE protocol: decodes messages, calls [`Fs`], encodes answers. The only module that names `fuser`.
//!
//! Messages that need no store are answered on fuser's thread; a call that has to wait moves to the runtime together with its
//! reply, so that a slow one delays no other.

mod adapter;
mod answer;
mod codec;
#[cfg(test)]
mod deadlines;
mod directories;
mod entry;
mod errno;
mod handing_over;
mod lock_message;
mod messages;
mod notify;
mod orphaned;
mod refusals;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use fuser::{Config, MountOption, Session, SessionACL};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use self::adapter::Adapter;
use self::answer::Answers;
use self::entry::Device;
use self::lock_message::Memory;
pub use self::messages::Messages;
pub use self::orphaned::refuse_all;
use crate::fs::Fs;
use crate::sys;

/// Extended attribute of every file and directory, with the status document for `kvfs status`: a process may see a part of
/// the mount only.
pub const STATUS: &str = "user.kvfs.status";

/// Extended attribute of the same. To read it calls the store; it is empty if the store answers, else it has the error.
pub const CHECK: &str = "user.kvfs.check";

/// Extended attribute for `kvfs watch`, with a cursor into the journal; followed by a dot and a cursor it has the changes after
/// that.
pub const CHANGES: &str = "user.kvfs.changes";

/// Extended attribute for `kvfs why`, with the recent refusals of a file, or in a directory.
pub const REFUSALS: &str = "user.kvfs.refusals";

/// ioctl(2) on an open root directory: asks for the mount. Empty if another one may take its place until the directory is
/// closed, else why not.
pub const HAND_OVER: u32 = request(1);

/// The same, once another mount is in its place: who has come for it since, as a JSON array. Those are sent to the other mount
/// by the next such call.
pub const NEXT_GUESTS: u32 = request(2);

/// The most bytes of such an answer.
pub const ANSWER: usize = 16_000;

/// As `_IOR` of ioctl(2).
const fn request(number: u32) -> u32 {
    2 << 30 | (ANSWER as u32) << 16 | (b'k' as u32) << 8 | number
}

/// Makes the status document.
pub type Status = Box<dyn Fn() -> String + Send + Sync>;

/// The options of the mount itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// First field of the mount table; never a secret.
    pub source: String,
    /// Let the kernel refuse writes.
    pub read_only: bool,
    /// Let other users in, within the permission bits.
    pub allow_other: bool,
    /// Let root in, within the permission bits.
    pub allow_root: bool,
}

/// Resolves when the mount has ended; with an error if that was before INIT was answered.
pub type Ended = oneshot::Receiver<()>;

/// The most bytes of one write.
const MAX_WRITE: u32 = 128 << 10;

/// Threads that serve a mount from [`mount`] on.
pub const THREADS: usize = 3;

/// Mounts `fs` at `mountpoint`; its end, and its device. Calls `make_room` after the mount and before the threads are started.
#[allow(clippy::too_many_arguments, reason = "each is something else")]
pub fn mount(
    fs: &Arc<Fs>,
    mountpoint: &Path,
    settings: &Settings,
    runtime: &Handle,
    messages: Arc<Messages>,
    status: Status,
    make_room: impl FnOnce(),
) -> io::Result<(Ended, OwnedFd)> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(source(&settings.source)),
        // fuser's own Subtype option gets lost where it mounts without the help of fusermount3.
        MountOption::CUSTOM("subtype=kvfs".into()),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoExec,
        MountOption::NoAtime,
        if settings.read_only { MountOption::RO } else { MountOption::RW },
    ];
    config.acl = match settings {
        Settings { allow_other: true, .. } => SessionACL::All,
        Settings { allow_root: true, .. } => SessionACL::RootAndOwner,
        _ => SessionACL::Owner,
    };
    let (end, ended) = oneshot::channel();
    let device = Device::default();
    let adapter = Adapter {
        fs: fs.clone(),
        device: device.clone(),
        answers: Answers::new(fs.clone(), runtime.clone(), messages),
        directories: Arc::default(),
        memory: Memory::open(),
        status,
        end: Some(end).into(),
    };
    let session = Session::new(adapter, mountpoint, &config)?;
    device.attach(&session)?;
    make_room();
    fs.attach(Box::new(notify::Notifications::start(&session)?));
    let connection = session.as_fd().try_clone_to_owned()?;
    // Its drop would unmount the path, which may be the next mount by then.
    std::mem::forget(session.spawn()?);
    Ok((ended, connection))
}

/// The first field of the mount table, with escapes for fusermount3, which reads a list with commas.
fn source(name: &str) -> String {
    if sys::may_mount() { name.to_owned() } else { name.replace('\\', "\\\\").replace(',', "\\,") }
}
