//! Misuse of a server: whoever misbehaves is dropped or refused, within a bound of memory, and everybody else is served.
//! `scripts/bench.d/abuse.py` has the figures.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::common::http::answer;
use super::common::wait_for;
use super::server::{KEY, Server};

/// More than a server keeps open.
const CROWD: usize = 600;
/// The sockets of the server: its connections and its own.
const OPEN: usize = 256 + 16;
const PATIENCE: Duration = crate::common::PATIENCE;
const LIST: &str = r#"{"query":"{ key_value { id key value } }"}"#;

fn head(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {length}\r\n\r\n")
}

/// Many connections that send `first` each.
fn crowd(server: &Server, count: usize, first: &str) -> Vec<TcpStream> {
    let client = |_| {
        let mut stream = server.connect();
        // Dropped at once, at times.
        let _ = stream.write_all(first.as_bytes());
        stream
    };
    (0..count).map(client).collect()
}

fn is_served(server: &Server) {
    for number in 0..20 {
        server.set("healthy", json!(number));
        assert_eq!(server.get("healthy"), Some(json!(number)));
    }
}

/// A server with 1,000 values of 10 KB.
fn full() -> Server {
    let server = Server::memory();
    let set = "mutation($v: JSON!) {";
    for batch in 0..20 {
        let mut query = set.to_owned();
        for number in 0..50 {
            let key = batch * 50 + number;
            write!(query, " a{number}: set_key_value(input: {{key: \"k{key}\", value: $v}}) {{ id }}")
                .unwrap();
        }
        server.data(&format!("{query} }}"), json!({"v": "v".repeat(9_990)}));
    }
    server
}

#[test]
fn slow_heads_half_open_connections_and_slow_bodies_keep_nobody_out() {
    for first in ["P", "", &head(1_000)] {
        let server = Server::memory();
        let mut held = crowd(&server, CROWD, first);
        is_served(&server);
        for stream in &mut held {
            let _ = stream.write_all(b"O");
        }
        is_served(&server);
        assert!(server.connections() <= OPEN, "{first:?}: {} connections", server.connections());
        assert!(server.peak() < 128 << 10, "{first:?}: VmHWM {} KiB", server.peak());
    }
}

#[test]
fn a_client_in_use_outlives_a_crowd_of_strangers() {
    let server = Server::memory();
    let body = r#"{"query":"{ hello }"}"#;
    let mut kept = server.connect();
    let mut ask = || {
        kept.write_all(format!("{}{body}", head(body.len())).as_bytes()).unwrap();
        let mut piece = [0; 4096];
        let size = kept.read(&mut piece).unwrap();
        assert!(String::from_utf8_lossy(&piece[..size]).contains("200 OK"));
    };
    ask();
    let _strangers = crowd(&server, CROWD, "P");
    ask();
}

#[test]
fn answers_that_nobody_reads_are_given_up_and_bounded() {
    let server = full();
    let mut held = crowd(&server, 60, &format!("{}{LIST}", head(LIST.len())));
    is_served(&server);
    // Dropped, for each has at least some of its answer.
    wait_for(PATIENCE, || server.connections() < 16);
    let unfinished = held.iter_mut().filter_map(|stream| {
        let mut got = Vec::new();
        let end = stream.read_to_end(&mut got);
        (end.is_err() || got.len() < 10_000_000).then_some(())
    });
    assert!(unfinished.count() > 0);
    assert!(server.peak() < 768 << 10, "VmHWM {} KiB", server.peak());
}

#[test]
fn everything_asked_for_many_times_at_once_is_bounded() {
    let server = full();
    let all: Vec<String> = (0..40).map(|number| format!("a{number}: key_value {{ value }}")).collect();
    let all = json!({"query": format!("{{ {} }}", all.join(" "))}).to_string();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (status, head, body) =
                    server.send(head(0).split("\r\nContent").next().unwrap(), all.as_bytes());
                // As much as the buffers hold.
                let code = &body[body.len().saturating_sub(300)..];
                assert!(matches!(status, 200 | 503), "{status} {head} {code}");
                assert!(status == 200 || head.contains("retry-after: 1"), "{head}");
            });
        }
        is_served(&server);
    });
    assert!(server.peak() < 1_536 << 10, "VmHWM {} KiB", server.peak());
}

#[test]
fn strangers_are_answered_before_they_send_a_body_and_giants_too() {
    let server = Server::memory();
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let mut stream = server.connect();
                    stream
                        .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
                        .unwrap();
                    let (status, _, body) = answer(stream);
                    assert!(status == 200 && body.contains("UNAUTHENTICATED"), "{status} {body}");
                }
            });
        }
        is_served(&server);
    });
    let mut stream = server.connect();
    stream.write_all(head(100 << 20).as_bytes()).unwrap();
    assert_eq!(answer(stream).0, 413);
    let mut stream = server.connect();
    let _ = write!(stream, "POST / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(1 << 20));
    assert!(matches!(answer(stream).0, 0 | 431));
    assert!(server.peak() < 64 << 10, "VmHWM {} KiB", server.peak());
}

