//! Revisions and texts for servers that have neither: a version gets a revision when an answer first shows it, and its text
//! is the one that was written here, or the value printed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::json::Unread;
use super::{Entry, Error, Key, Listing, Meta, Revision, Text, json};

/// A key as an answer of the server shows it.
pub(super) struct Row {
    pub(super) id: Arc<str>,
    pub(super) value: Unread,
    pub(super) created: Option<SystemTime>,
    pub(super) updated: Option<SystemTime>,
}

/// How many requests and changes later a recorded absence is dropped.
const ABSENCE_AGE: u64 = 10_000;

#[derive(Default)]
pub(super) struct SyntheticRevisions {
    keys: HashMap<Key, Known>,
    /// Texts of sets and deletes in flight, which others may see at the server before its answer comes.
    in_flight: HashMap<Key, Text>,
    /// Counts requests and changes: the source of revisions.
    clock: u64,
}

struct Known {
    /// `None` for a key that was deleted here.
    entry: Option<Entry>,
    /// When the request was made whose answer this is, or the key was changed here. The answer to an older request is
    /// out of date.
    since: u64,
    /// When the server says it was set.
    updated: Option<SystemTime>,
}

impl Known {
    fn changed_here(entry: Option<Entry>, since: u64) -> Self {
        Self { entry, since, updated: None }
    }

    /// Whether the answer to the request `asked` is out of date. Of two requests in flight at once the server may have
    /// answered the later one first.
    fn is_newer(&self, row: Option<&Row>, asked: u64) -> bool {
        let at_once = self.entry.as_ref().is_some_and(|entry| entry.meta.revision.0 > asked);
        let other = row.and_then(|row| row.updated);
        self.since > asked || at_once && self.updated.zip(other).is_some_and(|(own, other)| other < own)
    }
}

impl SyntheticRevisions {
    /// The number of the next request, to be given back with its answer.
    pub(super) fn begin_request(&mut self) -> u64 {
        self.tick()
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        if self.clock.is_multiple_of(ABSENCE_AGE) {
            // No request is in flight for that long, so no answer is older than these absences.
            let latest = self.clock - ABSENCE_AGE;
            self.keys.retain(|_, known| known.entry.is_some() || known.since > latest);
        }
        self.clock
    }

    /// Records the row of `key` in the answer to the request `asked`, and returns the newest version known. The text
    /// that was written here stays as long as it stands for the server's value.
    pub(super) fn observe(&mut self, key: &Key, row: Option<Row>, asked: u64) -> Option<Entry> {
        let known = self.keys.get(key);
        if let Some(known) = known.filter(|known| known.is_newer(row.as_ref(), asked)) {
            return known.entry.clone();
        }
        let old = known.and_then(|known| known.entry.clone());
        let mut updated = known.and_then(|known| known.updated);
        let entry = row.map(|row| {
            let old = old.filter(|entry| entry.meta.id == row.id);
            match old {
                Some(old) if json::stands_for(&old.text, &row.value.read()) => old,
                old => {
                    updated = row.updated;
                    self.version(key, old.as_ref(), row)
                }
            }
        });
        self.keys.insert(key.clone(), Known { entry: entry.clone(), since: asked, updated });
        entry
    }

    /// Makes a revision and a text for a row that was not seen before.
    fn version(&mut self, key: &Key, old: Option<&Entry>, row: Row) -> Entry {
        let value = row.value.read();
        let own = self.in_flight.get(key).filter(|text| json::stands_for(text, &value));
        let text = own.map_or_else(|| json::shown(&value), Text::clone);
        let now = SystemTime::now();
        let earliest = old.map_or(SystemTime::UNIX_EPOCH, |old| old.meta.modified + Duration::from_micros(1));
        let created = old.map(|old| old.meta.created).or(row.created);
        let meta = Meta {
            id: row.id,
            revision: Revision(self.tick()),
            size: text.len() as u64,
            created: created.unwrap_or(now),
            modified: row.updated.unwrap_or(now).max(earliest),
            attributes: None,
        };
        Entry { meta, text }
    }

