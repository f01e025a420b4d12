//! What happens by itself: changes made by others come in, backups and temporary files come of age.

use std::sync::Arc;

use parking_lot::MutexGuard;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::fs::core::Fs;
use crate::fs::rules::names::parent;
use crate::fs::state::deferred::{Before, Deferred};
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::Body;
use crate::fs::state::tables::State;
use crate::fs::state::unlinked::unlinked_elsewhere;
use crate::fs::state::versions::Origin;
use crate::store::{Change, Key, Revision};

impl Fs {
    /// Takes pushed changes in until the feed ends; then answers age again.
    pub async fn follow_changes(self: Arc<Self>, mut feed: UnboundedReceiver<Change>) {
        while let Some(change) = feed.recv().await {
            let mut changes = vec![change];
            // A burst is told to the kernel at once.
            while let Ok(change) = feed.try_recv() {
                changes.push(change);
            }
            // What was known when changes were missed is what was told until then.
            let missed = changes.iter().position(|change| *change == Change::Everything);
            let rest = missed.map(|first| changes.split_off(first)).unwrap_or_default();
            for changes in [changes, rest].into_iter().filter(|changes| !changes.is_empty()) {
                self.apply_feed(changes).await;
            }
        }
        tracing::warn!(
            "the store no longer tells of changes; from now on answers are asked for again when they are old"
        );
        let invalidations = self.apply(&Change::Paused);
        self.invalidate_and_wait(invalidations).await;
    }

    /// Forgets what is remembered of the store, so that it is asked for anew, with the credentials that there are now.
    pub async fn ask_anew(self: Arc<Self>) {
        self.cache.renew_credentials().await;
        let told = self.cache.is_pushed();
        self.apply_feed(vec![Change::Everything]).await;
        if !told {
            self.apply_feed(vec![Change::Paused]).await;
        }
    }

    async fn apply_feed(self: &Arc<Self>, changes: Vec<Change>) {
        let keys = self.cache.last_keys().map(|answer| answer.value);
        let [paused, resumed, missed] =
            [Change::Paused, Change::Resumed, Change::Everything].map(|change| changes.contains(&change));
        self.apply_all(changes, |key| Some(self.peek_meta(key)?.value.is_some())).await;
        if missed || paused {
            self.compare_later(keys, missed);
        } else if resumed {
            self.compare_no_more();
        }
    }

    /// Takes changes in; those who watch are told once the kernel shows them. `was_there` tells which keys there were
    /// before, if it is known.
    pub(crate) async fn apply_all(
        self: &Arc<Self>,
        changes: Vec<Change>,
        was_there: impl Fn(&Key) -> Option<bool>,
    ) {
        let keys = self.cache.peek_keys().map(|answer| answer.value);
        let before = self.before(&changes, keys.as_ref(), was_there);
        let invalidations = changes.iter().flat_map(|change| self.apply(change)).collect();
        self.invalidate_and_wait(invalidations).await;
        self.announce_when_decided(changes, before);
    }

    /// Tells those who watch of changes; of keys that this mount is changing, at the end of that.
    pub(crate) fn announce_when_decided(self: &Arc<Self>, changes: Vec<Change>, before: Vec<Before>) {
        let changes = changes.into_iter().zip(before).collect();
        let decided = self.state.lock().defer_announcements(changes, &self.settings.names);
        self.tell(decided);
    }

    /// Tells those who watch of what is events to them.
    fn tell(self: &Arc<Self>, changes: Vec<(Change, Before)>) {
        let events = self.cache.journal().record(changes.iter().map(|(change, _)| change));
        let events =
            changes.into_iter().zip(events).filter_map(|(change, is_news)| is_news.then_some(change));
        self.announce(events.collect());
    }

    fn apply(self: &Arc<Self>, change: &Change) -> Vec<PathInvalidation> {
        let there = change.key().and_then(|key| {
            let told = self.cache.peek_listing(key).or_else(|| self.peek_meta(key))?;
            Some(told.value.is_some())
        });
        let known = self.is_known(change);
        self.cache.apply(change);
        self.publish_to_kernel(change, known, there)
    }

