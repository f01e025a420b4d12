//! What `kvfs watch` is told: changes of keys as changes of files. It asks again and again, and no question waits: a
//! process that waits inside of a mount keeps it from being unmounted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::cache::{Answer, ChangeRecord, Keys};
use crate::fs::core::Fs;
use crate::fs::feed::baseline::WatchBaseline;
use crate::fs::rules::error::FsResult;
use crate::fs::rules::names::is_inside;
use crate::fs::state::nodes::Body;
use crate::fs::types::{Ino, ROOT};
use crate::store::{Change, Deadline, Key, Revision};

/// Largest answer in bytes. An extended attribute has at most 64 KiB.
const LARGEST: usize = 60 << 10;
/// The shortest time between two looks at a store without a feed.
const SHORTEST: Duration = Duration::from_millis(100);

/// What somebody watches.
enum Part {
    Whole,
    /// What is below this path.
    Directory(String),
    /// A file, and nothing else.
    File(Key),
}

impl Fs {
    /// A JSON document: the changes after `cursor` of the file, or in the directory, and the cursor behind them.
    pub(crate) async fn changes_after(self: &Arc<Self>, ino: Ino, cursor: &str) -> FsResult<String> {
        let part = self.part(ino)?;
        self.look(cursor.is_empty()).await?;
        let page = self.cache.journal().read(cursor);
        let (mut changes, mut size, mut seen) = (Vec::new(), 0, 0);
        for told in &page.changes {
            if let Some(mut change) = self.told(told, &part) {
                if change.to_string().len() > LARGEST {
                    change = missed(told.1);
                }
                size += change.to_string().len() + 1;
                if size > LARGEST && !changes.is_empty() {
                    break;
                }
                changes.push(change);
            }
            seen += 1;
        }
        Ok(json!({"cursor": page.cursor(seen), "changes": changes}).to_string())
    }

    fn part(&self, ino: Ino) -> FsResult<Part> {
        if ino == ROOT {
            return Ok(Part::Whole);
        }
        let state = self.state.lock();
        let inode = state.inode(ino)?;
        Ok(match inode.body {
            Body::Directory => Part::Directory(inode.name.clone()),
            Body::Key(_) | Body::Draft(_) | Body::Local(_) => Part::File(inode.key.clone()),
        })
    }

    /// A change for who watches `part`, if it is of that, by the name that the file has there.
    fn told(&self, (change, time): &ChangeRecord, part: &Part) -> Option<Value> {
        let of_key = |event: &str, key: &Key, revision: Revision| {
            let name = self.name_within(part, key)?;
            let time = shown(*time);
            Some(
                json!({"event": event, "key": key.as_str(), "name": name, "revision": revision.0, "time": time}),
            )
        };
        match change {
            Change::Set(key, meta) => of_key("set", key, meta.revision),
            Change::Deleted(key, revision) => of_key("deleted", key, *revision),
            Change::Prefix(..) => None,
            Change::Everything | Change::Paused | Change::Resumed => Some(missed(*time)),
        }
    }

    /// The path of the file of `key` below `part`; of a file within itself the empty one.
    fn name_within(&self, part: &Part, key: &Key) -> Option<String> {
        let path = || self.shown_path(&self.settings.names.encode(key));
        match part {
            Part::Whole => Some(path()),
            Part::File(file) => (file == key).then(String::new),
            Part::Directory(directory) => {
                let path = path();
                is_inside(&path, directory).then(|| path[directory.len() + 1..].to_owned())
            }
        }
    }

    /// From now on changes are not told, or some were `missed`: until then there were these `keys`. What differs from them
    /// is told by a look at the store.
    pub(crate) fn compare_later(self: &Arc<Self>, keys: Option<Keys>, missed: bool) {
        if missed && self.relay.is_on() {
            let fs = self.clone();
            tokio::spawn(async move {
                let mut baseline = fs.baseline.clone().lock_owned().await;
                baseline.listing = baseline.listing.take().or(keys);
                baseline.missed = true;
                fs.compare(baseline).await;
            });
        } else if let Ok(mut baseline) = self.baseline.try_lock() {
            baseline.listing = baseline.listing.take().or(keys);
        }
    }

    /// Changes are told again, and none was missed in the pause.
    pub(crate) fn compare_no_more(&self) {
        if let Ok(mut baseline) = self.baseline.try_lock()
            && !baseline.missed
        {
            baseline.listing = None;
        }
    }

    /// Looks at a store that does not tell of changes for those who do not ask: for `--notify`.
    pub async fn keep_looking(self: Arc<Self>) {
        let mut begin = true;
        loop {
            // What changes is told as a change of what there was.
            if self.cache.last_keys().is_none() {
                _ = self.cache.list_keys().await;
            }
            _ = self.look(begin).await;
            begin = false;
            tokio::time::sleep(self.cache.max_age().max(SHORTEST)).await;
        }
    }

    /// Looks at the keys of a store that does not tell of changes, or did not tell of some, if it is time. Who begins to
    /// watch one that does not tell waits for that: what changes from then on is told.
    async fn look(self: &Arc<Self>, begin: bool) -> FsResult<()> {
        if begin && !self.cache.is_pushed() {
            let baseline = Deadline::wait(self.baseline.clone().lock_owned()).await?;
            self.clone().compare(baseline).await;
        } else if let Ok(mut baseline) = self.baseline.clone().try_lock_owned() {
            if begin && !self.relay.is_on() {
                baseline.listing = None;
            }
            let is_time = baseline.at.is_none_or(|at| at.elapsed() >= self.cache.max_age().max(SHORTEST));
            if is_time && (baseline.listing.is_some() || !self.cache.is_pushed()) {
                tokio::spawn(self.clone().compare(baseline));
            }
        }
        Ok(())
    }

    async fn compare(self: Arc<Self>, mut baseline: OwnedMutexGuard<WatchBaseline>) {
        baseline.at = Some(Instant::now());
        // The last known one, while the store is down, is none of now.
        let is_of_now = |answer: &Answer<Keys>| !answer.ttl.is_zero() || answer.age.is_zero();
        let listing = self.cache.list_keys().await.ok().filter(is_of_now);
        let Some(Answer { value: listing, .. }) = listing else {
            baseline.no_baseline |= baseline.listing.is_none();
            return;
        };
        let pushed = self.cache.is_pushed();
        let before = if pushed { baseline.listing.take() } else { baseline.listing.replace(listing.clone()) };
        match before {
            Some(before) => {
                self.show_changes(self.cache.apply_difference(before, &listing)).await;
            }
            None if baseline.no_baseline => drop(self.cache.journal().record(&[Change::Everything])),
            None => {}
        }
        (baseline.no_baseline, baseline.missed) = (false, false);
    }
}

fn missed(time: SystemTime) -> Value {
    json!({"event": "missed", "time": shown(time)})
}

fn shown(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| time.to_string()).unwrap_or_default()
}
