//! `prefect`: the Variables of Prefect 3. They have no revisions: a compare-and-set reads the variable just before it changes
//! it, which is best effort against other clients, except that one client only can create a variable.

mod api;
mod burst;
mod dotenv;
mod events;
mod own;
mod settings;
mod view;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::MutexGuard;

use super::{
    Change, Deadline, Entry, Error, Expect, Feed, Key, Limits, Listing, Meta, Result, Revision, Store, Text,
    VALUE_LIMIT, feed, json as json_text,
};
use api::Api;
use events::Follower;
use view::View;

pub use settings::{Login, Settings};

/// Largest value in bytes of compact JSON in UTF-8, as the server counts.
const SIZE_LIMIT: usize = 5_000;

/// Texts may have more bytes than the values they stand for.
const LIMITS: Limits =
    Limits { value: VALUE_LIMIT, key: 255, key_chars: "abcdefghijklmnopqrstuvwxyz0123456789_-", tags: true };

/// How often an upsert alternates PATCH and POST while others delete and create the variable.
const ROUNDS: usize = 3;

/// The Variables of a Prefect 3 server.
pub struct PrefectStore {
    name: String,
    view: Arc<View>,
    timeout: Duration,
    /// One change at a time: the server refuses most concurrent ones.
    changing: tokio::sync::Mutex<()>,
}

impl PrefectStore {
    /// The server of `settings`, whose calls end within `timeout`. Sends no request yet.
    pub fn open(settings: &Settings, timeout: Duration) -> std::result::Result<Self, String> {
        Ok(Self {
            name: format!("prefect:{}", settings.url),
            view: Arc::new(View {
                api: Api::new(settings, timeout)?,
                revisions: Mutex::default(),
                own: Mutex::default(),
            }),
            timeout,
            changing: tokio::sync::Mutex::default(),
        })
    }

