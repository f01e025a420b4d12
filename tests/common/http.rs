//! Requests in bytes, and the clients that `scripts/setup` installs.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;

/// Sends one request, given by its first lines and its body; returns status, head in lower case, and body.
pub fn exchange(mut stream: TcpStream, head: &str, body: &[u8]) -> (u16, String, String) {
    let length = body.len();
    let head = format!("{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // A server that refuses need not read all of it.
    let _ = stream.write_all(body);
    answer(stream)
}

/// The bytes of the answer until the connection ends.
pub fn answer(mut stream: TcpStream) -> (u16, String, String) {
    let mut bytes = Vec::new();
    // Bytes before a reset count.
    let _ = stream.read_to_end(&mut bytes);
    let _ = stream.shutdown(Shutdown::Both);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// The programs of a Prefect, such as `prefect-1.4.1`; `None`, with a line that says why, where it is not installed.
pub fn prefect_bin(version: &str) -> Option<PathBuf> {
    installed(version, "bin/prefect").map(|place| place.join("bin"))
}

/// Where a tool is, such as `prefect-1.4.1`, which has this `file`; `None`, with a line that says why, where it is not installed.
pub fn installed(tool: &str, file: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("KVFS_TOOLS").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/kvfs-tools"),
        PathBuf::from,
    );
    let place = cache.join(tool);
    if place.join(file).exists() {
        return Some(place);
    }
    let missing = format!("{} is missing: run scripts/setup", place.display());
    assert!(std::env::var_os("KVFS_REQUIRE_FUSE").is_none(), "{missing}");
    eprintln!("skipped: {missing}");
    None
}
