//! Taking and waiting for locks. A lock that is granted is also a point of refresh, as on NFS: who waited for it
//! reads what the holder before published.

use std::sync::Arc;
use std::time::Duration;

use crate::fs::core::Fs;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::drafts::Publish;
use crate::fs::state::locks::{Kind, Lock, Owner, Range};
use crate::fs::state::nodes::Content;
use crate::fs::state::versions::Origin;
use crate::fs::types::{Caller, Fh, FileNumber, Ino};
use crate::store::{Deadline, Expect, Key};
use crate::sys;

/// How often a waiter looks whether its process was sent a signal, which the kernel cannot tell it.
const LOOK: Duration = Duration::from_millis(50);

impl Fs {
    /// A lock that would keep `wanted` from being granted.
    pub fn test_lock(&self, wanted: &Lock) -> FsResult<Option<Lock>> {
        let state = self.state.lock();
        Ok(state.locks().conflict(state.handle(Fh(wanted.handle))?.file, wanted))
    }

    /// Takes a lock; waits for it if `wait`.
    pub async fn lock(self: Arc<Self>, caller: Caller, lock: Lock, wait: bool) -> FsResult<()> {
        let file = {
            let mut state = self.state.lock();
            let file = state.handle(Fh(lock.handle))?.file;
            if state.locks_mut().give_up_for(file, &lock) {
                self.unlocked.notify_waiters();
            }
            if wait {
                state.locks_mut().wait(file, lock);
            }
            file
        };
        let granted = self.acquire(caller, file, lock, wait).await;
        if wait {
            self.state.lock().locks_mut().stop_waiting(&lock);
        }
        granted?;
        // A downgrade may let others in.
        if lock.kind == Kind::Shared {
            self.unlocked.notify_waiters();
        }
        // The wait for the lock had no deadline.
        Deadline::renew(self.refresh(Fh(lock.handle))).await;
        Ok(())
    }

    async fn acquire(&self, caller: Caller, file: FileNumber, lock: Lock, wait: bool) -> FsResult<()> {
        loop {
            let released = self.unlocked.notified();
            {
                let mut state = self.state.lock();
                if state.locks_mut().acquire(file, lock) {
                    return Ok(());
                }
                if !wait {
                    return Err(FsError::WouldBlock);
                }
                if state.locks().is_deadlock(file, &lock) {
                    return Err(FsError::Deadlock);
                }
            }
            if sys::has_pending_signal(caller.thread) {
                return Err(FsError::Interrupted);
            }
            _ = tokio::time::timeout(LOOK, released).await;
        }
    }

    /// Drops what `owner` holds within `range`.
    pub fn unlock(&self, fh: Fh, owner: Owner, range: Range) -> FsResult<()> {
        let mut state = self.state.lock();
        let file = state.handle(fh)?.file;
        state.locks_mut().release(file, owner, range);
        self.unlocked.notify_waiters();
        Ok(())
    }

    /// close(2) by a process drops all its fcntl(2) locks of the file (POSIX).
    pub(crate) fn unlock_owner(&self, fh: Fh, owner: Owner) {
        // Who has no such handle has no locks.
        _ = self.unlock(fh, owner, Range { start: 0, end: u64::MAX });
    }

    /// Brings a handle that has changed nothing, and shares its inode with nobody, to the current version.
    async fn refresh(self: &Arc<Self>, fh: Fh) {
        let Some((ino, name, key)) = self.outdated(fh) else { return };
        let Ok(answer) = self.cache.get_key_value(&key).await else { return };
        let Some(entry) = answer.value else { return };
        let invalidations = {
            let mut state = self.state.lock();
            let mut invalidations = state.install_version(&name, &entry.meta, Origin::Read);
            if state.renew(ino, fh, &entry) {
                invalidations.extend(state.stale(ino));
            }
            invalidations
        };
        self.invalidate_and_wait(invalidations).await;
    }

    /// The inode, name and key of a handle that may show an older version than the current one.
    fn outdated(&self, fh: Fh) -> Option<(Ino, String, Key)> {
        let state = self.state.lock();
        let handle = state.handle(fh).ok()?;
        let (ino, inode) = (handle.ino, state.inode(handle.ino).ok()?);
        let seen = match &handle.content {
            Content::Snapshot(_, meta) if inode.readers == 1 && !state.is_current(ino, inode) => {
                meta.as_ref()?
            }
            Content::Draft(id) => {
                let draft = state.draft(*id)?;
                let alone = draft.handles == 1 && draft.purpose == Publish::OnClose && !draft.orphan;
                let clean = !draft.bytes.is_changed() && matches!(draft.expect, Expect::At(_));
                draft.published.as_ref().filter(|_| alone && clean)?
            }
            Content::Snapshot(..) => return None,
        };
        let current = self.cache.peek(&inode.key).and_then(|answer| answer.value);
        let same = current.is_some_and(|entry| entry.meta.revision == seen.revision);
        (!same).then(|| (ino, inode.name.clone(), inode.key.clone()))
    }
}