#[test]
fn requests_behind_one_another_are_answered_in_order() {
    let server = Server::memory();
    let mut stream = server.connect();
    for number in 0..100 {
        let body = json!({"query": format!("{{ a{number}: hello }}")}).to_string();
        stream.write_all(format!("{}{body}", head(body.len())).as_bytes()).unwrap();
    }
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let found: Vec<_> = (0..100).map(|number| text.find(&format!("\"a{number}\""))).collect();
    assert!(found.iter().all(Option::is_some) && found.is_sorted());
}

#[test]
fn queries_that_would_keep_it_busy_are_refused() {
    let server = full();
    let twice = "{ ...A } fragment A on Query { ...A ...A }";
    let levels: String = (0..30).fold("{ ...F0 }".to_owned(), |text, level| {
        format!("{text} fragment F{level} on Query {{ ...F{} ...F{} }}", level + 1, level + 1)
    });
    let wide = format!("{{ {} }}", "hello ".repeat(20_000));
    let sorted = "query($o: [key_value_order_by!]) { key_value(order_by: $o) { key } }";
    let like = "query($l: String) { key_value(where: {key: {_like: $l}}) { key } }";
    for (query, variables) in [
        (twice, json!(null)),
        (&levels, json!(null)),
        (&wide, json!(null)),
        (sorted, json!({"o": vec![json!({"key": "asc"}); 10_000]})),
        (like, json!({"l": "%a".repeat(100_000)})),
    ] {
        let (_, answer) = server.post(&json!({"query": query, "variables": variables}));
        assert!(answer["errors"].is_array(), "{query:.60}: {:.200}", answer.to_string());
    }
    let many: Vec<String> = (0..50_000).map(|number| format!("k{number}")).collect();
    let among = "query($k: [String!]) { key_value(where: {key: {_in: $k}}) { key } }";
    assert_eq!(server.data(among, json!({"k": many}))["key_value"].as_array().unwrap().len(), 1_000);
    is_served(&server);
}

