//! Answers that look like some but are none: never a wrong value, never "no such key".

use std::sync::Arc;
use std::time::Duration;

use kvfs::store::{Error, Expect, Key, PrefectCloudSettings, PrefectCloudStore, Store};

use super::proxy::{Fault, Proxy, response};

const SHAPES: &[&str] = &[
    "",
    " ",
    "{",
    "null",
    "true",
    "[]",
    "{}",
    r#""text""#,
    r#"{"data":null}"#,
    r#"{"data":[]}"#,
    r#"{"data":{}}"#,
    r#"{"data":{"key_value":null,"set_key_value":null,"delete_key_value":null}}"#,
    r#"{"data":{"key_value":{},"set_key_value":{},"delete_key_value":{}}}"#,
    r#"{"data":{"key_value":[5],"set_key_value":5,"delete_key_value":5}}"#,
    r#"{"data":{"key_value":[null]}}"#,
    r#"{"data":{"key_value":[{}]}}"#,
    r#"{"data":{"key_value":[{"key":"k","value":1}]}}"#,
    r#"{"data":{"key_value":[{"id":"1","value":1}]}}"#,
    r#"{"data":{"key_value":[{"id":"1","key":5,"value":1}]}}"#,
    r#"{"data":{"key_value":[{"id":"1","key":"k","value":1,"updated":5}]}}"#,
    r#"{"data":{"key_value":[{"id":"1","key":"k","value":1}]}"#,
    r#"{"data":{"key_value":[{"id":"1","key":"k","value":tru}]}}"#,
    r#"{"data":{"delete_key_value":{"success":"yes"}}}"#,
    r#"{"errors":[]}"#,
    r#"{"errors":{}}"#,
    r#"{"errors":[5]}"#,
    r#"{"errors":[{"message":5}],"data":{"key_value":[]}}"#,
    "\u{0}\u{1}\u{2}",
];

#[test]
fn no_broken_answer_passes_for_one() {
    let proxy = Proxy::before("127.0.0.1:1");
    let settings =
        PrefectCloudSettings { url: format!("http://{}", proxy.address), ..PrefectCloudSettings::default() };
    let store = PrefectCloudStore::open(&settings, Duration::from_secs(30)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = Key::from("k");
    for shape in SHAPES {
        proxy.set(&Fault::Answer(response("200 OK", "", shape)));
        runtime.block_on(async {
            let set = store.set_key_value(&key, Arc::from(&b"1"[..]), Expect::Anything).await;
            let results = [
                ("list", store.list_keys().await.map(drop)),
                ("get", store.get_key_value(&key).await.map(drop)),
                ("set", set.map(drop)),
                ("delete", store.delete_key(&key, Expect::Anything).await.map(drop)),
            ];
            for (call, result) in results {
                assert!(matches!(result, Err(Error::Other(_))), "{call}: {result:?} for {shape}");
            }
        });
    }
}
