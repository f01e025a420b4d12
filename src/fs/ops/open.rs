//! Opening and reading.
//!
//! A reader opens the inode of the key's current version. A writer works on that inode if nobody else has it open
//! ([`home`](crate::fs::state::home)); else on one of its own: its open is answered `ESTALE`, upon which the kernel looks the
//! name up again, once, and finds that. An open that comes back to another inode (it has no name to look up: a bind-mounted
//! file, `/proc/self/fd/N`; or the key changed again) is served on the spot, past the page cache: a second `ESTALE` would
//! reach the program.

mod attempt;

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use attempt::{Attempt, Fetched, Known, Plan};

use crate::fs::core::Fs;
use crate::fs::ops::granted::{draft_of, read_snapshot};
use crate::fs::ops::removal::MOMENT;
use crate::fs::ops::shared::send_to_shared;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::drafts::Publish;
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::{Body, Inode};
use crate::fs::state::tables::State;
use crate::fs::state::versions::Origin;
use crate::fs::types::{Access, Caller, DraftId, Ino, Opened};
use crate::store::{Entry, Meta, Revision};

/// How often the store is asked for a value that changes meanwhile.
const TRIES: u32 = 10;

/// For so long a writer waits for readers to close the inode that the name has, before he is sent to one of his own: those who
/// watch the file would hear nothing of that.
const HOLD: Duration = Duration::from_millis(2);

/// He does not if nobody has opened it for so long: who has it open keeps it.
const HELD: Duration = Duration::from_millis(5);

impl Fs {
    /// As [`Fs::open`], for all but the relay.
    pub(crate) async fn open_inode(
        self: Arc<Self>,
        caller: Caller,
        ino: Ino,
        access: Access,
    ) -> FsResult<Opened> {
        if access.writes() {
            self.writable()?;
        }
        self.await_end_at(ino).await?;
        let mut attempt =
            Attempt { fetched: None, asked: 0, since: Instant::now(), retried: false, turn: None };
        let opened = self.try_open(caller, ino, access, &mut attempt).await;
        if let Some(turn) = attempt.turn
            && let Some(inode) = self.state.lock().inode_mut(ino)
        {
            inode.turns.leave(turn);
            self.unlocked.notify_waiters();
        }
        opened
    }

    /// What few opens wait for is boxed: the future is moved for all of them.
    async fn try_open(
        self: &Arc<Self>,
        caller: Caller,
        ino: Ino,
        access: Access,
        attempt: &mut Attempt,
    ) -> FsResult<Opened> {
        loop {
            let closed = self.unlocked.notified();
            match self.plan_open(caller, ino, access, attempt)? {
                Plan::Done(opened) => return Ok(opened),
                Plan::Begin(dentry, draft, opened) => {
                    self.invalidate_and_wait(vec![dentry]).await;
                    let mut state = self.state.lock();
                    if let Some(draft) = draft.and_then(|draft| state.draft_mut(draft)) {
                        draft.opening = false;
                    }
                    drop(state);
                    return Ok(opened);
                }
                Plan::Wait(until) => {
                    if let Some(inode) = self.state.lock().inode_mut(ino) {
                        attempt.turn.get_or_insert_with(|| inode.turns.take(access.writes()));
                    }
                    _ = timeout_at(until, closed).await;
                }
                Plan::CarryOut => _ = Box::pin(self.carry_out_at(ino)).await?,
                Plan::Settle if self.invalidate_and_wait(vec![PathInvalidation::Inode(ino)]).await => {}
                Plan::Settle => self.invalidate_now(ino).await,
                Plan::Fetch => {
                    attempt.fetched = Some(Box::pin(self.fetch(ino, access)).await?);
                    attempt.asked += 1;
                }
                Plan::Await(path) => _ = Box::pin(self.await_move(ino, &path)).await?,
            }
        }
    }

    /// The current value of the key of an inode. A version newer than the inode's replaces it.
    async fn fetch(self: &Arc<Self>, ino: Ino, access: Access) -> FsResult<Fetched> {
        let (name, key) = {
            let state = self.state.lock();
            let inode = state.inode(ino)?;
            (inode.name.clone(), inode.key.clone())
        };
        let entry = if access.truncate {
            self.cache.get_to_replace(&key).await?
        } else {
            self.cache.get_key_value(&key).await?.value
        };
        let invalidations = match &entry {
            Some(entry) => self.state.lock().install_version(&name, &entry.meta, Origin::Read),
            None => Vec::new(),
        };
        // The open waits for what the kernel must drop of its own inode, and looks up what now leads elsewhere.
        self.invalidate_later(invalidations);
        Ok(Fetched(key, entry))
    }

