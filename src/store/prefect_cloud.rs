//! `prefect-cloud`: the KV API of Prefect Cloud 1, as `kvfs serve` and others speak it. Keys have ids and no revisions:
//! a compare-and-set reads the key just before it changes it, which is best effort against other clients.

mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::http::{ENTRY_LIMIT, Http, LISTING_LIMIT};
use super::json::{Unread, python_len, unique};
use super::renewed::{Read, Renewed};
use super::synthetic_revisions::{Row, SyntheticRevisions};
use super::trusted_http::TrustedHttp;
use super::{
    Entry, Error, Expect, Feed, Key, Limits, Listing, Meta, Result, Revision, Store, Text, VALUE_LIMIT,
};

pub use settings::Settings;

const SET: &str = "mutation($input: set_key_value_input!) { set_key_value(input: $input) { id } }";
const DELETE: &str =
    "mutation($input: delete_key_value_input!) { delete_key_value(input: $input) { success } }";
const FIELDS: &str = "id key value created updated";
/// Added to the message where no server of the API answers: other web servers answer in HTML, or do not know POST (501).
const ANOTHER: &str =
    "; what answers there is no server of the Prefect 1.x API; name one, such as `kvfs serve` is";

/// The KV API of Prefect Cloud 1 behind an address.
pub struct PrefectCloudStore {
    name: String,
    settings: Settings,
    key: Renewed<Option<String>>,
    http: TrustedHttp,
    revisions: Mutex<SyntheticRevisions>,
    /// Held during a change, from the read of its precondition on.
    changing: tokio::sync::Mutex<()>,
}

impl PrefectCloudStore {
    /// The API at `settings`, whose calls end within `timeout`. Sends no request yet.
    pub fn open(settings: &Settings, timeout: Duration) -> std::result::Result<Self, String> {
        let read = settings
            .key_source
            .clone()
            .map(|source| Arc::new(move || source.read().map(Some)) as Arc<Read<Option<String>>>);
        Ok(Self {
            name: format!("prefect-cloud:{}", settings.url),
            settings: settings.clone(),
            key: Renewed::new(settings.key.clone(), read),
            http: TrustedHttp::new({
                let url = settings.url.clone();
                move || Http::new(&url, None, timeout)
            })?,
            revisions: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        })
    }

    /// The `data` of the answer to one GraphQL request, of at most `limit` bytes, and whether an earlier request may have
    /// been carried out; `variables` is JSON text. Sent again with a new API key if the old one was refused and has been replaced.
    async fn ask<T: DeserializeOwned>(
        &self,
        query: &str,
        variables: &str,
        limit: usize,
    ) -> Result<(T, bool)> {
        let (used, began) = (self.key.get(), Instant::now());
        match self.ask_once(query, variables, limit).await {
            Err(Error::Denied(_)) if self.key.renew(&used).await => {}
            Err(Error::Untrusted(_)) if self.http.renew(began).await => {}
            answer => return answer,
        }
        self.ask_once(query, variables, limit).await
    }

