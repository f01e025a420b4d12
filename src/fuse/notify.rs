//! Invalidates the kernel's caches. One thread sends all invalidations of dentries, in order; it holds no lock, because the
//! kernel may wait for a lookup or read that one of our handlers is answering.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::{Sender, channel};

use fuser::{Filesystem, INodeNo, Notifier, Session};
use tokio::sync::oneshot;

use crate::fs::{Ino, Invalidation, Kernel};

/// `FUSE_NOTIFY_INVAL_INODE`: invalidates pages and attributes of an inode. Written here, because fuser does not return whether
/// the kernel knows the inode.
const INVAL_INODE: i32 = 2;
/// `FUSE_NOTIFY_INVAL_ENTRY`, and its flag `FUSE_EXPIRE_ONLY` (Linux 6.2; an older kernel ignores it). Written here, because
/// fuser does not pass flags.
const INVAL_ENTRY: i32 = 3;
const EXPIRE_ONLY: u32 = 1;
/// `FUSE_NOTIFY_RESEND` (Linux 6.9): what was taken and not answered is given out once more.
const RESEND: i32 = 7;
/// `FUSE_NOTIFY_INC_EPOCH` (Linux 6.16): invalidates all dentries.
const INC_EPOCH: i32 = 8;

type Batch = (Vec<Invalidation>, oneshot::Sender<()>);

pub(super) struct Notifications {
    batches: Sender<Batch>,
    device: File,
    can_invalidate_all: bool,
}

impl Notifications {
    pub(super) fn start<FS: Filesystem>(session: &Session<FS>) -> io::Result<Self> {
        let (batches, queue) = channel::<Batch>();
        let notifier = session.notifier();
        let device = File::from(session.as_fd().try_clone_to_owned()?);
        let own = device.try_clone()?;
        let can_invalidate_all = can_invalidate_all(&device);
        std::thread::Builder::new().name("kvfs-notifier".into()).spawn(move || {
            for (invalidations, done) in queue {
                for invalidation in invalidations {
                    if let Err(error) = send(&notifier, &device, &invalidation) {
                        // At unmount the device is gone, and with it the kernel's caches.
                        tracing::debug!("{invalidation:?}: {error}");
                    }
                }
                _ = done.send(());
            }
        })?;
        Ok(Self { batches, device: own, can_invalidate_all })
    }
}

impl Kernel for Notifications {
    fn can_invalidate_all(&self) -> bool {
        self.can_invalidate_all
    }

    fn invalidate(&self, invalidations: Vec<Invalidation>) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        // Without the thread the receiver resolves at once.
        _ = self.batches.send((invalidations, sender));
        receiver
    }

    fn invalidate_inode(&self, ino: Ino) -> bool {
        let done = invalidate_inode(&self.device, ino);
        if let Err(error) = &done {
            tracing::debug!("invalidation of inode {}: {error}", ino.0);
        }
        !is_unknown(&done)
    }

    fn expire_attributes(&self, ino: Ino) {
        if let Err(error) = notify(&self.device, INVAL_INODE, &invalidation(ino, NO_PAGES)) {
            tracing::debug!("expiry of the attributes of inode {}: {error}", ino.0);
        }
    }

    fn invalidate_all(&self) {
        if let Err(error) = invalidate_all(&self.device) {
            tracing::debug!("invalidation of all dentries: {error}");
        }
    }
}

fn send(notifier: &Notifier, device: &File, invalidation: &Invalidation) -> io::Result<()> {
    match invalidation {
        Invalidation::Inode(ino, dentry) => {
            let done = invalidate_inode(device, *ino);
            match dentry.as_ref().filter(|_| is_unknown(&done)) {
                Some((within, name)) => {
                    // The answer to a LOOKUP that introduces the inode may be in flight. The kernel holds the directory's lock until
                    // it has arrived, and INVAL_ENTRY waits for that lock.
                    _ = expire_entry(device, *within, name);
                    invalidate_inode(device, *ino)
                }
                None => done,
            }
        }
        Invalidation::Entry(within, name) => notifier.inval_entry(INodeNo(within.0), OsStr::new(name)),
        Invalidation::Expired(within, name) => expire_entry(device, *within, name),
        Invalidation::Everything => invalidate_all(device),
    }
}

/// Whether the kernel does not know the inode or dentry.
fn is_unknown(done: &io::Result<()>) -> bool {
    done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Invalidates all pages, from offset 0 on, and the attributes.
fn invalidate_inode(device: impl Write, ino: Ino) -> io::Result<()> {
    notify(device, INVAL_INODE, &invalidation(ino, 0))
}

/// The offset that stands for no pages, but the attributes alone.
const NO_PAGES: i64 = -1;

/// A `fuse_notify_inval_inode_out`, of all that follows `offset`.
fn invalidation(ino: Ino, offset: i64) -> Vec<u8> {
    [ino.0, offset.cast_unsigned(), 0].map(u64::to_ne_bytes).concat()
}

/// Expires a dentry: the kernel revalidates it at its next use.
fn expire_entry(device: impl Write, within: Ino, name: &str) -> io::Result<()> {
    let head = [&within.0.to_ne_bytes()[..], &(name.len() as u32).to_ne_bytes(), &EXPIRE_ONLY.to_ne_bytes()];
    notify(device, INVAL_ENTRY, &[&head.concat(), name.as_bytes(), &[0]].concat())
}

fn invalidate_all(device: impl Write) -> io::Result<()> {
    notify(device, INC_EPOCH, &[])
}

/// Has the kernel give out once more what was taken and not answered.
pub(super) fn resend(device: impl Write) -> io::Result<()> {
    notify(device, RESEND, &[])
}

/// Writes a notification: `fuse_out_header` and its body.
fn notify(mut device: impl Write, code: i32, body: &[u8]) -> io::Result<()> {
    let size = (16 + body.len()) as u32;
    let mut message = [size.to_ne_bytes(), code.to_ne_bytes(), [0; 4], [0; 4]].concat();
    message.extend(body);
    device.write_all(&message)
}

/// Whether the kernel supports [`INC_EPOCH`]: an older one answers EINVAL. To be called before it has any dentry.
fn can_invalidate_all(device: impl Write) -> bool {
    let refused = invalidate_all(device).err();
    if let Some(error) = &refused {
        tracing::info!(
            "this kernel cannot drop all names at once ({error}): absent names are asked for more often"
        );
    }
    refused.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device whose kernel answers every notification so.
    struct Device(Option<i32>);

    impl Write for Device {
        fn write(&mut self, message: &[u8]) -> io::Result<usize> {
            self.0.map_or(Ok(message.len()), |errno| Err(io::Error::from_raw_os_error(errno)))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_kernel_that_refuses_the_notification_cannot_invalidate_all() {
        assert!(can_invalidate_all(Device(None)));
        assert!(!can_invalidate_all(Device(Some(libc::EINVAL))));
        assert!(!can_invalidate_all(Device(Some(libc::ENOSYS))));
    }
}
