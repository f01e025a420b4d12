//! Taking and waiting for locks. A lock that is granted is also a point of refresh, and one that is released a point of
//! publication, as on NFS: who waited for it reads what the holder before wrote.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::fs::core::Fs;
use crate::fs::hand_over::Phase;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::drafts::Publish;
use crate::fs::state::locks::{Family, Kind, Lock, Owner, Range};
use crate::fs::state::nodes::Content;
use crate::fs::state::versions::Origin;
use crate::fs::types::{Caller, Fh, FileNumber, Ino};
use crate::store::{Deadline, Expect, Key};
use crate::sys;
use crate::sys::process::{LockCall, Process, lock_call};

/// How often a waiter looks whether its process was sent a signal, which the kernel cannot tell it.
const LOOK: Duration = Duration::from_millis(50);

/// How often it looks whether those who hold the lock have closed the file, which the kernel does not tell of readers.
const LOOK_AT_HOLDERS: Duration = Duration::from_secs(1);

/// How often, and how many times, is looked what a caller has called who has not come to wait for the answer yet.
const LOOK_AT_CALLER: Duration = Duration::from_millis(1);
const LOOKS_AT_CALLER: u32 = 10_000;

impl Fs {
    /// A lock that would keep `wanted` from being granted.
    pub async fn test_lock(self: Arc<Self>, wanted: Option<Lock>) -> FsResult<Option<Lock>> {
        let Some(wanted) = wanted else { return Ok(None) };
        loop {
            let (file, held) = {
                let state = self.state.lock();
                let file = state.handle(Fh(wanted.handle))?.file;
                (file, state.locks().conflict(file, &wanted))
            };
            if held.is_none() || !self.end_abandoned(file, &wanted).await {
                return Ok(held);
            }
        }
    }