    /// Shows a change that the cache has taken in already; before that its key was `known` at this version, and was `there`
    /// or not, if that is known.
    fn publish_to_kernel(
        self: &Arc<Self>,
        change: &Change,
        known: bool,
        there: Option<bool>,
    ) -> Vec<PathInvalidation> {
        // Said late of a key that this mount has deleted since.
        if self.cache.is_past(change) {
            return Vec::new();
        }
        let mut state = self.state.lock();
        if known && state.shows(change, &self.settings.names)
            || state.is_superseded_by_backup(change, &self.settings.names)
        {
            return Vec::new();
        }
        if let Some(key) = change.key()
            && let Some(held) = state.paths_mut().in_flight_mut(&self.settings.names.encode(key))
        {
            held.events.push((change.clone(), there));
            return Vec::new();
        }
        match change {
            Change::Set(key, meta) => {
                let name = self.settings.names.encode(key);
                let overtaken = state.overtaken(&name);
                // The first version of a key of which nothing is known is its creation.
                let is_new = !there.unwrap_or(meta.created != meta.modified) && !state.is_local(&name);
                let mut invalidations = state.install_version(&name, meta, Origin::Remote);
                drop(state);
                self.keep_backup_later(overtaken);
                if is_new {
                    invalidations.extend(self.name_added(&name));
                }
                invalidations.extend(self.state.lock().appeared(&name));
                invalidations
            }
            Change::Deleted(key, revision) => {
                self.publish_deletion(state, (&self.settings.names.encode(key), *revision), there)
            }
            Change::Paused => state.all_changed(self.can_invalidate_all()),
            // What the kernel was told meanwhile it forgets by itself.
            Change::Resumed => Vec::new(),
            Change::Everything => {
                state.missed();
                state.all_changed(self.can_invalidate_all())
            }
        }
    }

    fn publish_deletion(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        (name, revision): (&str, Revision),
        there: Option<bool>,
    ) -> Vec<PathInvalidation> {
        state.note_change(name);
        let is_cached = |body: &Body| matches!(body, Body::Key(meta) if meta.revision < revision);
        let mut invalidations = Vec::new();
        let is_late =
            state.paths().deferred_rename(name).is_none_or(|deferred| deferred.meta.revision >= revision);
        let overtaken = if is_late { None } else { state.overtaken(name) };
        if there != Some(false) && !state.is_local(name) {
            state.touch(name);
            invalidations.push(PathInvalidation::Listing(parent(name).to_owned()));
        }
        if state.named(name).is_some_and(|(_, inode)| is_cached(&inode.body)) {
            unlinked_elsewhere(&mut state, name);
            invalidations = PathInvalidation::of_name(name);
        }
        drop(state);
        self.keep_backup_later(overtaken);
        // A key that was there for all that this mount knows it has not deleted itself.
        invalidations.extend(self.directories_emptied(name, there == Some(true)));
        invalidations
    }

    /// Takes in what was held back and is newer than this mount's own operation.
    pub(crate) fn end_change(self: &Arc<Self>, name: &str, own: Revision) {
        let Deferred { events, missed, unannounced, .. } = {
            let mut state = self.state.lock();
            state.paths_mut().take_in_flight(name).unwrap_or_default()
        };
        let newer = events.iter().filter(|(change, _)| match change {
            Change::Set(_, meta) => meta.revision > own,
            Change::Deleted(_, revision) => *revision > own,
            Change::Everything | Change::Paused | Change::Resumed => true,
        });
        let mut invalidations = Vec::new();
        if missed {
            let mut state = self.state.lock();
            if let Some(ino) = state.paths().current(name) {
                state.note_replaced(name, ino);
            }
            state.gone(name);
            invalidations = PathInvalidation::of_name(name);
        }
        invalidations.extend(
            newer.flat_map(|(change, there)| self.publish_to_kernel(change, self.is_known(change), *there)),
        );
        if invalidations.is_empty() && unannounced.is_empty() {
            return;
        }
        let fs = self.clone();
        // Without a runtime the mount has ended, and nobody is left to be told.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                fs.invalidate_and_wait(invalidations).await;
                fs.tell(unannounced);
            });
        }
    }

    /// Whether this mount made the change itself, or has read past it.
    fn is_known(&self, change: &Change) -> bool {
        let Change::Set(key, meta) = change else { return false };
        let known = self.cache.peek(key).and_then(|answer| answer.value);
        known.is_some_and(|entry| entry.meta.revision >= meta.revision)
    }
}

#[cfg(test)]
mod tests {
    use crate::fs::types::Ino;
    use tokio::sync::mpsc;

    use std::time::Duration;

    use tokio::sync::oneshot;

    use crate::cache::FOREVER;
    use crate::fs::kernel::Kernel;
    use crate::fs::state::invalidation::Invalidation;
    use crate::fs::types::{Caller, ROOT};
    use crate::store::Expect;

    use super::*;

