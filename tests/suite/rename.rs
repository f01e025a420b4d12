//! Renames.

use kvfs::store::Error;

use super::Bench;

pub(crate) async fn a_rename_moves_value_id_and_creation_time(at: Bench) {
    at.set("from", "1").await;
    let old = at.set("from", "[1, 2]").await;
    let new = at.rename("from", "to").await.unwrap();
    assert_eq!((&new.id, new.size, new.created), (&old.id, old.size, old.created));
    assert!(new.revision > old.revision && new.modified > old.modified);
    assert!(at.is_missing("from").await);
    assert_eq!(at.text("to").await, b"[1, 2]");
    assert_eq!(at.list().await, [("to".to_owned(), new)]);
}

pub(crate) async fn a_rename_moves_the_value(at: Bench) {
    let old = at.set("from", "[1, 2]").await;
    let new = at.rename("from", "to").await.unwrap();
    assert!(new.revision > old.revision && new.modified > old.modified && new.size == 6);
    assert!(at.is_missing("from").await);
    assert_eq!(at.text("to").await, b"[1, 2]");
    assert_eq!(at.list().await, [("to".to_owned(), new)]);
}

pub(crate) async fn a_rename_onto_a_key_replaces_its_value(at: Bench) {
    at.set("from", "1").await;
    let replaced = at.set("to", "[1, 2, 3]").await;
    let new = at.rename("from", "to").await.unwrap();
    assert!(new.revision > replaced.revision && new.size == 1);
    assert_eq!(at.text("to").await, b"1");
    assert_eq!(at.list().await, [("to".to_owned(), new)]);
}

pub(crate) async fn a_rename_onto_a_key_replaces_it(at: Bench) {
    let from = at.set("from", "1").await;
    let replaced = at.set("to", "[1, 2, 3]").await;
    let new = at.rename("from", "to").await.unwrap();
    assert_eq!((&new.id, new.size, new.created), (&from.id, 1, from.created));
    assert!(new.revision > replaced.revision);
    assert_eq!(at.text("to").await, b"1");
    assert_eq!(at.list().await, [("to".to_owned(), new)]);
    at.set("from", "4").await;
    assert_eq!(at.text("to").await, b"1");
}

pub(crate) async fn a_rename_to_itself_keeps_the_key(at: Bench) {
    let old = at.set("k", "[1]").await;
    let new = at.rename("k", "k").await.unwrap();
    assert_eq!((&new.id, new.size, new.created), (&old.id, old.size, old.created));
    assert_eq!(at.text("k").await, b"[1]");
    assert_eq!(at.list().await, [("k".to_owned(), new)]);
}

pub(crate) async fn a_missing_source_leaves_the_target_alone(at: Bench) {
    at.set("to", "1").await;
    let before = at.everything().await;
    assert_eq!(at.rename("from", "to").await, Err(Error::NotFound));
    assert_eq!(at.everything().await, before);
}