    async fn ask_once<T: DeserializeOwned>(
        &self,
        query: &str,
        variables: &str,
        limit: usize,
    ) -> Result<(T, bool)> {
        // The 1.x client sends its variables as a string.
        let body = json!({"query": query, "variables": variables}).to_string();
        let mut request = self.http.get().client().post(&self.settings.url).body(body);
        request =
            request.header("content-type", "application/json").header("x-prefect-core-version", "1.4.1");
        if let Some(key) = self.key.get() {
            request = request.bearer_auth(key);
        }
        if let Some(tenant) = &self.settings.tenant {
            request = request.header("x-prefect-tenant-id", tenant);
        }
        let answer = self.http.get().send(request, limit).await.map_err(|error| self.explain(error))?;
        let parsed: Envelope<'_> = serde_json::from_slice(&answer.body).map_err(|_| {
            Error::Other(format!("the answer (HTTP {}) is not GraphQL{ANOTHER}", answer.status))
        })?;
        if !parsed.errors.is_empty() {
            let error = self.explain(refused(&parsed.errors));
            return Err(if answer.repeated { error.unsure() } else { error });
        }
        let data = parsed
            .data
            .ok_or_else(|| Error::Other(format!("the answer (HTTP {}) is empty", answer.status)))?;
        Ok((parse(data)?, answer.repeated))
    }

    /// Adds the source of a refused API key to the message.
    fn explain(&self, error: Error) -> Error {
        match error {
            Error::Denied(why) if self.settings.key.is_none() => Error::Denied(format!(
                "{why}; there is no API key: set PREFECT__CLOUD__API_KEY or `prefect auth login`"
            )),
            Error::Denied(why) => {
                Error::Denied(format!("{why}; the API key is from {}", self.settings.key_from))
            }
            error => error,
        }
    }

    async fn rows(&self, filter: &str, limit: usize) -> Result<Vec<(Key, Row)>> {
        let query = format!("query {{ key_value{filter} {{ {FIELDS} }} }}");
        let (rows, _): (Rows, _) = self.ask(&query, "null", limit).await?;
        Ok(rows.key_value)
    }

    /// Fetches the key.
    async fn fetch(&self, key: &Key) -> Result<Option<Entry>> {
        let asked = self.revisions.lock().begin_request();
        let filter = format!("(where: {{ key: {{ _eq: {} }} }})", graphql_string(key.as_str()));
        let rows = self.rows(&filter, ENTRY_LIMIT).await?;
        if rows.iter().any(|(found, _)| found != key) {
            return Err(Error::Other(
                "the answer is about other keys than the one that was asked for".into(),
            ));
        }
        let row = rows.into_iter().next().map(|(_, row)| row);
        Ok(self.revisions.lock().observe(key, row, asked))
    }

    /// Fails if `expect` does not hold at the server now.
    async fn holds(&self, key: &Key, expect: Expect) -> Result<()> {
        if expect == Expect::Anything {
            return Ok(());
        }
        expect.check(self.fetch(key).await?.map(|entry| entry.meta.revision))
    }

    async fn set(&self, key: &Key, text: &Text) -> Result<Meta> {
        let document = String::from_utf8_lossy(text);
        // The text itself, so that numbers keep their digits.
        let variables =
            format!(r#"{{"input":{{"key":{},"value":{}}}}}"#, json!(key.as_str()), document.trim());
        self.revisions.lock().begin_set(key, text);
        let id = self.ask(SET, &variables, ENTRY_LIMIT).await.and_then(|(answer, _): (SetAnswer, _)| {
            answer.set_key_value.ok_or_else(|| Error::Other("the server has set nothing".into()))
        });
        let id = id.inspect_err(|error| self.revisions.lock().failed(key, error))?.id;
        Ok(self.revisions.lock().set(key, id_text(id), text.clone()))
    }

    async fn delete(&self, key: &Key, id: &str) -> Result<Revision> {
        let variables = json!({"input": {"key_value_id": id}}).to_string();
        let success = self.ask(DELETE, &variables, ENTRY_LIMIT).await.and_then(
            |(answer, repeated): (DeleteAnswer, _)| {
                let answer = answer.delete_key_value;
                let answer = answer.ok_or_else(|| Error::Other("the server has deleted nothing".into()))?;
                // The first of two attempts may have deleted it.
                if answer.success || repeated { Ok(()) } else { Err(Error::NotFound) }
            },
        );
        success.inspect_err(|error| self.revisions.lock().failed(key, error))?;
        Ok(self.revisions.lock().deleted(key))
    }
}

#[async_trait]
impl Store for PrefectCloudStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn limits(&self) -> Limits {
        Limits::bytes(VALUE_LIMIT, 64 << 10)
    }

    fn check(&self, key: &Key, text: &[u8]) -> Result<()> {
        self.limits().check(key, text)?;
        let size = python_len(&unique(text)?);
        if size > VALUE_LIMIT { Err(Error::TooLarge { size, limit: VALUE_LIMIT }) } else { Ok(()) }
    }

    async fn list_keys(&self) -> Result<Listing> {
        Ok(self.list_entries().await?.0)
    }

    async fn list_entries(&self) -> Result<(Listing, Vec<Text>)> {
        let asked = self.revisions.lock().begin_request();
        let rows = self.rows("", LISTING_LIMIT).await?;
        Ok(self.revisions.lock().observe_listing(rows, asked))
    }

    async fn get_key_value(&self, key: &Key) -> Result<Entry> {
        self.fetch(key).await?.ok_or(Error::NotFound)
    }

    async fn set_key_value(&self, key: &Key, text: Text, expect: Expect) -> Result<Meta> {
        self.check(key, &text)?;
        let _one_at_a_time = self.changing.lock().await;
        self.holds(key, expect).await?;
        self.set(key, &text).await
    }

    async fn delete_key(&self, key: &Key, expect: Expect) -> Result<Revision> {
        let _one_at_a_time = self.changing.lock().await;
        let known = self.revisions.lock().id(key).filter(|_| expect == Expect::Anything);
        if let Some(id) = known {
            match self.delete(key, &id).await {
                // Set anew by somebody else, under another id.
                Err(Error::NotFound) => {}
                done => return done,
            }
        }
        let entry = self.fetch(key).await?.ok_or(Error::NotFound)?;
        expect.check(Some(entry.meta.revision))?;
        match self.delete(key, &entry.meta.id).await {
            Err(Error::NotFound) => match self.fetch(key).await? {
                Some(still) if still.meta.id == entry.meta.id => {
                    Err(Error::Other("the server has not deleted the key, and does not say why".into()))
                }
                _ => Err(Error::NotFound),
            },
            done => done,
        }
    }

    async fn renew_credentials(&self) {
        self.key.read_again().await;
    }

    fn changes(&self) -> Option<Feed> {
        None
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    errors: Vec<Value>,
}

