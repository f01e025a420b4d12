//! The table `prefix`: what is kept of prefixes of keys. One of which nothing is kept any more stays without attributes for as long as the `change` table may name it.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::schema::{self, CHANGES_KEPT};
use crate::store::{Attributes, Error, Given, Key, MovedPrefix, Prefixes, Result, Revision};

/// Those that begin with `start`.
pub(super) fn list(db: &Connection, start: &str) -> rusqlite::Result<Prefixes> {
    if !schema::has_attributes(db)? {
        return Ok(Prefixes::new());
    }
    let mut statement = db.prepare_cached(
        "SELECT key, attributes FROM prefix
         WHERE key >= ?1 AND substr(key, 1, length(?1)) = ?1 AND attributes IS NOT NULL ORDER BY key",
    )?;
    let rows = statement.query_map([start], |row| Ok((schema::key(row, 0)?, schema::attributes(row, 1)?)))?;
    rows.filter_map(|row| row.map(|(key, kept)| Some((key, kept?))).transpose()).collect()
}

pub(super) fn set(db: &Transaction<'_>, prefix: &Key, given: &Given) -> Result<Option<Arc<Attributes>>> {
    if !schema::has_attributes(db)? {
        if given.attributes.are_none() {
            return Ok(None);
        }
        db.execute_batch(schema::ADD_ATTRIBUTES)?;
    }
    if given.replaces {
        forget(db, prefix)?;
    }
    let before = find(db, prefix)?;
    let revision = schema::next_revision(db, prefix)?;
    let after = Given::after(Some(given), before.as_ref(), revision);
    put(db, prefix, after.as_deref(), revision)?;
    Ok(after)
}

fn find(db: &Connection, prefix: &Key) -> rusqlite::Result<Option<Arc<Attributes>>> {
    let mut statement = db.prepare_cached("SELECT attributes FROM prefix WHERE key = ?1")?;
    Ok(statement.query_row([prefix.as_str()], |row| schema::attributes(row, 0)).optional()?.flatten())
}

fn put(db: &Connection, prefix: &Key, attributes: Option<&Attributes>, revision: Revision) -> Result<()> {
    let text = attributes.map(serde_json::to_string).transpose();
    let text = text.map_err(|error| Error::Other(error.to_string()))?;
    let revision = i64::try_from(revision.0).unwrap_or(i64::MAX);
    db.prepare_cached("INSERT OR REPLACE INTO prefix (key, revision, attributes) VALUES (?1, ?2, ?3)")?
        .execute(params![prefix.as_str(), revision, text])?;
    db.prepare_cached("DELETE FROM prefix WHERE attributes IS NULL AND revision <= ?1")?
        .execute([revision - CHANGES_KEPT])?;
    Ok(())
}

/// Nothing is kept any more of those that begin with `start`.
fn forget(db: &Connection, start: &Key) -> Result<()> {
    for (prefix, _) in list(db, start.as_str())? {
        put(db, &prefix, None, schema::next_revision(db, &prefix)?)?;
    }
    Ok(())
}

/// Takes in that the keys of a prefix have another one.
pub(super) fn moved(db: &Transaction<'_>, moved: &MovedPrefix) -> Result<()> {
    if !schema::has_attributes(db)? {
        return Ok(());
    }
    forget(db, &moved.to)?;
    let kept = list(db, moved.from.as_str())?;
    forget(db, &moved.from)?;
    for (prefix, attributes) in kept {
        let now = moved.renamed(&prefix);
        let revision = schema::next_revision(db, &now)?;
        put(db, &now, Some(&Attributes { revision, ..(*attributes).clone() }), revision)?;
    }
    Ok(())
}
