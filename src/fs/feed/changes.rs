//! Changes of the store: they are installed in the tables, the kernel is invalidated, and then watchers are notified.

use std::sync::Arc;

use crate::cache::{Feed, KeyChange, KeyChanges, News, Origin};
use crate::fs::core::Fs;
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::versions;
use crate::store::{Change, Key};

impl Fs {
    /// Shows the messages of the cache, until the mount ends.
    pub async fn follow(self: Arc<Self>, mut feed: Feed) {
        loop {
            let news = feed.next().await;
            self.show(news).await;
        }
    }

    /// Forgets what is remembered of the store, so that it is asked for anew, with the credentials that there are now.
    pub async fn ask_anew(self: Arc<Self>) {
        for news in self.cache.ask_anew().await {
            self.show(news).await;
        }
    }

    /// Shows a message of the cache. Watchers are notified once the kernel shows it.
    pub(crate) async fn show(self: &Arc<Self>, news: News) {
        match news {
            News::Changes(changes) => self.show_changes(changes).await,
            News::Prefix(prefix, kept, at) => self.show_prefix(&prefix, kept.as_deref(), at),
            News::Paused(keys) => {
                self.look_all_up(false).await;
                self.compare_later(keys, false);
            }
            // Answers from the pause expire in the kernel by themselves.
            News::Resumed => self.compare_no_more(),
            News::Missed(keys) => {
                if let Err(error) = self.load_directories().await {
                    tracing::warn!("owner and mode of directories may be old: {error}");
                }
                self.look_all_up(true).await;
                self.cache.journal().record(&[Change::Everything]);
                self.compare_later(keys, true);
            }
        }
    }

    /// Shows changes of keys.
    pub(crate) async fn show_changes(self: &Arc<Self>, news: KeyChanges) {
        let watched = self.before(&news);
        let invalidations = self.install(&news);
        self.invalidate_and_wait(invalidations).await;
        let new = self.cache.journal().record(news.changes.iter().map(|applied| &applied.change));
        let events = news.changes.into_iter().zip(watched).zip(new);
        let events =
            events.filter_map(|((applied, before), is_new)| is_new.then_some((applied.change, before)));
        self.announce(events.collect(), news.after.as_ref());
    }

    /// Installs changes in the tables; what the kernel must drop then.
    fn install(self: &Arc<Self>, news: &KeyChanges) -> Vec<PathInvalidation> {
        let name = |key: &Key| self.settings.names.encode(key);
        // Those whose attributes are others now, and those whose name is gone.
        let (mut overtaken, mut expired) = (Vec::new(), Vec::new());
        let mut state = self.state.lock();
        let uncertain = news.uncertain.iter().flat_map(|key| state.forget_version(&name(key)));
        let mut invalidations: Vec<_> = uncertain.collect();
        for KeyChange { change, origin, was_there } in &news.changes {
            let Some(name) = change.key().map(name) else { continue };
            let is_shown = match origin {
                Origin::Own | Origin::Past => true,
                Origin::Known => state.shows(&name, change),
                Origin::Elsewhere => false,
            };
            if let Change::Set(_, meta) = change {
                expired.extend(state.follow_attributes(&name, meta));
                expired.extend(state.take_lost(&name));
            }
            if is_shown || state.is_superseded_by_backup(&name, change) {
                continue;
            }
            // A deletion of what is known to be gone may be this mount's own.
            if *origin == Origin::Elsewhere
                && (matches!(change, Change::Set(..)) || *was_there != Some(false))
            {
                state.forget_predecessor(&name);
            }
            overtaken.extend(state.overtaken_at(&name, change.revision()));
            if let Change::Set(_, meta) = change {
                // The first version of a key of which nothing is known is its creation.
                let is_new = !was_there.unwrap_or(meta.created != meta.modified) && !state.is_local(&name);
                invalidations.extend(state.install_version(&name, meta, versions::Origin::Remote));
                if is_new {
                    invalidations.extend(self.name_added(&mut state, &name, news.before.as_ref()));
                }
                invalidations.extend(state.appeared(&name));
            } else {
                expired.extend(state.writers(&name));
                invalidations.extend(state.deleted_elsewhere(&name, change.revision(), *was_there));
                let (keys, by_others) = (news.after.as_ref(), *was_there == Some(true));
                invalidations.extend(self.directories_emptied(&mut state, &name, keys, by_others));
            }
        }
        drop(state);
        self.expire_attributes(expired);
        for draft in overtaken {
            self.keep_backup_later(draft);
        }
        invalidations
    }

    /// Has the kernel look up every name anew; in the tables, too, if changes were `missed`.
    async fn look_all_up(self: &Arc<Self>, missed: bool) {
        let invalidations = {
            let mut state = self.state.lock();
            if missed {
                state.forget_versions();
            }
            state.all_changed(self.can_invalidate_all())
        };
        self.invalidate_and_wait(invalidations).await;
    }
}

#[cfg(test)]
mod tests {
    use crate::fs::types::Ino;
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
    struct Recorder {
        can_invalidate_all: bool,
        invalidations: Arc<parking_lot::Mutex<Vec<Invalidation>>>,
    }

    impl Kernel for Recorder {
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

        fn expire_attributes(&self, _: Ino) {}

        fn invalidate_all(&self) {}
    }

    fn mounted(can_invalidate_all: bool) -> (Arc<Fs>, Arc<parking_lot::Mutex<Vec<Invalidation>>>) {
        let ((fs, _), invalidations) = (Fs::in_memory(MAX_AGE), Arc::default());
        fs.attach(Box::new(Recorder { can_invalidate_all, invalidations: Arc::clone(&invalidations) }));
        (fs, invalidations)
    }

    /// What the kernel is told when changes were missed, and when they are not told any more, after a look at `k` and `none`;
    /// and for how long it may remember that `none` is absent.
    async fn told(can_invalidate_all: bool) -> (Vec<Invalidation>, Vec<Invalidation>, Duration) {
        let (fs, invalidations) = mounted(can_invalidate_all);
        fs.cache.set_key_value(&Key::from("k"), Arc::from(&b"1"[..]), Expect::Anything).await.unwrap();
        let look = |name: &str| fs.clone().lookup(CALLER, ROOT, name.to_owned());
        assert_eq!(look("k").await.unwrap().ttl, FOREVER);
        let absence = look("none").await.unwrap().ttl;
        fs.take_in(Change::Everything).await;
        let missed = std::mem::take(&mut *invalidations.lock());
        look("k").await.unwrap();
        fs.take_in(Change::Paused).await;
        let paused = invalidations.lock().clone();
        (missed, paused, absence)
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
        fs.take_in(Change::Everything).await;
        assert_eq!(ttl(), Duration::ZERO);
    }

    #[tokio::test]
    async fn late_news_of_a_key_that_was_deleted_since_take_no_new_file_away() {
        let (fs, invalidations) = mounted(true);
        let key = Key::from("k");
        let old = fs.cache.set_key_value(&key, Arc::from(&b"1"[..]), Expect::Anything).await.unwrap();
        fs.clone().unlink(CALLER, ROOT, "k".into()).await.unwrap();
        let made = fs.clone().make_file(CALLER, (ROOT, "k"), 0o666).await.unwrap().attr.unwrap();
        invalidations.lock().clear();
        fs.take_in(Change::Set(key, old)).await;
        assert_eq!(*invalidations.lock(), []);
        let found = fs.clone().lookup(CALLER, ROOT, "k".into()).await.unwrap();
        assert_eq!(found.attr.map(|attr| attr.ino), Some(made.ino));
    }
}