#[derive(Deserialize)]
struct Rows {
    #[serde(deserialize_with = "rows")]
    key_value: Vec<(Key, Row)>,
}

/// Rows one by one: all of them, read in part only, would take the room of the answer several times.
fn rows<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<(Key, Row)>, D::Error> {
    struct Each;

    impl<'de> Visitor<'de> for Each {
        type Value = Vec<(Key, Row)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("rows")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self::Value, A::Error> {
            let mut rows = Vec::new();
            while let Some(row) = seq.next_element::<RawRow<'_>>()? {
                rows.extend(row.read().map_err(A::Error::custom)?);
            }
            Ok(rows)
        }
    }

    deserializer.deserialize_seq(Each)
}

/// Members are read one by one: one that is broken or nested too deeply must not hide the others.
#[derive(Deserialize)]
struct RawRow<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    key: &'a RawValue,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    created: Option<String>,
    updated: Option<String>,
}

impl RawRow<'_> {
    fn read(self) -> std::result::Result<Option<(Key, Row)>, String> {
        let Ok(key) = serde_json::from_str::<String>(self.key.get()) else {
            if !self.key.get().starts_with('"') {
                return Err("a key is no string".into());
            }
            tracing::warn!("a key that is no Unicode text is left out: {}", self.key.get());
            return Ok(None);
        };
        let value = Unread::of(self.value.unwrap_or(RawValue::NULL));
        let time = |text: Option<String>| text?.parse::<Timestamp>().ok().map(SystemTime::from);
        let id = serde_json::from_str(self.id.get()).map_err(|error| error.to_string())?;
        let id = id_text(id);
        Ok(Some((key.into(), Row { id, value, created: time(self.created), updated: time(self.updated) })))
    }
}

#[derive(Deserialize)]
struct SetAnswer {
    set_key_value: Option<SetId>,
}

#[derive(Deserialize)]
struct SetId {
    id: Value,
}

#[derive(Deserialize)]
struct DeleteAnswer {
    delete_key_value: Option<Success>,
}

#[derive(Deserialize)]
struct Success {
    success: bool,
}

fn parse<'a, T: Deserialize<'a>>(data: &'a RawValue) -> Result<T> {
    serde_json::from_str(data.get()).map_err(unknown)
}

#[allow(clippy::needless_pass_by_value, reason = "an argument of map_err")]
fn unknown(error: serde_json::Error) -> Error {
    Error::Other(format!("the answer is not what the KV API gives: {error}"))
}

fn id_text(id: Value) -> Arc<str> {
    match id {
        Value::String(text) => text.into(),
        other => other.to_string().into(),
    }
}

/// A GraphQL string; its escapes are those of JSON.
fn graphql_string(text: &str) -> String {
    Value::from(text).to_string()
}

/// Translates GraphQL errors, by the codes and words that the 1.x client looks for.
fn refused(errors: &[Value]) -> Error {
    let code = errors[0]["extensions"]["code"].as_str().unwrap_or_default();
    let message: String =
        errors[0]["message"].as_str().unwrap_or("unknown error").chars().take(200).collect();
    let all = Value::from(errors.to_vec()).to_string();
    if all.contains("UNAUTHENTICATED") || all.contains("Malformed Authorization") || code == "FORBIDDEN" {
        return Error::Denied(message);
    }
    if all.contains("API_ERROR") {
        return Error::Busy(message).unsure();
    }
    if message.contains("10 KB limit") {
        return Error::TooLarge { size: VALUE_LIMIT + 1, limit: VALUE_LIMIT };
    }
    if message.contains("license") {
        return Error::Quota(message);
    }
    Error::Other(message)
}
