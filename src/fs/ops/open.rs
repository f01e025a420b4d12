//! Opening and reading.
//!
//! A reader opens the inode of the key's current version. A writer is sent to an inode of its own: its open is
//! answered `ESTALE`, upon which the kernel looks the name up again, once, and finds the writer's draft. An open
//! that comes back to another inode (it has no name to look up: a bind-mounted file, `/proc/self/fd/N`; or the key
//! changed again) is served on the spot, past the page cache: a second `ESTALE` would reach the program.

use std::sync::Arc;

use crate::fs::core::Fs;
use crate::fs::rules::document::Validate;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::drafts::{Draft, Publish};
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::{Body, Content, Handle};
use crate::fs::state::tables::State;
use crate::fs::state::versions::Origin;
use crate::fs::types::{Access, Caller, DraftId, FileNumber, Ino, Opened};
use crate::store::{Entry, Expect, Key, Text};

/// What the store has of a key; `None` is a confirmed absence.
struct Fetched(Key, Option<Entry>);

/// What an open comes to, given the tables alone.
enum Plan {
    Done(Opened),
    /// A file that is written is a key, or a scratch file: it was renamed to a backup name, which the store does not know yet.
    CarryOut,
    /// The kernel may still have pages of an older version.
    Settle,
    /// A snapshot of the current value is needed first.
    Fetch,
    /// The directory that it is in, at this path, is being renamed: the key may have its new name.
    Await(String),
}