    /// As [`Self::observe`], for the complete listing that answers the request `asked`: keys that it lacks are gone.
    pub(super) fn observe_listing(&mut self, rows: Vec<(Key, Row)>, asked: u64) -> (Listing, Vec<Text>) {
        self.keys.retain(|_, known| known.entry.is_some() || known.since > asked);
        let mut rows: Vec<(Key, Option<Row>)> = rows.into_iter().map(|(key, row)| (key, Some(row))).collect();
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        let lacks = |key: &&Key| rows.binary_search_by(|(listed, _)| listed.cmp(key)).is_err();
        let missing: Vec<_> = self.keys.keys().filter(lacks).map(|key| (key.clone(), None)).collect();
        if !missing.is_empty() {
            rows.extend(missing);
            rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        let (mut listing, mut texts) = (Listing::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        let mut rows = rows.into_iter().peekable();
        while let Some((key, row)) = rows.next() {
            // Of a key that is there twice the last one counts.
            if rows.peek().is_some_and(|(next, _)| *next == key) {
                continue;
            }
            if let Some(entry) = self.observe(&key, row, asked) {
                listing.push((key, entry.meta));
                texts.push(entry.text);
            }
        }
        (listing, texts)
    }

    /// The key is about to be deleted here.
    pub(super) fn begin_delete(&mut self, key: &Key) {
        self.in_flight.insert(key.clone(), Text::default());
    }

    /// The key is about to be set here.
    pub(super) fn begin_set(&mut self, key: &Key, text: &Text) {
        self.in_flight.insert(key.clone(), text.clone());
    }

    /// The key was set here.
    pub(super) fn set(&mut self, key: &Key, id: Arc<str>, text: Text) -> Meta {
        self.in_flight.remove(key);
        let old = self.keys.get(key).and_then(|known| known.entry.as_ref());
        let old = old.filter(|old| old.meta.id == id);
        let now = SystemTime::now();
        let earliest = old.map_or(now, |old| old.meta.modified + Duration::from_micros(1));
        let created = old.map_or(now, |old| old.meta.created);
        let since = self.tick();
        let meta = Meta {
            id,
            revision: Revision(since),
            size: text.len() as u64,
            created,
            modified: now.max(earliest),
            attributes: None,
        };
        let entry = Some(Entry { meta: meta.clone(), text });
        self.keys.insert(key.clone(), Known::changed_here(entry, since));
        meta
    }

    /// The key was renamed here: `entry` is what it was.
    pub(super) fn renamed(&mut self, from: &Key, to: &Key, entry: Entry) -> Meta {
        self.deleted(from);
        let since = self.tick();
        let modified = SystemTime::now().max(entry.meta.modified + Duration::from_micros(1));
        let meta = Meta { revision: Revision(since), modified, ..entry.meta };
        let entry = Entry { meta: meta.clone(), text: entry.text };
        self.keys.insert(to.clone(), Known::changed_here(Some(entry), since));
        meta
    }

    /// The key was deleted here.
    pub(super) fn deleted(&mut self, key: &Key) -> Revision {
        self.in_flight.remove(key);
        let since = self.tick();
        self.keys.insert(key.clone(), Known::changed_here(None, since));
        Revision(since)
    }

    /// The key was not changed here, or only the server knows.
    pub(super) fn failed(&mut self, key: &Key, error: &Error) {
        match error {
            Error::Exists | Error::Changed => drop(self.in_flight.remove(key)),
            error if error.may_have_changed() => self.unsure(key),
            _ => drop(self.in_flight.remove(key)),
        }
    }

    /// Forgets the key: only the server knows what became of it.
    pub(super) fn unsure(&mut self, key: &Key) {
        self.in_flight.remove(key);
        self.keys.remove(key);
    }

    /// The newest version known of the key.
    pub(super) fn current(&self, key: &Key) -> Option<Entry> {
        self.keys.get(key)?.entry.clone()
    }

    /// The key other than `key` that has this id.
    pub(super) fn key_of(&self, id: &str, key: &Key) -> Option<Key> {
        let has = |known: &Known| known.entry.as_ref().is_some_and(|entry| *entry.meta.id == *id);
        self.keys.iter().find(|(other, known)| *other != key && has(known)).map(|(other, _)| other.clone())
    }

    /// Whether the key is being set or deleted here.
    pub(super) fn is_changing(&self, key: &Key) -> bool {
        self.in_flight.contains_key(key)
    }

    /// Whether there was no such key when it was last asked for or changed.
    pub(super) fn is_missing(&self, key: &Key) -> bool {
        self.keys.get(key).is_some_and(|known| known.entry.is_none())
    }

    pub(super) fn id(&self, key: &Key) -> Option<Arc<str>> {
        Some(self.keys.get(key)?.entry.as_ref()?.meta.id.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, value: &str) -> Row {
        let value = Unread::of(serde_json::from_str(value).unwrap());
        Row { id: id.into(), value, created: None, updated: None }
    }

    fn text(entry: Option<Entry>) -> Option<String> {
        entry.map(|entry| String::from_utf8(entry.text.to_vec()).unwrap())
    }

    #[test]
    fn a_text_stays_while_it_stands_for_the_value() {
        let (mut revisions, key) = (SyntheticRevisions::default(), Key::from("k"));
        let meta = revisions.set(&key, "i".into(), Text::from(&b"{ \"a\":1 }"[..]));
        let asked = revisions.begin_request();
        let same = revisions.observe(&key, Some(row("i", r#"{"a":1}"#)), asked).unwrap();
        assert_eq!((same.meta, &same.text[..]), (meta.clone(), &b"{ \"a\":1 }"[..]));
        let asked = revisions.begin_request();
        let other = revisions.observe(&key, Some(row("i", r#"{"a":2}"#)), asked).unwrap();
        assert!(other.meta.revision > meta.revision && other.meta.modified > meta.modified);
        assert_eq!(text(Some(other)).unwrap(), "{\n  \"a\": 2\n}\n");
        revisions.begin_set(&key, &Text::from(&b" 3"[..]));
        let asked = revisions.begin_request();
        assert_eq!(text(revisions.observe(&key, Some(row("i", "3")), asked)).unwrap(), " 3");
    }

    #[test]
    fn an_answer_to_an_older_request_does_not_count() {
        let (mut revisions, key) = (SyntheticRevisions::default(), Key::from("k"));
        let before = revisions.begin_request();
        revisions.set(&key, "i".into(), Text::from(&b"2"[..]));
        assert_eq!(text(revisions.observe(&key, Some(row("i", "1")), before)).unwrap(), "2");
        assert_eq!(text(revisions.observe(&key, None, before)).unwrap(), "2");
        let (first, second) = (revisions.begin_request(), revisions.begin_request());
        assert_eq!(text(revisions.observe(&key, Some(row("i", "4")), second)).unwrap(), "4\n");
        assert_eq!(text(revisions.observe(&key, Some(row("i", "3")), first)).unwrap(), "4\n");
        let before = revisions.begin_request();
        revisions.deleted(&key);
        assert!(revisions.is_missing(&key) && !revisions.is_missing(&Key::from("never asked for")));
        assert_eq!(text(revisions.observe(&key, Some(row("i", "4")), before)), None);
        assert!(revisions.observe_listing(vec![(key.clone(), row("i", "4"))], before).0.is_empty());
        let asked = revisions.begin_request();
        assert_eq!(text(revisions.observe(&key, Some(row("j", "5")), asked)).unwrap(), "5\n");
    }

    #[test]
    fn of_two_requests_in_flight_at_once_the_row_that_the_server_updated_later_wins() {
        let (mut revisions, key) = (SyntheticRevisions::default(), Key::from("k"));
        let at = |seconds, value| {
            let updated = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            Some(Row { updated, ..row("i", value) })
        };
        for (first, second) in [((2, "22"), (1, "1")), ((3, "3"), (4, "4"))] {
            let (look, listing) = (revisions.begin_request(), revisions.begin_request());
            revisions.observe(&key, at(first.0, first.1), look);
            let newest = if first.0 > second.0 { first.1 } else { second.1 };
            let observed = revisions.observe(&key, at(second.0, second.1), listing);
            assert_eq!(text(observed).unwrap().trim(), newest);
            assert_eq!(text(revisions.current(&key)).unwrap().trim(), newest);
        }
        // The clock of the server may be set back.
        let asked = revisions.begin_request();
        assert_eq!(text(revisions.observe(&key, at(1, "5"), asked)).unwrap().trim(), "5");
    }

    #[test]
    fn a_key_that_a_listing_lacks_is_gone() {
        let (mut revisions, a, b) = (SyntheticRevisions::default(), Key::from("a"), Key::from("b"));
        revisions.set(&a, "1".into(), Text::from(&b"1"[..]));
        revisions.set(&b, "2".into(), Text::from(&b"2"[..]));
        for _ in 0..2 {
            let asked = revisions.begin_request();
            let listed = revisions.observe_listing(vec![(b.clone(), row("2", "2"))], asked);
            assert_eq!(listed.0.iter().map(|(key, _)| key).collect::<Vec<_>>(), [&b]);
        }
        assert_eq!((revisions.id(&a), revisions.id(&b)), (None, Some("2".into())));
        let asked = revisions.begin_request();
        assert!(revisions.observe_listing(Vec::new(), asked).0.is_empty());
        assert_eq!(revisions.keys.len(), 1);
    }
}
