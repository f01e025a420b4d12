//! Keys: which texts are keys, and how they are listed.

use kvfs::store::{Error, Expect};
use serde_json::json;
use tokio::task::JoinSet;

use super::Bench;

fn odd_keys() -> Vec<String> {
    let odd = [
        "",
        " ",
        " a",
        "a ",
        "a b",
        "/",
        "a/b",
        "/a/",
        ".",
        "..",
        "\0",
        "a\0b",
        "\n",
        "a\nb",
        "\r\n",
        "\t",
        "\u{7f}",
        "'",
        "\"",
        "`",
        "\\",
        "%",
        "%2F",
        "%_",
        "_",
        "*",
        "?",
        ";--",
        "'; DROP TABLE entry; --",
        "🔑",
        "👩‍👩‍👧",
        "\u{202e}",
        "\u{feff}",
        "\u{10ffff}",
        "日本語",
        "ключ",
        "null",
        "0",
        "1e3",
        "0x10",
        "true",
        "{\"a\":1}",
    ];
    odd.into_iter().map(str::to_owned).chain(["k".repeat(5_000), "é".repeat(5_000)]).collect()
}

/// Any text is a key, or any that has only the characters of the store's rule; what breaks it is refused unasked.
pub(crate) async fn any_text_is_a_key(at: Bench) {
    let limits = at.0.limits();
    let (mut keys, refused): (Vec<String>, Vec<String>) =
        odd_keys().into_iter().partition(|key| limits.check_key(&key.as_str().into()).is_ok());
    assert_eq!(refused.is_empty(), limits.key_chars.is_empty());
    for key in refused {
        let refusal = at.try_set(&key, "1", Expect::Anything).await;
        assert!(matches!(refusal, Err(Error::BadKey(_) | Error::KeyTooLong { .. })), "{key:?}: {refusal:?}");
        assert!(at.is_missing(&key).await, "{key:?}");
        assert_eq!(at.delete(&key).await, Err(Error::NotFound), "{key:?}");
    }
    for (number, key) in keys.iter().enumerate() {
        at.try_set(key, number.to_string(), Expect::Absent).await.unwrap();
    }
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(at.text(key).await, number.to_string().as_bytes(), "{key:?}");
    }
    at.rename(&keys[0], "moved").await.unwrap();
    at.rename("moved", &keys[0]).await.unwrap();
    keys.sort_unstable();
    assert_eq!(at.keys().await, keys);
    for key in &keys {
        at.delete(key).await.unwrap();
        assert!(at.is_missing(key).await, "{key:?}");
    }
    assert_eq!(at.keys().await, [""; 0]);
}

pub(crate) async fn keys_that_look_alike_are_different(at: Bench) {
    let mut alike = vec![
        "\u{e9}", "e\u{301}", "k", "K", "\u{212a}", "k ", "k\0", "k\0\0", "1", "01", "1.0", "ß", "ss",
        "\u{fb01}", "fi", "i", "ı", "a-b", "a_b",
    ];
    alike.retain(|key| at.0.limits().check_key(&(*key).into()).is_ok());
    for key in &alike {
        at.try_set(key, json!(key).to_string(), Expect::Absent).await.unwrap();
    }
    for key in &alike {
        assert_eq!(at.text(key).await, json!(key).to_string().as_bytes());
    }
    assert_eq!(at.list().await.len(), alike.len());
}

pub(crate) async fn a_key_at_the_limit_is_kept(at: Bench) {
    let key = "k".repeat(at.0.limits().key);
    at.set(&key, "1").await;
    assert_eq!(at.text(&key).await, b"1");
    assert_eq!(at.keys().await, [key.as_str()]);
    at.rename(&key, "short").await.unwrap();
    at.rename("short", &key).await.unwrap();
    at.delete(&key).await.unwrap();
    assert_eq!(at.keys().await, [""; 0]);
}

pub(crate) async fn a_key_over_the_limit_is_refused_and_changes_nothing(at: Bench) {
    let limit = at.0.limits().key;
    let long = "k".repeat(limit + 1);
    let too_long = Error::KeyTooLong { size: long.len(), limit };
    at.set("k", "1").await;
    let before = at.everything().await;
    assert_eq!(at.try_set(&long, "1", Expect::Anything).await, Err(too_long.clone()));
    assert_eq!(at.rename("k", &long).await, Err(too_long));
    assert_eq!(at.get(&long).await, Err(Error::NotFound));
    assert_eq!(at.delete(&long).await, Err(Error::NotFound));
    assert_eq!(at.everything().await, before);
}

pub(crate) async fn the_listing_is_complete_sorted_by_bytes_and_true(at: Bench) {
    // By bytes, not by UTF-16 units, by letters or by numbers.
    // A store behind a server shows them in pages.
    let count = if at.0.limits().key_chars.is_empty() { 1_200 } else { 450 };
    let mut keys: Vec<String> = (0..count).map(|number| format!("key-{}", number * 7_919 % count)).collect();
    keys.extend(["Z", "a", "\u{ff5e}", "\u{10000}", "é", "z", "10", "9", ""].map(str::to_owned));
    keys.retain(|key| at.0.limits().check_key(&key.as_str().into()).is_ok());
    let mut sets = JoinSet::new();
    for (number, key) in keys.iter().enumerate() {
        let (at, key) = (at.clone(), key.clone());
        sets.spawn(async move { at.set(&key, json!("x".repeat(number)).to_string()).await });
    }
    sets.join_all().await;
    let mut expected: Vec<(String, u64)> = keys.into_iter().zip(2..).collect();
    expected.sort_unstable_by(|one, other| one.0.as_bytes().cmp(other.0.as_bytes()));
    let listed: Vec<(String, u64)> =
        at.list().await.into_iter().map(|(key, meta)| (key, meta.size)).collect();
    assert_eq!(listed, expected);
}
