//! Renaming: of keys, of scratch files onto keys (which publishes once), and of keys to backup names (which is deferred
//! until no successor is to be expected any more).

use std::sync::Arc;

use crate::fs::core::Fs;
use crate::fs::ops::resolve::Resolved;
use crate::fs::rules::document::{Fault, Validate};
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::names::{Decoded, base, parent};
use crate::fs::state::drafts::Publish;
use crate::fs::state::nodes::Body;
use crate::fs::state::predecessors::Predecessor;
use crate::fs::state::tables::State;
use crate::fs::state::unlinked::unlinked;
use crate::fs::types::{Caller, DraftId, Ino};
use crate::store;
use crate::store::{Entry, Expect, Key, Text};

/// How often a key that somebody else keeps setting is tried to be renamed.
pub(crate) const RENAME_TRIES: u32 = 10;

/// The file to rename, as the tables know it.
enum Source {
    Local(Ino, DraftId),
    Key(Key),
}

impl Fs {
    /// As [`Fs::rename`], for all but the relay.
    pub(crate) async fn rename_name(
        self: Arc<Self>,
        caller: Caller,
        (from_within, from): (Ino, String),
        (to_within, to): (Ino, String),
        no_replace: bool,
    ) -> FsResult<()> {
        let from = match self.place(from_within, &from).await? {
            Resolved::File(path) => path,
            Resolved::Directory(path, _) => {
                self.writable()?;
                return self.rename_directory(caller, path, (to_within, &to), no_replace).await;
            }
            Resolved::Nothing(_) => return Err(FsError::NotFound),
        };
        let to = match self.place(to_within, &to).await? {
            Resolved::File(path) => path,
            Resolved::Directory(..) => return Err(FsError::IsDirectory),
            Resolved::Nothing(_) => return Err(FsError::BadName),
        };
        self.writable()?;
        let _staying = self.stay().await?;
        let parents = [parent(&from).to_owned(), parent(&to).to_owned()];
        match self.clone().rename_file(caller, from, to.clone(), no_replace).await {
            Err(why) if !why.is_routine() => return Err(self.put_back_after_rename(caller, &to, why).await),
            renamed => renamed?,
        }
        let mut state = self.state.lock();
        for path in &parents {
            state.keep_directory(path);
        }
        Ok(())
    }

    async fn rename_file(
        self: Arc<Self>,
        caller: Caller,
        from: String,
        to: String,
        no_replace: bool,
    ) -> FsResult<()> {
        let removal = self.begin_removal(&to).await;
        let in_the_way = |state: &State| state.deferred_before(caller.thread, &from, &to);
        let _operation = self.begin_after_renames(&[&from, &to], in_the_way).await?;
        let source = self.source(caller, &from).await?;
        let target = self.target(&to).await?;
        let there = match &target {
            Some(key) => self.cache.get_to_replace(key).await?,
            None => None,
        };
        let foreign = target.is_none();
        let target = target.unwrap_or_else(|| Key::from(to.as_str()));
        let deferred = self.state.lock().paths().deferred_rename(&to).is_some();
        let local =
            self.state.lock().named(&to).is_some_and(|(_, inode)| matches!(inode.body, Body::Local(_)));
        if no_replace && (local || there.is_some() && !deferred) {
            return Err(FsError::Exists);
        }
        // A key that was renamed to a backup name gives way.
        let expect = if no_replace && !deferred { Expect::Absent } else { Expect::Anything };
        let is_backup = self.settings.scratch.is_backup(base(&to), base(&from));
        let backup = foreign || there.is_none() && is_backup;
        let writers = self.state.lock().writers(&to);
        let renamed = match source {
            Source::Local(ino, draft) if backup => {
                self.move_local(ino, draft, &from, &to, &target, Publish::Never);
                Ok(())
            }
            Source::Local(ino, draft) => {
                self.rename_onto_key((ino, draft), &from, &to, (&target, there), expect).await
            }
            // A temporary file never takes the place of a key that would be gone with it.
            Source::Key(_) if foreign && !is_backup => Err(FsError::BadName),
            Source::Key(key) if backup => {
                self.rename_to_backup(caller, &key, &from, &to, (!foreign).then_some(&target)).await
            }
            Source::Key(key) => self.rename_key(caller, (&from, &key), (&to, &target), expect).await,
        };
        if renamed.is_ok() {
            let lost = self.state.lock().take_lost(&to);
            self.expire_attributes(writers.into_iter().chain(lost));
            for ino in removal.inos.into_iter().flatten() {
                self.state.lock().follow_replacement(ino);
            }
        }
        renamed
    }

