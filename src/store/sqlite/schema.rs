//! Tables and statements.
//!
//! `entry` is clustered by key and holds all but the values, so that a listing never touches a value and a set
//! dirties three pages: `entry`, `value` and the tail of `change`. `sum` is the CRC-32 of key and value: SQLite itself
//! does not notice a changed byte. `change` is the revision counter, the change
//! feed of other processes, and the record of deletions; its oldest rows are trimmed. `prefix` has what is kept of prefixes of
//! keys, which may be keys themselves. The view `kv` is for people with a `sqlite3` shell.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::store::memory::successor;
use crate::store::{
    Attributes, Change, Entry, Error, Expect, Given, Key, Listing, Meta, Rename, Result, Revision, Text,
};

/// "kvfs" in ASCII: distinguishes databases of kvfs from those of other programs.
pub(super) const APPLICATION_ID: i32 = 0x6b76_6673;
/// Bumped when a database of this version cannot be read by an older kvfs.
pub(super) const VERSION: i32 = 1;
/// A process that falls further behind than this many changes reads the whole listing again.
pub(super) const CHANGES_KEPT: i64 = 100_000;
/// The `change` table is trimmed once in this many revisions.
const TRIM_EVERY: i64 = 1_000;

pub(super) const CREATE: &str = "
    CREATE TABLE entry (
        key TEXT PRIMARY KEY NOT NULL, id BLOB NOT NULL, revision INTEGER NOT NULL, size INTEGER NOT NULL,
        created INTEGER NOT NULL, modified INTEGER NOT NULL, value_id INTEGER NOT NULL, sum INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE value (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
    CREATE TABLE change (revision INTEGER PRIMARY KEY, key TEXT NOT NULL);
    CREATE VIEW kv AS
        SELECT key, bytes AS value, revision,
            datetime(created / 1e9, 'unixepoch') AS created, datetime(modified / 1e9, 'unixepoch') AS modified
        FROM entry JOIN value ON value.id = entry.value_id;
";

/// What databases of the first version lack. That version goes on to read and write them with it: a time that was set ends with
/// its set, and goes along with its rename.
pub(super) const ADD_ATTRIBUTES: &str = "
    ALTER TABLE value ADD COLUMN attributes TEXT;
    CREATE INDEX attributed ON value (id, attributes) WHERE attributes IS NOT NULL;
    CREATE TABLE prefix (key TEXT PRIMARY KEY NOT NULL, revision INTEGER NOT NULL, attributes TEXT) WITHOUT ROWID;
    CREATE TRIGGER time_of_set AFTER UPDATE OF bytes ON value WHEN OLD.attributes IS NOT NULL
    BEGIN
        UPDATE value SET attributes = json_remove(attributes, '$.modified')
        WHERE id = NEW.id AND json_valid(attributes);
    END;
    CREATE TRIGGER time_of_rename AFTER INSERT ON entry WHEN EXISTS (
        SELECT 1 FROM value INDEXED BY attributed WHERE id = NEW.value_id AND attributes IS NOT NULL
    )
    BEGIN
        UPDATE value SET attributes = json_set(attributes, '$.version', NEW.revision)
        WHERE id = NEW.value_id AND json_valid(attributes) AND json_extract(attributes, '$.modified') IS NOT NULL;
    END;
";

/// Whether attributes can be in the database.
pub(super) fn has_attributes(db: &Connection) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = 'time_of_set'")?.exists([])
}

/// The column with the attributes of a row of `value`.
fn column(db: &Connection) -> rusqlite::Result<&'static str> {
    Ok(if has_attributes(db)? { "attributes" } else { "NULL" })
}

/// That column, and what brings it to a row of `entry` without a look at values.
fn joined(db: &Connection) -> rusqlite::Result<(&'static str, &'static str)> {
    const JOIN: &str =
        "LEFT JOIN value INDEXED BY attributed ON value.id = value_id AND value.attributes IS NOT NULL";
    Ok(if has_attributes(db)? { ("value.attributes", JOIN) } else { ("NULL", "") })
}

/// Revision and attributes of the prefix that a row of `change` may name, and what brings them to it.
fn joined_prefix(db: &Connection) -> rusqlite::Result<(&'static str, &'static str)> {
    const JOIN: &str = "LEFT JOIN prefix ON prefix.key = change.key";
    Ok(if has_attributes(db)? { ("prefix.revision, prefix.attributes", JOIN) } else { ("NULL, NULL", "") })
}

