//! What is known of a store, kept in a file for a start while the store does not answer.
//!
//! The file is a checksum and a JSON document, replaced as a whole by a rename.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::known::Known;
use super::{Cache, Keys};
use crate::store::{Entry, Key, Listing, Meta, Revision};
use crate::sys;

/// The format of the document.
const FORMAT: u32 = 1;
/// The bytes of the checksum before the document.
const CHECKSUM: usize = 4;
/// Bytes of the document for each key that may be remembered, beside its value.
const KEY_BYTES: usize = 512;
/// How far the clock may have been set back since.
const CLOCK_BACK: Duration = Duration::from_mins(1);

/// The file of one store in a private directory.
pub struct Offline {
    path: PathBuf,
    store: String,
    limit: usize,
}

/// What is known, with the times at which it was last confirmed.
#[derive(Serialize, Deserialize)]
pub struct Document {
    format: u32,
    store: String,
    listing: Option<List>,
    values: Vec<Value>,
}

#[derive(Serialize, Deserialize)]
struct List {
    confirmed: u64,
    keys: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Value {
    confirmed: u64,
    row: Row,
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Row {
    key: String,
    id: String,
    size: u64,
    created: Duration,
    modified: Duration,
}

impl Row {
    fn new(key: &Key, meta: &Meta) -> Self {
        let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (created, modified) = (since(meta.created), since(meta.modified));
        Self { key: key.as_str().into(), id: meta.id.to_string(), size: meta.size, created, modified }
    }

    /// Its revision is older than each that the store tells: servers without revisions count those of each process anew.
    fn read(self) -> Option<(Key, Meta)> {
        let time = |since| UNIX_EPOCH.checked_add(since);
        let (created, modified) = (time(self.created)?, time(self.modified)?);
        let (id, revision, attributes) = (self.id.into(), Revision(0), None);
        let meta = Meta { id, revision, size: self.size, created, modified, attributes };
        Some((self.key.into(), meta))
    }
}

impl Offline {
    /// The file of `store` in `directory`, which is made if it is missing; fails where other users may enter it.
    pub fn within(directory: &Path, store: &str, settings: &super::Settings) -> Result<Self, String> {
        let failed = |why: String| format!("{}: {why}", directory.display());
        sys::create_private_dir_all(directory).map_err(|error| failed(error.to_string()))?;
        let meta = fs::metadata(directory).map_err(|error| failed(error.to_string()))?;
        let (user, _) = sys::owner();
        if meta.uid() != user {
            return Err(failed(format!(
                "it belongs to user {}; name a directory of user {user}",
                meta.uid()
            )));
        }
        if meta.mode() & 0o077 != 0 {
            return Err(failed(format!(
                "other users may enter it, and values are kept there; chmod 700 {}",
                directory.display()
            )));
        }
        let legible: String =
            store.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }).collect();
        let start: String = legible.chars().take(64).collect();
        let name = format!("{start}-{:08x}.kept", crc32fast::hash(store.as_bytes()));
        let limit =
            settings.bytes.saturating_mul(2).saturating_add(settings.entries.get().saturating_mul(KEY_BYTES));
        Ok(Self { path: directory.join(name), store: store.into(), limit })
    }

    /// What was kept; `None` if there is nothing. The error says why the file is not used.
    pub fn read(&self) -> Result<Option<Document>, String> {
        let document = match self.read_file() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error.to_string()),
            Ok(bytes) => self.parse(&bytes),
        };
        document.map(Some).map_err(|why| format!("{} is ignored: {why}", self.path.display()))
    }

    fn read_file(&self) -> io::Result<Vec<u8>> {
        let file = OpenOptions::new().read(true).custom_flags(sys::NO_FOLLOW).open(&self.path)?;
        let meta = file.metadata()?;
        if !meta.is_file() || meta.uid() != sys::owner().0 || meta.mode() & 0o077 != 0 {
            return Err(io::Error::other("it is no file of this user alone"));
        }
        let mut bytes = Vec::new();
        file.take(self.limit as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > self.limit {
            return Err(io::Error::other("it is larger than --cache-size and --cache-entries allow"));
        }
        Ok(bytes)
    }

    fn parse(&self, bytes: &[u8]) -> Result<Document, String> {
        let damaged = || "it is damaged".to_owned();
        let (sum, text) = bytes.split_at_checked(CHECKSUM).ok_or_else(damaged)?;
        if sum != crc32fast::hash(text).to_le_bytes() {
            return Err(damaged());
        }
        let document: Document = serde_json::from_slice(text).map_err(|_| damaged())?;
        if document.format != FORMAT || document.store != self.store {
            return Err("it is of another store, or of another version of kvfs".into());
        }
        Ok(document)
    }

    /// Replaces what is kept by what `cache` knows.
    pub fn write(&self, cache: &Cache) -> io::Result<()> {
        let text = serde_json::to_vec(&cache.document(&self.store))?;
        if text.len() + CHECKSUM > self.limit {
            return Err(io::Error::other(
                "the listing is larger than --cache-size and --cache-entries allow",
            ));
        }
        let beside = self.path.with_extension(format!("{}.new", std::process::id()));
        let written = replace(&beside, &self.path, &[&crc32fast::hash(&text).to_le_bytes(), &text]);
        if written.is_err() {
            _ = fs::remove_file(&beside);
        }
        written
    }
}

