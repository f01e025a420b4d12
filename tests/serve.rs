//! `kvfs serve`, by the real Prefect 1.x client and by hand.
#![allow(missing_docs, clippy::unwrap_used, clippy::needless_pass_by_value)]

mod abuse;
mod words;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common;
use crate::common::serve as server;
use common::http::answer;
use common::{Mount, PATIENCE, can_mount, wait_for};
use server::{KEY, Server, both, command};

#[test]
fn the_four_functions_of_the_real_client_work_for_every_value_and_key() {
    Server::memory().runs("client.py");
}

#[test]
fn the_sample_flow_of_the_documentation_runs_unchanged() {
    let server = Server::memory();
    server.runs("flow.py");
}

/// Runs the real command line; it must print `expected`.
#[track_caller]
fn prints(server: &Server, args: &[&str], expected: &str) {
    let Some(mut prefect) = server.prefect("prefect") else { return };
    let out = prefect.args(args).output().unwrap();
    assert!(both(&out).contains(expected), "prefect {args:?}: {}", both(&out));
}

#[test]
fn every_command_of_the_real_command_line_works() {
    let server = Server::start(TempDir::new().unwrap(), &["memory:", "--tenant", "staging=memory:"]);
    prints(&server, &["auth", "login", "--key", "pcu_wrong"], "Unauthorized. Invalid Prefect Cloud API key.");
    prints(
        &server,
        &["auth", "login", "--key", KEY],
        "Logged in to Prefect Cloud tenant 'default' (default)",
    );
    prints(&server, &["auth", "status"], "You are authenticating with an API key");
    prints(&server, &["auth", "list-tenants"], "staging");
    prints(&server, &["kv", "list"], "No keys found");
    prints(&server, &["kv", "set", "foo", "bar"], "Key value pair set successfully");
    prints(&server, &["kv", "get", "foo"], "Key 'foo' has value 'bar'");
    prints(&server, &["kv", "list"], "foo");
    prints(&server, &["auth", "switch-tenants", "--slug", "staging"], "Tenant switched to");
    prints(&server, &["kv", "list"], "No keys found");
    prints(&server, &["auth", "switch-tenants", "--slug", "default"], "Tenant switched to");
    prints(&server, &["kv", "get", "nope"], "No value found for key: nope");
    prints(&server, &["kv", "delete", "foo"], "Key 'foo' has been deleted");
    prints(&server, &["kv", "list"], "No keys found");
}

#[test]
fn a_mount_and_a_server_on_one_store_see_each_others_changes() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let store = format!("sqlite:{}", mount.home.path().join("kv.db").display());
    let server = Server::start(TempDir::new().unwrap(), &[&store]);
    server.set("a/b", json!({"host": "db1", "ports": [1, 2.5]}));
    let shown = "{\n  \"host\": \"db1\",\n  \"ports\": [\n    1,\n    2.5\n  ]\n}\n";
    wait_for(PATIENCE, || fs::read_to_string(mount.path("a%2Fb")).is_ok_and(|text| text == shown));
    fs::write(mount.path("k"), "[1,  2]\n").unwrap();
    assert_eq!(server.get("k"), Some(json!([1, 2])));
    server.set("k", json!("new"));
    wait_for(PATIENCE, || fs::read_to_string(mount.path("k")).is_ok_and(|text| text == "\"new\"\n"));
    fs::remove_file(mount.path("k")).unwrap();
    assert_eq!(server.get("k"), None);
    // In both directions with the client's own functions.
    if let Some(mut python) = server.prefect("python") {
        let script = format!(
            "import json, pathlib, time\n\
             from prefect.backend import *\n\
             mount = pathlib.Path({:?})\n\
             set_key_value('flow', {{'n': 1}})\n\
             end = time.time() + 5\n\
             while not (mount / 'flow').exists() and time.time() < end: time.sleep(0.01)\n\
             assert json.loads((mount / 'flow').read_text()) == {{'n': 1}}\n\
             (mount / 'flow').write_text('[true, null]')\n\
             assert get_key_value('flow') == [True, None]\n\
             assert delete_key('flow')\n\
             while (mount / 'flow').exists() and time.time() < end: time.sleep(0.01)\n\
             assert not (mount / 'flow').exists()\n",
            mount.dir
        );
        let out = python.env("PREFECT__CLOUD__API_KEY", KEY).args(["-c", &script]).output().unwrap();
        assert!(out.status.success(), "{}", both(&out));
    }
}