    /// Renames a key in the store, at the version that is known.
    async fn rename_key(
        self: &Arc<Self>,
        caller: Caller,
        (from, key): (&str, &Key),
        (to, target): (&str, &Key),
        expect: Expect,
    ) -> FsResult<()> {
        let mut tries = 0;
        loop {
            let entry = self.cache.get_key_value(key).await?.value.ok_or(FsError::NotFound)?;
            let before = entry.meta.revision;
            match self.cache.rename_key(key, target, Expect::At(before), expect).await {
                Ok(meta) => {
                    let mut state = self.state.lock();
                    let attributes = state.paths().attributes(from);
                    let invalidations = state.renamed_key(from, to, target, before, &meta);
                    let removed = Predecessor::new(caller.thread, key.clone(), entry.text);
                    state.removed(from, removed.map(|removed| removed.with(attributes)));
                    drop(state);
                    self.invalidate_later(invalidations);
                    return Ok(());
                }
                // Set by somebody else since; the new value is renamed then.
                Err(store::Error::Changed) if tries < RENAME_TRIES => tries += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn source(&self, caller: Caller, from: &str) -> FsResult<Source> {
        {
            let state = self.state.lock();
            if state
                .paths()
                .deferred_rename(from)
                .is_some_and(|deferred| deferred.invisible_to(caller.thread))
            {
                return Err(FsError::NotFound);
            }
            if let Some((ino, inode)) = state.named(from)
                && let Body::Local(draft) = inode.body
            {
                return Ok(Source::Local(ino, draft));
            }
        }
        Ok(Source::Key(self.key_of(from).await?.ok_or(FsError::NotFound)?))
    }

    /// The key that a file renamed to `to` is; `None` for a name that only a scratch file may have.
    async fn target(&self, to: &str) -> FsResult<Option<Key>> {
        match self.settings.names.decode(to.as_ref()) {
            Decoded::Alias => Ok(Some(self.key_of(to).await?.ok_or(FsError::BadName)?)),
            Decoded::Key(_) | Decoded::Foreign | Decoded::Impossible => self.key_for_new(to),
        }
    }

    /// A local file under another local name.
    fn move_local(&self, ino: Ino, id: DraftId, from: &str, to: &str, target: &Key, purpose: Publish) {
        let mut state = self.state.lock();
        if state.paths().current(to).is_some() {
            unlinked(&mut state, to);
        }
        state.move_name(ino, from, to, target);
        if let Some(draft) = state.draft_mut(id) {
            draft.purpose = purpose;
        }
    }

    /// A local file becomes the value of a key: one set, or none if the key has this value.
    async fn rename_onto_key(
        self: &Arc<Self>,
        (ino, id): (Ino, DraftId),
        from: &str,
        to: &str,
        (target, there): (&Key, Option<Entry>),
        expect: Expect,
    ) -> FsResult<()> {
        let (id_of_new, text, moment, given) = {
            let state = self.state.lock();
            let draft = state.draft(id).ok_or(FsError::NotFound)?;
            if draft.bytes.is_empty() && self.settings.validate == Validate::Json {
                drop(state);
                if there.is_some() {
                    return Err(Fault::Empty.into());
                }
                self.move_local(ino, id, from, to, target, Publish::OnClose);
                return Ok(());
            }
            self.cache.limits().check(target, draft.bytes.text())?;
            self.settings.validate.check(draft.bytes.text())?;
            let given = self.given(state.paths().attributes(from), draft);
            (draft.new_id(), Text::from(draft.bytes.text()), draft.bytes.moment(), given)
        };
        let same = there.is_some_and(|entry| entry.text == text);
        // It may have another value by now.
        let now = if same { self.cache.ask_store(target).await.ok().flatten() } else { None };
        // One that says something of attributes is set again with them.
        let says_nothing = |had: bool| given.as_ref().is_none_or(|given| !had && given.attributes.are_none());
        let same = now.filter(|entry| entry.text == text && says_nothing(entry.meta.attributes.is_some()));
        let meta = if let Some(entry) = same {
            entry.meta
        } else {
            let set = self.cache.set_key_value(target, text, expect);
            store::with_new_id(id_of_new, store::with_attributes(given, set)).await?
        };
        let mut state = self.state.lock();
        state.paths_mut().take_deferred_rename(to);
        state.replace(to);
        state.move_name(ino, from, to, target);
        state.published_draft(ino, id, to, &meta, moment);
        state.follow_attributes(to, &meta);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::fs::state::versions::Origin;
    use crate::fs::types::{Access, ROOT};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn while_a_rename_over_it_is_in_flight_a_file_that_was_read_does_not_go_on_as_a_newer_version() {
        let (fs, _elsewhere) = Fs::in_memory(Duration::ZERO);
        let (caller, key) = (Caller { thread: 1, uid: 0, gid: 0 }, Key::from("k"));
        let text = |text: &str| Text::from(text.as_bytes());
        fs.cache.set_key_value(&key, text("1"), Expect::Anything).await.unwrap();
        let look = async || fs.clone().lookup(caller, ROOT, "k".into()).await.unwrap().attr.unwrap().ino;
        let home = look().await;
        let read = Access { write: false, append: false, truncate: false };
        let reader = fs.clone().open(caller, home, read).await.unwrap();
        let meta = fs.cache.set_key_value(&key, text("22"), Expect::Anything).await.unwrap();
        fs.state.lock().install_version("k", &meta, Origin::Remote);
        let write = Access { write: true, append: false, truncate: true };
        let (_, new) = fs.create(caller, (ROOT, ".k.tmp"), 0o644, write, false).unwrap();
        fs.write(new.fh, 0, b"333").unwrap();
        fs.clone().release(new.fh).await;
        let (operation, _) = fs.begin_at(home).await.unwrap();
        let rename =
            tokio::spawn(fs.clone().rename(caller, (ROOT, ".k.tmp".into()), (ROOT, "k".into()), false));
        tokio::task::yield_now().await;
        fs.clone().release(reader.fh).await;
        assert_ne!(look().await, home);
        drop(operation);
        rename.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_bound_file_follows_its_name_although_that_changed_while_the_rename_was_in_flight() {
        let (fs, _elsewhere) = Fs::in_memory(Duration::ZERO);
        let (caller, key) = (Caller { thread: 1, uid: 0, gid: 0 }, Key::from("k"));
        let text = |text: &str| Text::from(text.as_bytes());
        fs.cache.set_key_value(&key, text("1"), Expect::Anything).await.unwrap();
        let bound = fs.clone().lookup(caller, ROOT, "k".into()).await.unwrap().attr.unwrap().ino;
        let write = Access { write: true, append: false, truncate: true };
        let (_, new) = fs.create(caller, (ROOT, ".k.tmp"), 0o644, write, false).unwrap();
        fs.write(new.fh, 0, b"333").unwrap();
        fs.clone().flush(caller, new.fh, 0).await.unwrap();
        fs.clone().release(new.fh).await;
        let (operation, _) = fs.begin_at(bound).await.unwrap();
        let rename =
            tokio::spawn(fs.clone().rename(caller, (ROOT, ".k.tmp".into()), (ROOT, "k".into()), false));
        tokio::task::yield_now().await;
        let meta = fs.cache.set_key_value(&key, text("22"), Expect::Anything).await.unwrap();
        fs.state.lock().install_version("k", &meta, Origin::Read);
        drop(operation);
        rename.await.unwrap().unwrap();
        let read = Access { write: false, truncate: false, ..write };
        assert_eq!(fs.clone().open(caller, bound, read).await, Err(FsError::Superseded));
        let opened = fs.clone().open(caller, bound, read).await.unwrap();
        let size = fs.getattr(bound, None).unwrap().attr.unwrap().size;
        assert_eq!(size, 3);
        assert_eq!(fs.read(opened.fh, 0, 9, <[u8]>::to_vec).unwrap(), b"333");
    }
}