fn put_attributes(db: &Connection, value_id: i64, attributes: Option<&Attributes>) -> Result<()> {
    if !has_attributes(db)? {
        db.execute_batch(ADD_ATTRIBUTES)?;
    }
    let text = attributes.map(serde_json::to_string).transpose();
    let text = text.map_err(|error| Error::Other(error.to_string()))?;
    db.prepare_cached("UPDATE value SET attributes = ?1 WHERE id = ?2")?.execute(params![text, value_id])?;
    Ok(())
}

fn nanos(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<SystemTime> {
    let nanos: i64 = row.get(column)?;
    Ok(UNIX_EPOCH + Duration::from_nanos(nanos.max(0).unsigned_abs()))
}

pub(super) fn attributes(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Arc<Attributes>>> {
    let text: Option<String> = row.get(column)?;
    // What a person broke counts as not set.
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).map(Arc::new))
}

/// Columns `id, revision, size, created, modified, attributes` from `first` on.
fn meta(row: &Row<'_>, first: usize) -> rusqlite::Result<Meta> {
    let id: [u8; 16] = row.get(first)?;
    let [revision, size]: [i64; 2] = [row.get(first + 1)?, row.get(first + 2)?];
    Ok(Meta {
        id: Arc::from(uuid::Uuid::from_bytes(id).to_string()),
        revision: Revision(revision.unsigned_abs()),
        size: size.unsigned_abs(),
        created: time(row, first + 3)?,
        modified: time(row, first + 4)?,
        attributes: attributes(row, first + 5)?,
    })
}

pub(super) fn key(row: &Row<'_>, column: usize) -> rusqlite::Result<Key> {
    Ok(Key::from(row.get_ref(column)?.as_str()?))
}

pub(super) fn list(db: &Connection) -> rusqlite::Result<Listing> {
    let (attributes, join) = joined(db)?;
    let mut statement = db.prepare_cached(&format!(
        "SELECT key, entry.id, revision, size, created, modified, {attributes} FROM entry {join} ORDER BY key"
    ))?;
    statement.query_map([], |row| Ok((key(row, 0)?, meta(row, 1)?)))?.collect()
}

/// The entry of `key`, or [`Error::NotFound`], or [`Error::Damaged`]; the outer error if the database could not be read.
pub(super) fn get(db: &Connection, key: &Key) -> rusqlite::Result<Result<Entry>> {
    let attributes = column(db)?;
    let mut statement = db.prepare_cached(&format!(
        "SELECT entry.id, revision, size, created, modified, {attributes}, bytes, sum
         FROM entry LEFT JOIN value ON value.id = value_id WHERE key = ?1",
    ))?;
    let found = statement.query_row([key.as_str()], |row| {
        let (meta, sum) = (meta(row, 0)?, row.get::<_, u32>(7)?);
        let text = sound(key, &meta, sum, row.get_ref(6)?).map(Arc::from);
        Ok(match text {
            Some(text) => Ok(Entry { meta, text }),
            None => Err(Error::Damaged(meta)),
        })
    });
    Ok(found.optional()?.unwrap_or(Err(Error::NotFound)))
}

/// The bytes of a value, if size and checksum are right.
fn sound<'a>(key: &Key, meta: &Meta, sum: u32, value: ValueRef<'a>) -> Option<&'a [u8]> {
    let (ValueRef::Blob(bytes) | ValueRef::Text(bytes)) = value else { return None };
    (checksum(key, bytes) == sum && bytes.len() as u64 == meta.size).then_some(bytes)
}

fn checksum(key: &Key, value: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(key.as_str().as_bytes());
    sum.update(value);
    sum.finalize()
}

/// The metadata of `key`, and the id of its row in `value`; `None` for a row whose checksum is wrong: it may be the value of
/// another key, which SQLite has given the id of a lost row.
fn find(db: &Connection, key: &Key) -> rusqlite::Result<Option<(Meta, Option<i64>)>> {
    let attributes = column(db)?;
    let mut statement = db.prepare_cached(&format!(
        "SELECT entry.id, revision, size, created, modified, {attributes}, bytes, sum, value_id
         FROM entry LEFT JOIN value ON value.id = value_id WHERE key = ?1",
    ))?;
    let found = statement.query_row([key.as_str()], |row| {
        let (meta, sum) = (meta(row, 0)?, row.get::<_, u32>(7)?);
        let value_id = match sound(key, &meta, sum, row.get_ref(6)?) {
            Some(_) => Some(row.get(8)?),
            None => None,
        };
        Ok((meta, value_id))
    });
    found.optional()
}