    fn plan_open(&self, caller: Caller, ino: Ino, access: Access, attempt: &mut Attempt) -> FsResult<Plan> {
        let mut state = self.state.lock();
        let inode = state.inode(ino)?;
        match inode.body {
            Body::Local(draft) => {
                return self.join_local(&mut state, caller, ino, draft, access, attempt.since);
            }
            Body::Draft(draft) if self.may_join(&state, caller, inode, ino) => {
                return self.join_sent(&mut state, caller, ino, draft, access);
            }
            Body::Directory => return Err(FsError::IsDirectory),
            Body::Key(_) | Body::Draft(_) => {}
        }
        self.check_outage(access, false)?;
        if !inode.cached.is_fresh() {
            return Ok(Plan::Settle);
        }
        let is_retry = attempt.retried || state.is_retry(caller.thread, &inode.name, attempt.since);
        attempt.retried = is_retry && caller.thread != 0;
        let retried = is_retry || inode.private.is_some();
        let shown = match &inode.body {
            Body::Key(meta) if inode.private.is_some() || state.is_current(ino, inode) => Some(meta),
            _ => None,
        };
        if shown.is_none() && !access.writes() && !retried {
            return Err(state.redirect(caller.thread, ino, None));
        }
        let Some(entry) = self.value_to_open(inode, shown, attempt) else { return Ok(Plan::Fetch) };
        let Some(entry) = entry else { return self.key_gone(&mut state, caller, (ino, access), retried) };
        let (shown, is_private) = (shown.map(|meta| meta.revision), inode.private.is_some());
        if access.writes() && !retried {
            send_to_shared(&mut state, caller, ino, &entry)?;
        }
        let Some(shown) = shown else {
            return self.open_elsewhere(&mut state, caller, ino, entry, access, (retried, attempt));
        };
        if let Some(first) = self.bring_up_to_date(&mut state, ino, &entry.meta, shown, attempt)? {
            return Ok(first);
        }
        let newest = entry.meta.revision;
        let is_next = is_private || state.is_next(ino, attempt.turn, access.writes());
        if !access.writes() {
            if let Some(first) = before_reading(&mut state, caller, ino, (is_next, retried), attempt)? {
                return Ok(first);
            }
            // The kernel keeps nothing of the last known value while the store is down, nor goes by the size of another version.
            let direct = !is_next || newest != shown || !state.is_sized(ino);
            return Ok(Plan::Done(read_snapshot(&mut state, caller, ino, entry, direct)));
        }
        if newest == shown && is_next && state.is_free(ino) {
            return Ok(self.write_on(&mut state, caller, ino, entry, access).into());
        }
        if let Some(until) = attempt.patience(HOLD).filter(|_| !retried && state.may_be_free_soon(ino, HELD))
        {
            return Ok(Plan::Wait(until));
        }
        self.open_elsewhere(&mut state, caller, ino, entry, access, (retried, attempt))
    }

    /// What is to be done first where the `newest` version that is known is not the one that the inode shows.
    fn bring_up_to_date(
        &self,
        state: &mut State,
        ino: Ino,
        newest: &Meta,
        shown: Revision,
        attempt: &Attempt,
    ) -> FsResult<Option<Plan>> {
        let inode = state.inode(ino)?;
        match (newest.revision.cmp(&shown), inode.private.is_some()) {
            (Ordering::Greater, true) => Ok(state.follow(ino, newest).then_some(Plan::Settle)),
            (Ordering::Greater, false) => Ok(Some(Plan::Fetch)),
            // A listing or the feed told of a newer version than the value that is remembered, or was fetched meanwhile.
            (Ordering::Less, _)
                if attempt.asked == 0 || attempt.asked < TRIES && self.cache.outage().is_none() =>
            {
                self.cache.mark_stale(&inode.key, shown);
                Ok(Some(Plan::Fetch))
            }
            (Ordering::Less | Ordering::Equal, _) => Ok(None),
        }
    }

    /// The value that an open of the inode goes by, if it is at hand: that of a private inode of this version, or the newest
    /// one.
    fn value_to_open(&self, inode: &Inode, shown: Option<&Meta>, attempt: &mut Attempt) -> Option<Known> {
        // It may have been renamed since.
        let fetched = attempt.fetched.take().filter(|Fetched(key, _)| *key == inode.key);
        let own = inode.private.as_ref().and_then(|private| private.text.clone()).zip(shown);
        let own = own.map(|(text, meta)| Some(Entry { meta: meta.clone(), text }));
        // A change may have come in since it was fetched.
        let known = own.or_else(|| self.cache.peek(&inode.key).map(|answer| answer.value));
        known.or_else(|| fetched.map(|Fetched(_, entry)| entry))
    }

    /// Opens an inode that the caller cannot have as it is: the name leads elsewhere, or others have it open.
    fn open_elsewhere(
        &self,
        state: &mut State,
        caller: Caller,
        ino: Ino,
        entry: Entry,
        access: Access,
        (retried, attempt): (bool, &Attempt),
    ) -> FsResult<Plan> {
        if !retried {
            return Err(send_to_draft(state, caller, ino, entry, access));
        }
        if let Some(draft) = state.draft_of_process(caller.thread, ino) {
            // By way of `/proc/self/fd/N`.
            return Ok(Plan::Done(self.join(state, caller, ino, draft, access)));
        }
        let is_next = state.is_next(ino, attempt.turn, access.writes());
        if !access.writes() && is_next && state.is_read_as(ino, entry.meta.revision) {
            let direct = !state.is_sized(ino);
            return Ok(Plan::Done(read_snapshot(state, caller, ino, entry, direct)));
        }
        let is_in_use = !is_next || state.inode(ino)?.handles > 0;
        if is_in_use && let Some(until) = attempt.patience(state.patience(ino, caller.thread)) {
            return Ok(Plan::Wait(until));
        }
        state.find_again(ino);
        if state.follow(ino, &entry.meta) {
            return Ok(Plan::Settle);
        }
        if access.writes() && state.is_free(ino) && state.is_read_as(ino, entry.meta.revision) {
            return Ok(self.write_on(state, caller, ino, entry, access).into());
        }
        let name = state.inode(ino)?.name.clone();
        let dentry = if access.writes() { state.drop_dentries(&name) } else { None };
        let opened = self.open_direct(state, caller, ino, entry, access);
        Ok(Plan::after(dentry, opened))
    }

