//! Two servers of the Prefect 1.x KV API over one cluster, and a mount of the same keys.

use std::fs;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::common::{Mount, Raise, wait_for};
use super::serve::{KEY, Server, both};
use super::{Fleet, PATIENCE, extent, save};

const SET: &str = "mutation($input: set_key_value_input!) { set_key_value(input: $input) { id } }";
const DELETE: &str = "mutation($id: UUID!) { delete_key_value(input: {key_value_id: $id}) { success } }";
/// How often the 1.x client sends a request that is answered with 503 before it gives up.
const TRIES: usize = 7;

/// The script of the unchanged client: a key that goes from server to server.
const CLIENT: &str = r#"
import sys
from prefect.backend import delete_key, get_key_value, list_keys, set_key_value
from prefect.utilities.configuration import set_temporary_config

one, other = ({"cloud.api": address} for address in sys.argv[1:])
for round in range(3):
    for key, value in [("real/a", {"round": round}), ("real/b/c", [round, 1.5]), ("/", None), ("real//x", "é/")]:
        with set_temporary_config(one):
            made = set_key_value(key, value)
        with set_temporary_config(other):
            assert get_key_value(key) == value, key
            assert key in list_keys(), key
            assert set_key_value(key, value) == made, key
    with set_temporary_config(other):
        assert list_keys() == ["/", "real//x", "real/a", "real/b/c"], list_keys()
        assert all(delete_key(key) is True for key in list_keys())
    with set_temporary_config(one):
        assert list_keys() == []
        try:
            get_key_value("real/a")
            raise AssertionError("the key is there")
        except ValueError as error:
            assert str(error) == "No value found for key: real/a"
    one, other = other, one
print("passed")
"#;

/// Sets keys through both servers until a file is there; says how many. Any error of the client ends it.
const WRITER: &str = r#"
import os, sys
from prefect.backend import set_key_value
from prefect.utilities.configuration import set_temporary_config

done = 0
while not os.path.exists(sys.argv[1]):
    with set_temporary_config({"cloud.api": sys.argv[2 + done % 2]}):
        set_key_value("real/%d" % done, done)
    done += 1
    open(sys.argv[1] + ".begun", "w").close()
print(done)
"#;

/// As many members and mounts, and two servers of the same keys.
fn servers(members: usize, mounts: usize) -> Option<(Fleet, [Server; 2])> {
    let fleet = Fleet::start(members, mounts, &[])?;
    let argument = format!("etcd:{}/app", fleet.cluster.addresses().join(","));
    let servers = [(); 2].map(|()| Server::start(TempDir::new().unwrap(), &[&argument]));
    Some((fleet, servers))
}

/// All keys and values that a server lists.
fn list(server: &Server) -> Vec<(String, Value)> {
    let rows = server.data("{ key_value(order_by: [{key: asc}]) { key value } }", Value::Null);
    let rows = rows["key_value"].as_array().unwrap();
    rows.iter().map(|row| (row["key"].as_str().unwrap().to_owned(), row["value"].clone())).collect()
}

/// Whether the mount has this value in a file.
fn shows(mount: &Mount, file: &str, value: &Value) -> bool {
    let text = fs::read_to_string(mount.path(file)).unwrap_or_default();
    serde_json::from_str::<Value>(&text).is_ok_and(|shown| shown == *value)
}

#[test]
fn what_goes_through_one_server_is_in_the_other_and_in_a_mount_at_once() {
    let Some((fleet, [one, other])) = servers(1, 1) else { return };
    let mount = &fleet.mounts[0];
    for (key, file) in [("plain", "plain"), ("db/main/port", "db/main/port"), ("a//b", "a/%(empty)/b")] {
        for (server, beside, value) in [(&one, &other, json!({"n": 1})), (&other, &one, json!([2]))] {
            let id = server.set(key, value.clone());
            assert_eq!(beside.get(key), Some(value.clone()), "{key}");
            assert_eq!(list(beside), list(server));
            wait_for(PATIENCE, || shows(mount, file, &value));
            assert_eq!(beside.set(key, value), id, "a key keeps its id");
        }
        save(&mount.path(file), "\"by the mount\"\n").unwrap();
        for server in [&one, &other] {
            assert_eq!(server.get(key), Some(json!("by the mount")));
        }
        let id = one.set(key, json!(3));
        assert_eq!(other.data(DELETE, json!({"id": id}))["delete_key_value"]["success"], json!(true));
        assert_eq!((one.get(key), other.get(key)), (None, None));
        wait_for(PATIENCE, || !mount.path(file).exists());
    }
    one.set("k", json!(1));
    wait_for(PATIENCE, || mount.path("k").exists());
    fs::remove_file(mount.path("k")).unwrap();
    assert_eq!((list(&one), list(&other)), (vec![], vec![]));
}

#[test]
fn the_unchanged_client_finds_at_one_server_what_it_set_at_the_other() {
    let Some((_fleet, servers)) = servers(1, 0) else { return };
    let Some(mut python) = servers[0].prefect("python") else { return };
    let addresses = servers.each_ref().map(|server| format!("http://{}", server.address));
    python.env("PREFECT__CLOUD__API_KEY", KEY).args(["-c", CLIENT]).args(addresses);
    let out = python.output().unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).ends_with("passed\n"), "{}", both(&out));
}

