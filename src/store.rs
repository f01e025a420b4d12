//! The trait of a key-value store, in the words of Prefect's KV Store, and its implementations.
//!
//! Nothing in this module knows of files or of the kernel. A new store is one file below `store/`, one line in [`open`], and a
//! test file that runs the conformance suite.

mod attributes;
mod change;
mod counted;
mod deadline;
mod distrust;
mod error;
mod etcd;
pub mod feed;
mod full;
mod guarded;
mod http;
pub mod json;
mod location;
mod memory;
mod meta;
mod new_id;
mod prefect;
mod prefect_cloud;
mod prefix;
mod rename;
mod renewed;
mod settings;
mod sqlite;
mod synthetic_revisions;
mod trusted_http;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

pub use attributes::{Attributes, Given, with_attributes};
pub use change::Change;
pub use counted::{Call, Counted, Counters};
pub use deadline::Deadline;
pub use error::Error;
pub use etcd::{Address as EtcdAddress, EtcdStore, Settings as EtcdSettings};
pub use feed::{Feed, FeedSender};
pub use full::RETRY_AFTER;
pub use guarded::Guarded;
pub use location::Location;
pub use memory::MemoryStore;
pub use meta::{Meta, Revision};
pub use new_id::with_new_id;
pub use prefect::{Login as PrefectLogin, PrefectStore, Settings as PrefectSettings};
pub use prefect_cloud::{PrefectCloudStore, Settings as PrefectCloudSettings};
pub use prefix::{MovedPrefix, Prefixes, with_moved_prefix};
pub use rename::Rename;
pub use sqlite::SqliteStore;

pub use crate::sys::{Space, disk_space};

/// A key: any string the store accepts, the empty one included.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(Arc::from(text))
    }
}

impl fmt::Display for Key {
    /// Quoted and escaped: a key may hold control characters, and it ends up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The bytes of a value, shared between the cache and the readers that hold a snapshot.
pub type Text = Arc<[u8]>;

/// One key as read from a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// All but the value.
    pub meta: Meta,
    /// The value.
    pub text: Text,
}

/// All keys in order of their bytes, each with its metadata.
pub type Listing = Vec<(Key, Meta)>;

/// The precondition of a set or delete; if it does not hold the call fails with [`Error::Changed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No precondition.
    Anything,
    /// The key must not exist; else [`Error::Exists`].
    Absent,
    /// The key must exist at this revision.
    At(Revision),
}

impl Expect {
    /// Fails if it does not hold for the key at this revision, or for an absent one.
    pub fn check(self, there: Option<Revision>) -> Result<()> {
        match (self, there) {
            (Self::Anything, _) | (Self::Absent, None) => Ok(()),
            (Self::Absent, Some(_)) => Err(Error::Exists),
            (Self::At(revision), Some(there)) if revision == there => Ok(()),
            (Self::At(_), _) => Err(Error::Changed),
        }
    }
}

/// The limits of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest value in bytes, as [`counted_len`] counts them.
    pub value: usize,
    /// Largest key in bytes.
    pub key: usize,
    /// The characters allowed in keys; empty if any text is a key.
    pub key_chars: &'static str,
    /// Whether keys have tags.
    pub tags: bool,
}

impl Limits {
    /// Limits in bytes, for keys of any text.
    pub const fn bytes(value: usize, key: usize) -> Self {
        Self { value, key, key_chars: "", tags: false }
    }

    /// Fails if the store cannot have `key`.
    pub fn check_key(&self, key: &Key) -> Result<()> {
        let (text, size) = (key.as_str(), key.as_str().len());
        if size > self.key {
            return Err(Error::KeyTooLong { size, limit: self.key });
        }
        let allowed = text.chars().all(|char| self.key_chars.contains(char)) && !text.is_empty();
        if self.key_chars.is_empty() || allowed { Ok(()) } else { Err(Error::BadKey(self.key_chars)) }
    }

    /// The key most like `key` that the store can have: other letters in lower case, other characters as `_`.
    pub fn nearest(&self, key: &Key) -> Key {
        let like = |char: char| match char.to_ascii_lowercase() {
            char if self.key_chars.is_empty() || self.key_chars.contains(char) => char,
            _ => '_',
        };
        let mut text: String = key.as_str().chars().map(like).collect();
        if text.is_empty() && !self.key_chars.is_empty() {
            text.push('_');
        }
        while text.len() > self.key {
            text.pop();
        }
        text.into()
    }

