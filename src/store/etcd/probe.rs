//! Finds out what kind of server answers where an etcd was expected, and says what to do about it.

use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::store::Error;
use crate::store::http::Http;

/// How long a probe may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// `/version`, which every etcd has, with its gateway or without.
#[derive(Deserialize)]
struct Version {
    etcdserver: String,
}

/// Explains a server that speaks HTTP and does not know the path of the gateway.
pub(super) async fn of_http(http: &Http, url: &str, status: u16) -> String {
    let answer = http.ask(http.fresh().get(format!("{url}/version")), 1 << 12, TIMEOUT).await;
    let version = answer.ok().and_then(|answer| serde_json::from_slice::<Version>(&answer.body).ok());
    let place = place(url);
    match version.map(|version| shown(&version.etcdserver)) {
        Some(version) if is_old(&version) => {
            format!("the etcd at {place} is of version {version}; kvfs needs 3.4 or later")
        }
        Some(version) => format!(
            "the etcd {version} at {place} has its JSON gateway turned off; start it with --enable-grpc-gateway=true"
        ),
        None => format!("what answers at {place} is no etcd (HTTP {status}); name the client address of one"),
    }
}

/// Explains a server that does not speak HTTP/1, if that is what `error` says, by the first bytes that it sends.
pub(super) async fn of_bytes(url: &str, error: &Error) -> Option<String> {
    let Error::Other(why) = error else { return None };
    // Which of the two it is, where the server speaks first, depends on the timing.
    let (garbled, early) = (why.ends_with(" parsed"), why.contains("received unexpected message"));
    if !garbled && !early {
        return None;
    }
    let place = place(url);
    let mut first = [0; 64];
    let look = async { TcpStream::connect(place).await?.read(&mut first).await };
    let size = tokio::time::timeout(TIMEOUT, look).await.ok().and_then(Result::ok).unwrap_or(0);
    if first.starts_with(b"HTTP/") || (size == 0 && !garbled) {
        return None;
    }
    Some(by_first_bytes(place, &first[..size]))
}

fn by_first_bytes(place: &str, first: &[u8]) -> String {
    match first {
        // A SETTINGS frame: the first one that a server of HTTP/2 sends.
        [0, 0, _, 4, ..] => format!(
            "what answers at {place} speaks HTTP/2 only, as gRPC does; kvfs needs the JSON gateway: name the address of \
             --listen-client-http-urls, if the etcd has one"
        ),
        [b'S', b'S', b'H', b'-', ..] => {
            format!("what answers at {place} is an SSH server, no etcd; name the client address of one")
        }
        _ => format!(
            "what answers at {place} is no etcd: it does not speak HTTP; name the client address of one"
        ),
    }
}

fn place(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, place)| place)
}

fn is_old(version: &str) -> bool {
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    matches!((parts.next(), parts.next()), (Some(major), Some(minor)) if (major, minor) < (3, 4))
}

/// Text from an unknown server, fit for a terminal.
pub(super) fn shown(text: &str) -> String {
    text.trim().chars().filter(|char| !char.is_control()).take(300).collect()
}
