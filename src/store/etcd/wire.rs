//! The JSON of etcd's gateway: 64-bit numbers are strings, bytes are base64.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Bytes as base64.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let decode = |text: &str| STANDARD.decode(text).ok().map(Self);
        deserializer.deserialize_str(Text { decode, result: PhantomData })
    }
}

/// A number that is a string.
pub(super) fn number<'de, D: Deserializer<'de>, N: FromStr>(deserializer: D) -> Result<N, D::Error> {
    deserializer.deserialize_str(Text { decode: |text: &str| text.parse().ok(), result: PhantomData })
}

struct Text<F, T> {
    decode: F,
    result: PhantomData<T>,
}

impl<T, F: FnOnce(&str) -> Option<T>> Visitor<'_> for Text<F, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or bytes in a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.decode)(text).ok_or_else(|| E::custom("neither a number nor base64"))
    }
}

/// The cluster that answers, and its revision at that time.
#[derive(Clone, Copy, Debug, Deserialize, Default, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Header {
    #[serde(rename = "cluster_id", deserialize_with = "number")]
    pub(super) cluster: u64,
    #[serde(deserialize_with = "number")]
    pub(super) revision: u64,
    /// Grows with each election, and begins anew in a cluster that was restored from a backup.
    #[serde(rename = "raft_term", deserialize_with = "number")]
    pub(super) term: u64,
}

/// A key and its value; for a deletion, the key and the revision `changed`.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Pair {
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    #[serde(rename = "create_revision", deserialize_with = "number")]
    pub(super) made: u64,
    #[serde(rename = "mod_revision", deserialize_with = "number")]
    pub(super) changed: u64,
    /// How often it was set since it was made.
    #[serde(deserialize_with = "number")]
    pub(super) version: u64,
    /// Its lease, or 0.
    #[serde(deserialize_with = "number")]
    pub(super) lease: i64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Range {
    pub(super) header: Header,
    pub(super) kvs: Vec<Pair>,
    pub(super) more: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Txn {
    pub(super) header: Header,
    pub(super) succeeded: bool,
    responses: Vec<Response>,
}

#[derive(Deserialize)]
struct Response {
    response_range: Option<Range>,
}

impl Txn {
    /// The results of the ranges of the transaction, in their order.
    pub(super) fn found(self) -> impl Iterator<Item = Option<Pair>> {
        self.responses
            .into_iter()
            .filter_map(|response| Some(response.response_range?.kvs.into_iter().next()))
    }
}

/// The remaining TTL of a lease in seconds; negative once it has expired.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Left {
    #[serde(rename = "TTL", deserialize_with = "number")]
    pub(super) seconds: i64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Watched {
    pub(super) header: Header,
    pub(super) created: bool,
    pub(super) canceled: bool,
    pub(super) cancel_reason: String,
    #[serde(deserialize_with = "number")]
    pub(super) compact_revision: u64,
    /// More events of the same revision follow.
    pub(super) fragment: bool,
    pub(super) events: Vec<Event>,
}

#[derive(Deserialize)]
pub(super) struct Event {
    /// `DELETE`, or nothing for a set.
    #[serde(default, rename = "type")]
    what: String,
    pub(super) kv: Pair,
}

impl Event {
    pub(super) fn is_deletion(&self) -> bool {
        self.what == "DELETE"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_bytes_are_strings() {
        let text = r#"{"header":{"cluster_id":"18446744073709551615","revision":"7","raft_term":"2"},"kvs":[{"key":"\u0059Q==",
            "create_revision":"2","mod_revision":"3"}],"more":true,"count":"1"}"#;
        let range: Range = serde_json::from_str(text).unwrap();
        assert_eq!(range.header, Header { cluster: u64::MAX, revision: 7, term: 2 });
        assert_eq!((&range.kvs[0].key.0[..], range.kvs[0].made, range.kvs[0].changed), (&b"a"[..], 2, 3));
        assert_eq!(serde_json::to_string(&range.kvs[0].key).unwrap(), "\"YQ==\"");
        for text in
            [r#"{"kvs":[{"key":"?"}]}"#, r#"{"header":{"revision":"x"}}"#, r#"{"header":{"revision":7}}"#]
        {
            assert!(serde_json::from_str::<Range>(text).is_err(), "{text}");
        }
    }
}
