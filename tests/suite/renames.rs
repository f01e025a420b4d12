//! Renames of several keys as one.

use kvfs::store::{Error, Key, Meta, Rename, Result, Revision};

use super::Bench;

/// A rename of the version that is there.
async fn plan(at: &Bench, from: &str, to: &str) -> Rename {
    let revision = at.get(from).await.map(|entry| entry.meta.revision).unwrap_or_default();
    Rename { from: from.into(), to: to.into(), at: revision }
}

async fn plans(at: &Bench, names: &[(&str, &str)]) -> Vec<Rename> {
    let mut plans = Vec::new();
    for (from, to) in names {
        plans.push(plan(at, from, to).await);
    }
    plans
}

async fn refused(at: &Bench, renames: &[Rename], why: Error) {
    let before = at.everything().await;
    assert_eq!(at.0.rename_keys(renames).await, Err(why));
    assert_eq!(at.everything().await, before);
}

pub(crate) async fn all_keys_are_renamed(at: Bench) {
    let (froms, tos): (Vec<String>, Vec<String>) =
        (0..30).map(|number| (format!("a/{number:02}"), format!("b/{number:02}"))).unzip();
    let mut renames = Vec::new();
    for (number, (from, to)) in froms.iter().zip(&tos).enumerate() {
        at.set(from, number.to_string()).await;
        renames.push(plan(&at, from, to).await);
    }
    at.set("other", "1").await;
    let metas = at.0.rename_keys(&renames).await.unwrap();
    let expected: Vec<(String, Meta)> = tos.iter().cloned().zip(metas).collect();
    let mut listed = at.list().await;
    assert_eq!(listed.pop().unwrap().0, "other");
    assert_eq!(listed, expected);
    for (number, (to, rename)) in tos.iter().zip(&renames).enumerate() {
        let entry = at.get(to).await.unwrap();
        assert_eq!(entry.text[..], *number.to_string().as_bytes());
        assert!(entry.meta.revision > rename.at);
    }
    assert_eq!(at.0.rename_keys(&[]).await, Ok(Vec::new()));
}

pub(crate) async fn no_key_is_renamed_if_a_source_has_changed(at: Bench) {
    for key in ["a", "b", "c"] {
        at.set(key, "1").await;
    }
    let renames = plans(&at, &[("a", "x"), ("b", "y"), ("c", "z")]).await;
    at.set("b", "2").await;
    refused(&at, &renames, Error::Changed).await;
    at.delete("b").await.unwrap();
    refused(&at, &renames, Error::Changed).await;
}

pub(crate) async fn no_key_is_renamed_if_a_target_exists(at: Bench) {
    for key in ["a", "b", "there"] {
        at.set(key, "1").await;
    }
    let renames = plans(&at, &[("a", "x"), ("b", "there")]).await;
    refused(&at, &renames, Error::Exists).await;
    at.delete("there").await.unwrap();
    at.0.rename_keys(&renames).await.unwrap();
    assert_eq!(at.keys().await, ["there", "x"]);
}

pub(crate) async fn no_key_is_renamed_if_one_is_named_twice(at: Bench) {
    for key in ["a", "b"] {
        at.set(key, "1").await;
    }
    for names in [[("a", "x"), ("b", "x")], [("a", "b"), ("b", "c")], [("a", "x"), ("a", "y")]] {
        let renames = plans(&at, &names).await;
        refused(&at, &renames, Error::Exists).await;
    }
}

pub(crate) async fn one_key_is_renamed_by_any_store(at: Bench) {
    at.set("from", "1").await;
    let old = plan(&at, "from", "to").await;
    let moved: Result<Vec<Meta>> = at.0.rename_keys(std::slice::from_ref(&old)).await;
    assert_eq!(at.list().await, [("to".to_owned(), moved.unwrap().remove(0))]);
    refused(&at, &[old], Error::Changed).await;
    at.set("there", "2").await;
    let onto = plan(&at, "to", "there").await;
    refused(&at, &[onto], Error::Exists).await;
    let never = Rename { from: Key::from("to"), to: Key::from("new"), at: Revision(u64::MAX >> 1) };
    refused(&at, &[never], Error::Changed).await;
}
