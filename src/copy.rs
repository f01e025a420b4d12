//! Copies all keys of one store into another: the way from Prefect 1.x to Prefect 3, or between any two stores. Nothing
//! is dropped: each key that the other store cannot have is named, with the reason.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::failure::Failure;
use crate::logging;
use crate::store::{self, Attributes, Entry, Error, Expect, Given, Key, Location, Store, Text, json};
use crate::threads;

/// What to copy and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The source.
    pub from: Location,
    /// The target.
    pub to: Location,
    /// Give keys that the other store cannot have the nearest name that it can.
    pub rename: bool,
    /// Replace other values of the same keys.
    pub replace: bool,
    /// Print what would be done, and change nothing.
    pub dry_run: bool,
    /// Deadline of a store call.
    pub timeout: Duration,
}

/// Copies, and prints the result for each key. Fails if any key was not copied.
pub fn start(settings: &Settings) -> Result<(), Failure> {
    logging::to_stderr("warn", "");
    let runtime = threads::runtime("kvfs-copy", 1, 0)?;
    let _entered = runtime.enter();
    let open =
        |location| store::open(location, settings.timeout).map(|(store, _)| store).map_err(Failure::Store);
    let (from, to) = (open(&settings.from)?, open(&settings.to)?);
    let failed = |name: &str, error: &Error| Failure::Store(error.describe(name));
    let ended = runtime.block_on(async {
        let (listing, texts) = from.list_entries().await.map_err(|error| failed(from.name(), &error))?;
        let mut copy = Copy::new(settings, &from, &to).await.map_err(|error| failed(to.name(), &error))?;
        // Keys that keep their names come first: no other one may get such a name.
        let mut order: Vec<_> = listing.into_iter().enumerate().collect();
        order.sort_by_key(|(_, (key, _))| copy.name(key) != *key);
        copy.taken = order.iter().map(|(_, (key, _))| (key.clone(), key.clone())).collect();
        for (index, (key, meta)) in order {
            let entry = match texts.get(index) {
                Some(text) => Ok(Entry { meta, text: text.clone() }),
                None => from.get_key_value(&key).await,
            };
            match entry {
                Ok(entry) => copy.one(&key, &entry).await.map_err(|error| failed(to.name(), &error))?,
                // Deleted since it was listed.
                Err(Error::NotFound) => {}
                Err(error @ Error::Damaged(_)) => copy.not(&key, &error.to_string()),
                Err(error) => return Err(failed(from.name(), &error)),
            }
        }
        copy.all_prefixes().await.map_err(|error| failed(to.name(), &error))?;
        copy.sum_up()
    });
    from.close();
    to.close();
    ended
}

struct Copy<'a> {
    settings: &'a Settings,
    from: Arc<dyn Store>,
    to: Arc<dyn Store>,
    /// The entries of the target, if its listing has values.
    there: Option<HashMap<Key, Text>>,
    /// New names so far, each with the key that has it.
    taken: HashMap<Key, Key>,
    /// Counts: copied, there already, not copied.
    counts: [usize; 3],
    /// Keys whose attributes the target cannot keep.
    bare: usize,
}

enum Outcome {
    Copied,
    There,
    /// With the reason.
    Not(String),
}

impl<'a> Copy<'a> {
    async fn new(settings: &'a Settings, from: &Arc<dyn Store>, to: &Arc<dyn Store>) -> store::Result<Self> {
        let (listing, texts) = to.list_entries().await?;
        let complete = !texts.is_empty() && texts.len() == listing.len();
        let there = complete.then(|| listing.into_iter().map(|(key, _)| key).zip(texts).collect());
        let (from, to) = (from.clone(), to.clone());
        Ok(Self { settings, from, to, there, taken: HashMap::new(), counts: [0; 3], bare: 0 })
    }

    /// Copies one key; fails only if the store fails.
    async fn one(&mut self, key: &Key, entry: &Entry) -> store::Result<()> {
        let name = self.name(key);
        let outcome = match self.taken.get(&name).filter(|other| *other != key) {
            Some(other) if *other == name => Outcome::Not(format!("there is a key {name} already")),
            Some(other) => Outcome::Not(format!("{other} has become {name} already")),
            None => self.put(key, &name, entry).await?,
        };
        let renamed = if name == *key { String::new() } else { format!(" as {name}") };
        let line = match &outcome {
            Outcome::Copied => {
                Some(format!("{key} copied{renamed}")).filter(|_| self.settings.dry_run || name != *key)
            }
            Outcome::There => None,
            Outcome::Not(why) => Some(format!("{key} not copied{renamed}: {why}")),
        };
        if let Some(line) = line {
            say(&line);
        }
        if !matches!(outcome, Outcome::Not(_)) {
            self.bare += usize::from(!self.to.keeps_attributes() && entry.meta.attributes.is_some());
            self.taken.insert(name, key.clone());
        }
        self.counts[match outcome {
            Outcome::Copied => 0,
            Outcome::There => 1,
            Outcome::Not(_) => 2,
        }] += 1;
        Ok(())
    }

    /// Records that a key cannot be copied.
    fn not(&mut self, key: &Key, why: &str) {
        say(&format!("{key} not copied: {why}"));
        self.counts[2] += 1;
    }

