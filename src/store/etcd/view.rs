//! The keys below the prefix, as a store shows them.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::api::{Api, Outcome};
use super::clock::Clock;
use super::failure::Failure;
use super::members::Member;
use super::wire::{Bytes, Header, Left, Pair, Range};
use super::witness::{Seen, Shown};
use crate::store::{Entry, Error, Key, Listing, Meta, Revision, Text};

/// Keys in the first page of a listing, and in the largest.
const FIRST_PAGE: u32 = 1_000;
const LAST_PAGE: u32 = 20_000;
/// Bytes of keys and values in a page: the server counts all later keys for each page, so few pages are fast, but each must
/// arrive in time on a slow line, too.
const PAGE_BYTES: usize = 4 << 20;
/// Bytes of values that a listing holds.
const TEXTS: usize = 64 << 20;
/// How many values that the watch has pushed are kept until they are taken, and the largest one in bytes.
const PUSHED: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();
const PUSHED_BYTES: usize = 16 << 10;
/// How many skipped keys are logged.
const SKIPPED: usize = 1_000;
/// How often a listing is restarted because its revision was compacted meanwhile.
const ROUNDS: usize = 3;

pub(super) struct View {
    pub(super) api: Api,
    prefix: String,
    /// Keys that are not UTF-8: they are skipped, and each is logged once.
    skipped_non_utf8: Mutex<HashSet<Bytes>>,
    /// Values that the watch has pushed of late.
    pushed: Mutex<LruCache<Key, (Revision, Text)>>,
    /// Versions that answers have shown, for [`Witness`](super::witness::Witness).
    pub(super) shown: Mutex<Shown>,
}

/// The pages of a listing so far.
#[derive(Default)]
struct Listed {
    listing: Listing,
    texts: Vec<Text>,
    bytes: usize,
    non_utf8: Vec<Bytes>,
}

impl View {
    pub(super) fn new(api: Api, prefix: String) -> Self {
        Self {
            api,
            prefix,
            skipped_non_utf8: Mutex::default(),
            pushed: Mutex::new(LruCache::new(PUSHED)),
            shown: Mutex::default(),
        }
    }

    /// Whether etcd can have the key: it has no empty one.
    pub(super) fn can_be(&self, key: &Key) -> bool {
        !(self.prefix.is_empty() && key.as_str().is_empty())
    }

    /// A key as it is sent.
    pub(super) fn sent(&self, key: &Key) -> Bytes {
        Bytes([self.prefix.as_bytes(), key.as_str().as_bytes()].concat())
    }

    /// The first key below the prefix, and the first one after all of them.
    pub(super) fn ends(&self) -> (Bytes, Bytes) {
        match self.prefix.strip_suffix('/') {
            Some(before) => (Bytes(self.prefix.clone().into()), Bytes([before.as_bytes(), b"0"].concat())),
            // All keys: etcd takes the range from `\0` to `\0` for that.
            None => (Bytes(vec![0]), Bytes(vec![0])),
        }
    }

    /// The key of a pair; `None` if it is not UTF-8.
    pub(super) fn key(&self, sent: &Bytes) -> Option<Key> {
        let name = sent.0.strip_prefix(self.prefix.as_bytes())?;
        std::str::from_utf8(name).ok().map(Key::from)
    }

    /// Keeps a value that the watch has pushed.
    pub(super) fn keep_pushed(&self, key: &Key, revision: Revision, value: &[u8]) {
        let mut pushed = self.pushed.lock();
        if value.len() <= PUSHED_BYTES {
            pushed.put(key.clone(), (revision, value.into()));
        } else {
            pushed.pop(key);
        }
    }

    /// The value that the watch has pushed with this version.
    pub(super) fn take_pushed(&self, key: &Key, revision: Revision) -> Option<Text> {
        let (kept, text) = self.pushed.lock().pop(key)?;
        (kept == revision).then_some(text)
    }

    pub(super) async fn get(&self, key: &Key) -> Outcome<Option<Entry>> {
        let range: Range = self.api.read("kv/range", &json!({"key": self.sent(key)})).await?;
        note(range.header);
        Ok(range.kvs.into_iter().next().map(|pair| self.entry(range.header.cluster, pair)))
    }

    fn entry(&self, cluster: u64, pair: Pair) -> Entry {
        self.see(&pair, &pair.value.0);
        let meta = meta(cluster, pair.made, pair.changed, pair.value.0.len());
        Entry { meta, text: Arc::from(pair.value.0) }
    }

    /// Records the version and value in an answer.
    pub(super) fn see(&self, pair: &Pair, value: &[u8]) {
        self.shown.lock().note(&pair.key.0, pair.changed, || Seen::there(pair, value));
    }

    /// Records that a key was deleted at this revision.
    pub(super) fn see_gone(&self, key: &Key, revision: Revision) {
        let key = self.sent(key);
        self.shown.lock().note(&key.0, revision.0, || Seen::gone(key.clone(), revision.0));
    }

    /// The remaining TTL of a key with a lease.
    pub(super) async fn left(&self, key: &Key) -> Outcome<Option<Duration>> {
        let body = json!({"key": self.sent(key), "keys_only": true});
        let range: Range = self.api.read("kv/range", &body).await?;
        let pair = range.kvs.into_iter().next().ok_or(Error::NotFound)?;
        if pair.lease == 0 {
            return Ok(None);
        }
        let left: Left = self.api.read("lease/timetolive", &json!({"ID": pair.lease.to_string()})).await?;
        Ok(Some(Duration::from_secs(u64::try_from(left.seconds).unwrap_or(0))))
    }

    /// The current revision of the cluster, by a linearizable read.
    pub(super) async fn now(&self) -> Outcome<Header> {
        let range: Range = self.api.read("kv/range", &self.cheap()).await?;
        Ok(range.header)
    }

