//! The memory that an answer with all keys takes, of who gives it and of who reads it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use kvfs::store::{Expect, Key, SqliteStore, Store, Text};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::common::{Mount, PATIENCE, can_mount, peak_memory};
use super::server::{KEY, Server};

const KEYS: usize = 30_000;
const VALUE: &[u8] = br#"{"host":"db1","port":5432,"tags":["a","b",{"x":1}],"on":true}"#;
/// The most times that the answer is in memory, counting all that is kept of it. As trees of values it was ten and more.
const TIMES: u64 = 8;

fn fill(database: &Path) {
    let store = Arc::new(SqliteStore::open(database, PATIENCE).unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut sets = JoinSet::new();
        for number in 0..KEYS {
            let store = store.clone();
            sets.spawn(async move {
                let key = Key::from(format!("directory-{}/key-{number:06}", number % 100));
                store.set_key_value(&key, Text::from(VALUE), Expect::Absent).await.unwrap();
            });
        }
        sets.join_all().await;
        store.close();
    });
}

#[test]
fn an_answer_with_all_keys_is_in_memory_a_few_times_at_most() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    let database = home.path().join("kv.db");
    fill(&database);
    let server = Server::start(home, &[&format!("sqlite:{}", database.display())]);
    let before = server.peak() << 10;
    let query = json!({"query": "query { key_value { id key value created updated } }", "variables": "null"});
    let login = format!("POST / HTTP/1.1\r\nAuthorization: Bearer {KEY}");
    let (status, _, answer) = server.send(&login, query.to_string().as_bytes());
    assert_eq!(status, 200);
    let (most, used) = (TIMES * answer.len() as u64, (server.peak() << 10) - before);
    assert!(used < most, "the server: {} of {} KiB", used >> 10, most >> 10);

    let mount = Mount::prefect_cloud(
        &server.address,
        KEY,
        &["--separator", "/", "--timeout", "1h", "--max-age", "1h"],
    );
    let pid = u32::try_from(mount.pid).unwrap();
    let before = peak_memory(pid);
    assert_eq!(fs::read_dir(&mount.dir).unwrap().count(), 100);
    assert_eq!(fs::read_dir(mount.path("directory-7")).unwrap().count(), KEYS / 100);
    let used = peak_memory(pid) - before;
    assert!(used < most, "the mount: {} of {} KiB", used >> 10, most >> 10);
}