    /// The lock for a change. A change that does not get it in time was not sent.
    async fn turn(&self) -> Result<MutexGuard<'_, ()>> {
        Deadline::wait_to_ask(self.timeout, self.changing.lock()).await
    }

    /// Sets `key` unconditionally.
    async fn upsert(&self, key: &Key, text: &Text) -> Result<Meta> {
        let missing = self.view.revisions.lock().is_missing(key);
        if missing {
            match self.create(key, text).await {
                Err(Error::Exists) => {}
                made => return made,
            }
        }
        let value = document(text);
        for _ in 0..ROUNDS {
            if self.view.api.patch(key, &format!(r#"{{"value":{value}}}"#)).await? {
                let known = self.view.revisions.lock().id(key);
                let id = if let Some(id) = known {
                    id
                } else {
                    let set = self.view.api.get(key).await.map_err(Error::unsure)?;
                    set.ok_or(Error::Changed)?.id.into()
                };
                return Ok(self.view.revisions.lock().set(key, id, text.clone()));
            }
            match self.create(key, text).await {
                Err(Error::Exists) => {}
                made => return made,
            }
        }
        Err(Error::Contended("others delete and make the variable all the time".into()).unsure())
    }

    async fn create(&self, key: &Key, text: &Text) -> Result<Meta> {
        let variable = format!(r#"{{"name":{},"value":{},"tags":[]}}"#, json!(key.as_str()), document(text));
        let made = self.view.api.create(&variable).await?;
        Ok(self.view.revisions.lock().set(key, made.id.into(), text.clone()))
    }

    async fn set(&self, key: &Key, text: &Text, expect: Expect) -> Result<Meta> {
        match expect {
            Expect::Absent => return self.create(key, text).await,
            Expect::At(_) => expect.check(self.view.fetch(key).await?.map(|entry| entry.meta.revision))?,
            Expect::Anything => {}
        }
        self.upsert(key, text).await
    }

    /// As [`PrefectStore::set`]; records `text` first, which others may see at the server before the answer comes.
    async fn change(&self, key: &Key, text: &Text, expect: Expect) -> Result<Meta> {
        self.view.revisions.lock().begin_set(key, text);
        self.view.own.lock().begin(key, Some(text));
        let set = self.set(key, text, expect).await;
        self.view.own.lock().end(key, set.is_ok());
        set.inspect_err(|error| self.view.revisions.lock().failed(key, error))
    }

    async fn remove(&self, key: &Key) -> Result<Revision> {
        self.view.revisions.lock().begin_delete(key);
        self.view.own.lock().begin(key, None);
        let deleted = self.view.api.delete(key).await;
        self.view.own.lock().end(key, deleted == Ok(true));
        let deleted = deleted.inspect_err(|error| self.view.revisions.lock().failed(key, error))?;
        let revision = self.view.revisions.lock().deleted(key);
        if deleted { Ok(revision) } else { Err(Error::NotFound) }
    }
}

/// The text of a value as it is sent: unparsed, so that numbers keep their digits.
fn document(text: &Text) -> String {
    String::from_utf8_lossy(text).trim().to_owned()
}

/// Fails for a value that some server would not keep as it is.
fn check_value(document: &[u8]) -> Result<()> {
    let value: Value = json_text::unique(document)?;
    let size = json_text::compact_len(&value);
    if size > SIZE_LIMIT {
        return Err(Error::TooLarge { size, limit: SIZE_LIMIT });
    }
    json_text::check_kept(&value)
}

#[async_trait]
impl Store for PrefectStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn check(&self, key: &Key, text: &[u8]) -> Result<()> {
        LIMITS.check(key, text)?;
        check_value(text)
    }

    async fn list_keys(&self) -> Result<Listing> {
        Ok(self.list_entries().await?.0)
    }

    async fn list_entries(&self) -> Result<(Listing, Vec<Text>)> {
        let asked = self.view.revisions.lock().begin_request();
        let rows = self.view.api.list().await?;
        Ok(self.view.revisions.lock().observe_listing(rows, asked))
    }

    async fn get_key_value(&self, key: &Key) -> Result<Entry> {
        self.view.fetch(key).await?.ok_or(Error::NotFound)
    }

    async fn set_key_value(&self, key: &Key, text: Text, expect: Expect) -> Result<Meta> {
        self.check(key, &text)?;
        let _one_at_a_time = self.turn().await?;
        self.change(key, &text, expect).await
    }

    async fn delete_key(&self, key: &Key, expect: Expect) -> Result<Revision> {
        LIMITS.check_key(key).map_err(|_| Error::NotFound)?;
        let _one_at_a_time = self.turn().await?;
        if expect != Expect::Anything {
            let entry = self.view.fetch(key).await?.ok_or(Error::NotFound)?;
            expect.check(Some(entry.meta.revision))?;
        }
        self.remove(key).await
    }

    /// One request, which keeps the id. If `to` exists it is set instead, with its own id, and `from` is deleted.
    async fn rename_key(&self, from: &Key, to: &Key, at: Expect, expect: Expect) -> Result<Meta> {
        let _one_at_a_time = self.turn().await?;
        let entry = self.view.fetch(from).await?.ok_or(Error::NotFound)?;
        at.check(Some(entry.meta.revision))?;
        LIMITS.check_key(to)?;
        if from == to {
            expect.check(Some(entry.meta.revision))?;
            return Ok(self.view.revisions.lock().renamed(from, to, entry));
        }
        if let Expect::At(_) = expect {
            expect.check(self.view.fetch(to).await?.map(|entry| entry.meta.revision))?;
        }
        self.view.own.lock().begin(to, Some(&entry.text));
        let renamed = self.view.api.patch(from, &json!({"name": to.as_str()}).to_string()).await;
        self.view.own.lock().end(to, renamed == Ok(true));
        match renamed {
            Ok(true) => Ok(self.view.revisions.lock().renamed(from, to, entry)),
            // The first of two attempts may have renamed it.
            Ok(false) => match self.view.api.get(to).await.map_err(Error::unsure)? {
                Some(variable) if *variable.id == *entry.meta.id => {
                    Ok(self.view.revisions.lock().renamed(from, to, entry))
                }
                _ => Err(Error::NotFound),
            },
            Err(Error::Exists) if expect == Expect::Absent => Err(Error::Exists),
            Err(Error::Exists) => {
                let meta = self.change(to, &entry.text, Expect::Anything).await?;
                self.remove(from).await.map_err(Error::unsure)?;
                Ok(meta)
            }
            Err(error) => {
                let mut revisions = self.view.revisions.lock();
                revisions.failed(from, &error);
                revisions.failed(to, &error);
                Err(error)
            }
        }
    }

    async fn get_tags(&self, key: &Key) -> Result<Vec<String>> {
        Ok(self.view.api.get(key).await?.ok_or(Error::NotFound)?.tags)
    }

    async fn set_tags(&self, key: &Key, tags: &[String]) -> Result<()> {
        tags.iter().try_for_each(|tag| json_text::check_text(tag))?;
        let _one_at_a_time = self.turn().await?;
        let set = self.view.api.patch(key, &json!({"tags": tags}).to_string()).await?;
        if set { Ok(()) } else { Err(Error::NotFound) }
    }

    async fn renew_credentials(&self) {
        self.view.api.login.read_again().await;
    }

    fn changes(&self) -> Option<Feed> {
        let (feed, changes) = feed::channel();
        // Until the first event nothing is promised.
        feed.send(Change::Paused);
        tokio::spawn(Follower::new(self.view.clone(), feed).run());
        Some(changes)
    }
}
