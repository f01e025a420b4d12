//! `memory:`

use std::sync::Arc;

use kvfs::store::{Location, MemoryStore, Store, open};

use crate::suite::Fresh;

fn fresh() -> Fresh {
    let store = MemoryStore::new();
    let elsewhere = Arc::new(store.second_client());
    Fresh { store: Arc::new(store), elsewhere, home: None }
}

conformance!(fresh, attributes);

fn open_memory() -> Arc<dyn Store> {
    open(&Location::Memory, crate::suite::PATIENCE).unwrap().0
}

#[test]
fn it_keeps_ten_thousand_bytes_and_tells_of_changes() {
    assert_eq!(fresh().store.limits().value, 10_000);
    assert!(fresh().store.changes().is_some());
}

#[test]
fn each_one_is_a_store_of_its_own() {
    let stores: [Arc<dyn Store>; 2] = [open_memory(), open_memory()];
    let mut other = stores[1].changes().unwrap();
    crate::suite::block_on(async {
        stores[0]
            .set_key_value(&"a".into(), Arc::from(&b"1"[..]), kvfs::store::Expect::Absent)
            .await
            .unwrap();
        assert!(stores[1].list_keys().await.unwrap().is_empty());
    });
    assert!(other.take_waiting().is_empty());
}