    /// Takes a lock; waits for it if `wait`.
    pub async fn lock(self: Arc<Self>, caller: Caller, lock: Lock, wait: bool) -> FsResult<()> {
        let lock = Lock { process: self.process_of(caller, &lock).await?, ..lock };
        {
            let mut state = self.state.lock();
            let file = state.handle(Fh(lock.handle))?.file;
            if state.locks_mut().give_up_for(file, &lock) {
                self.unlocked.notify_waiters();
            }
            if wait {
                state.locks_mut().wait(file, lock);
            }
        }
        let granted = self.acquire(caller, lock, wait).await;
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

    async fn acquire(self: &Arc<Self>, caller: Caller, lock: Lock, wait: bool) -> FsResult<()> {
        let mut next_look = Instant::now();
        loop {
            let released = self.unlocked.notified();
            let file = {
                let mut state = self.state.lock();
                let file = state.handle(Fh(lock.handle))?.file;
                match self.hand_over.phase() {
                    Phase::Serving | Phase::Draining if state.locks_mut().acquire(file, lock) => {
                        return Ok(());
                    }
                    Phase::Serving | Phase::Draining => Some(file),
                    Phase::Ready => None,
                    Phase::Replaced => return Err(FsError::Replaced),
                }
            };
            let Some(file) = file else {
                tokio::time::sleep(LOOK_AT_CALLER).await;
                continue;
            };
            if next_look <= Instant::now() {
                if self.end_abandoned(file, &lock).await {
                    continue;
                }
                next_look = Instant::now() + LOOK_AT_HOLDERS;
            }
            if !wait {
                return Err(FsError::WouldBlock);
            }
            if self.state.lock().locks().is_deadlock(file, &lock) {
                return Err(FsError::Deadlock);
            }
            if sys::has_pending_signal(caller.thread) {
                return Err(FsError::Interrupted);
            }
            _ = tokio::time::timeout(LOOK, released).await;
        }
    }

    /// Ends the locks that keep `wanted` from being granted and that their processes have no descriptor for any more. Whether
    /// there were some.
    async fn end_abandoned(self: &Arc<Self>, file: FileNumber, wanted: &Lock) -> bool {
        let mut locks = self.state.lock().locks().doubtful(file, wanted);
        if locks.is_empty() {
            return false;
        }
        let fs = self.clone();
        let look = tokio::task::spawn_blocking(move || {
            locks.retain(|lock| fs.is_abandoned(file, lock));
            locks
        });
        let abandoned = look.await.unwrap_or_default();
        if abandoned.is_empty() {
            return false;
        }
        let mut state = self.state.lock();
        for lock in &abandoned {
            state.locks_mut().end(file, lock);
        }
        self.unlocked.notify_waiters();
        true
    }

    fn is_abandoned(&self, file: FileNumber, lock: &Lock) -> bool {
        let (Some(process), Some(device)) = (lock.process, self.kernel.device.get()) else { return false };
        let may_be_it = |number| self.state.lock().may_be_of(file, Ino(number));
        process.has_open(*device, may_be_it) == Some(false)
    }

    /// The process whose close(2) ends a lock, if the kernel will not tell of it. A lock of an open file description ends with
    /// that, of which the kernel tells; what the caller has called is known while it waits for the answer.
    async fn process_of(&self, caller: Caller, lock: &Lock) -> FsResult<Option<Process>> {
        if lock.owner.family == Family::Flock || self.state.lock().handle(Fh(lock.handle))?.writable {
            return Ok(None);
        }
        for _ in 0..LOOKS_AT_CALLER {
            match lock_call(lock.pid, caller.thread) {
                LockCall::OfProcess => return Ok(Process::of(lock.pid)),
                LockCall::Unknown => break,
                LockCall::NotYet => tokio::time::sleep(LOOK_AT_CALLER).await,
            }
        }
        Ok(None)
    }

    /// Drops what `owner` holds within `range`, once what was written under the lock is published: who has it next finds that.
    /// The lock is dropped whatever becomes of it.
    pub async fn publish_and_unlock(self: Arc<Self>, fh: Fh, owner: Owner, range: Range) -> FsResult<()> {
        let published = self.publish_complete(fh).await;
        self.unlock(fh, owner, range)?;
        published
    }

    /// Drops what `owner` holds within `range`.
    pub(crate) fn unlock(&self, fh: Fh, owner: Owner, range: Range) -> FsResult<()> {
        let mut state = self.state.lock();
        let file = state.handle(fh)?.file;
        state.locks_mut().release(file, owner, range);
        self.unlocked.notify_waiters();
        Ok(())
    }

    /// close(2) by a process drops all its fcntl(2) locks of the file (POSIX).
    pub(crate) fn unlock_process(&self, fh: Fh, id: u64) {
        let owner = Owner { family: Family::Fcntl, id };
        // Who has no such handle has no locks.
        _ = self.unlock(fh, owner, Range { start: 0, end: u64::MAX });
    }

    /// The mount is there, as this device.
    pub fn is_device(&self, device: u64) {
        _ = self.kernel.device.set(device);
    }

    /// Brings a handle that has changed nothing, and shares its inode with nobody, to the current version.
    async fn refresh(self: &Arc<Self>, fh: Fh) {
        let ino = self.state.lock().handle(fh).map(|handle| handle.ino);
        if let Ok(ino) = ino {
            _ = self.await_end_at(ino).await;
        }
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
        let (seen, is_shown) = match &handle.content {
            Content::Snapshot(_, meta) if inode.readers == 1 && !state.is_current(ino, inode) => {
                (meta.as_ref()?, true)
            }
            Content::Draft(id) => {
                let draft = state.draft(*id)?;
                let alone = draft.handles == 1 && draft.purpose == Publish::OnClose && !draft.orphan;
                let clean = !draft.bytes.is_changed() && matches!(draft.expect, Expect::At(_));
                (draft.published.as_ref().filter(|_| alone && clean)?, draft.shows_published())
            }
            Content::Snapshot(..) => return None,
        };
        let current = self.cache.peek(&inode.key).and_then(|answer| answer.value);
        let same = is_shown && current.is_some_and(|entry| entry.meta.revision == seen.revision);
        (!same).then(|| (ino, inode.name.clone(), inode.key.clone()))
    }
}
