//! `etcd:`, an etcd cluster through its JSON gateway. Every change is one transaction, sent once; every read is linearizable.
//!
//! A key is the part after the prefix. Its id is its create revision, so it does not outlive a rename. etcd stores no times: they
//! are those at which this process saw the revisions ([`clock`]).

mod address;
mod api;
mod api_error;
mod clock;
mod credentials;
mod failure;
mod member_error;
mod members;
mod probe;
mod settings;
mod txn;
mod view;
mod watch;
mod wire;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::api::Api;
use self::failure::Failure;
use self::txn::{Plan, exists, is_absent, is_at};
use self::view::{View, too_big};
use self::watch::Follower;
use self::wire::Pair;
use super::{
    Change, Entry, Error, Expect, Feed, Key, Limits, Listing, Meta, Rename, Result, Revision, Store, Text,
    VALUE_LIMIT, feed,
};

pub use address::Address;
pub use settings::Settings;

/// Largest key in bytes; etcd itself limits the request only.
const KEY_LIMIT: usize = 64 << 10;
/// Renames in one transaction: each needs two of the 128 comparisons that a server allows by default.
const RENAMES: usize = 64;
/// How often a rename is tried while others change its source.
const ROUNDS: usize = 10;

/// The keys of a cluster below a prefix.
pub struct EtcdStore {
    name: String,
    view: Arc<View>,
    /// Dropped with the store, which ends the followers.
    open: tokio::sync::watch::Sender<()>,
}

impl EtcdStore {
    /// The cluster of `settings`, whose calls end within `timeout`. Sends no request yet.
    pub fn open(settings: &Settings, timeout: Duration) -> std::result::Result<Self, String> {
        let view = View::new(Api::new(settings, timeout)?, settings.address.prefix.clone());
        Ok(Self {
            name: settings.address.to_string(),
            view: Arc::new(view),
            open: tokio::sync::watch::Sender::new(()),
        })
    }

    /// One try of a rename; `None` if the source has changed since it was read.
    async fn rename_once(&self, from: &Key, to: &Key, at: Expect, expect: Expect) -> Result<Option<Meta>> {
        let mut found = Plan::new(&self.view).read(from).read(to).run().await?.pairs().into_iter();
        let source = found.next().flatten().ok_or(Error::NotFound)?;
        let target = found.next().flatten().map(|pair| Revision(pair.changed));
        let (before, text) = (Revision(source.changed), source.value.0);
        at.check(Some(before))?;
        expect.check(target)?;
        let mut plan = Plan::new(&self.view);
        plan.expect(from, Expect::At(before));
        match (target, expect) {
            (None, _) => plan.expect(to, Expect::Absent).make(to, &text, source.lease),
            (Some(_), Expect::Anything) => plan.compare(exists(&self.view.sent(to))).replace(to, &text),
            (Some(_), _) => plan.expect(to, expect).replace(to, &text),
        };
        if from != to {
            plan.delete(from);
        }
        let done = plan.look(to).otherwise(from).otherwise(to).run().await;
        let done = done.map_err(|failure| match failure {
            Failure::TooBig => too_big(text.len()),
            failure => failure.into(),
        })?;
        if let Some(revision) = done.revision() {
            if from != to {
                self.view.see_gone(from, revision);
            }
            return Ok(Some(done.meta(revision, &text)));
        }
        let [source, target] = [0, 1].map(|index| done.there(index));
        match source {
            None => return Err(Error::NotFound),
            Some(revision) if revision == before && from != to => expect.check(target)?,
            Some(_) if at != Expect::Anything => return Err(Error::Changed),
            Some(_) => {}
        }
        Ok(None)
    }

    /// Reads the sources of renames; fails if one is not at its revision.
    async fn sources(&self, renames: &[Rename]) -> Result<Vec<Pair>> {
        let mut plan = Plan::new(&self.view);
        for rename in renames {
            plan.read(&rename.from);
        }
        let found = plan.run().await?.pairs();
        let sources = found
            .into_iter()
            .zip(renames)
            .map(|(pair, rename)| pair.filter(|pair| pair.changed == rename.at.0).ok_or(Error::Changed));
        sources.collect()
    }
}