#[test]
fn sets_of_many_keys_through_both_servers_at_once_are_all_kept() {
    let Some((fleet, servers)) = servers(1, 1) else { return };
    let (threads, keys) = (16, extent("KVFS_CLUSTER_KEYS", 40));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let server = &servers[thread % 2];
            scope.spawn(move || {
                for number in 0..keys {
                    server.set(&format!("{thread}/{number}"), json!(["old", thread]));
                    server.set(&format!("{thread}/{number}"), json!([number, thread]));
                    server.set(&format!("shared/{}", number % 4), json!(thread));
                }
            });
        }
    });
    let (seen, beside) = (list(&servers[0]), list(&servers[1]));
    assert_eq!(seen, beside);
    assert_eq!(seen.len(), threads * usize::try_from(keys).unwrap() + 4);
    for (key, value) in &seen {
        let (directory, number) = key.split_once('/').unwrap();
        if directory != "shared" {
            assert_eq!(value.to_string(), format!("[{number},{directory}]"));
        }
    }
    wait_for(PATIENCE, || seen.iter().all(|(key, value)| shows(&fleet.mounts[0], key, value)));
}

/// Asks as the 1.x client does: what is answered with 503 is sent again after the time that the answer names. The data, and
/// the number of tries.
fn insist(server: &Server, query: &str, variables: &Value) -> (Value, usize) {
    let body = json!({"query": query, "variables": variables}).to_string();
    for number in 1..=TRIES {
        let (status, head, body) =
            server.send(&format!("POST / HTTP/1.1\r\nAuthorization: Bearer {KEY}"), body.as_bytes());
        if status == 200 && !body.contains("\"errors\"") {
            return (serde_json::from_str::<Value>(&body).unwrap()["data"].take(), number);
        }
        assert!(status == 503 && head.contains("retry-after: 1"), "{status} {head} {body}");
        sleep(Duration::from_secs(1));
    }
    panic!("{variables}: the client has given up");
}

/// Sets one key after the other, and deletes each third one again; how many, and the most tries that one took.
fn write(server: &Server, thread: usize, over: &AtomicBool) -> (u64, usize) {
    let (mut number, mut most) = (0, 1);
    while !over.load(Ordering::SeqCst) {
        let input = json!({"input": {"key": format!("{thread}/{number}"), "value": number}});
        let (data, tries) = insist(server, SET, &input);
        most = most.max(tries);
        if number % 3 == 2 {
            let (data, tries) = insist(server, DELETE, &json!({"id": data["set_key_value"]["id"]}));
            assert_eq!(data["delete_key_value"]["success"], json!(true));
            most = most.max(tries);
        }
        number += 1;
    }
    (number, most)
}

/// The unchanged client, which goes on setting keys until the file `stop` is in the home of the first server.
fn real_writer(servers: &[Server; 2]) -> Option<Child> {
    let mut python = servers[0].prefect("python")?;
    python.env("PREFECT__CLOUD__API_KEY", KEY).args(["-c", WRITER]).arg(servers[0].home.path().join("stop"));
    python.args(servers.each_ref().map(|server| format!("http://{}", server.address)));
    let child = python.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(PATIENCE, || servers[0].home.path().join("stop.begun").exists());
    Some(child)
}

#[test]
fn no_acknowledged_change_is_lost_while_members_are_killed_and_clients_need_only_repeat() {
    let Some((fleet, servers)) = servers(3, 1) else { return };
    let (over, length) = (AtomicBool::new(false), Duration::from_secs(extent("KVFS_CLUSTER_SECONDS", 2)));
    let real = real_writer(&servers);
    let mut tries = Vec::new();
    let sets: Vec<u64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|thread| {
                let (server, over) = (&servers[thread % 2], &over);
                scope.spawn(move || write(server, thread, over))
            })
            .collect();
        let end = Raise(&over);
        // The member that is asked first, then the one that leads.
        for round in 0..2 {
            sleep(length);
            let victim = if round == 0 { 0 } else { fleet.cluster.leader() };
            fleet.cluster.members[victim].kill();
            sleep(length);
            fleet.cluster.members[victim].start();
        }
        drop(end);
        fs::write(servers[0].home.path().join("stop"), "").unwrap();
        let ended: Vec<(u64, usize)> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        tries.extend(ended.iter().map(|(_, most)| *most));
        ended.into_iter().map(|(number, _)| number).collect()
    });
    let mut expected: Vec<(String, Value)> = Vec::new();
    for (thread, count) in sets.iter().enumerate() {
        let kept = (0..*count).filter(|number| number % 3 != 2);
        expected.extend(kept.map(|number| (format!("{thread}/{number}"), json!(number))));
    }
    if let Some(real) = real {
        let out = real.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", both(&out));
        let count: u64 = String::from_utf8_lossy(&out.stdout).trim().parse().unwrap();
        eprintln!("{count} sets by the unchanged client");
        expected.extend((0..count).map(|number| (format!("real/{number}"), json!(number))));
    }
    expected.sort_by(|(one, _), (other, _)| one.cmp(other));
    eprintln!("{} keys, at most {:?} tries each", expected.len(), tries.iter().max());
    let start = Instant::now();
    for server in &servers {
        wait_for(PATIENCE, || server.send("GET /health HTTP/1.1", b"").0 == 200);
        assert_eq!(list(server), expected);
    }
    wait_for(PATIENCE, || expected.iter().all(|(key, value)| shows(&fleet.mounts[0], key, value)));
    eprintln!("all of them read after {:?}", start.elapsed());
}