    fn join_local(
        &self,
        state: &mut State,
        caller: Caller,
        ino: Ino,
        draft: DraftId,
        access: Access,
        since: Instant,
    ) -> FsResult<Plan> {
        if access.writes() && state.deferred_at(ino)?.is_some() {
            return Ok(Plan::CarryOut);
        }
        let new = state.draft(draft).filter(|draft| draft.purpose == Publish::OnClose);
        let is_removed = state.inode(ino)?.unlinked;
        if new.is_some_and(|draft| is_removed && draft.handles == 0) {
            // The end of who wrote it took it away after it was looked up, and what is written now must not go nowhere.
            let retried = state.is_retry(caller.thread, &state.inode(ino)?.name, since);
            return self.key_gone(state, caller, (ino, access), retried);
        }
        if new.is_some() {
            self.check_outage(access, true)?;
        }
        Ok(Plan::Done(self.join(state, caller, ino, draft, access)))
    }

    /// Opens the draft of a writer who was sent to it; or whoever else the thread is by now.
    fn join_sent(
        &self,
        state: &mut State,
        caller: Caller,
        ino: Ino,
        draft: DraftId,
        access: Access,
    ) -> FsResult<Plan> {
        let (name, key) = state.inode(ino).map(|inode| (inode.name.clone(), inode.key.clone()))?;
        let newest = self.cache.peek(&key).and_then(|answer| answer.value);
        if newest.is_some_and(|newest| state.rebase(ino, &newest)) || !state.inode(ino)?.cached.is_fresh() {
            return Ok(Plan::Settle);
        }
        let dentry = state.drop_late_dentries(caller.thread, &name);
        let opened = self.join(state, caller, ino, draft, access);
        Ok(Plan::after(dentry, opened))
    }

    /// What an open of an inode comes to whose key is gone.
    fn key_gone(
        &self,
        state: &mut State,
        caller: Caller,
        (ino, access): (Ino, Access),
        retried: bool,
    ) -> FsResult<Plan> {
        let name = state.inode(ino)?.name.clone();
        if state.is_moving(&name) {
            return Ok(Plan::Await(name));
        }
        // The kernel looks its name up once, then there is no such file.
        if !retried {
            return Err(state.redirect(caller.thread, ino, None));
        }
        if let Some(own) = state.opened_by_process(caller.thread, ino) {
            return Ok(Plan::Done(self.open_anew(state, caller, ino, own, access)));
        }
        state.end_retry(caller.thread, ino);
        Err(FsError::NotFound)
    }

    /// Says at once that a file cannot be written: most shells do not look at what close(2) says.
    fn check_outage(&self, access: Access, new: bool) -> FsResult<()> {
        if !access.writes() {
            return Ok(());
        }
        match self.cache.outage() {
            // Who does not truncate may yet leave it as it is, and hears of it from write(2).
            Some(error) if error.is_full() => {
                if access.truncate && error.keeps_out(new) {
                    Err(error.into())
                } else {
                    Ok(())
                }
            }
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}

/// What a reader of the version that the inode shows is to do first.
fn before_reading(
    state: &mut State,
    caller: Caller,
    ino: Ino,
    (is_next, retried): (bool, bool),
    attempt: &Attempt,
) -> FsResult<Option<Plan>> {
    if !is_next && !retried {
        return Err(state.redirect(caller.thread, ino, None));
    }
    let patience = if is_next {
        state.may_stay_unsure(ino).then_some(MOMENT)
    } else {
        Some(state.patience(ino, caller.thread))
    };
    Ok(patience.and_then(|patience| attempt.patience(patience)).map(Plan::Wait))
}

/// Sends a writer of a key to an inode of its own. One who cannot be recognised there finds an inode that nobody else does.
fn send_to_draft(state: &mut State, caller: Caller, ino: Ino, entry: Entry, access: Access) -> FsError {
    let Ok(inode) = state.inode(ino) else { return FsError::NotFound };
    let (name, key) = (inode.name.clone(), inode.key.clone());
    let target = (caller.thread != 0).then(|| {
        let draft = state.add_draft_of_key(&name, caller.thread, draft_of(entry, access));
        state.add_inode(&name, &key, Body::Draft(draft))
    });
    state.redirect(caller.thread, ino, target)
}

#[cfg(test)]
mod tests;
