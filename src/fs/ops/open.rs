//! Opening and reading.
//!
//! A reader opens the inode of the key's current version. A writer works on that inode if nobody else has it open
//! ([`home`](crate::fs::state::home)); else on one of its own: its open is answered `ESTALE`, upon which the kernel looks the
//! name up again, once, and finds that. An open that comes back to another inode (it has no name to look up: a bind-mounted
//! file, `/proc/self/fd/N`; or the key changed again) is served on the spot, past the page cache: a second `ESTALE` would
//! reach the program.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::fs::core::Fs;
use crate::fs::ops::granted::{draft_of, read_snapshot};
use crate::fs::ops::shared::send_to_shared;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::drafts::Publish;
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::{Body, Inode};
use crate::fs::state::tables::State;
use crate::fs::state::turns::Turn;
use crate::fs::state::versions::Origin;
use crate::fs::types::{Access, Caller, DraftId, Ino, Opened};
use crate::store::{Entry, Key, Meta, Revision};

/// What the store has; `None` is a confirmed absence.
type Known = Option<Entry>;

/// What the store has of a key.
struct Fetched(Key, Known);

/// What an open comes to, given the tables alone.
enum Plan {
    Done(Opened),
    /// A writer works on the inode itself, with this draft if it is the kernel's idea of the file, once the kernel has no dentry
    /// of the name any more that lasts.
    Begin(PathInvalidation, Option<DraftId>, Opened),
    /// Somebody else has open what cannot be shared: wait for him until then.
    Wait(Instant),
    /// A file that is written is a key, or a scratch file: it was renamed to a backup name, which the store does not know yet.
    CarryOut,
    /// The kernel may still have pages of an older version.
    Settle,
    /// A snapshot of the current value is needed first.
    Fetch,
    /// The directory that it is in, at this path, is being renamed: the key may have its new name.
    Await(String),
}

impl From<(Opened, Option<(PathInvalidation, DraftId)>)> for Plan {
    fn from((opened, begins): (Opened, Option<(PathInvalidation, DraftId)>)) -> Self {
        match begins {
            Some((dentry, draft)) => Self::Begin(dentry, Some(draft), opened),
            None => Self::Done(opened),
        }
    }
}

impl Plan {
    /// Done, once the kernel has no such dentry any more, if there is one to drop.
    fn after(dentry: Option<PathInvalidation>, opened: Opened) -> Self {
        dentry.map_or(Self::Done(opened), |dentry| Self::Begin(dentry, None, opened))
    }
}

/// An open as far as it has come.
struct Attempt {
    fetched: Option<Fetched>,
    /// How often the store was asked.
    asked: u32,
    since: Instant,
    /// Who opens certainly was told to look again, and now is back.
    retried: bool,
    /// It waits for others to close the file.
    turn: Option<Turn>,
}

