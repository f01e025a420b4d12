//! The kernel's side: decodes messages, calls [`Fs`], encodes answers. The only room that names `fuser`.
//!
//! What can be answered from memory is answered on fuser's thread; what has to wait moves to the runtime with its
//! reply, so that one slow call delays nobody else.

mod adapter;
mod answer;
mod codec;
mod directories;
mod errno;
mod lock_message;
mod messages;
mod notify;
mod refusals;

use std::io;
use std::path::Path;
use std::sync::Arc;

use fuser::{Config, MountOption, Session, SessionACL};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use self::adapter::Adapter;
use self::answer::Answers;
use self::lock_message::Memory;
pub use self::messages::Messages;
use crate::fs::Fs;
use crate::sys;

/// Attribute of all that is in the mount that holds the status document, for `kvfs status`: a part of a mount may be all
/// that a process can see.
pub const STATUS: &str = "user.kvfs.status";

/// Attribute of the same that has the store asked: empty if it answers, else why not.
pub const CHECK: &str = "user.kvfs.check";

/// Attribute of the mount's root that holds the changes from now on, and a cursor; followed by a dot and a cursor, those
/// after it. For `kvfs watch`.
pub const CHANGES: &str = "user.kvfs.changes";

/// Attribute of a file or directory that holds what was refused of it, or in it, of late. For `kvfs why`.
pub const REFUSALS: &str = "user.kvfs.refusals";

/// Makes the status document.
pub type Status = Box<dyn Fn() -> String + Send + Sync>;

/// How the directory shows in the mount table, and who may enter.
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

/// Resolves when the mount has ended; with an error if that was before it answered.
pub type Ended = oneshot::Receiver<()>;

/// Threads that serve a mount from [`mount`] on.
pub const THREADS: usize = 3;

/// Mounts `fs` at `mountpoint`. `make_room` is called when it is mounted, and before the threads are started.
#[allow(clippy::too_many_arguments, reason = "each is something else")]
pub fn mount(
    fs: &Arc<Fs>,
    mountpoint: &Path,
    settings: &Settings,
    runtime: &Handle,
    messages: Arc<Messages>,
    status: Status,
    make_room: impl FnOnce(),
) -> io::Result<Ended> {
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
    let adapter = Adapter {
        fs: fs.clone(),
        answers: Answers::new(fs.clone(), runtime.clone(), messages),
        directories: Arc::default(),
        memory: Memory::open(),
        status,
        end: Some(end).into(),
    };
    let session = Session::new(adapter, mountpoint, &config)?;
    make_room();
    fs.attach(Box::new(notify::Notifications::start(&session)?));
    // Dropped, it would unmount whatever is mounted there by then, which may be the next mount.
    std::mem::forget(session.spawn()?);
    Ok(ended)
}

/// The first field of the mount table, as it has to be said: fusermount3 reads a list with commas.
fn source(name: &str) -> String {
    if sys::may_mount() { name.to_owned() } else { name.replace('\\', "\\\\").replace(',', "\\,") }
}