#[test]
fn extremes_are_answered_or_refused() {
    let server = Server::memory();
    server.set("k", json!(1));
    for (arguments, refused) in [
        ("limit: 0", false),
        ("limit: 4294967295, offset: 0", false),
        ("offset: 4294967295", false),
        ("limit: null", false),
        ("limit: -1", true),
        ("limit: 9223372036854775808", true),
        ("offset: 1.5", true),
        ("limit: \"1\"", true),
        ("order_by: {nothing: asc}", true),
        ("order_by: {key: upwards}", true),
        ("order_by: []", false),
    ] {
        let (status, answer) =
            server.post(&json!({"query": format!("{{ key_value({arguments}) {{ key }} }}")}));
        assert!(matches!(status, 200 | 400), "{arguments}: {status} {answer}");
        assert_eq!(answer["errors"].is_array(), refused, "{arguments}: {answer}");
    }
    let set = |value: &str| {
        let query = "mutation($v: JSON!) { set_key_value(input: {key: \"n\", value: $v}) { id } }";
        let body = format!(r#"{{"query": {}, "variables": {{"v": {value}}}}}"#, json!(query));
        server.send(&format!("POST / HTTP/1.1\r\nAuthorization: Bearer {KEY}"), body.as_bytes())
    };
    for (value, refused) in [
        ("1e999999999", false),
        (&"9".repeat(9_000), false),
        (&"9".repeat(11_000), true),
        (&format!("{}{}", "[".repeat(100), "]".repeat(100)), false),
        (&format!("{}{}", "[".repeat(1_000), "]".repeat(1_000)), true),
        (r#"{"a": 1, "a": 2}"#, false),
        ("NaN", true),
        ("", true),
    ] {
        let (status, _, body) = set(value);
        assert!(
            matches!(status, 200 | 400) && body.contains("errors") == refused,
            "{value:.40}: {body:.300}"
        );
    }
    let twice = r#"{"query": "{ hello }", "query": "{ hello }"}"#;
    let (status, _, _) =
        server.send(&format!("POST / HTTP/1.1\r\nAuthorization: Bearer {KEY}"), twice.as_bytes());
    assert_eq!(status, 400);
    assert_eq!(server.post(&json!([{"query": "{ hello }"}])).0, 400);
}

#[test]
fn without_keys_pages_in_browsers_are_not_served() {
    let server = Server::start(TempDir::new().unwrap(), &["memory:", "--no-auth"]);
    let ask = |start: &str, more: &str, body: &str| {
        let mut stream = server.connect();
        let length = body.len();
        write!(
            stream,
            "{start} HTTP/1.1\r\n{more}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let (status, head, _) = answer(stream);
        assert!(!head.contains("access-control"), "{head}");
        status
    };
    let hello = r#"{"query":"{ hello }"}"#;
    let own = server.address.clone();
    for (more, status) in [
        (format!("Host: {own}\r\n"), 200),
        ("Host: localhost:4200\r\n".to_owned(), 200),
        (format!("Host: {own}\r\nOrigin: http://{own}\r\n"), 200),
        ("Host: rebound.example:4200\r\n".to_owned(), 403),
        (format!("Host: {own}\r\nHost: rebound.example\r\n"), 403),
        (format!("Host: {own}\r\nOrigin: https://page.example\r\n"), 403),
        (format!("Host: {own}\r\nOrigin: null\r\n"), 403),
    ] {
        assert_eq!(ask("POST /", &more, hello), status, "{more}");
        assert_eq!(ask("GET /health", &more, ""), status, "{more}");
    }
    assert_eq!(ask("OPTIONS /", &format!("Host: {own}\r\nOrigin: https://page.example\r\n"), ""), 403);
    let server = Server::memory();
    let key = format!("POST / HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\nOrigin: https://page.example");
    assert_eq!(server.send(&key, hello.as_bytes()).0, 200);
}

#[test]
fn a_store_that_is_down_is_a_503_with_a_time_to_wait() {
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("prefect-cloud:http://{}", nowhere.local_addr().unwrap());
    let closed = Server::memory().address.clone();
    for store in [silent, format!("prefect-cloud:http://{closed}")] {
        let mut server = Server::start(TempDir::new().unwrap(), &[&store, "--timeout", "500ms"]);
        let auth = format!("POST / HTTP/1.1\r\nAuthorization: Bearer {KEY}");
        let set = r#"{"query":"mutation { set_key_value(input: {key: \"k\", value: 1}) { id } }"}"#;
        for body in [LIST, r#"{"query":"{ key_value(where: {key: {_eq: \"k\"}}) { value } }"}"#, set] {
            let (status, head, body) = server.send(&auth, body.as_bytes());
            assert!(status == 503 && head.contains("retry-after: 1"), "{head}");
            assert_eq!(
                serde_json::from_str::<Value>(&body).unwrap()["errors"][0]["extensions"]["code"],
                "SERVICE_UNAVAILABLE"
            );
        }
        let (status, head, _) = server.send("GET /health HTTP/1.1", b"");
        assert!(status == 503 && head.contains("retry-after: 1"), "{head}");
        assert_eq!(server.send(&auth, br#"{"query":"{ hello }"}"#).0, 200);
        server.signal("-TERM");
        assert_eq!(server.wait(), Some(0));
    }
}

#[test]
fn asking_for_its_health_does_not_ask_the_store_each_time() {
    let behind = Server::memory();
    let home = TempDir::new().unwrap();
    let mut command = super::command(home.path(), &[&format!("prefect-cloud:http://{}", behind.address)]);
    command.env("KVFS_API_KEY", KEY).env("PREFECT__CLOUD__API_KEY", KEY);
    let server = Server::spawn(home, command);
    for _ in 0..100 {
        assert_eq!(server.send("GET /health HTTP/1.1", b"").0, 200);
    }
    let asked = behind.log().matches("POST").count();
    assert!((1..50).contains(&asked), "{asked}");
}

/// The answer to a client that reads none before it has sent all of its request.
fn after_all_is_sent(server: &Server, head: &str, body: &[u8]) -> (u16, String) {
    let mut stream = server.connect();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let (status, _, body) = answer(stream);
    (status, body)
}

#[test]
fn who_sends_all_of_a_request_before_it_reads_finds_why_it_was_refused() {
    let server = Server::memory();
    let whole = vec![b' '; 16 << 20];
    let length = format!("Content-Length: {}\r\nConnection: close\r\n\r\n", whole.len());
    let in_chunks = "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    let chunk = [b"100000\r\n".as_slice(), &whole[..1 << 20], b"\r\n"].concat();
    let chunks = [chunk.repeat(16), b"0\r\n\r\n".to_vec()].concat();
    for (first, key, status, why) in [
        ("POST / HTTP/1.1", KEY, 413, "over 1 MiB"),
        ("POST / HTTP/1.1", "wrong", 200, "UNAUTHENTICATED"),
        ("PUT / HTTP/1.1", KEY, 405, "send a POST"),
    ] {
        let head = format!("{first}\r\nHost: x\r\nAuthorization: Bearer {key}\r\n");
        let sent = after_all_is_sent(&server, &format!("{head}{length}"), &whole);
        assert!(sent.0 == status && sent.1.contains(why), "{first}: {sent:?}");
        let sent = after_all_is_sent(&server, &format!("{head}{in_chunks}"), &chunks);
        assert!(sent.0 == status && sent.1.contains(why), "{first} in chunks: {sent:?}");
    }
    assert!(server.peak() < 64 << 10, "VmHWM {} KiB", server.peak());
    // Who waits to be asked for it is not.
    let head =
        format!("POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nExpect: 100-continue\r\n");
    assert_eq!(after_all_is_sent(&server, &format!("{head}{length}"), b"").0, 413);
    is_served(&server);
}
