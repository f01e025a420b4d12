//! The `etcd` store against real clusters of one and of three members.
#![allow(missing_docs, dead_code, clippy::unwrap_used)]

mod auth;
mod failover;
mod lease;
mod listing;
mod mounts;
mod non_utf8;
mod not_etcd;
mod offline;
mod renewed;
mod restored;
mod settled;
mod status;
mod tls;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use crate::common;
use crate::common::etcd as server;
use crate::common::pipe;
use crate::common::serve;
use crate::suite;
use kvfs::store::{EtcdSettings, EtcdStore, Location, Store};
use server::Shared;
use settled::Settled;
use suite::Fresh;

/// Upper bound for whatever is waited for; generous, because nothing here measures time.
const PATIENCE: Duration = crate::common::PATIENCE;

/// The store of this argument, without a login.
fn store_within(argument: &str, timeout: Duration) -> Arc<dyn Store> {
    let location = Location::parse(Some(argument), std::path::Path::new("/"));
    let Ok(Location::Etcd(address)) = location else { panic!("{location:?}") };
    Arc::new(EtcdStore::open(&EtcdSettings::plain(address), timeout).unwrap())
}

fn store(argument: &str) -> Arc<dyn Store> {
    store_within(argument, PATIENCE)
}

fn fresh(cluster: Option<Shared>) -> Option<Fresh> {
    let cluster = cluster?;
    let store = Arc::new(Settled(store(&cluster.argument())));
    let elsewhere = self::store(&cluster.argument());
    Some(Fresh { store, elsewhere, home: Some(Box::new(cluster)) })
}

mod on_one {
    fn fresh() -> Option<super::Fresh> {
        super::fresh(super::Shared::one())
    }

    conformance!(fresh, bytes);
}

mod on_three {
    fn fresh() -> Option<super::Fresh> {
        super::fresh(super::Shared::three())
    }

    conformance!(fresh, bytes);
}
