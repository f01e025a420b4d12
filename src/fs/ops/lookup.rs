//! Names to inodes, and attributes.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::{Answer, FOREVER};
use crate::fs::core::Fs;
use crate::fs::ops::resolve::Resolved;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::names::{Decoded, base};
use crate::fs::state::nodes::Body;
use crate::fs::state::tables::State;
use crate::fs::state::versions::Origin;
use crate::fs::types::{Caller, Found, Ino};
use crate::store::{Error, Key, Meta};

/// What a name means once the store has been asked, if it had to be.
type Told = Answer<Option<Meta>>;

impl Fs {
    /// As [`Fs::lookup`], for all but the relay.
    pub(crate) async fn lookup_name(
        self: Arc<Self>,
        caller: Caller,
        within: Ino,
        name: String,
    ) -> FsResult<Found> {
        if let Ok(path) = self.path(within, &name) {
            self.await_end(&path).await?;
        }
        // While a directory is renamed it is not certain for long where things are.
        let staying = self.gates.try_stay();
        let found = match staying {
            Some(_) => self.clone().lookup_now(caller, within, &name).await,
            None => self.lookup_beside_move(caller, within, &name).await,
        };
        if !matches!(&found, Ok(Found { attr: Some(_), .. })) {
            self.state.lock().finds_nothing(caller.thread, &name);
        }
        let found = found?;
        let lasting = staying.is_some() && (found.attr.is_some() || !self.is_announced(within, &name));
        Ok(Found { ttl: if lasting { found.ttl } else { Duration::ZERO }, ..found })
    }

    /// Whether the relay is about to remove `name`, or something in it: the kernel may not remember that it is gone, for the
    /// relay must find it.
    fn is_announced(&self, within: Ino, name: &str) -> bool {
        self.relay.is_on() && self.path(within, name).is_ok_and(|path| self.relay.is_about(&path))
    }

    /// As [`Fs::lookup_now`], while a directory is renamed: what is not found may be there at the end of that.
    async fn lookup_beside_move(
        self: &Arc<Self>,
        caller: Caller,
        within: Ino,
        name: &str,
    ) -> FsResult<Found> {
        loop {
            let directory = self.state.lock().directory_path(within).unwrap_or_default();
            let found = self.clone().lookup_now(caller, within, name).await;
            let is_lost = matches!(&found, Err(FsError::NotFound) | Ok(Found { attr: None, .. }));
            if !is_lost || !self.await_move(within, &directory).await? {
                return found;
            }
        }
    }

    async fn lookup_now(self: Arc<Self>, caller: Caller, within: Ino, name: &str) -> FsResult<Found> {
        match self.place(within, name).await? {
            Resolved::Directory(path, ttl) => Ok(self.found_directory(&mut self.state.lock(), &path, ttl)),
            Resolved::Nothing(ttl) => Ok(Found { attr: None, ttl: self.absence(ttl) }),
            Resolved::File(path) => {
                self.forget_removed(&path);
                self.lookup_file(caller, path).await
            }
        }
    }

    async fn lookup_file(self: Arc<Self>, caller: Caller, name: String) -> FsResult<Found> {
        if let Some(found) = self.lookup_known(caller, &name, None) {
            return Ok(found);
        }
        let Some(key) = self.key_of(&name).await? else {
            return Ok(Found {
                attr: None,
                ttl: self.absence(if self.cache.is_pushed() { FOREVER } else { Duration::ZERO }),
            });
        };
        let mut told = self.ask(&name, &key).await?;
        if let Some(found) = self.lookup_known(caller, &name, Some((key.clone(), told))) {
            return Ok(found);
        }
        // The key changed between the answer and its use; should it do so again, the kernel may not rely on it.
        told = self.ask(&name, &key).await?;
        told.ttl = Duration::ZERO;
        let found = self.lookup_known(caller, &name, Some((key, told)));
        Ok(found.unwrap_or(Found { attr: None, ttl: Duration::ZERO }))
    }

    /// What the store says of `key`.
    async fn ask(self: &Arc<Self>, name: &str, key: &Key) -> FsResult<Told> {
        let told = match self.cache.get_key_value(key).await {
            Ok(told) => Answer { value: told.value.map(|entry| entry.meta), ttl: told.ttl, age: told.age },
            // The file is there, to be replaced or removed.
            Err(Error::Damaged(meta)) => {
                Answer { value: Some(meta), ttl: Duration::ZERO, age: Duration::ZERO }
            }
            Err(error) => return Err(error.into()),
        };
        // Without a change feed this is how a change of the key is noticed.
        let invalidations = match &told.value {
            Some(meta) => self.state.lock().install_version(name, meta, Origin::Read),
            None if !self.cache.is_pushed() => {
                self.state.lock().gone(name);
                Vec::new()
            }
            None => Vec::new(),
        };
        self.invalidate_later(invalidations);
        Ok(told)
    }

