//! A listing in pages while variables come and go.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::common::Raise;
use super::server::Server;
use super::store;

/// More than two pages.
const STAY: usize = 420;

#[test]
fn what_stays_is_in_every_listing_and_nothing_is_there_twice() {
    let Some(server) = Server::fresh() else { return };
    for number in 0..STAY {
        server.create(&json!({"name": format!("k{number:03}"), "value": number}));
    }
    let (store, api, over) = (store(&server), (*server).clone(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // First in the order of names, so that all others move.
            while !over.load(Ordering::Relaxed) {
                for number in 0..5 {
                    api.create(&json!({"name": format!("a{number}"), "value": number}));
                }
                for number in 0..5 {
                    api.delete(&format!("a{number}"));
                }
            }
        });
        let _end = Raise(&over);
        super::suite::block_on(async {
            for _ in 0..15 {
                let listing = store.list_keys().await.unwrap();
                let names: BTreeSet<&str> = listing.iter().map(|(key, _)| key.as_str()).collect();
                assert_eq!(names.len(), listing.len());
                assert_eq!(names.iter().filter(|name| name.starts_with('k')).count(), STAY);
            }
        });
    });
}