/// Removes a value whose key is gone.
fn drop_value(db: &Connection, value_id: Option<i64>) -> rusqlite::Result<()> {
    if let Some(value_id) = value_id {
        db.prepare_cached("DELETE FROM value WHERE id = ?1")?.execute([value_id])?;
    }
    Ok(())
}

/// The last revision given out.
pub(super) fn revision(db: &Connection) -> rusqlite::Result<i64> {
    db.prepare_cached("SELECT ifnull(max(revision), 0) FROM change")?.query_row([], |row| row.get(0))
}

/// Takes the next revision for a change of `key`.
pub(super) fn next_revision(db: &Connection, key: &Key) -> Result<Revision> {
    let next = revision(db)? + 1;
    db.prepare_cached("INSERT INTO change (revision, key) VALUES (?1, ?2)")?
        .execute(params![next, key.as_str()])?;
    if next % TRIM_EVERY == 0 {
        db.execute("DELETE FROM change WHERE revision <= ?1", [next - CHANGES_KEPT])?;
    }
    Ok(Revision(next.unsigned_abs()))
}

fn put(db: &Connection, key: &Key, meta: &Meta, value_id: i64, sum: u32) -> Result<()> {
    let id = uuid::Uuid::parse_str(&meta.id).map_err(|error| Error::Other(error.to_string()))?;
    let mut statement =
        db.prepare_cached("INSERT OR REPLACE INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    statement.execute(params![
        key.as_str(),
        id.as_bytes(),
        i64::try_from(meta.revision.0).unwrap_or(i64::MAX),
        i64::try_from(meta.size).unwrap_or(i64::MAX),
        nanos(meta.created),
        nanos(meta.modified),
        value_id,
        sum
    ])?;
    Ok(())
}

/// A new key has the `chosen` id, and any the attributes that are `given`.
pub(super) fn set(
    db: &Transaction<'_>,
    key: &Key,
    text: &Text,
    expect: Expect,
    (chosen, given): (Option<&Arc<str>>, Option<&Given>),
) -> Result<Meta> {
    let old = find(db, key)?;
    expect.check(old.as_ref().map(|(meta, _)| meta.revision))?;
    let value_id = match &old {
        Some((_, Some(value_id))) => {
            db.prepare_cached("UPDATE value SET bytes = ?1 WHERE id = ?2")?
                .execute(params![&text[..], value_id])?;
            *value_id
        }
        Some((_, None)) | None => {
            db.prepare_cached("INSERT INTO value (bytes) VALUES (?1)")?.insert([&text[..]])?
        }
    };
    let old = old
        .map(|(meta, value_id)| Meta { attributes: meta.attributes.filter(|_| value_id.is_some()), ..meta });
    let mut meta = successor(old.as_ref(), next_revision(db, key)?, text.len(), chosen.cloned());
    let attributes = Given::after(given, meta.attributes.as_ref(), meta.revision);
    if attributes != meta.attributes {
        put_attributes(db, value_id, attributes.as_deref())?;
        meta.attributes = attributes;
    }
    put(db, key, &meta, value_id, checksum(key, text))?;
    Ok(meta)
}

/// Changes the attributes of `key`: a revision of its own, at which its value stays as it is.
pub(super) fn set_attributes(db: &Transaction<'_>, key: &Key, changes: &Attributes) -> Result<Meta> {
    let (meta, value_id) = find(db, key)?.ok_or(Error::NotFound)?;
    let value_id = value_id.ok_or_else(|| Error::Damaged(meta.clone()))?;
    let revision = next_revision(db, key)?;
    let attributes = Attributes::merged(meta.attributes.as_ref(), changes, meta.revision, revision);
    put_attributes(db, value_id, Some(&attributes))?;
    Ok(Meta { attributes: Some(attributes), ..meta })
}

/// Makes `bytes` of free pages that the next changes take.
pub(super) fn make_free_pages(db: &Transaction<'_>, bytes: i64) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO value (id, bytes) VALUES (-1, zeroblob(?1))")?.execute([bytes])?;
    db.prepare_cached("DELETE FROM value WHERE id = -1")?.execute([])?;
    Ok(())
}

pub(super) fn delete(db: &Transaction<'_>, key: &Key, expect: Expect) -> Result<Revision> {
    let (meta, value_id) = find(db, key)?.ok_or(Error::NotFound)?;
    expect.check(Some(meta.revision))?;
    db.prepare_cached("DELETE FROM entry WHERE key = ?1")?.execute([key.as_str()])?;
    drop_value(db, value_id)?;
    next_revision(db, key)
}