    /// Fails if `key` or `text` is over a limit.
    pub fn check(&self, key: &Key, text: &[u8]) -> Result<()> {
        self.check_key(key)?;
        let size = counted_len(text);
        if size > self.value {
            return Err(Error::TooLarge { size, limit: self.value });
        }
        Ok(())
    }
}

/// The limit of Prefect's KV Store: 10 KB.
pub const VALUE_LIMIT: usize = 10_000;

/// The bytes of `text` that count against [`Limits::value`]: all but one final newline, which tools add.
pub fn counted_len(text: &[u8]) -> usize {
    text.len() - usize::from(text.last() == Some(&b'\n'))
}

/// A store that does not answer, or refuses what it is asked for.
#[derive(Clone, Debug)]
pub struct Down {
    /// When the failure was detected.
    pub since: Instant,
    /// When it last answered, if it has.
    pub answered: Option<Instant>,
    /// When it was last tried.
    pub tried: Instant,
    /// The error.
    pub why: Error,
}

/// Result of a store call.
pub type Result<T> = std::result::Result<T, Error>;

/// A key-value store. Every method may be called from many tasks at once. The first poll of a call never blocks its
/// thread; later ones may, because [`Guarded`] enforces the deadline from another task.
///
/// A set or delete that returned `Ok` is durable. One that failed changed nothing, except after
/// [`Error::TimedOut`], [`Error::Other`] and [`Error::Unsure`], when only the store knows.
#[async_trait]
pub trait Store: Send + Sync {
    /// Display name, without secrets: `sqlite:/var/lib/kvfs/kv.db`.
    fn name(&self) -> &str;

    /// The limits of keys and values.
    fn limits(&self) -> Limits;

    /// Whether a new key has the id that was chosen for it ([`with_new_id`]).
    fn takes_ids(&self) -> bool {
        false
    }

    /// Whether it keeps owner, mode and times with a key.
    fn keeps_attributes(&self) -> bool {
        false
    }

    /// Fails if the store cannot keep `text` under `key`, as far as that is known without a call to it.
    fn check(&self, key: &Key, text: &[u8]) -> Result<()> {
        self.limits().check(key, text)
    }

    /// The error with which a set would fail at once, if that is known.
    fn outage(&self) -> Option<Error> {
        None
    }

    /// Why the store can only be read, if so: whose permission is missing on which file.
    fn read_only(&self) -> Option<String> {
        None
    }

    /// The disk space of the store, if it is known.
    fn space(&self) -> Option<Space> {
        None
    }

    /// The outage, if the store is known not to answer.
    fn down(&self) -> Option<Down> {
        None
    }

    /// When the store last answered, if that is known.
    fn answered(&self) -> Option<Instant> {
        None
    }

    /// Since when the store refuses changes as busy, if that is known; it can be read meanwhile.
    fn busy(&self) -> Option<Down> {
        None
    }

    /// All keys, complete or an error, never cut. Does not read values if the store can avoid it.
    async fn list_keys(&self) -> Result<Listing>;

    /// As [`Store::list_keys`], with the value of each key if the store reads them anyway; else without any. If all
    /// values together are too large, those of the first keys only: the others are to be read one by one.
    async fn list_entries(&self) -> Result<(Listing, Vec<Text>)> {
        Ok((self.list_keys().await?, Vec::new()))
    }

    /// The value of `key`, or [`Error::NotFound`].
    async fn get_key_value(&self, key: &Key) -> Result<Entry>;

    /// Sets `key` and returns its new metadata. The id of an existing key stays.
    async fn set_key_value(&self, key: &Key, text: Text, expect: Expect) -> Result<Meta>;

    /// Deletes `key` and returns the revision of the deletion, or [`Error::NotFound`].
    async fn delete_key(&self, key: &Key, expect: Expect) -> Result<Revision>;

    /// Renames `from` to `to`, which keeps the id and the value of `from`. `at` is the precondition of `from`, `expect` that of `to`.
    ///
    /// Never a moment without either key: one transaction where the store has them, else a set and then a delete.
    async fn rename_key(&self, from: &Key, to: &Key, at: Expect, expect: Expect) -> Result<Meta> {
        let entry = self.get_key_value(from).await?;
        at.check(Some(entry.meta.revision))?;
        let meta = self.set_key_value(to, entry.text, expect).await?;
        if from == to {
            return Ok(meta);
        }
        self.delete_key(from, Expect::At(entry.meta.revision)).await.map_err(Error::unsure)?;
        Ok(meta)
    }