    /// Whether a change came in since the store told this of `key`. Asked under the lock of the tables: what comes in
    /// later finds what is made of the answer.
    fn is_overtaken(&self, key: &Key, told: &Told) -> bool {
        let now = self.cache.peek(key).map(|answer| answer.value.map(|entry| entry.meta));
        told.ttl == FOREVER && now.as_ref() != Some(&told.value)
    }

    /// The key that `name` stands for; `None` if no key can have it.
    pub(crate) async fn key_of(&self, name: &str) -> FsResult<Option<Key>> {
        match self.settings.names.decode(name.as_ref()) {
            Decoded::Key(key) => Ok(Some(key)),
            Decoded::Foreign | Decoded::Impossible => Ok(None),
            Decoded::Alias => {
                let known = self.state.lock().named(name).map(|(_, inode)| inode.key.clone());
                if known.is_some() {
                    return Ok(known);
                }
                let listing = self.cache.list_keys().await?.value;
                let named = |(key, _): &&(Key, Meta)| self.settings.names.encode(key) == name;
                Ok(listing.iter().find(named).map(|(key, _)| key.clone()))
            }
        }
    }

    /// The answer, if it can be given from memory (or from what the store just `told`).
    pub(crate) fn lookup_known(
        self: &Arc<Self>,
        caller: Caller,
        name: &str,
        told: Option<(Key, Told)>,
    ) -> Option<Found> {
        let mut state = self.state.lock();
        let again = self.looks_again(&mut state, caller, name);
        if let Some(ino) = self.redirected(&mut state, caller, name) {
            return self.found(&mut state, ino, Duration::ZERO);
        }
        let mut most = if again || state.is_away(name) { Duration::ZERO } else { FOREVER };
        if let Some(deferred) = state.paths().deferred_rename(name) {
            // Its successor is being written: gone for who renamed it, still there for everybody else.
            most = Duration::ZERO;
            if !deferred.invisible_to(caller.thread) {
                let ino = state.inode_for_others(name)?;
                return self.found(&mut state, ino, most);
            }
            if state.paths().current(name).is_none() {
                return Some(Found { attr: None, ttl: most });
            }
        }
        if let Some((ino, inode)) = state.named(name) {
            let ttl = match &inode.body {
                Body::Key(_) if self.cache.is_pushed() => FOREVER,
                Body::Key(meta) => self.lasting(&inode.key, meta, told.map(|(_, told)| told))?,
                Body::Local(_) if told.is_none() && self.may_be_set_by_now(&state, ino) => return None,
                // Once it is published the name leads elsewhere, and nobody needs to be told.
                Body::Local(_) | Body::Draft(_) | Body::Directory => Duration::ZERO,
            };
            if state.is_unpublished_to(ino, caller.thread) {
                let empty = state.empty_stand_in(ino);
                return self.found(&mut state, empty, Duration::ZERO);
            }
            let ino = if again { self.private(&mut state, ino) } else { ino };
            return self.found(&mut state, ino, ttl.min(most));
        }
        let (key, told) = match told {
            Some((key, told)) if self.is_overtaken(&key, &told) => return None,
            Some(told) => told,
            None => match self.settings.names.decode(name.as_ref()) {
                Decoded::Key(key) => {
                    let told = self.peek_meta(&key)?;
                    (key, told)
                }
                Decoded::Alias | Decoded::Foreign | Decoded::Impossible => return None,
            },
        };
        let Some(meta) = told.value else {
            let lasts = if state.may_come_back(name) { Duration::ZERO } else { told.ttl.min(most) };
            return Some(Found { attr: None, ttl: self.absence(lasts) });
        };
        let (ino, invalidations) = state.instantiate(name, &key, &meta);
        let ino = if again { self.private(&mut state, ino) } else { ino };
        let found = self.found(&mut state, ino, told.ttl.min(most));
        drop(state);
        self.invalidate_later(invalidations);
        found
    }

    /// Whether an open may follow that cannot be answered "look again" once more.
    fn looks_again(&self, state: &mut State, caller: Caller, name: &str) -> bool {
        let again = state.look_up(caller.thread, name);
        if again {
            // Who waits because he was taken for this one is sent to look again, too.
            self.unlocked.notify_waiters();
        }
        again
    }

    /// The inode that the caller was sent to look for. He may have given that open up: it is of the newest version that is known
    /// of its key, and of no use where that is gone.
    fn redirected(&self, state: &mut State, caller: Caller, name: &str) -> Option<Ino> {
        let ino = state.redirected(caller.thread, name)?;
        let newest = self.cache.peek(&state.inode(ino).ok()?.key).map(|answer| answer.value);
        match newest {
            Some(None) => {
                state.finds_nothing(caller.thread, base(name));
                return None;
            }
            Some(Some(entry)) => _ = state.rebase(ino, &entry),
            None => {}
        }
        Some(ino)
    }