#[test]
fn the_forms_of_the_documentation_and_of_the_web_page_are_understood() {
    let server = Server::memory();
    // The documentation: a value in the query is JSON in a string.
    let set = r#"mutation { set_key_value(input: { key: "foo", value: "\"bar\"" }) { id } }"#;
    let id = server.data(set, Value::Null)["set_key_value"]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.get("foo"), Some(json!("bar")));
    server.data(
        r#"mutation { set_key_value(input: { key: "n", value: "{\"a\": [1.50]}" }) { id } }"#,
        Value::Null,
    );
    server.data(
        r#"mutation { set_key_value(input: { key: "l", value: {a: [1, "x"]} }) { id error } }"#,
        Value::Null,
    );
    assert_eq!(server.get("l"), Some(json!({"a": [1, "x"]})));
    let list = "query { key_value { value, key } }";
    let all = server.data(list, json!(null));
    assert_eq!(all["key_value"].as_array().unwrap().len(), 3);
    // The web page: separate variables, and what it shows.
    let set = "mutation Set($key: String!, $value: JSON!) {
        set_key_value(input: { key: $key, value: $value }) { id error __typename } }";
    server.data(set, json!({"key": "ui", "value": "\"as it is\""}));
    assert_eq!(server.get("ui"), Some(json!("\"as it is\"")));
    let list = "query KVs { kvs: key_value(order_by: [{key: desc}], limit: 2, offset: 1) {
        id key value updated created } tenant(order_by: {slug: asc}) { slug } }";
    let page = server.data(list, Value::Null);
    let keys: Vec<&str> =
        page["kvs"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["n", "l"]);
    assert!(page["kvs"][0]["updated"].as_str().unwrap().ends_with('Z'));
    let some = r#"query { key_value(where: {key: {_in: ["ui", "n", "?"], _like: "u%"}}) { key } }"#;
    assert_eq!(server.data(some, Value::Null)["key_value"], json!([{"key": "ui"}]));
    let by_id = format!(r#"{{ key_value(where: {{id: {{_eq: "{id}"}}}}) {{ key }} }}"#);
    assert_eq!(server.data(&by_id, Value::Null)["key_value"], json!([{"key": "foo"}]));
    let delete = "mutation D($id: UUID!) { delete_key_value(input: {key_value_id: $id}) { success error } }";
    for _ in 0..2 {
        // The client repeats what it got no answer to.
        let answer = server.data(delete, json!({"id": id}));
        assert_eq!(answer["delete_key_value"]["success"], json!(true));
    }
    let unknown = server.data(delete, json!({"id": "00000000-0000-0000-0000-000000000000"}));
    assert_eq!(unknown["delete_key_value"]["success"], json!(false));
}

