//! Answers to a delete: only one that says so means that there is no such key.

use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use kvfs::store::{Error, Expect, Key, PrefectCloudSettings, PrefectCloudStore, Result, Store};

use super::proxy::{read_request, response};

const SET: &str = r#"{"data":{"set_key_value":{"id":"1"}}}"#;
const REFUSED: &str = r#"{"data":{"delete_key_value":{"success":false}}}"#;
const THERE: &str = r#"{"data":{"key_value":[{"id":"1","key":"k","value":1}]}}"#;
const ABSENT: &str = r#"{"data":{"key_value":[]}}"#;

/// The result of a delete of a key that was set before, by a server with these answers.
fn delete(answers: &[&'static str]) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let all: Vec<&'static str> = [SET].iter().chain(answers).copied().collect();
    let server = std::thread::spawn(move || {
        for answer in all {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(read_request(&mut stream).unwrap().is_some());
            stream.write_all(&response("200 OK", "", answer)).unwrap();
        }
    });
    let settings = PrefectCloudSettings { url, ..PrefectCloudSettings::default() };
    let store = PrefectCloudStore::open(&settings, Duration::from_secs(30)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = Key::from("k");
    let deleted = runtime.block_on(async {
        store.set_key_value(&key, Arc::from(&b"1"[..]), Expect::Anything).await.unwrap();
        store.delete_key(&key, Expect::Anything).await
    });
    server.join().unwrap();
    deleted.map(drop)
}

#[test]
fn an_answer_to_a_delete_that_makes_no_sense_is_never_that_there_is_no_such_key() {
    for nonsense in [
        r#"{"data":{"delete_key_value":null}}"#,
        r#"{"data":{}}"#,
        r#"{"data":{"delete_key_value":{}}}"#,
        r#"{"data":{"delete_key_value":{"success":"yes"}}}"#,
        r#"{"data":{"key_value":[]}}"#,
    ] {
        assert!(matches!(delete(&[nonsense]), Err(Error::Other(_))), "{nonsense}");
    }
    let other = r#"{"data":{"key_value":[{"id":"2","key":"another","value":1}]}}"#;
    for nonsense in [&[REFUSED, other][..], &[REFUSED, THERE, REFUSED, THERE]] {
        let deleted = delete(nonsense);
        assert!(matches!(deleted, Err(Error::Other(_))), "{nonsense:?}: {deleted:?}");
    }
    assert_eq!(delete(&[REFUSED, ABSENT]), Err(Error::NotFound));
    assert_eq!(delete(&[REFUSED, THERE, REFUSED, ABSENT]), Err(Error::NotFound));
    assert_eq!(delete(&[REFUSED, THERE, r#"{"data":{"delete_key_value":{"success":true}}}"#]), Ok(()));
}