fn replace(beside: &Path, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    // Left by a killed process with the same process id.
    _ = fs::remove_file(beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// The time of day so long ago, in seconds since 1970.
fn time_of(age: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(age).as_secs()
}

/// When that was. `None` if it is to come: the clock was set back, and nobody knows how long ago it was.
fn instant_of(confirmed: u64) -> Option<Instant> {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(confirmed))?;
    let age = match SystemTime::now().duration_since(time) {
        Ok(age) => age,
        Err(ahead) if ahead.duration() <= CLOCK_BACK => Duration::ZERO,
        Err(_) => return None,
    };
    Instant::now().checked_sub(age)
}

impl Cache {
    /// Another number whenever something was remembered or forgotten.
    pub fn edits(&self) -> u64 {
        let inner = self.inner.lock();
        inner.edits + inner.listings.edits
    }

    fn document(&self, store: &str) -> Document {
        let pushed = self.is_pushed();
        let inner = self.inner.lock();
        let confirmed =
            |at: Instant, stale: bool| time_of(if pushed && !stale { Duration::ZERO } else { at.elapsed() });
        let last = inner.listings.last();
        let is_there = |(key, known): &(&Key, &Known)| {
            last.is_none_or(|last| last.keys.meta(key).is_some())
                && !inner.listings.is_past(key, known.revision().unwrap_or_default())
        };
        let known = inner.known.iter().filter(is_there);
        let values = known.filter_map(|(key, known)| {
            let entry = known.value.as_ref()?;
            let (row, text) = (Row::new(key, &entry.meta), STANDARD.encode(&entry.text));
            Some(Value { confirmed: confirmed(known.at, known.stale), row, text })
        });
        let values = values.collect();
        let listing = last.map(|last| List {
            confirmed: confirmed(last.at, last.stale),
            keys: last.keys.iter().map(|(key, meta)| Row::new(key, meta)).collect(),
        });
        Document { format: FORMAT, store: store.into(), listing, values }
    }

    /// Takes in what was kept, as what only stands in while the store is down. The age of the youngest of it that may be
    /// shown; `None` if there is nothing.
    pub fn restore(&self, kept: Document) -> Option<Duration> {
        let mut inner = self.inner.lock();
        let young = |confirmed| instant_of(confirmed).filter(|at| self.may_show(at.elapsed()));
        let mut newest: Option<Instant> = None;
        if let Some((at, list)) = kept.listing.and_then(|list| Some((young(list.confirmed)?, list))) {
            let mut listing: Listing = list.keys.into_iter().filter_map(Row::read).collect();
            listing.sort_by(|one, other| one.0.cmp(&other.0));
            listing.dedup_by(|one, other| one.0 == other.0);
            inner.listings.restore(Keys::from(listing), at);
            newest = newest.max(Some(at));
        }
        for value in kept.values.into_iter().rev() {
            let Some(at) = young(value.confirmed) else { continue };
            let (Some((key, meta)), Ok(text)) = (value.row.read(), STANDARD.decode(value.text)) else {
                continue;
            };
            let value = Some(Entry { meta, text: Arc::from(text) });
            inner.remember(&key, Known { value, at, stale: true }, self.settings.bytes);
            newest = newest.max(Some(at));
        }
        newest.map(|at| at.elapsed())
    }
}
