//! What happens by itself: changes made by others come in, backups and temporary files come of age.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use super::drafts::{DraftId, Purpose};
use super::herald::Before;
use super::hidden::Hidden;
use super::inodes::{Body, Held, Ino, State};
use super::names::Names;
use super::unlink::unlinked;
use super::versions::By;
use super::{Fs, Notice};
use crate::store::{Change, Key, Revision};

/// How often backups and temporary files are looked after.
const TEND: Duration = Duration::from_millis(250);
/// A temporary file that holds a document and is left alone for this long becomes a key.
const PROMOTION: Duration = Duration::from_secs(2);

/// Renames to a backup name without a successor, and temporary files that became documents.
type Due = (Vec<(String, Hidden)>, Vec<(Ino, DraftId)>);

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
                self.take_in_told(changes).await;
            }
        }
        tracing::warn!(
            "the store no longer tells of changes; from now on answers are asked for again when they are old"
        );
        let notices = self.take_in(&Change::Paused);
        self.settle(notices).await;
    }

    /// Forgets what is remembered of the store, so that it is asked for anew, with the credentials that there are now.
    pub async fn ask_anew(self: Arc<Self>) {
        self.cache.renew_credentials().await;
        let told = self.cache.is_pushed();
        self.take_in_told(vec![Change::Everything]).await;
        if !told {
            self.take_in_told(vec![Change::Paused]).await;
        }
    }

    async fn take_in_told(self: &Arc<Self>, changes: Vec<Change>) {
        let keys = self.cache.last_keys().map(|answer| answer.value);
        let [paused, resumed, missed] =
            [Change::Paused, Change::Resumed, Change::Everything].map(|change| changes.contains(&change));
        self.take_in_all(changes, |key| Some(self.peek_meta(key)?.value.is_some())).await;
        if missed || paused {
            self.compare_later(keys, missed);
        } else if resumed {
            self.compare_no_more();
        }
    }

    /// Takes changes in; those who watch are told once the kernel shows them. `was_there` tells which keys there were
    /// before, if it is known.
    pub(super) async fn take_in_all(
        self: &Arc<Self>,
        changes: Vec<Change>,
        was_there: impl Fn(&Key) -> Option<bool>,
    ) {
        let keys = self.cache.peek_keys().map(|answer| answer.value);
        let before = self.before(&changes, keys.as_ref(), was_there);
        let notices = changes.iter().flat_map(|change| self.take_in(change)).collect();
        self.settle(notices).await;
        self.tell_in_time(changes, before);
    }

    /// Tells those who watch of changes; of keys that this mount is changing, at the end of that.
    pub(super) fn tell_in_time(self: &Arc<Self>, changes: Vec<Change>, before: Vec<Before>) {
        let changes = changes.into_iter().zip(before).collect();
        let decided = self.state.lock().hold_untold(changes, &self.settings.names);
        self.tell(decided);
    }

    /// Tells those who watch of what is news to them.
    fn tell(self: &Arc<Self>, changes: Vec<(Change, Before)>) {
        let news = self.cache.journal().tell(changes.iter().map(|(change, _)| change));
        let news = changes.into_iter().zip(news).filter_map(|(change, is_news)| is_news.then_some(change));
        self.announce(news.collect());
    }

    fn take_in(&self, change: &Change) -> Vec<Notice> {
        let taken = self.takes_away(change);
        let known = self.is_known(change);
        self.cache.apply(change);
        self.show(change, known, taken)
    }

    /// Shows a change that the cache has taken in already; before that its key was `known` at this version.
    /// Whether it is known to take a name away (`taken`).
    fn show(&self, change: &Change, known: bool, taken: bool) -> Vec<Notice> {
        // Said late of a key that this mount has deleted since.
        if self.cache.is_past(change) {
            return Vec::new();
        }
        let mut state = self.state.lock();
        if known && state.shows(change, &self.settings.names) || state.hides(change, &self.settings.names) {
            return Vec::new();
        }
        if let Some(key) = change.key()
            && let Some(held) = state.held.get_mut(&self.settings.names.encode(key))
        {
            held.news.push((change.clone(), taken));
            return Vec::new();
        }
        match change {
            Change::Set(key, meta) => {
                let name = self.settings.names.encode(key);
                // Somebody else's successor counts too.
                state.hidden.remove(&name);
                let mut notices = state.adopt(&name, meta, By::Others);
                drop(state);
                notices.extend(self.directories_after(change, &name, taken));
                notices
            }
            Change::Deleted(key, revision) => {
                let name = self.settings.names.encode(key);
                state.note_change(&name);
                let older = |body: &Body| matches!(body, Body::Key(meta) if meta.revision < *revision);
                let mut notices = Vec::new();
                if state.named(&name).is_some_and(|(_, inode)| older(&inode.body)) {
                    state.hidden.remove(&name);
                    unlinked_elsewhere(&mut state, &name);
                    notices = Notice::of_name(&name);
                }
                drop(state);
                notices.extend(self.directories_after(change, &name, taken));
                notices
            }
            Change::Paused => state.all_changed(self.drops_everything()),
            // What the kernel was told meanwhile it forgets by itself.
            Change::Resumed => Vec::new(),
            Change::Everything => {
                state.held.values_mut().for_each(|held| held.missed = true);
                let keys = state.names.iter().filter(|(_, ino)| {
                    state.inodes.get(ino).is_some_and(|inode| matches!(inode.body, Body::Key(_)))
                });
                let keys: Vec<(String, Ino)> = keys.map(|(name, ino)| (name.clone(), *ino)).collect();
                for (name, ino) in keys {
                    state.note_replaced(&name, ino);
                    state.remove_name(&name);
                }
                state.touch("");
                state.all_changed(self.drops_everything())
            }
        }
    }

    /// Holds back news of `name` while this mount changes it in the store.
    pub(super) fn hold_changes(&self, name: &str) {
        self.state.lock().held.entry(name.to_owned()).or_default().operations += 1;
    }

    /// Takes in what was held back and is newer than this mount's own operation.
    pub(super) fn release_changes(self: &Arc<Self>, name: &str, own: Revision) {
        let Held { news, missed, untold, .. } = {
            let mut state = self.state.lock();
            let Some(held) = state.held.get_mut(name) else { return };
            held.operations -= 1;
            if held.operations > 0 {
                return;
            }
            state.held.remove(name).unwrap_or_default()
        };
        let newer = news.iter().filter(|(change, _)| match change {
            Change::Set(_, meta) => meta.revision > own,
            Change::Deleted(_, revision) => *revision > own,
            Change::Everything | Change::Paused | Change::Resumed => true,
        });
        let mut notices = Vec::new();
        if missed {
            let mut state = self.state.lock();
            if let Some(ino) = state.names.get(name).copied() {
                state.note_replaced(name, ino);
            }
            state.gone(name);
            notices = Notice::of_name(name);
        }
        notices.extend(newer.flat_map(|(change, taken)| self.show(change, self.is_known(change), *taken)));
        if untold.is_empty() {
            return self.settle_later(notices);
        }
        let fs = self.clone();
        tokio::spawn(async move {
            fs.settle(notices).await;
            fs.tell(untold);
        });
    }

    /// Whether a change that is yet to be taken in deletes a key that is there for all that is known: then it was not made
    /// here.
    fn takes_away(&self, change: &Change) -> bool {
        let Change::Deleted(key, _) = change else { return false };
        self.cache.peek_listing(key).is_some_and(|answer| answer.value.is_some())
    }

    /// Whether this mount made the change itself, or has read past it.
    fn is_known(&self, change: &Change) -> bool {
        let Change::Set(key, meta) = change else { return false };
        let known = self.cache.peek(key).and_then(|answer| answer.value);
        known.is_some_and(|entry| entry.meta.revision >= meta.revision)
    }

    /// Looks after backups and temporary files for ever.
    pub async fn tend(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TEND).await;
            let (over, grown) = self.due();
            for (name, hidden) in over {
                let staying = self.moving.read().await;
                let finished = self.finish_rename(&name, &hidden).await;
                drop(staying);
                match finished {
                    Ok(()) => _ = self.settle(Notice::of_name(&name)).await,
                    Err(error) => self.note_late(&name, &format!("renamed, but not deleted yet: {error}")),
                }
            }
            for (ino, id) in grown {
                if let Err(error) = self.publish(ino, id).await {
                    tracing::warn!("{:?} could not become a key: {error}", self.name_of(ino));
                }
            }
            let fs = self.clone();
            _ = tokio::task::spawn_blocking(move || fs.aside.tend()).await;
        }
    }

    /// What has come of age.
    fn due(&self) -> Due {
        let state = self.state.lock();
        let over = state.hidden.iter().filter(|(name, hidden)| hidden.is_over() && !state.is_drafted(name));
        let over = over.map(|(name, hidden)| (name.clone(), hidden.clone())).collect();
        let grown = state.drafts.iter().filter(|(_, draft)| {
            draft.purpose == Purpose::Soft
                && draft.handles == 0
                && draft.refused.is_none()
                && !draft.orphan
                && draft.touched.elapsed() > PROMOTION
                && !draft.text.is_empty()
                && draft.check(&self.cache.limits(), self.settings.validate).is_ok()
        });
        let grown = grown.map(|(id, draft)| (draft.ino, *id)).collect();
        (over, grown)
    }
}