impl Fs {
    /// As [`Fs::open`], for all but the relay.
    pub(crate) async fn open_inode(
        self: Arc<Self>,
        caller: Caller,
        ino: Ino,
        access: Access,
    ) -> FsResult<Opened> {
        if access.write || access.truncate {
            self.writable()?;
        }
        let mut fetched = None;
        loop {
            match self.plan_open(caller, ino, access, fetched.take())? {
                Plan::Done(opened) => return Ok(opened),
                Plan::CarryOut => _ = self.carry_out_at(ino).await?,
                Plan::Settle if self.invalidate_and_wait(vec![PathInvalidation::Inode(ino)]).await => {}
                Plan::Settle => self.invalidate_now(ino).await,
                Plan::Fetch => fetched = Some(self.fetch(ino, access).await?),
                Plan::Await(path) => _ = self.await_move(ino, &path).await?,
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

    fn plan_open(
        &self,
        caller: Caller,
        ino: Ino,
        access: Access,
        fetched: Option<Fetched>,
    ) -> FsResult<Plan> {
        let mut state = self.state.lock();
        let inode = state.inode(ino)?;
        let (write, retried) = (access.write || access.truncate, state.is_retry(caller.thread, &inode.name));
        let meta = match &inode.body {
            Body::Key(meta) => Some(meta),
            &Body::Local(draft) => return self.join_local(&mut state, caller, ino, draft, access),
            // Its own writer's, or by way of `/proc/self/fd/N`.
            &Body::Draft(draft) if retried => {
                return Ok(Plan::Done(self.join(&mut state, caller, ino, draft, access)));
            }
            Body::Directory => return Err(FsError::IsDirectory),
            Body::Draft(_) => None,
        };
        self.check_outage(access, false)?;
        if !inode.cached.is_fresh() {
            return Ok(Plan::Settle);
        }
        let current_revision =
            meta.filter(|_| !write && state.is_current(ino, inode)).map(|meta| meta.revision);
        if current_revision.is_none() && !write && !retried {
            return Err(state.redirect(caller.thread, ino, None));
        }
        // It may have been renamed since.
        let fetched = fetched.filter(|Fetched(key, _)| *key == inode.key).map(|Fetched(_, entry)| entry);
        let asked = fetched.is_some();
        let known = fetched.or_else(|| self.cache.peek(&inode.key).map(|answer| answer.value));
        let Some(entry) = known else { return Ok(Plan::Fetch) };
        let Some(entry) = entry else { return key_gone(&mut state, caller, ino, retried) };
        match (current_revision, meta) {
            (Some(revision), _) if entry.meta.revision > revision => Ok(Plan::Fetch),
            // A listing told of a newer version than the value that is remembered.
            (Some(revision), Some(meta)) if entry.meta.revision < revision && !asked => {
                self.cache.mark_stale(&inode.key, meta.revision);
                Ok(Plan::Fetch)
            }
            (Some(revision), _) => {
                // Should it be the last known one while the store is down, the kernel must not keep it.
                let direct = entry.meta.revision < revision;
                state.end_redirect(caller.thread);
                Ok(Plan::Done(read_snapshot(&mut state, caller, ino, entry, direct)))
            }
            (None, _) if retried => {
                state.end_redirect(caller.thread);
                Ok(Plan::Done(self.open_direct(&mut state, caller, ino, entry, access)))
            }
            (None, _) => Err(send_to_draft(&mut state, caller, ino, entry, access)),
        }
    }

    fn join_local(
        &self,
        state: &mut State,
        caller: Caller,
        ino: Ino,
        draft: DraftId,
        access: Access,
    ) -> FsResult<Plan> {
        if (access.write || access.truncate) && state.deferred_at(ino)?.is_some() {
            return Ok(Plan::CarryOut);
        }
        let new = state.draft(draft).filter(|draft| draft.purpose == Publish::OnClose);
        let is_removed = state.inode(ino)?.unlinked;
        if new.is_some_and(|draft| is_removed && draft.handles == 0) {
            // The end of who wrote it took it away after it was looked up, and what is written now must not go nowhere.
            return Err(FsError::Superseded);
        }
        if new.is_some() {
            self.check_outage(access, true)?;
        }
        Ok(Plan::Done(self.join(state, caller, ino, draft, access)))
    }

    /// Says at once that a file cannot be written: most shells do not look at what close(2) says.
    fn check_outage(&self, access: Access, new: bool) -> FsResult<()> {
        if !access.write && !access.truncate {
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

    /// Serves an open that has no name to look up.
    fn open_direct(
        &self,
        state: &mut State,
        caller: Caller,
        ino: Ino,
        entry: Entry,
        access: Access,
    ) -> Opened {
        if !access.write && !access.truncate {
            return read_snapshot(state, caller, ino, entry, true);
        }
        let draft = state.add_draft(draft_of(entry, access));
        state.own_draft(draft, ino);
        if access.truncate {
            self.truncated(state, draft);
        }
        let fh = state.add_handle(handle(caller, ino, Content::Draft(draft), true, access.append));
        Opened { fh, direct: true, no_flush: false }
    }

    /// Opens a file that is shared by all who have it open.
    fn join(&self, state: &mut State, caller: Caller, ino: Ino, draft: DraftId, access: Access) -> Opened {
        let write = access.write || access.truncate;
        let never_published = |draft: &Draft| draft.purpose == Publish::OnClose && draft.published.is_none();
        if !write && state.draft(draft).is_some_and(never_published) {
            // A new key, which is being written or may be: nothing of it is there for others yet.
            let content = Content::Snapshot(Text::from([]), None);
            let fh = state.add_handle(handle(caller, ino, content, false, false));
            state.end_redirect(caller.thread);
            return Opened { fh, direct: true, no_flush: true };
        }
        // The redirect ends only after the handle holds the inode.
        let fh = state.add_handle(handle(caller, ino, Content::Draft(draft), write, access.append));
        state.end_redirect(caller.thread);
        if access.truncate {
            self.truncated(state, draft);
        }
        Opened { fh, direct: false, no_flush: !write }
    }

    /// `O_TRUNC`: overwrites whatever is there, as `set_key_value` does.
    fn truncated(&self, state: &mut State, draft: DraftId) {
        let now = state.now();
        if let Some(draft) = state.draft_mut(draft) {
            // A shared new file that is empty already stays clean.
            let fresh = draft.published.is_none() && draft.bytes.is_empty() && !draft.bytes.is_changed();
            if !fresh || self.settings.validate == Validate::None {
                draft.clear(now);
            }
            if !matches!(draft.expect, Expect::Absent) {
                draft.expect = Expect::Anything;
            }
        }
    }
}

/// What an open of an inode comes to whose key is gone.
fn key_gone(state: &mut State, caller: Caller, ino: Ino, retried: bool) -> FsResult<Plan> {
    let name = state.inode(ino)?.name.clone();
    if state.is_moving(&name) {
        return Ok(Plan::Await(name));
    }
    // The kernel looks its name up once, then there is no such file.
    if !retried {
        return Err(state.redirect(caller.thread, ino, None));
    }
    state.end_redirect(caller.thread);
    Err(FsError::NotFound)
}

/// Makes a draft inode for a writer of a key that exists, and sends the writer there.
fn send_to_draft(state: &mut State, caller: Caller, ino: Ino, entry: Entry, access: Access) -> FsError {
    let Ok(inode) = state.inode(ino) else { return FsError::NotFound };
    let (name, key) = (inode.name.clone(), inode.key.clone());
    let number = inode.number.or(Some(ino));
    let draft = state.add_draft(draft_of(entry, access));
    let target = state.add_inode(&name, &key, Body::Draft(draft));
    if let Some(inode) = state.inode_mut(target) {
        inode.number = number;
    }
    state.redirect(caller.thread, ino, Some(target))
}

fn read_snapshot(state: &mut State, caller: Caller, ino: Ino, entry: Entry, direct: bool) -> Opened {
    let content = Content::Snapshot(entry.text, Some(entry.meta));
    let fh = state.add_handle(handle(caller, ino, content, false, false));
    Opened { fh, direct, no_flush: true }
}

/// A draft that starts with the current value, or with nothing.
pub(crate) fn draft_of(entry: Entry, access: Access) -> Draft {
    let (text, expect) = if access.truncate {
        (Vec::new(), Expect::Anything)
    } else {
        (entry.text.to_vec(), Expect::At(entry.meta.revision))
    };
    let mut draft = Draft::new(text, Publish::OnClose, expect, entry.meta.modified);
    draft.published = Some(entry.meta);
    draft
}

pub(crate) fn handle(caller: Caller, ino: Ino, content: Content, writable: bool, append: bool) -> Handle {
    let (file, opener) = (FileNumber(0), caller.thread);
    Handle { ino, file, content, writable, append, opener, failed: None, refused: Vec::new() }
}

#[cfg(test)]
mod tests {
    use crate::store::Store;

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
}