#[async_trait]
impl Store for EtcdStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn limits(&self) -> Limits {
        Limits::bytes(VALUE_LIMIT, KEY_LIMIT)
    }

    fn check(&self, key: &Key, text: &[u8]) -> Result<()> {
        self.limits().check(key, text)?;
        let invalid = || Error::Invalid("etcd has no empty key".into());
        if self.view.can_be(key) { Ok(()) } else { Err(invalid()) }
    }

    async fn list_keys(&self) -> Result<Listing> {
        Ok(self.view.list().await?.0)
    }

    async fn list_entries(&self) -> Result<(Listing, Vec<Text>)> {
        Ok(self.view.list().await?)
    }

    async fn get_key_value(&self, key: &Key) -> Result<Entry> {
        if !self.view.can_be(key) {
            return Err(Error::NotFound);
        }
        self.view.get(key).await?.ok_or(Error::NotFound)
    }

    async fn set_key_value(&self, key: &Key, text: Text, expect: Expect) -> Result<Meta> {
        self.check(key, &text)?;
        let mut plan = Plan::new(&self.view);
        match expect {
            Expect::Anything => plan.put(key, &text),
            Expect::Absent => plan.expect(key, expect).make(key, &text, 0).look(key),
            Expect::At(_) => plan.expect(key, expect).replace(key, &text).look(key),
        };
        let done = plan.run().await?;
        match (done.revision(), expect) {
            (Some(revision), _) => Ok(done.meta(revision, &text)),
            (None, Expect::Absent) => Err(Error::Exists),
            (None, Expect::At(_) | Expect::Anything) => Err(Error::Changed),
        }
    }

    async fn delete_key(&self, key: &Key, expect: Expect) -> Result<Revision> {
        if !self.view.can_be(key) {
            return Err(Error::NotFound);
        }
        let mut plan = Plan::new(&self.view);
        match expect {
            Expect::Absent => plan.compare(is_absent(&self.view.sent(key))),
            Expect::At(revision) => plan.compare(is_at(&self.view.sent(key), revision)).delete(key),
            Expect::Anything => plan.compare(exists(&self.view.sent(key))).delete(key),
        };
        let done = plan.otherwise(key).run().await?;
        match (done.revision(), expect) {
            (Some(_), Expect::Absent) => Err(Error::NotFound),
            (Some(revision), _) => {
                self.view.see_gone(key, revision);
                Ok(revision)
            }
            (None, _) => match done.there(0) {
                Some(revision) => expect.check(Some(revision)).and(Err(Error::Changed)),
                None => Err(Error::NotFound),
            },
        }
    }

    async fn rename_key(&self, from: &Key, to: &Key, at: Expect, expect: Expect) -> Result<Meta> {
        if !self.view.can_be(from) {
            return Err(Error::NotFound);
        }
        self.check(to, &[])?;
        for _ in 0..ROUNDS {
            if let Some(meta) = self.rename_once(from, to, at, expect).await? {
                return Ok(meta);
            }
        }
        Err(Error::Contended("others change the key all the time".into()))
    }

    async fn rename_keys(&self, renames: &[Rename]) -> Result<Vec<Meta>> {
        Rename::check(renames)?;
        renames.iter().try_for_each(|rename| self.check(&rename.to, &[]))?;
        if renames.is_empty() {
            return Ok(Vec::new());
        }
        if renames.len() > RENAMES {
            return Err(Error::TooMany(RENAMES));
        }
        let sources = self.sources(renames).await?;
        let mut plan = Plan::new(&self.view);
        for (Rename { from, to, at }, source) in renames.iter().zip(&sources) {
            plan.expect(from, Expect::At(*at)).expect(to, Expect::Absent);
            plan.make(to, &source.value.0, source.lease).delete(from).otherwise(from);
        }
        let done = match plan.run().await {
            Err(Failure::TooManyOps | Failure::TooBig) => return Err(Error::TooMany(1)),
            done => done?,
        };
        if let Some(revision) = done.revision() {
            let made = |(rename, source): (&Rename, &Pair)| {
                self.view.see_gone(&rename.from, revision);
                done.made(&rename.to, revision, &source.value.0)
            };
            return Ok(renames.iter().zip(&sources).map(made).collect());
        }
        let unchanged = |(index, rename): (usize, &Rename)| done.there(index) == Some(rename.at);
        Err(if renames.iter().enumerate().all(unchanged) { Error::Exists } else { Error::Changed })
    }

    async fn get_ttl(&self, key: &Key) -> Result<Option<Duration>> {
        if !self.view.can_be(key) {
            return Err(Error::NotFound);
        }
        Ok(self.view.left(key).await?)
    }

    async fn count_left_out(&self, start: &Key) -> Result<usize> {
        Ok(self.view.count_non_utf8(start).await?)
    }

    fn take_pushed_value(&self, key: &Key, revision: Revision) -> Option<Text> {
        self.view.take_pushed(key, revision)
    }

    async fn renew_credentials(&self) {
        self.view.api.renew().await;
    }

    fn changes(&self) -> Option<Feed> {
        let (feed, changes) = feed::channel();
        // Nothing is promised before the watch is open.
        feed.send(Change::Paused);
        tokio::spawn(Follower::new(self.view.clone(), feed).run(self.open.subscribe()));
        Some(changes)
    }
}