    /// What is found by who was sent to look again, where others find `ino`.
    fn private(&self, state: &mut State, ino: Ino) -> Ino {
        let newest = state.inode(ino).ok().and_then(|inode| self.cache.peek(&inode.key)?.value);
        state.private(ino, newest)
    }

    /// For how long `key` is at this version, by what the store just `told` or what is remembered.
    fn lasting(&self, key: &Key, meta: &Meta, told: Option<Told>) -> Option<Duration> {
        let asked = told.is_some();
        let told = told.or_else(|| self.peek_meta(key))?;
        match told.value {
            Some(known) if known == *meta => Some(told.ttl),
            // A listing told of a newer version than the value that is remembered. While the store is down that is all
            // there is to be had.
            Some(known) if known.revision < meta.revision => {
                self.cache.mark_stale(key, meta.revision);
                (asked && told.ttl.is_zero()).then_some(Duration::ZERO)
            }
            Some(_) | None => None,
        }
    }

    /// Whether the key of a new file that is still empty may have been set by somebody else, for all that is known.
    fn may_be_set_by_now(&self, state: &State, ino: Ino) -> bool {
        state
            .empty_file(ino)
            .is_some_and(|(_, key)| self.peek_meta(&key).is_none_or(|told| told.value.is_some()))
    }

    /// For how long a name may be remembered as absent.
    fn absence(&self, ttl: Duration) -> Duration {
        if self.can_invalidate_all() { ttl } else { ttl.min(self.cache.max_age()) }
    }

    /// What is remembered of a key, from its value or from the listing.
    pub(crate) fn peek_meta(&self, key: &Key) -> Option<Told> {
        let known = self.cache.peek(key);
        let known = known.map(|answer| Answer {
            value: answer.value.map(|entry| entry.meta),
            ttl: answer.ttl,
            age: answer.age,
        });
        known.or_else(|| self.cache.peek_listing(key))
    }

    fn found(&self, state: &mut State, ino: Ino, ttl: Duration) -> Option<Found> {
        state.count_lookup(ino, ttl);
        let attr = self.attr_in(state, ino, None).ok()?;
        Some(Found { attr: Some(attr), ttl })
    }

    /// Drops `lookups` references of the kernel.
    pub fn forget(&self, ino: Ino, lookups: u64) {
        self.state.lock().forget(ino, lookups);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::types::{Access, ROOT};
    use crate::store::{Expect, Text};

    #[tokio::test(start_paused = true)]
    async fn who_was_sent_to_look_again_is_not_sent_once_more_where_a_file_comes_and_goes_meanwhile() {
        let fs = Fs::in_memory(Duration::ZERO).0;
        let (reader, other) = (Caller { thread: 1, uid: 0, gid: 0 }, Caller { thread: 2, uid: 0, gid: 0 });
        let make = async || {
            let text = Text::from(&b"1"[..]);
            fs.cache.set_key_value(&Key::from("k"), text, Expect::Anything).await.unwrap();
        };
        let look =
            async || fs.clone().lookup(reader, ROOT, "k".into()).await.unwrap().attr.map(|attr| attr.ino);
        let remove = async || fs.clone().unlink(other, ROOT, "k".into()).await.unwrap();
        let read = Access { write: false, append: false, truncate: false };
        make().await;
        let first = look().await.unwrap();
        remove().await;
        assert_eq!(fs.clone().open(reader, first, read).await, Err(FsError::Superseded));
        // The kernel revalidates the dentry that it has, and looks the name up when that is gone.
        assert_eq!(look().await, None);
        make().await;
        let second = look().await.unwrap();
        remove().await;
        assert_ne!(fs.clone().open(reader, second, read).await, Err(FsError::Superseded));
    }

    #[tokio::test]
    async fn the_kernel_remembers_no_absence_of_what_may_come_back() {
        let fs = Fs::in_memory(Duration::ZERO).0;
        let caller = Caller { thread: std::process::id(), uid: 0, gid: 0 };
        let text = Text::from(&b"1"[..]);
        fs.cache.set_key_value(&Key::from("k"), text, Expect::Anything).await.unwrap();
        let look = async |name: &str| fs.clone().lookup(caller, ROOT, name.into()).await.unwrap();
        assert!(look("k").await.attr.is_some());
        fs.clone().unlink(caller, ROOT, "k".into()).await.unwrap();
        let (removed, other) = (look("k").await, look("other").await);
        assert_eq!((removed.attr, removed.ttl), (None, Duration::ZERO));
        assert!(other.attr.is_none() && !other.ttl.is_zero());
    }
}