#[test]
fn numbers_and_members_come_back_as_they_went() {
    let server = Server::memory();
    let value = r#"{"z":1.0,"a":123456789012345678901234567890,"e":1E400,"m":-0.0,"l":[1e2,0.10]}"#;
    let body = format!(
        r#"{{"query":"mutation($input: set_key_value_input!) {{ set_key_value(input: $input) {{ id }} }}",
        "variables":{}}}"#,
        json!(format!(r#"{{"input":{{"key":"k","value":{value}}}}}"#))
    );
    let auth = format!("POST / HTTP/1.1\r\nAuthorization: Bearer {KEY}");
    assert_eq!(server.send(&auth, body.as_bytes()).0, 200);
    let get = json!({"query": r#"{ key_value(where: {key: {_eq: "k"}}) { value } }"#}).to_string();
    let (_, _, answer) = server.send(&auth, get.as_bytes());
    assert_eq!(
        answer,
        format!(r#"{{"data":{{"key_value":[{{"value":{value}}}]}}}}"#)
            .replace("1E400", "1e+400")
            .replace("1e2", "1e+2")
    );
}

/// The status and the code of the first error.
fn refusal(server: &Server, body: &str) -> (u16, String) {
    let head = format!("POST / HTTP/1.1\r\nAuthorization: Bearer {KEY}");
    let (status, _, body) = server.send(&head, body.as_bytes());
    let answer: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} {body:?}"));
    (status, answer["errors"][0]["extensions"]["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn what_cannot_be_carried_out_says_so_in_the_clients_words() {
    let server = Server::memory();
    let query = |query: &str| json!({"query": query}).to_string();
    for (body, status, code) in [
        ("", 400, "BAD_USER_INPUT"),
        ("[1]", 400, "BAD_USER_INPUT"),
        (r#"{"variables": {}}"#, 400, "BAD_USER_INPUT"),
        (r#"{"query": "{hello}", "variables": "{\"a\": NaN}"}"#, 400, "BAD_USER_INPUT"),
        (r#"{"query": "{hello}", "variables": "[1]"}"#, 400, "BAD_USER_INPUT"),
        (&query("{hello"), 400, "GRAPHQL_PARSE_FAILED"),
        (&query(r#"{ key_value(where: {key: {_eq: "\ud83d"}}) { key } }"#), 400, "GRAPHQL_PARSE_FAILED"),
        (&query("{ nothing }"), 400, "GRAPHQL_VALIDATION_FAILED"),
        (&query("{ key_value(where: {key: {_eq: 5}}) { key } }"), 400, "GRAPHQL_VALIDATION_FAILED"),
        (&query(&"{a".repeat(1_000)), 400, "GRAPHQL_PARSE_FAILED"),
        (&query("{ key_value { key } }"), 200, ""),
        (
            &query(&format!(
                "{{ {} }}",
                (0..200).map(|n| format!("a{n}: key_value {{ key }}")).collect::<Vec<_>>().join(" ")
            )),
            400,
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            &query(r#"mutation { set_key_value(input: {key: "k", value: "no json"}) { id } }"#),
            200,
            "BAD_USER_INPUT",
        ),
        (&query(r#"mutation { set_key_value(input: {key: "k"}) { id } }"#), 200, "BAD_USER_INPUT"),
    ] {
        assert_eq!(refusal(&server, body), (status, code.to_owned()), "{body:.100}");
    }
    let over = json!({"query": "mutation($v: JSON!) { set_key_value(input: {key: \"k\", value: $v}) { id } }",
        "variables": {"v": "a".repeat(9_999)}});
    assert_eq!(refusal(&server, &over.to_string()), (200, "BAD_USER_INPUT".to_owned()));
    assert_eq!(server.get("k"), None);
    let deep =
        format!(r#"{{"query": "{{hello}}", "variables": {}{}}}"#, "[".repeat(1_000), "]".repeat(1_000));
    assert_eq!(refusal(&server, &deep).0, 400);
    let words = query("{ key_value(where: {key: {API_ERROR_UNAUTHENTICATED: 1}}) { key } }");
    let (_, answer) = server.post(&serde_json::from_str(&words).unwrap());
    assert!(!answer.to_string().contains("API_ERROR") && !answer.to_string().contains("UNAUTH"), "{answer}");
}

#[test]
fn strangers_and_giants_are_refused_cheaply() {
    let server = Server::memory();
    let giant = vec![b' '; 10 << 20];
    let (status, _, body) = server.send("POST / HTTP/1.1", &giant);
    assert!(status == 200 && body.contains("UNAUTHENTICATED"), "{status} {body}");
    let auth = format!("POST / HTTP/1.1\r\nAuthorization: Bearer {KEY}");
    assert_eq!(server.send(&auth, &giant).0, 413);
    assert_eq!(server.send("GET / HTTP/1.1", b"").0, 405);
    let (status, _, body) = server.send("GET /health HTTP/1.1", b"");
    assert!(status == 200 && body.contains("\"ok\""), "{status} {body}");
    let other = format!("{auth}\r\nX-PREFECT-TENANT-ID: 00000000-0000-0000-0000-000000000000");
    let (status, _, body) = server.send(&other, b"{\"query\":\"{hello}\"}");
    assert!(status == 200 && body.contains("FORBIDDEN"), "{status} {body}");
    for _ in 0..500 {
        let (status, _, _) = server.send("POST / HTTP/1.1\r\nAuthorization: Bearer nope", b"{}");
        assert_eq!(status, 200);
    }
    assert_eq!(server.set("k", json!(1)).len(), 36);
    let peak = server.peak();
    assert!(peak < 64 << 10, "VmHWM {peak} kB");
}

#[test]
fn a_connection_that_sends_nothing_more_is_dropped() {
    let server = Server::memory();
    let mut silent = server.connect();
    silent.write_all(b"POST / HTTP/1.1\r\nHost: x\r\n").unwrap();
    let mut halfway = server.connect();
    let head =
        format!("POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 100\r\n\r\n{{");
    halfway.write_all(head.as_bytes()).unwrap();
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest);
    let (status, _, _) = answer(halfway);
    assert_eq!(status, 408);
    assert_eq!(server.set("k", json!(1)).len(), 36);
}

#[test]
fn tenants_are_stores_of_their_own_and_keys_open_those_of_their_line() {
    let home = TempDir::new().unwrap();
    let keys = home.path().join("keys");
    fs::write(&keys, "all-of-them\nstaging-only staging\n").unwrap();
    let database = home.path().join("staging.db");
    let staging = format!("staging=sqlite:{}", database.display());
    let args = ["memory:", "--tenant", &staging, "--keys-file", keys.to_str().unwrap()];
    let server = Server::start(home, &args);
    let ask = |key: &str, more: &str, query: &str| {
        let head = format!("POST / HTTP/1.1\r\nAuthorization: Bearer {key}{more}");
        let (_, _, body) = server.send(&head, json!({"query": query}).to_string().as_bytes());
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let tenants = ask("all-of-them", "", "{ tenant(order_by: {slug: asc}) { id slug } }");
    assert_eq!(tenants["data"]["tenant"][0]["slug"], "default");
    let id = tenants["data"]["tenant"][1]["id"].as_str().unwrap().to_owned();
    let set = r#"mutation { set_key_value(input: {key: "k", value: "1"}) { id } }"#;
    assert!(ask("staging-only", "", set).get("errors").is_none());
    let list = "{ key_value { key } auth_info { tenant_id } }";
    assert_eq!(ask("all-of-them", "", list)["data"]["key_value"], json!([]));
    let there = ask("all-of-them", &format!("\r\nX-PREFECT-TENANT-ID: {id}"), list);
    assert_eq!(there["data"], json!({"key_value": [{"key": "k"}], "auth_info": {"tenant_id": id}}));
    let first = tenants["data"]["tenant"][0]["id"].as_str().unwrap();
    let refused = ask("staging-only", &format!("\r\nX-PREFECT-TENANT-ID: {first}"), list);
    assert_eq!(refused["errors"][0]["extensions"]["code"], "FORBIDDEN");
    assert_eq!(
        ask("staging-only", "", "{ tenant { slug } }")["data"]["tenant"],
        json!([{"slug": "staging"}])
    );
    assert!(database.exists());
}

#[test]
fn an_api_key_is_made_shown_once_and_kept() {
    let home = TempDir::new().unwrap();
    let server = Server::spawn(TempDir::new().unwrap(), command(home.path(), &["memory:"]));
    let file = home.path().join("data/kvfs/api_keys");
    let key = fs::read_to_string(&file).unwrap().trim().to_owned();
    assert!(key.len() > 40 && server.log().contains(&key));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let ask = |server: &Server| {
        let head = format!("POST / HTTP/1.1\r\nAuthorization: Bearer {key}");
        server.send(&head, b"{\"query\":\"{hello}\"}").2
    };
    assert!(ask(&server).contains("kvfs"));
    drop(server);
    let server = Server::spawn(TempDir::new().unwrap(), command(home.path(), &["memory:"]));
    assert!(!server.log().contains(&key) && ask(&server).contains("kvfs"));
}

#[test]
fn wrong_settings_are_one_line_and_their_code() {
    let home = TempDir::new().unwrap();
    let fails = |args: &[&str]| {
        let out = command(home.path(), args).env("KVFS_API_KEY", KEY).output().unwrap();
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        (text, out.status.code().unwrap())
    };
    let server = Server::memory();
    for (args, why, code) in [
        (&["memory:", "--no-auth", "--listen", "0.0.0.0:0"][..], "--no-auth", 2),
        (&["memory:", "--listen", &server.address], "in use", 1),
        (&["memory:", "--keys-file", "/nowhere"], "/nowhere", 2),
        (&["memory:", "--keys-file", "/dev/null"], "holds no API key", 2),
        (&["memory:", "--tenant", "a"], "NAME=STORE", 2),
        (&["memory:", "--tenant", "default=memory:"], "two tenants", 2),
        (&["sqlite:/proc/kv.db"], "/proc/kv.db", 4),
        (&["nonsense"], "nonsense", 2),
    ] {
        let args: Vec<&str> = args.to_vec();
        let (text, got) = fails(&args);
        assert!(text.contains(why) && got == code, "{args:?}: {got} {text}");
    }
    assert!(!server.log().contains(KEY));
}

#[test]
fn the_end_is_graceful_and_the_log_tells_no_secrets() {
    let mut server = Server::memory();
    server.set("secret-name", json!("secret-value"));
    server.send("POST /?token=in-the-query HTTP/1.1\r\nAuthorization: Bearer wrong-key", b"{}");
    // A request under way: its head has come, its body follows after the signal.
    let body = json!({"query": "{hello}"}).to_string();
    let mut late = server.connect();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    late.write_all(head.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    server.signal("-TERM");
    std::thread::sleep(Duration::from_millis(200));
    late.write_all(body.as_bytes()).unwrap();
    assert!(answer(late).2.contains("kvfs"));
    assert_eq!(server.wait(), Some(0));
    let log = server.log();
    for secret in [KEY, "secret-name", "secret-value", "in-the-query", "wrong-key"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    assert!(log.contains("POST \"/\""), "{log}");
}

#[test]
fn many_clients_at_once_lose_nothing() {
    let home = TempDir::new().unwrap();
    let store = format!("sqlite:{}", home.path().join("kv.db").display());
    let server = Server::start(home, &[&store]);
    let seconds: u64 = std::env::var("KVFS_SERVE_LOAD").map_or(2, |seconds| seconds.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let requests: u64 = std::thread::scope(|scope| {
        let client = |client: u64| {
            let server = &server;
            move || {
                let (own, mut number) = (format!("own-{client}"), 0_u64);
                while number < 8 || Instant::now() < end {
                    number += 1;
                    server.set(&own, json!({"number": number, "pad": "x".repeat(200)}));
                    assert_eq!(server.get(&own).unwrap()["number"], json!(number));
                    server.set(&format!("shared-{}", number % 8), json!(client));
                }
                number * 3
            }
        };
        let clients: Vec<_> = (0..64).map(|number| scope.spawn(client(number))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    eprintln!("{requests} requests in {seconds} s");
    assert_eq!(server.data("{ key_value { key } }", Value::Null)["key_value"].as_array().unwrap().len(), 72);
}