pub(super) fn rename(db: &Transaction<'_>, from: &Key, to: &Key, at: Expect, expect: Expect) -> Result<Meta> {
    let Entry { meta: old, text } = get(db, from)??;
    let (_, value_id) = find(db, from)?.ok_or(Error::NotFound)?;
    let value_id = value_id.ok_or_else(|| Error::Damaged(old.clone()))?;
    let replaced = find(db, to)?;
    at.check(Some(old.revision))?;
    expect.check(replaced.as_ref().map(|(meta, _)| meta.revision))?;
    db.prepare_cached("DELETE FROM entry WHERE key = ?1")?.execute([from.as_str()])?;
    next_revision(db, from)?;
    if let Some((_, value_id)) = replaced.filter(|_| from != to) {
        drop_value(db, value_id)?;
    }
    let mut meta = successor(Some(&old), next_revision(db, to)?, old.size as usize, None);
    meta.attributes = Attributes::renamed(old.attributes.as_ref(), old.revision, meta.revision);
    if meta.attributes != old.attributes {
        put_attributes(db, value_id, meta.attributes.as_deref())?;
    }
    put(db, to, &meta, value_id, checksum(to, &text))?;
    Ok(meta)
}

/// Carries out all of `renames`, or none: all conditions are checked before anything is changed.
pub(super) fn rename_all(db: &Transaction<'_>, renames: &[Rename]) -> Result<Vec<Meta>> {
    let there = |key| Ok::<_, Error>(find(db, key)?.map(|(meta, _)| meta.revision));
    for Rename { from, to, at } in renames {
        Expect::At(*at).check(there(from)?)?;
        Expect::Absent.check(there(to)?)?;
    }
    renames
        .iter()
        .map(|Rename { from, to, at }| rename(db, from, to, Expect::At(*at), Expect::Absent))
        .collect()
}

/// A number that SQLite increments when another database replaces this one (`.restore`).
pub(super) fn generation(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "schema_version", |row| row.get(0))
}

/// The changes of others after the revision `seen`, and the last revision read.
pub(super) fn changes_since(
    db: &Connection,
    seen: i64,
    is_own: impl Fn(i64) -> bool,
) -> rusqlite::Result<(Vec<Change>, i64)> {
    // One snapshot for all questions: changes that are thrown away in between would be missed.
    let db = &db.unchecked_transaction()?;
    let oldest: Option<i64> = db.query_row("SELECT min(revision) FROM change", [], |row| row.get(0))?;
    let last = revision(db)?;
    if oldest.is_some_and(|oldest| oldest > seen + 1) || last < seen {
        return Ok((vec![Change::Everything], last));
    }
    let ((attributes, join), (kept, join_prefix)) = (joined(db)?, joined_prefix(db)?);
    let mut statement = db.prepare_cached(&format!(
        "SELECT change.revision, change.key, entry.id, entry.revision, size, created, modified, {attributes}, {kept}
         FROM change LEFT JOIN entry ON entry.key = change.key {join} {join_prefix}
         WHERE change.revision > ?1 ORDER BY change.revision",
    ))?;
    let mut rows = statement.query([seen])?;
    let (mut changes, mut last) = (Vec::new(), seen);
    while let Some(row) = rows.next()? {
        last = row.get(0)?;
        if is_own(last) {
            continue;
        }
        let key = key(row, 1)?;
        let (revision, of_prefix) = (Revision(last.unsigned_abs()), row.get_ref(8)? != ValueRef::Null);
        if of_prefix {
            changes.push(Change::Prefix(key.clone(), self::attributes(row, 9)?, revision));
        }
        match row.get_ref(2)? {
            ValueRef::Null if of_prefix => {}
            ValueRef::Null => changes.push(Change::Deleted(key, revision)),
            _ => changes.push(Change::Set(key, meta(row, 2)?)),
        }
    }
    Ok((changes, last))
}

/// Translates errors of SQLite.
impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let text = error.to_string();
        let extended = error.sqlite_error().map(|error| error.extended_code);
        match error.sqlite_error_code() {
            Some(Code::DiskFull) => Self::NoSpace(text),
            // The index of the log cannot grow.
            _ if extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => Self::NoSpace(text),
            Some(Code::ReadOnly | Code::PermissionDenied | Code::AuthorizationForStatementDenied) => {
                Self::ReadOnly(text)
            }
            Some(Code::DatabaseBusy | Code::DatabaseLocked | Code::FileLockingProtocolFailed) => {
                Self::Busy(text)
            }
            _ => Self::Other(text),
        }
    }
}
