//! The store's feed on its way up: the cache applies each change, and passes it on as one message that says what was known
//! before, and whose change it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::known::{Inner, Known};
use super::news::{KeyChange, KeyChanges, News, Origin};
use super::{Cache, Keys};
use crate::store::{self, Change, Key, Meta, Revision};

/// The messages of the cache about its store, in order per key.
pub struct Feed {
    cache: Arc<Cache>,
    store: Option<store::Feed>,
    /// Changes that are yet to be applied.
    waiting: VecDeque<Change>,
    first: Option<News>,
}

impl Feed {
    /// The next message, once there is one.
    pub async fn next(&mut self) -> News {
        if let Some(news) = self.first.take() {
            return news;
        }
        loop {
            if self.waiting.is_empty() {
                self.waiting = tokio::select! {
                    () = self.cache.released.notified() => VecDeque::new(),
                    changes = receive(&mut self.store) => changes,
                };
            }
            if let Some(news) = self.cache.take_in(&mut self.waiting) {
                return news;
            }
        }
    }
}

/// The next changes of the store. The end of its feed is a pause without an end.
async fn receive(feed: &mut Option<store::Feed>) -> VecDeque<Change> {
    let Some(open) = feed else { return std::future::pending().await };
    let Some(first) = open.recv().await else {
        *feed = None;
        tracing::warn!(
            "the store no longer pushes changes; from now on answers are asked for again when they are old"
        );
        return VecDeque::from([Change::Paused]);
    };
    std::iter::once(first).chain(open.take_waiting()).collect()
}

impl Cache {
    /// Follows the feed of the store from now on, if it has one; to be called before any key is asked for. While the store pushes
    /// changes, answers are good for ever.
    pub fn follow(self: &Arc<Self>) -> Feed {
        let mut store = self.store.changes();
        self.set_pushed(store.is_some());
        // A store that does not push changes yet has sent that.
        let mut waiting = store.as_mut().map(store::Feed::take_waiting).unwrap_or_default().into();
        let first = self.take_in(&mut waiting);
        Feed { cache: self.clone(), store, waiting, first }
    }

    /// Applies changes of the store; what is newer already stays.
    pub fn apply(&self, changes: impl Into<VecDeque<Change>>) -> Vec<News> {
        let mut changes = changes.into();
        std::iter::from_fn(|| self.take_in(&mut changes)).collect()
    }

    /// The next message: the changes that were withheld until now, or else the first ones of `changes`, which it applies.
    fn take_in(&self, changes: &mut VecDeque<Change>) -> Option<News> {
        let mut inner = self.inner.lock();
        if !inner.released.is_empty() {
            let released = std::mem::take(&mut inner.released);
            return Some(News::Changes(KeyChanges { after: self.good_keys(&inner), ..released }));
        }
        while !changes.is_empty() {
            let of_keys = changes.iter().take_while(|change| change.key().is_some()).count();
            let news = if of_keys > 0 {
                let (before, keys) = (self.good_keys(&inner), changes.drain(..of_keys));
                let applied =
                    self.apply_to_keys(&mut inner, keys, before, |inner, key| self.is_there(inner, key));
                (!applied.is_empty()).then_some(News::Changes(applied))
            } else {
                changes.pop_front().and_then(|change| self.apply_to_all(&mut inner, &change))
            };
            if news.is_some() {
                return news;
            }
        }
        None
    }

    /// Applies the changes between the listing `before` and the present one, `now`, which the store did not push.
    pub fn apply_difference(&self, before: Keys, now: &Keys) -> KeyChanges {
        // Where changes are pushed these were missed, and a store that was restored from a backup counts its versions anew.
        let latest = if self.is_pushed() { now.newest() } else { Revision(u64::MAX) };
        let changes = before.changes_until(now, latest);
        let listed = before.clone();
        let was_there = |_: &Inner, key: &Key| Some(listed.meta(key).is_some());
        self.apply_to_keys(&mut self.inner.lock(), changes.into_iter(), Some(before), was_there)
    }

    /// Forgets what is remembered of the store, so that it is asked for anew, with the credentials that there are now.
    pub async fn ask_anew(&self) -> Vec<News> {
        self.store.renew_credentials().await;
        let paused = (!self.is_pushed()).then_some(Change::Paused);
        self.apply(std::iter::once(Change::Everything).chain(paused).collect::<VecDeque<_>>())
    }

    fn set_pushed(&self, pushed: bool) {
        *self.paused_since.lock() = None;
        self.pushed.store(pushed, Ordering::Release);
    }

    fn apply_to_all(&self, inner: &mut Inner, change: &Change) -> Option<News> {
        let keys = inner.last_keys();
        match change {
            Change::Set(..) | Change::Deleted(..) => None,
            Change::Prefix(prefix, kept, revision) => {
                Some(News::Prefix(prefix.clone(), kept.clone(), *revision))
            }
            Change::Paused => {
                if self.is_pushed() {
                    self.set_pushed(false);
                    *self.paused_since.lock() = Some(Instant::now());
                    inner.revalidate();
                }
                Some(News::Paused(keys))
            }
            Change::Resumed => {
                self.set_pushed(true);
                Some(News::Resumed)
            }
            Change::Everything => {
                self.set_pushed(true);
                inner.mark_all_stale();
                Some(News::Missed(keys))
            }
        }
    }

    fn apply_to_keys(
        &self,
        inner: &mut Inner,
        changes: impl Iterator<Item = Change>,
        before: Option<Keys>,
        was_there: impl Fn(&Inner, &Key) -> Option<bool>,
    ) -> KeyChanges {
        let mut applied = Vec::new();
        for change in changes {
            let Some(key) = change.key().cloned() else { continue };
            let (origin, was_there) = (self.origin(inner, &change), was_there(inner, &key));
            let text = || self.store.take_pushed_value(&key, change.revision());
            inner.apply(&change, text, self.settings.bytes);
            applied.extend(inner.holds.withhold(KeyChange { change, origin, was_there }, before.as_ref()));
        }
        KeyChanges { changes: applied, before, after: self.good_keys(inner), uncertain: Vec::new() }
    }

    /// Whose a change is that is yet to be taken in, as far as that is certain: those of one key that is being changed are
    /// decided later.
    fn origin(&self, inner: &Inner, change: &Change) -> Origin {
        let Change::Set(key, Meta { revision, .. }) = change else { return Origin::Elsewhere };
        let known = self.good(inner, key).and_then(Known::revision);
        match known {
            _ if inner.listings.is_past(key, *revision) => Origin::Past,
            Some(known) if known >= *revision => Origin::Known,
            Some(_) | None => Origin::Elsewhere,
        }
    }

    /// Whether there is such a key, by the listing or by its value.
    fn is_there(&self, inner: &Inner, key: &Key) -> Option<bool> {
        let listed = self.good_keys(inner).map(|keys| keys.meta(key).is_some());
        listed.or_else(|| Some(self.good(inner, key)?.value.is_some()))
    }

    /// What is known of `key`, if it is still good.
    fn good<'a>(&self, inner: &'a Inner, key: &Key) -> Option<&'a Known> {
        inner.known.peek(key).filter(|known| !known.stale && !self.ttl(known.at).is_zero())
    }
}