impl Attempt {
    /// Until when it waits, if that is not over.
    fn patience(&self, time: Duration) -> Option<Instant> {
        Some(self.since + time).filter(|until| *until > Instant::now())
    }
}

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
            if !is_next && !retried {
                return Err(state.redirect(caller.thread, ino, None));
            }
            if !is_next && let Some(until) = attempt.patience(state.patience(ino, caller.thread)) {
                return Ok(Plan::Wait(until));
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
mod tests {
    use crate::store::{Change, Expect, Store, Text};

    use std::time::Duration;

    use crate::fs::types::ROOT;

    use super::*;

    #[tokio::test]
    async fn a_listing_that_is_newer_than_the_remembered_value_is_never_read_as_that_value() {
        let (fs, elsewhere) = Fs::in_memory(Duration::ZERO);
        let caller = Caller { thread: 1, uid: 0, gid: 0 };
        let text = |text: &str| Text::from(text.as_bytes());
        fs.cache.set_key_value(&Key::from("k"), text("1"), Expect::Anything).await.unwrap();
        let ino = fs.clone().lookup(caller, ROOT, "k".into()).await.unwrap().attr.unwrap().ino;
        // The feed has not told of it yet.
        elsewhere.set_key_value(&Key::from("k"), text("22"), Expect::Anything).await.unwrap();
        let directory = fs.clone().open_directory(caller, ROOT).await.unwrap();
        let mut size = 0;
        fs.read_directory_plus(&directory, 2, |_, attr, _| {
            size = attr.size;
            true
        });
        assert_eq!(size, 2);
        let access = Access { write: false, append: false, truncate: false };
        let opened = fs.clone().open(caller, ino, access).await.unwrap();
        assert_eq!(fs.read(opened.fh, 0, 10, <[u8]>::to_vec).unwrap(), b"22");
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_comes_back_late_is_not_sent_to_look_again() {
        let access = Access { write: true, append: false, truncate: false };
        let caller = Caller { thread: 1, uid: 0, gid: 0 };
        for (before, after) in [(60, 0), (0, 60), (60, 60)] {
            let (fs, _elsewhere) = Fs::in_memory(Duration::ZERO);
            fs.cache.set_key_value(&Key::from("k"), Text::from(&b"1"[..]), Expect::Anything).await.unwrap();
            let look = async || fs.clone().lookup(caller, ROOT, "k".into()).await.unwrap().attr.unwrap().ino;
            let read = Access { write: false, ..access };
            fs.clone().open(Caller { thread: 2, ..caller }, look().await, read).await.unwrap();
            assert_eq!(fs.clone().open(caller, look().await, access).await, Err(FsError::Superseded));
            // The kernel waits for the lock of a directory, or for the names on the way.
            tokio::time::advance(Duration::from_secs(before)).await;
            let ino = look().await;
            tokio::time::advance(Duration::from_secs(after)).await;
            let opened = fs.clone().open(caller, ino, access).await.unwrap();
            fs.write(opened.fh, 0, b"2").unwrap();
            fs.clone().flush(caller, opened.fh, 0).await.unwrap();
            fs.clone().release(opened.fh).await;
            assert_eq!(fs.cache.peek(&Key::from("k")).unwrap().value.unwrap().text[..], *b"2");
        }
    }

    const WRITE: Access = Access { write: true, append: false, truncate: true };
    const READ: Access = Access { write: false, append: false, truncate: false };

    fn thread(thread: u32) -> Caller {
        Caller { thread, uid: 0, gid: 0 }
    }

    /// A mount with the key `k`, which is 1.
    async fn with_k() -> Arc<Fs> {
        let (fs, _elsewhere) = Fs::in_memory(Duration::ZERO);
        fs.cache.set_key_value(&Key::from("k"), Text::from(&b"1"[..]), Expect::Anything).await.unwrap();
        fs
    }

    async fn look(fs: &Arc<Fs>, caller: Caller) -> (Ino, u64) {
        let attr = fs.clone().lookup(caller, ROOT, "k".into()).await.unwrap().attr.unwrap();
        (attr.ino, attr.size)
    }

    async fn set(fs: &Arc<Fs>, caller: Caller, opened: Opened, text: &[u8]) {
        fs.write(opened.fh, 0, text).unwrap();
        fs.clone().flush(caller, opened.fh, 0).await.unwrap();
    }

    #[tokio::test]
    async fn a_writer_works_on_the_inode_of_the_name_and_others_find_snapshots() {
        let fs = with_k().await;
        let (writer, other) = (thread(1), thread(2));
        let (home, _) = look(&fs, writer).await;
        let opened = fs.clone().open(writer, home, WRITE).await.unwrap();
        let (before, size) = look(&fs, other).await;
        assert!(before != home && size == 1);
        set(&fs, writer, opened, b"22").await;
        let (after, size) = look(&fs, other).await;
        assert!(after != home && after != before && size == 2);
        fs.clone().release(opened.fh).await;
        assert_eq!(look(&fs, other).await, (home, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_name_comes_back_when_who_kept_it_away_has_closed_it() {
        let fs = with_k().await;
        let (writer, other) = (thread(1), thread(2));
        let (home, _) = look(&fs, other).await;
        let reader = fs.clone().open(other, home, READ).await.unwrap();
        assert_eq!(fs.clone().open(writer, home, WRITE).await, Err(FsError::Superseded));
        let (own, _) = look(&fs, writer).await;
        assert_ne!(own, home);
        let opened = fs.clone().open(writer, own, WRITE).await.unwrap();
        set(&fs, writer, opened, b"22").await;
        fs.clone().release(opened.fh).await;
        assert_eq!(fs.read(reader.fh, 0, 9, <[u8]>::to_vec).unwrap(), b"1");
        assert_ne!(look(&fs, other).await.0, home);
        fs.clone().release(reader.fh).await;
        assert_eq!(look(&fs, other).await, (home, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn callers_who_cannot_be_told_apart_have_an_inode_each() {
        let fs = with_k().await;
        let unknown = thread(0);
        let (home, _) = look(&fs, thread(1)).await;
        let reader = fs.clone().open(thread(1), home, READ).await.unwrap();
        assert_eq!(fs.clone().open(unknown, home, WRITE).await, Err(FsError::Superseded));
        let own = [look(&fs, unknown).await.0, look(&fs, unknown).await.0];
        assert!(own[0] != own[1] && !own.contains(&home));
        let [first, second] = own.map(|ino| fs.clone().open(unknown, ino, WRITE));
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        set(&fs, unknown, first, b"22").await;
        set(&fs, unknown, second, b"333").await;
        for fh in [first.fh, second.fh, reader.fh] {
            fs.clone().release(fh).await;
        }
        assert_eq!(look(&fs, thread(1)).await, (home, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_name_to_look_up_waits_for_the_writer_and_then_reads_past_the_page_cache() {
        for caller in [thread(0), thread(2)] {
            let fs = with_k().await;
            let (home, _) = look(&fs, thread(1)).await;
            let opened = fs.clone().open(thread(1), home, WRITE).await.unwrap();
            assert_eq!(fs.clone().open(caller, home, READ).await, Err(FsError::Superseded));
            let direct = fs.clone().open(caller, home, READ).await.unwrap();
            assert!(direct.direct);
            assert_eq!(fs.read(direct.fh, 0, 9, <[u8]>::to_vec).unwrap(), b"1");
            fs.clone().release(direct.fh).await;
            assert_eq!(fs.clone().open(caller, home, READ).await, Err(FsError::Superseded));
            let waiting = tokio::spawn(fs.clone().open(caller, home, READ));
            tokio::task::yield_now().await;
            set(&fs, thread(1), opened, b"22").await;
            fs.clone().release(opened.fh).await;
            let cached = waiting.await.unwrap().unwrap();
            assert!(!cached.direct);
            assert_eq!(fs.read(cached.fh, 0, 9, <[u8]>::to_vec).unwrap(), b"22");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_who_was_sent_back_reads_has_the_size_that_the_kernel_is_told() {
        let fs = with_k().await;
        let (writer, reader) = (thread(1), thread(2));
        let (home, _) = look(&fs, reader).await;
        let opened = fs.clone().open(writer, home, WRITE).await.unwrap();
        assert_eq!(fs.clone().open(reader, home, READ).await, Err(FsError::Superseded));
        let (snapshot, size) = look(&fs, thread(3)).await;
        assert!(snapshot != home && size == 1);
        // The text is not at hand, as while a set is in flight, and is another one when it is read.
        let private = fs.state.lock().private(snapshot, None);
        set(&fs, writer, opened, b"22").await;
        let read = fs.clone().open(reader, private, READ).await.unwrap();
        let size = fs.getattr(private, None).unwrap().attr.unwrap().size;
        assert_eq!(size, 2);
        assert_eq!(fs.read(read.fh, 0, 9, <[u8]>::to_vec).unwrap(), b"22");
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_cannot_be_told_apart_does_not_wait_for_those_who_were_sent_back_after_he_came() {
        let fs = with_k().await;
        let unknown = thread(0);
        let (home, _) = look(&fs, unknown).await;
        let writer = fs.clone().open(thread(1), home, WRITE).await.unwrap();
        assert_eq!(fs.clone().open(unknown, home, READ).await, Err(FsError::Superseded));
        tokio::time::advance(Duration::from_millis(1)).await;
        let waiting = tokio::spawn(fs.clone().open(unknown, home, READ));
        tokio::task::yield_now().await;
        tokio::time::advance(Duration::from_millis(1)).await;
        // The first one is back, and another one is sent to look again at the same time.
        look(&fs, unknown).await;
        assert_eq!(fs.clone().open(unknown, home, READ).await, Err(FsError::Superseded));
        assert_eq!(waiting.await.unwrap(), Err(FsError::Superseded));
        fs.clone().release(writer.fh).await;
    }

    #[tokio::test]
    async fn a_change_that_came_in_since_the_value_was_fetched_is_what_is_read() {
        let fs = with_k().await;
        let (home, _) = look(&fs, thread(1)).await;
        let (key, old) = (Key::from("k"), fs.cache.peek(&Key::from("k")).unwrap().value);
        let meta = fs.cache.set_key_value(&key, Text::from(&b"22"[..]), Expect::Anything).await.unwrap();
        let stale = fs.state.lock().install_version("k", &meta, Origin::Read);
        fs.invalidate_and_wait(stale).await;
        let fetched = Some(Fetched(key, old));
        let mut attempt = Attempt { fetched, asked: 1, since: Instant::now(), retried: false, turn: None };
        let Ok(Plan::Done(opened)) = fs.plan_open(thread(1), home, READ, &mut attempt) else { panic!() };
        assert_eq!(fs.read(opened.fh, 0, 9, <[u8]>::to_vec).unwrap(), b"22");
    }

    #[tokio::test]
    async fn a_version_that_the_feed_told_of_since_the_value_was_fetched_is_fetched() {
        let (fs, elsewhere) = Fs::in_memory(Duration::ZERO);
        let (key, text) = (Key::from("k"), |text: &str| Text::from(text.as_bytes()));
        fs.cache.set_key_value(&key, text("1"), Expect::Anything).await.unwrap();
        let (home, _) = look(&fs, thread(1)).await;
        let old = fs.cache.peek(&key).unwrap().value;
        let meta = elsewhere.set_key_value(&key, text("22"), Expect::Anything).await.unwrap();
        fs.take_in(Change::Set(key.clone(), meta)).await;
        assert!(fs.cache.peek(&key).is_none());
        let mut attempt = Attempt {
            fetched: Some(Fetched(key, old)),
            asked: 1,
            since: Instant::now(),
            retried: false,
            turn: None,
        };
        let plan = fs.plan_open(thread(1), home, READ, &mut attempt);
        assert!(matches!(plan, Ok(Plan::Fetch)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_changes_a_text_of_which_the_kernel_has_no_size_writes_past_its_pages() {
        let fs = with_k().await;
        let (writer, change) = (thread(1), Access { truncate: false, ..WRITE });
        let (home, _) = look(&fs, writer).await;
        for append in [false, true] {
            for (is_told, truncate) in [(false, false), (true, false), (false, true)] {
                fs.state.lock().stale(home);
                fs.invalidate_now(home).await;
                if is_told {
                    fs.getattr(home, None).unwrap();
                }
                let access = Access { append, truncate, ..change };
                let opened = fs.clone().open(writer, home, access).await.unwrap();
                assert_eq!(opened.direct, !is_told && !truncate);
                fs.write(opened.fh, 0, b"22").unwrap();
                fs.clone().flush(writer, opened.fh, 0).await.unwrap();
                fs.clone().release(opened.fh).await;
                let shown = fs.getattr(home, None).unwrap().attr.unwrap().size;
                let text = fs.cache.peek(&Key::from("k")).unwrap().value.unwrap().text;
                assert_eq!(shown, text.len() as u64);
            }
        }
    }

    #[tokio::test]
    async fn two_who_write_a_new_file_have_a_draft_each_and_others_see_none() {
        let fs = Fs::in_memory(Duration::ZERO).0;
        let (_, first) = fs.create(thread(0), (ROOT, "k"), 0o644, WRITE, false).unwrap();
        fs.write(first.fh, 0, b"[1,").unwrap();
        let (empty, size) = look(&fs, thread(0)).await;
        assert_eq!(size, 0);
        let second = fs.clone().open(thread(0), empty, WRITE).await.unwrap();
        set(&fs, thread(0), second, b"22").await;
        assert_eq!(look(&fs, thread(2)).await.1, 2);
        fs.write(first.fh, 3, b"2]").unwrap();
        fs.clone().flush(thread(0), first.fh, 0).await.unwrap();
        fs.clone().release(first.fh).await;
        fs.clone().release(second.fh).await;
        assert_eq!(look(&fs, thread(2)).await.1, 5);
    }

    #[tokio::test]
    async fn who_gave_up_an_open_that_was_to_look_again_finds_the_newest_version_by_the_next() {
        let newest = |access: Access| Access { truncate: false, ..access };
        for (looked, write) in [(false, false), (false, true), (true, false), (true, true)] {
            let fs = with_k().await;
            let (writer, other) = (thread(1), thread(2));
            let (home, _) = look(&fs, other).await;
            let reader = fs.clone().open(other, home, READ).await.unwrap();
            assert_eq!(fs.clone().open(writer, home, newest(WRITE)).await, Err(FsError::Superseded));
            let before = if looked { Some(look(&fs, writer).await.0) } else { None };
            let text = Text::from(&b"22"[..]);
            let meta = fs.cache.set_key_value(&Key::from("k"), text, Expect::Anything).await.unwrap();
            fs.take_in(Change::Set(Key::from("k"), meta)).await;
            let ino = if let Some(ino) = before {
                // By way of a descriptor of O_PATH.
                ino
            } else {
                let (ino, size) = look(&fs, writer).await;
                assert_eq!(size, 2);
                ino
            };
            let opened =
                fs.clone().open(writer, ino, if write { newest(WRITE) } else { READ }).await.unwrap();
            assert_eq!(fs.read(opened.fh, 0, 9, <[u8]>::to_vec).unwrap(), b"22");
            assert_eq!(fs.getattr(ino, Some(opened.fh)).unwrap().attr.unwrap().size, 2);
            if write {
                set(&fs, writer, opened, b"33").await;
            }
            for fh in [opened.fh, reader.fh] {
                fs.clone().release(fh).await;
            }
            assert_eq!(look(&fs, other).await, (home, 2));
        }
    }

    #[tokio::test]
    async fn who_gave_up_an_open_finds_nothing_where_the_key_is_gone() {
        let fs = with_k().await;
        let (home, _) = look(&fs, thread(2)).await;
        fs.clone().open(thread(2), home, READ).await.unwrap();
        assert_eq!(fs.clone().open(thread(1), home, WRITE).await, Err(FsError::Superseded));
        fs.clone().unlink(thread(3), ROOT, "k".into()).await.unwrap();
        assert_eq!(fs.clone().lookup(thread(1), ROOT, "k".into()).await.unwrap().attr, None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_name_to_look_up_waits_longer_for_those_who_have_just_come() {
        let fs = with_k().await;
        let (reader, writer) = (thread(1), thread(2));
        let (home, _) = look(&fs, reader).await;
        let read = fs.clone().open(reader, home, READ).await.unwrap();
        assert_eq!(fs.clone().open(writer, home, WRITE).await, Err(FsError::Superseded));
        let waiting = tokio::spawn(fs.clone().open(writer, home, WRITE));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        fs.clone().release(read.fh).await;
        assert!(!waiting.await.unwrap().unwrap().direct);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_lasts_again_where_nobody_has_come_for_the_open_that_he_was_sent_away_with() {
        let fs = with_k().await;
        let (writer, other) = (thread(1), thread(2));
        let lasts = async || !fs.clone().lookup(other, ROOT, "k".into()).await.unwrap().ttl.is_zero();
        let (home, _) = look(&fs, other).await;
        fs.clone().open(other, home, READ).await.unwrap();
        assert!(lasts().await);
        assert_eq!(fs.clone().open(writer, home, WRITE).await, Err(FsError::Superseded));
        let (own, _) = look(&fs, writer).await;
        assert!(own != home && !lasts().await);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(lasts().await);
        // Late, but there he is.
        let opened = fs.clone().open(writer, own, WRITE).await.unwrap();
        assert!(!lasts().await);
        set(&fs, writer, opened, b"22").await;
        assert_eq!(look(&fs, other).await.1, 2);
    }
}