impl State {
    /// Holds back changes of keys that this mount is changing: whether they are its own is known at the end of that.
    fn hold_untold(&mut self, changes: Vec<(Change, Before)>, names: &Names) -> Vec<(Change, Before)> {
        if self.held.is_empty() {
            return changes;
        }
        let mut decided = Vec::new();
        for (change, before) in changes {
            let held = change.key().and_then(|key| self.held.get_mut(&names.encode(key)));
            held.map_or(&mut decided, |held| &mut held.untold).push((change, before));
        }
        decided
    }

    /// Whether the name of a key that was set leads to this version of it.
    fn shows(&self, change: &Change, names: &Names) -> bool {
        let Change::Set(key, meta) = change else { return false };
        let shown = self.named(&names.encode(key)).map(|(_, inode)| &inode.body);
        matches!(shown, Some(Body::Key(known)) if known.revision >= meta.revision)
    }
}

/// A key deleted by somebody else. A draft that is open for it stays: its publish finds out.
fn unlinked_elsewhere(state: &mut State, name: &str) {
    let writers: Vec<DraftId> =
        state.drafts.iter().filter(|(_, draft)| !draft.orphan).map(|(id, _)| *id).collect();
    unlinked(state, name);
    for id in writers {
        let Some(draft) = state.drafts.get_mut(&id) else { continue };
        draft.orphan = false;
        let ino = draft.ino;
        if let Some(inode) = state.inodes.get_mut(&ino) {
            inode.unlinked = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::super::{Caller, Drop, Kernel, ROOT};
    use super::*;
    use crate::cache::FOREVER;
    use crate::store::Expect;

    const MAX_AGE: Duration = Duration::from_secs(3);
    const CALLER: Caller = Caller { thread: 0, uid: 0, gid: 0 };

    /// Remembers what it was told.
    struct Told {
        drops_everything: bool,
        notices: Arc<parking_lot::Mutex<Vec<Drop>>>,
    }

    impl Kernel for Told {
        fn drops_everything(&self) -> bool {
            self.drops_everything
        }

        fn tell(&self, drops: Vec<Drop>) -> oneshot::Receiver<()> {
            self.notices.lock().extend(drops);
            oneshot::channel().1
        }

        fn drop_inode(&self, _: Ino) -> bool {
            true
        }

        fn drop_names(&self) {}
    }

    fn mounted(drops_everything: bool) -> (Arc<Fs>, Arc<parking_lot::Mutex<Vec<Drop>>>) {
        let ((fs, _), notices) = (Fs::in_memory(MAX_AGE), Arc::default());
        fs.attach(Box::new(Told { drops_everything, notices: Arc::clone(&notices) }));
        (fs, notices)
    }

    /// What the kernel is told when changes were missed, and when the feed has ended, after a look at `k` and `none`;
    /// and for how long it may remember that `none` is absent.
    async fn told(drops_everything: bool) -> (Vec<Drop>, Vec<Drop>, Duration) {
        let (fs, notices) = mounted(drops_everything);
        fs.cache.set_key_value(&Key::from("k"), Arc::from(&b"1"[..]), Expect::Anything).await.unwrap();
        let look = |name: &str| fs.clone().lookup(CALLER, ROOT, name.to_owned());
        assert_eq!(look("k").await.unwrap().ttl, FOREVER);
        let absence = look("none").await.unwrap().ttl;
        let (sender, feed) = mpsc::unbounded_channel();
        sender.send(Change::Everything).unwrap();
        let follow = tokio::spawn(fs.clone().follow_changes(feed));
        let taken = || !notices.lock().is_empty();
        while !taken() {
            tokio::task::yield_now().await;
        }
        let missed = std::mem::take(&mut *notices.lock());
        look("k").await.unwrap();
        drop(sender);
        follow.await.unwrap();
        let ended = notices.lock().clone();
        (missed, ended, absence)
    }

    #[tokio::test]
    async fn a_kernel_that_can_drops_all_names_at_once() {
        let all = vec![Drop::Everything, Drop::Inode(ROOT, None)];
        assert_eq!(told(true).await, (all.clone(), all, FOREVER));
    }

    #[tokio::test]
    async fn a_kernel_that_cannot_is_told_of_each_name_and_forgets_absences_by_itself() {
        let each = vec![Drop::Entry(ROOT, "k".into()), Drop::Inode(ROOT, None)];
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
        fs.take_in(&Change::Everything);
        assert_eq!(ttl(), Duration::ZERO);
    }

    #[tokio::test]
    async fn late_news_of_a_key_that_was_deleted_since_take_no_new_file_away() {
        let (fs, _) = mounted(true);
        let key = Key::from("k");
        let old = fs.cache.set_key_value(&key, Arc::from(&b"1"[..]), Expect::Anything).await.unwrap();
        fs.clone().unlink(CALLER, ROOT, "k".into()).await.unwrap();
        let made = fs.clone().make_file(CALLER, (ROOT, "k"), 0o666).await.unwrap().attr.unwrap();
        assert_eq!(fs.take_in(&Change::Set(key, old)), []);
        let found = fs.clone().lookup(CALLER, ROOT, "k".into()).await.unwrap();
        assert_eq!(found.attr.map(|attr| attr.ino), Some(made.ino));
    }
}