    const MAX_AGE: Duration = Duration::from_secs(3);
    const CALLER: Caller = Caller { thread: 0, uid: 0, gid: 0 };

    /// Remembers what it was told.
    struct Told {
        can_invalidate_all: bool,
        invalidations: Arc<parking_lot::Mutex<Vec<Invalidation>>>,
    }

    impl Kernel for Told {
        fn can_invalidate_all(&self) -> bool {
            self.can_invalidate_all
        }

        fn invalidate(&self, invalidations: Vec<Invalidation>) -> oneshot::Receiver<()> {
            self.invalidations.lock().extend(invalidations);
            oneshot::channel().1
        }

        fn invalidate_inode(&self, _: Ino) -> bool {
            true
        }

        fn invalidate_all(&self) {}
    }

    fn mounted(can_invalidate_all: bool) -> (Arc<Fs>, Arc<parking_lot::Mutex<Vec<Invalidation>>>) {
        let ((fs, _), invalidations) = (Fs::in_memory(MAX_AGE), Arc::default());
        fs.attach(Box::new(Told { can_invalidate_all, invalidations: Arc::clone(&invalidations) }));
        (fs, invalidations)
    }

    /// What the kernel is told when changes were missed, and when the feed has ended, after a look at `k` and `none`;
    /// and for how long it may remember that `none` is absent.
    async fn told(can_invalidate_all: bool) -> (Vec<Invalidation>, Vec<Invalidation>, Duration) {
        let (fs, invalidations) = mounted(can_invalidate_all);
        fs.cache.set_key_value(&Key::from("k"), Arc::from(&b"1"[..]), Expect::Anything).await.unwrap();
        let look = |name: &str| fs.clone().lookup(CALLER, ROOT, name.to_owned());
        assert_eq!(look("k").await.unwrap().ttl, FOREVER);
        let absence = look("none").await.unwrap().ttl;
        let (sender, feed) = mpsc::unbounded_channel();
        sender.send(Change::Everything).unwrap();
        let follow = tokio::spawn(fs.clone().follow_changes(feed));
        let taken = || !invalidations.lock().is_empty();
        while !taken() {
            tokio::task::yield_now().await;
        }
        let missed = std::mem::take(&mut *invalidations.lock());
        look("k").await.unwrap();
        drop(sender);
        follow.await.unwrap();
        let ended = invalidations.lock().clone();
        (missed, ended, absence)
    }

    #[tokio::test]
    async fn a_kernel_that_can_drops_all_names_at_once() {
        let all = vec![Invalidation::Everything, Invalidation::Inode(ROOT, None)];
        assert_eq!(told(true).await, (all.clone(), all, FOREVER));
    }

    #[tokio::test]
    async fn a_kernel_that_cannot_is_told_of_each_name_and_forgets_absences_by_itself() {
        let each = vec![Invalidation::Entry(ROOT, "k".into()), Invalidation::Inode(ROOT, None)];
        assert_eq!(told(false).await, (each.clone(), each, MAX_AGE));
    }

    #[tokio::test]
    async fn a_directory_that_is_open_when_changes_are_missed_gives_out_nothing_for_long() {
        let (fs, _) = mounted(true);
        fs.cache.set_key_value(&Key::from("k"), Arc::from(&b"1"[..]), Expect::Anything).await.unwrap();
        let directory = fs.clone().open_directory(CALLER, ROOT).await.unwrap();
        let ttl = || {
            let mut seen = Duration::ZERO;
            fs.read_directory_plus(&directory, 2, |_, _, ttl| {
                seen = ttl;
                true
            });
            seen
        };
        assert_eq!(ttl(), FOREVER);
        fs.apply(&Change::Everything);
        assert_eq!(ttl(), Duration::ZERO);
    }

    #[tokio::test]
    async fn late_news_of_a_key_that_was_deleted_since_take_no_new_file_away() {
        let (fs, _) = mounted(true);
        let key = Key::from("k");
        let old = fs.cache.set_key_value(&key, Arc::from(&b"1"[..]), Expect::Anything).await.unwrap();
        fs.clone().unlink(CALLER, ROOT, "k".into()).await.unwrap();
        let made = fs.clone().make_file(CALLER, (ROOT, "k"), 0o666).await.unwrap().attr.unwrap();
        assert_eq!(fs.apply(&Change::Set(key, old)), []);
        let found = fs.clone().lookup(CALLER, ROOT, "k".into()).await.unwrap();
        assert_eq!(found.attr.map(|attr| attr.ino), Some(made.ino));
    }
}
