//! A server that keeps its variables in PostgreSQL, where jsonb changes or refuses some values.

use std::fs;
use std::sync::Arc;

use kvfs::store::{Error, Expect, Key, Store};

use super::common::{can_mount, errno, wait_for, write_and_close};
use super::server::Server;
use super::{PATIENCE, mount, store};

mod conformance {
    fn fresh() -> Option<crate::prefect::Fresh> {
        let server = super::Server::on_postgres()?;
        let (store, elsewhere) = (super::store(&server), super::store(&server));
        Some(crate::prefect::Fresh { store, elsewhere, home: Some(Box::new(server)) })
    }

    conformance!(fresh, json);
}

/// As much as 64 bits hold, and what jsonb writes in another way.
const KEPT: &[&str] = &[
    "9223372036854775807",
    "-9223372036854775808",
    "[18446744073709551615]",
    r#"{"n":1e19}"#,
    "1e16",
    "-9.2e18",
    "123456789012345678.5",
    "1844674407370955100.5",
    "1e15",
    "1.10",
    "-0",
    "-0.0",
    "5e-324",
    "1e-400",
    r#"{"b":1,"a":{"d":2,"c":[1.0,null,true]}}"#,
    r#""\u0001\ud83d\ude00\ufffe""#,
];

/// Values that some server would change, or could not show again, so that every listing of every client fails.
const NOT_KEPT: &[&str] = &[
    r#"{"n":1e22}"#,
    "1e20",
    "-1e19",
    "1e100",
    "[[1e308]]",
    "18446744073709551616.0",
    "9223372036854775808",
    "18446744073709551616",
    "1e400",
    r#""\u0000""#,
    r#"{"a\u0000":1}"#,
];

async fn set(store: &Arc<dyn Store>, text: &str) -> Result<(), Error> {
    store.set_key_value(&Key::from("k"), Arc::from(text.as_bytes()), Expect::Anything).await.map(drop)
}

/// Values are kept as they were written, or refused, whatever keeps them.
fn keeps_or_refuses(server: &Server) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (one, other) = (store(server), store(server));
        for text in KEPT {
            set(&one, text).await.unwrap();
            let kept = one.get_key_value(&Key::from("k")).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&kept.text), *text);
            let (listing, texts) = one.list_entries().await.unwrap();
            assert_eq!((listing.len(), String::from_utf8_lossy(&texts[0])), (1, (*text).into()));
            let seen = other.get_key_value(&Key::from("k")).await.unwrap();
            let seen: serde_json::Value = serde_json::from_slice(&seen.text).unwrap();
            assert!(kvfs::store::json::stands_for(text.as_bytes(), &seen), "{text} is {seen}");
        }
        set(&one, "1").await.unwrap();
        for text in NOT_KEPT {
            let refused = set(&one, text).await;
            assert!(matches!(refused, Err(Error::Invalid(_))), "{text}: {refused:?}");
        }
        let tags = one.set_tags(&Key::from("k"), &["a\0".to_owned()]).await;
        assert!(matches!(tags, Err(Error::Invalid(_))), "{tags:?}");
        assert_eq!(&*other.get_key_value(&Key::from("k")).await.unwrap().text, b"1\n");
        assert_eq!(other.list_keys().await.unwrap().len(), 1);
    });
}

#[test]
fn what_postgresql_cannot_keep_is_refused() {
    let Some(server) = Server::on_postgres() else { return };
    keeps_or_refuses(&server);
}

#[test]
fn what_postgresql_cannot_keep_is_refused_on_sqlite_too() {
    let Some(server) = Server::fresh() else { return };
    keeps_or_refuses(&server);
}

#[test]
fn a_value_of_another_client_that_the_server_cannot_show_is_named_as_what_may_keep_all_from_being_listed() {
    let Some(server) = Server::on_postgres() else { return };
    let (store, runtime) = (store(&server), tokio::runtime::Runtime::new().unwrap());
    let list = || runtime.block_on(store.list_keys());
    server.set("well", &serde_json::json!(1));
    server.create(&serde_json::json!({"name": "large", "value": 1e22}));
    let failed = list();
    assert!(
        matches!(&failed, Err(Error::Other(why)) if why.contains("1e22: set that one anew (PATCH")),
        "{failed:?}"
    );
    // As the advice has it.
    server.set("large", &serde_json::json!(1));
    assert_eq!(list().unwrap().len(), 2);
}

#[test]
fn two_mounts_see_what_the_other_one_wrote() {
    let Some(server) = can_mount().then(Server::on_postgres).flatten() else { return };
    let (one, other) = (mount(&server.address, &[]), mount(&server.address, &["--max-age", "1h"]));
    wait_for(PATIENCE, || {
        fs::write(one.path("first"), "1").unwrap();
        other.status()["freshness"] == "pushed"
    });
    fs::write(one.path("k"), r#"{"b": 1, "a": 2.50}"#).unwrap();
    wait_for(PATIENCE, || fs::read_to_string(other.path("k")).is_ok_and(|text| text.contains("2.5")));
    assert_eq!(fs::read_to_string(one.path("k")).unwrap(), r#"{"b": 1, "a": 2.50}"#);
    fs::rename(other.path("k"), other.path("moved")).unwrap();
    wait_for(PATIENCE, || one.path("moved").exists() && !one.path("k").exists());
    let file = fs::File::create(one.path("large")).unwrap();
    assert_eq!(write_and_close(file, br#"{"n":1e22}"#), libc::EINVAL);
    assert!(one.last_error().contains("over 64 bits"), "{}", one.last_error());
    fs::remove_file(one.path("moved")).unwrap();
    wait_for(PATIENCE, || errno(fs::metadata(other.path("moved"))) == libc::ENOENT);
    assert_eq!(server.names(), ["first"]);
}