    /// As [`View::now`], from this member, which has applied that revision then.
    pub(super) async fn now_at(&self, member: Member) -> Outcome<Header> {
        let range: Range = self.api.read_at(member, "kv/range", &self.cheap()).await?;
        Ok(range.header)
    }

    /// A read of one key, for the header of the answer.
    fn cheap(&self) -> Value {
        json!({"key": self.ends().0, "count_only": true})
    }

    /// All keys and the values of the first ones, as they were at one revision.
    pub(super) async fn list(&self) -> Outcome<(Listing, Vec<Text>)> {
        let mut round = 1;
        let listed = loop {
            match self.list_once().await {
                Err(Failure::Compacted) if round < ROUNDS => round += 1,
                listed => break listed?,
            }
        };
        self.log_skipped(listed.non_utf8);
        Ok((listed.listing, listed.texts))
    }

    /// Logs keys that are skipped because they are not UTF-8, each once.
    pub(super) fn log_skipped(&self, keys: impl IntoIterator<Item = Bytes>) {
        let mut skipped = self.skipped_non_utf8.lock();
        let (mut count, mut last) = (0, None);
        for key in keys {
            if skipped.len() < SKIPPED && skipped.insert(key.clone()) {
                count += 1;
                last = Some(key);
            }
        }
        let Some(last) = last else { return };
        let more = if skipped.len() < SKIPPED { "" } else { "; the log tells of no more such keys" };
        tracing::warn!(
            "{count} keys of the cluster are not UTF-8 and are left out, such as {}{more}",
            last.0.escape_ascii()
        );
    }

    /// How many keys that begin with `start` are not UTF-8.
    pub(super) async fn count_non_utf8(&self, start: &Key) -> Outcome<usize> {
        let mut from = self.sent(start);
        let mut end = from.clone();
        if let Some(last) = end.0.last_mut() {
            // No byte of UTF-8 is 0xff.
            *last += 1;
        } else {
            (from, end) = self.ends();
        }
        let mut count = 0;
        loop {
            let limit = LAST_PAGE.to_string();
            let body = json!({"key": from, "range_end": end, "limit": limit, "keys_only": true});
            let range: Range = self.api.read("kv/range", &body).await?;
            count += range.kvs.iter().filter(|pair| self.key(&pair.key).is_none()).count();
            match range.kvs.last().filter(|_| range.more) {
                Some(last) => from = Bytes([&last.key.0[..], b"\0"].concat()),
                None => return Ok(count),
            }
        }
    }

    async fn list_once(&self) -> Outcome<Listed> {
        let (mut from, end) = self.ends();
        let (mut listed, mut page, mut at) = (Listed::default(), FIRST_PAGE, None);
        loop {
            let mut body = json!({"key": from, "range_end": end, "limit": page.to_string()});
            if let Some(revision) = at {
                body["revision"] = Value::from(format!("{revision}"));
            }
            let range: Range = match self.api.read("kv/range", &body).await {
                Err(Failure::TooBig) if page > 1 => {
                    page = (page / 8).max(1);
                    continue;
                }
                range => range?,
            };
            note(range.header);
            at.get_or_insert(range.header.revision);
            let more = range.more;
            page = next_page(page, &range.kvs);
            for pair in range.kvs {
                from = Bytes([&pair.key.0[..], b"\0"].concat());
                self.take_in(&mut listed, range.header.cluster, pair);
            }
            if !more {
                return Ok(listed);
            }
        }
    }

    fn take_in(&self, listed: &mut Listed, cluster: u64, pair: Pair) {
        let Some(key) = self.key(&pair.key) else {
            listed.non_utf8.push(pair.key);
            return;
        };
        let Entry { meta, text } = self.entry(cluster, pair);
        listed.bytes += text.len();
        if listed.bytes <= TEXTS {
            listed.texts.push(text);
        }
        listed.listing.push((key, meta));
    }
}

/// The size of the page after one of so many keys that returned these.
fn next_page(page: u32, pairs: &[Pair]) -> u32 {
    let bytes: usize = pairs.iter().map(|pair| pair.key.0.len() + pair.value.0.len()).sum();
    let fitting = u32::try_from(PAGE_BYTES * pairs.len() / bytes.max(1)).unwrap_or(LAST_PAGE);
    fitting.clamp(1, LAST_PAGE.min(8 * page))
}

pub(super) fn meta(cluster: u64, made: u64, changed: u64, size: usize) -> Meta {
    let clock = Clock::of(cluster);
    let mut clock = clock.lock();
    Meta {
        id: Arc::from(made.to_string()),
        revision: Revision(changed),
        size: size as u64,
        created: clock.at(made),
        modified: clock.at(changed),
        attributes: None,
    }
}

/// Gives the current revision of a cluster the time of day.
pub(super) fn note(header: Header) {
    Clock::of(header.cluster).lock().at(header.revision);
}

/// The error for a value over the limit of a request. Such a key can be read, but not written or renamed.
pub(super) fn too_big(size: usize) -> Error {
    Error::TooLarge { size, limit: REQUEST }
}

/// Default limit of a server's requests in bytes.
const REQUEST: usize = 1_572_864;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_grows_to_a_few_megabytes_and_shrinks_to_them() {
        let next = |page: u32, size: usize| {
            let pair = || Pair { value: Bytes(vec![b'1'; size]), ..Pair::default() };
            next_page(page, &(0..page).map(|_| pair()).collect::<Vec<_>>())
        };
        assert_eq!([next(1_000, 0), next(1_000, 100), next(8_000, 100)], [8_000, 8_000, 20_000]);
        assert_eq!([next(1_000, 10_240), next(100, 100_000), next(2, PAGE_BYTES)], [409, 41, 1]);
    }
}