    /// Carries out all of `renames` or none of them, as one transaction; returns the new metadata, in their order. A source
    /// that is not at its revision is [`Error::Changed`], a target that exists [`Error::Exists`]. More than one
    /// transaction can hold are [`Error::TooMany`].
    async fn rename_keys(&self, renames: &[Rename]) -> Result<Vec<Meta>> {
        match renames {
            [] => Ok(Vec::new()),
            [one] => {
                let meta = self.rename_key(&one.from, &one.to, Expect::At(one.at), Expect::Absent).await;
                Ok(vec![meta.map_err(Rename::failed)?])
            }
            _ => Err(Error::TooMany(1)),
        }
    }

    /// Changes what is set in `changes` of the attributes of `key`, if it [keeps](Store::keeps_attributes) them; its value and
    /// version stay.
    async fn set_attributes(&self, _key: &Key, _changes: &Attributes) -> Result<Meta> {
        Err(Error::Other("this store keeps no attributes".into()))
    }

    /// The attributes that are kept of prefixes of keys.
    async fn list_prefixes(&self) -> Result<Prefixes> {
        Ok(Prefixes::new())
    }

    /// Changes the attributes that are kept of a prefix of keys, if the store [keeps](Store::keeps_attributes) those of keys;
    /// returns what they are now. Of one that is replaced those of longer ones that begin with it are gone, too.
    async fn set_prefix(&self, _prefix: &Key, _given: &Given) -> Result<Option<Arc<Attributes>>> {
        Err(Error::Other("this store keeps no attributes".into()))
    }

    /// The tags of `key`, if [`Limits::tags`] is set.
    async fn get_tags(&self, _key: &Key) -> Result<Vec<String>> {
        Err(Error::Other("keys of this store have no tags".into()))
    }

    /// Replaces the tags of `key`; its value stays.
    async fn set_tags(&self, _key: &Key, _tags: &[String]) -> Result<()> {
        Err(Error::Other("keys of this store have no tags".into()))
    }

    /// The remaining TTL of a `key` with a lease of its owner; `None` without a lease.
    async fn get_ttl(&self, _key: &Key) -> Result<Option<Duration>> {
        Ok(None)
    }

    /// How many keys that begin with `start` are skipped in listings, because they are not UTF-8.
    async fn count_left_out(&self, _start: &Key) -> Result<usize> {
        Ok(0)
    }

    /// The value that the feed has pushed with this version, if the store still holds it; the store drops it then.
    fn take_pushed_value(&self, _key: &Key, _revision: Revision) -> Option<Text> {
        None
    }

    /// Starts the change feed, if the store has one: all changes after this call, in order per key. It may
    /// omit changes made through this very value. A store that cannot promise that yet has sent [`Change::Paused`] by then.
    ///
    /// While the feed is complete cached answers are valid without limit; else for `--max-age`.
    fn changes(&self) -> Option<Feed>;

    /// Reads the credentials again from their files, although they are not refused.
    async fn renew_credentials(&self) {}

    /// Closes files and connections in good order; may wait for the disk. Later calls fail.
    fn close(&self) {}
}

/// Opens the store at `location`: counted, and guarded so that every call ends by the [`Deadline`] of who makes it, or else
/// within `timeout`. The error is one line for a person.
pub fn open(
    location: &Location,
    timeout: Duration,
) -> std::result::Result<(Arc<dyn Store>, Arc<Counters>), String> {
    let store: Arc<dyn Store> = match location {
        Location::Memory => Arc::new(MemoryStore::new()),
        Location::Sqlite(path) => Arc::new(SqliteStore::open(path, timeout)?),
        Location::Prefect(url) => {
            Arc::new(PrefectStore::open(&PrefectSettings::find(url.as_deref())?, timeout)?)
        }
        Location::PrefectCloud(url) => {
            Arc::new(PrefectCloudStore::open(&PrefectCloudSettings::find(url.as_deref())?, timeout)?)
        }
        Location::Etcd(address) => Arc::new(EtcdStore::open(&EtcdSettings::find(address.clone())?, timeout)?),
    };
    let counters = Arc::new(Counters::default());
    let counted = Arc::new(Counted::new(store, counters.clone()));
    Ok((Arc::new(Guarded::new(counted, timeout)), counters))
}