    /// The name in the other store.
    fn name(&self, key: &Key) -> Key {
        let limits = self.to.limits();
        if limits.check_key(key).is_err() && self.settings.rename { limits.nearest(key) } else { key.clone() }
    }

    async fn put(&self, key: &Key, name: &Key, entry: &Entry) -> store::Result<Outcome> {
        let refused = match self.to.check(name, &entry.text) {
            Err(Error::BadKey(_)) => {
                let nearest = self.to.limits().nearest(name);
                return Ok(Outcome::Not(format!(
                    "the other store cannot have this key; --rename makes it {nearest}"
                )));
            }
            checked => checked.err(),
        };
        if let Some(error) = refused {
            return Ok(Outcome::Not(error.to_string()));
        }
        let there = match self.there(name).await {
            // Another value, whatever it was.
            Err(Error::Damaged(_)) => Some(Text::from([])),
            there => there?,
        };
        match there {
            Some(there) if same(&there, &entry.text) => {
                return self.put_attributes(name, entry).await.map(|()| Outcome::There);
            }
            Some(_) if !self.settings.replace => {
                return Ok(Outcome::Not(
                    "there is another value of this key; --replace overwrites it".into(),
                ));
            }
            Some(_) | None => {}
        }
        if self.settings.dry_run {
            return Ok(Outcome::Copied);
        }
        let expect = if self.settings.replace { Expect::Anything } else { Expect::Absent };
        let given = Given { attributes: attributes_of(entry), replaces: true };
        let set = self.to.set_key_value(name, entry.text.clone(), expect);
        match store::with_attributes(Some(given), set).await {
            Ok(_) => self.put_tags(key, name).await.map(|()| Outcome::Copied),
            Err(error) if ends(&error) => Err(error),
            Err(error) => Ok(Outcome::Not(error.to_string())),
        }
    }

    /// Replaces the attributes of a key that the target has with the same value.
    async fn put_attributes(&self, name: &Key, entry: &Entry) -> store::Result<()> {
        let wanted = self.settings.replace && !self.settings.dry_run && self.to.keeps_attributes();
        if wanted && entry.meta.attributes.is_some() {
            self.to.set_attributes(name, &attributes_of(entry)).await?;
        }
        Ok(())
    }

    /// Copies what the source keeps of directories; says of what the target cannot keep it.
    async fn all_prefixes(&self) -> store::Result<()> {
        let (kept, bare) = (self.from.list_prefixes().await?, self.bare);
        if !self.to.keeps_attributes() && bare + kept.len() > 0 {
            let directories = kept.len();
            say(&format!(
                "owner, mode and times of {bare} keys and {directories} directories are left: the other store keeps none"
            ));
        }
        if !self.to.keeps_attributes() || self.settings.dry_run {
            return Ok(());
        }
        let there = self.to.list_prefixes().await?;
        for (prefix, kept) in kept {
            if self.settings.replace || !there.iter().any(|(other, _)| *other == prefix) {
                let given = Given { attributes: (*kept).clone(), replaces: false };
                self.to.set_prefix(&prefix, &given).await?;
            }
        }
        Ok(())
    }

    /// The text of a key in the target.
    async fn there(&self, name: &Key) -> store::Result<Option<Text>> {
        if let Some(there) = &self.there {
            return Ok(there.get(name).cloned());
        }
        match self.to.get_key_value(name).await {
            Ok(entry) => Ok(Some(entry.text)),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Copies the tags, if both stores have them.
    async fn put_tags(&self, key: &Key, name: &Key) -> store::Result<()> {
        if !self.from.limits().tags || !self.to.limits().tags {
            return Ok(());
        }
        let tags = self.from.get_tags(key).await?;
        if tags.is_empty() { Ok(()) } else { self.to.set_tags(name, &tags).await }
    }

    fn sum_up(&self) -> Result<(), Failure> {
        let [copied, there, not] = self.counts;
        let would = if self.settings.dry_run { "to be copied" } else { "copied" };
        say(&format!("{copied} {would}, {there} there already, {not} not copied"));
        if not == 0 { Ok(()) } else { Err(Failure::Other(format!("{not} keys were not copied"))) }
    }
}

/// The attributes of a key; a time that was set for an older value is none of this one.
fn attributes_of(entry: &Entry) -> Attributes {
    let kept = entry.meta.attributes.as_deref().cloned().unwrap_or_default();
    Attributes { modified: kept.modified.filter(|_| kept.version == entry.meta.revision), ..kept }
}

/// Whether the error ends the copy, because other keys would fail, too.
fn ends(error: &Error) -> bool {
    error.is_outage() && !matches!(error.reason(), Error::Damaged(_) | Error::Other(_) | Error::Contended(_))
}

/// Whether two texts are the same bytes or stand for the same value.
fn same(one: &[u8], other: &[u8]) -> bool {
    one == other || serde_json::from_slice(one).is_ok_and(|value| json::stands_for(other, &value))
}

fn say(line: &str) {
    // Ignored: the copy goes on after the reader has closed the output.
    _ = writeln!(std::io::stdout(), "{}", logging::shown(line));
}
