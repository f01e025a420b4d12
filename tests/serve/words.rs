//! The operator's view: how to start the server, its messages, and that one tenant's failure does not affect the others.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::PATIENCE;
use super::common::wait_for;
use super::server::{KEY, Server, command};

#[test]
fn a_key_is_not_made_and_shown_by_a_start_that_fails() {
    let (home, taken) = (TempDir::new().unwrap(), Server::memory());
    for (args, code) in [
        (&["sqlite:/proc/kv.db"][..], 4),
        (&["memory:", "--listen", &taken.address], 1),
        (&["memory:", "--tenant", "a=sqlite:/proc/kv.db"], 4),
    ] {
        let out = command(home.path(), args).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!((out.status.code(), said.lines().count()), (Some(code), 1), "{said}");
        assert!(!said.contains("kvfs_") && !home.path().join("data/kvfs/api_keys").exists(), "{said}");
    }
}

#[test]
fn an_address_that_is_wrong_or_in_use_gets_the_one_to_type() {
    let (home, taken) = (TempDir::new().unwrap(), Server::memory());
    let port = taken.address.rsplit_once(':').unwrap().1;
    for (listen, says) in [
        (":14200", "127.0.0.1:14200"),
        ("example.org", "127.0.0.1:4200"),
        (port, "--listen 127.0.0.1:"),
        (&format!("localhost:{port}"), "--listen 127.0.0.1:"),
        ("198.51.100.1:1", "no such address"),
    ] {
        let out = command(home.path(), &["memory:", "--listen", listen]).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(!out.status.success() && said.contains(says), "{listen}: {said}");
    }
}

#[test]
fn the_scheme_of_a_login_is_in_any_case_and_refused_ones_are_warned_of_with_their_address() {
    let server = Server::memory();
    let body = json!({"query": "{hello}"}).to_string();
    for login in ["Bearer", "bearer", "BEARER", "bEaReR  "] {
        let head = format!("POST / HTTP/1.1\r\nAuthorization: {login} {KEY}");
        assert!(server.send(&head, body.as_bytes()).2.contains("kvfs"), "{login}");
    }
    for (login, named) in
        [("Basic", KEY), ("Bearer", "wrong-key"), ("Bearer", ""), ("", KEY), ("Bearerx", KEY)]
    {
        let head = format!("POST /refused HTTP/1.1\r\nAuthorization: {login} {named}");
        assert!(server.send(&head, body.as_bytes()).2.contains("UNAUTHENTICATED"), "{login} {named}");
    }
    let log = server.log();
    let of = |path: &str| log.lines().filter(|line| line.contains(path)).collect::<Vec<_>>();
    let refused = of("/refused");
    assert_eq!(refused.len(), 5, "{log}");
    for line in refused {
        assert!(
            line.contains("WARN") && line.contains(" 127.0.0.1:") && line.contains("no API key"),
            "{line}"
        );
        // A time or a port may have any digits.
        let (_, said) = line.split_once("/refused").unwrap();
        assert!(!said.contains("200") && !line.contains("wrong-key"), "{line}");
    }
    assert!(
        of("POST \"/\"").iter().all(|line| line.contains("INFO") && line.contains(" 127.0.0.1:")),
        "{log}"
    );
}

#[test]
fn a_keys_file_has_comments_and_no_key_that_can_be_guessed() {
    let home = TempDir::new().unwrap();
    let keys = home.path().join("keys");
    let start = |text: &str| {
        fs::write(&keys, text).unwrap();
        command(home.path(), &["memory:", "--keys-file", keys.to_str().unwrap()])
    };
    let out = start("abc # comment\n").output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(2) && said.contains("line 1 of") && !said.contains("abc"), "{said}");
    let server = Server::spawn(TempDir::new().unwrap(), start("long#enough # comment\n"));
    let head = "POST / HTTP/1.1\r\nAuthorization: Bearer long#enough";
    assert!(server.send(head, b"{\"query\":\"{hello}\"}").2.contains("kvfs"));
}

#[test]
fn listings_of_a_tenant_whose_store_never_answers_do_not_hold_up_those_of_others() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let store = format!("late=prefect-cloud:http://{}", silent.local_addr().unwrap());
    let (asked, asks) = mpsc::channel();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in silent.incoming() {
            let mut stream = stream.unwrap();
            if stream.read(&mut [0; 64]).is_ok_and(|size| size > 0) {
                _ = asked.send(());
            }
            held.push(stream);
        }
    });
    let home = TempDir::new().unwrap();
    let keys = home.path().join("keys");
    fs::write(&keys, format!("{KEY} default\nof-the-late-one late\n")).unwrap();
    // It gives up after longer than any request waits for its turn.
    let args = ["memory:", "--tenant", &store, "--timeout", "10m", "--keys-file", keys.to_str().unwrap()];
    let server = Server::start(home, &args);
    let list = json!({"query": "{ key_value { key } }"}).to_string();
    let streams: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = server.connect();
            let head = format!(
                "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer of-the-late-one\r\nContent-Length: {}\r\n\r\n{list}",
                list.len()
            );
            std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
            stream
        })
        .collect();
    // As many as may are under way, and the others wait for their turns.
    for _ in 0..2 {
        asks.recv_timeout(PATIENCE).unwrap();
    }
    wait_for(PATIENCE, || server.connections() >= streams.len());
    for _ in 0..3 {
        assert_eq!(server.data("{ key_value { key } }", Value::Null)["key_value"], json!([]));
    }
    drop(streams);
    _ = asks.recv_timeout(Duration::ZERO);
}
