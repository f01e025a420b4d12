//! The `prefect` store against the real Prefect 3 server, its client and its command line.
#![allow(missing_docs, dead_code, clippy::unwrap_used)]

mod clients;
mod copy;
mod events;
mod files;
mod load;
mod offline;
mod paging;
mod postgres;
mod renewed;
mod secured;

use std::sync::Arc;
use std::time::Duration;

use crate::common;
use crate::common::pipe;
use crate::common::prefect as server;
use crate::common::proxy;
use crate::suite;
use common::Mount;
use kvfs::store::{PrefectSettings, PrefectStore, Store};
use server::Server;
use suite::Fresh;
use tempfile::TempDir;

/// Upper bound for whatever is waited for; generous, because nothing here measures time.
const PATIENCE: Duration = crate::common::PATIENCE;

/// A mount of the server at `address`.
fn mount(address: &str, args: &[&str]) -> Mount {
    Mount::start_in(TempDir::new().unwrap(), &format!("prefect:http://{address}/api"), args)
}

fn store(server: &Server) -> Arc<dyn Store> {
    let settings = PrefectSettings { url: server.url(), ..PrefectSettings::default() };
    Arc::new(PrefectStore::open(&settings, PATIENCE).unwrap())
}

mod conformance {
    fn fresh() -> Option<super::Fresh> {
        let server = super::Server::fresh()?;
        let (store, elsewhere) = (super::store(&server), super::store(&server));
        Some(super::Fresh { store, elsewhere, home: Some(Box::new(server)) })
    }

    conformance!(fresh, json);
}
