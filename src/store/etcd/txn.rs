//! A transaction: comparisons, operations if they hold, and reads otherwise.

use serde_json::{Value, json};

use super::api::Outcome;
use super::view::{View, meta, note};
use super::wire::{Bytes, Pair, Txn};
use crate::store::{Expect, Key, Meta, Revision};

pub(super) struct Plan<'a> {
    view: &'a View,
    compare: Vec<Value>,
    success: Vec<Value>,
    failure: Vec<Value>,
    changes: bool,
    /// Whether both branches make the change.
    either: bool,
}

pub(super) fn is_absent(key: &Bytes) -> Value {
    json!({"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0"})
}

pub(super) fn exists(key: &Bytes) -> Value {
    json!({"key": key, "target": "CREATE", "result": "GREATER", "create_revision": "0"})
}

/// An absent key compares as revision 0, so that one is replaced by a revision that no key has.
pub(super) fn is_at(key: &Bytes, revision: Revision) -> Value {
    let revision = match i64::try_from(revision.0) {
        Ok(0) | Err(_) => i64::MAX,
        Ok(revision) => revision,
    };
    json!({"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string()})
}

impl<'a> Plan<'a> {
    pub(super) fn new(view: &'a View) -> Self {
        let (compare, success, failure) = (Vec::new(), Vec::new(), Vec::new());
        Self { view, compare, success, failure, changes: false, either: false }
    }

    pub(super) fn compare(&mut self, compare: Value) -> &mut Self {
        self.compare.push(compare);
        self
    }

    pub(super) fn expect(&mut self, key: &Key, expect: Expect) -> &mut Self {
        let key = self.view.sent(key);
        match expect {
            Expect::Anything => self,
            Expect::Absent => self.compare(is_absent(&key)),
            Expect::At(revision) => self.compare(is_at(&key, revision)),
        }
    }

    /// Sets an absent key, with this lease, unless it is 0.
    pub(super) fn make(&mut self, key: &Key, text: &[u8], lease: i64) -> &mut Self {
        self.sets(key, text, "lease", &json!(lease.to_string()))
    }

    /// Sets an existing key, which keeps its lease: that is its owner's.
    pub(super) fn replace(&mut self, key: &Key, text: &[u8]) -> &mut Self {
        self.sets(key, text, "ignore_lease", &json!(true))
    }

    fn sets(&mut self, key: &Key, text: &[u8], lease: &str, which: &Value) -> &mut Self {
        let put = json!({"key": self.view.sent(key), "value": Bytes(text.to_vec()), lease: which});
        self.success.push(json!({"request_put": put}));
        self.changes = true;
        self
    }

    /// Sets a key, absent or not, and reads it without its value.
    pub(super) fn put(&mut self, key: &Key, text: &[u8]) -> &mut Self {
        self.make(key, text, 0).look(key);
        self.failure = std::mem::take(&mut self.success);
        self.either = true;
        self.compare(exists(&self.view.sent(key))).replace(key, text).look(key)
    }

    pub(super) fn delete(&mut self, key: &Key) -> &mut Self {
        self.success.push(json!({"request_delete_range": {"key": self.view.sent(key)}}));
        self.changes = true;
        self
    }

    /// Reads a key with its value.
    pub(super) fn read(&mut self, key: &Key) -> &mut Self {
        self.success.push(json!({"request_range": {"key": self.view.sent(key)}}));
        self
    }

    /// Reads a key without its value, after the changes.
    pub(super) fn look(&mut self, key: &Key) -> &mut Self {
        self.success.push(look(&self.view.sent(key)));
        self
    }

    /// Reads a key without its value if the comparisons fail.
    pub(super) fn otherwise(&mut self, key: &Key) -> &mut Self {
        self.failure.push(look(&self.view.sent(key)));
        self
    }

    pub(super) async fn run(&self) -> Outcome<Done<'a>> {
        let body = json!({"compare": self.compare, "success": self.success, "failure": self.failure});
        let api = &self.view.api;
        let txn: Txn =
            if self.changes { api.write("kv/txn", &body).await? } else { api.read("kv/txn", &body).await? };
        note(txn.header);
        let (cluster, succeeded) = (txn.header.cluster, txn.succeeded || self.either);
        let (view, revision) = (self.view, Revision(txn.header.revision));
        Ok(Done { view, cluster, revision, succeeded, found: txn.found().collect() })
    }
}

fn look(key: &Bytes) -> Value {
    json!({"request_range": {"key": key, "keys_only": true}})
}

/// The result of a transaction.
pub(super) struct Done<'a> {
    view: &'a View,
    cluster: u64,
    revision: Revision,
    succeeded: bool,
    found: Vec<Option<Pair>>,
}

impl Done<'_> {
    /// The revision that it made; `None` if a comparison failed.
    pub(super) fn revision(&self) -> Option<Revision> {
        self.succeeded.then_some(self.revision)
    }

    /// The revision of a key that was read.
    pub(super) fn there(&self, index: usize) -> Option<Revision> {
        Some(Revision(self.found.get(index)?.as_ref()?.changed))
    }

    /// The metadata of the key that was set to this text and read.
    pub(super) fn meta(&self, revision: Revision, text: &[u8]) -> Meta {
        let set = self.found.iter().flatten().next();
        if let Some(pair) = set {
            self.view.see(pair, text);
        }
        meta(self.cluster, set.map_or(revision.0, |pair| pair.made), revision.0, text.len())
    }

    /// The metadata of a key that was created.
    pub(super) fn made(&self, key: &Key, revision: Revision, text: &[u8]) -> Meta {
        let (made, key) = (revision.0, self.view.sent(key));
        self.view.see(&Pair { key, made, changed: made, version: 1, ..Pair::default() }, text);
        meta(self.cluster, made, made, text.len())
    }

    /// The keys that were read, in order.
    pub(super) fn pairs(self) -> Vec<Option<Pair>> {
        self.found
    }
}
