//! Servers that are no etcd that can be used: the message says what they are, and what to do.

use std::io::{Read, Write};
use std::net::TcpListener;

use kvfs::store::Error;
use tempfile::TempDir;

use super::common::Mount;
use super::server::Cluster;
use super::suite::{Bench, block_on};
use super::{PATIENCE, store_within};

/// A server that says this to whoever connects, in HTTP to whoever asks. The thread lives as long as the tests.
fn saying(text: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            std::thread::spawn(move || {
                // A client that only connects may be gone.
                if text.starts_with(b"HTTP") {
                    let _ = client.read(&mut [0; 1 << 12]);
                }
                let _ = client.write_all(text);
                let _ = client.read(&mut [0; 1 << 12]);
            });
        }
    });
    address
}

fn refused(address: &str) -> String {
    let at = Bench(store_within(&format!("etcd:{address}/app"), PATIENCE));
    match block_on(at.get("k")) {
        Err(Error::Other(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_answers_in_place_of_an_etcd_is_named() {
    for (said, wanted) in [
        (&b"HTTP/1.1 501 Unsupported method\r\nContent-Length: 6\r\n\r\n<html>"[..], "is no etcd (HTTP 501)"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\nnot here", "is no etcd (HTTP 404)"),
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 23\r\n\r\n{\"etcdserver\":\"3.3.25\"}",
            "is of version 3.3.25; kvfs needs 3.4",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is an SSH server"),
        (b"\0\0\x06\x04\0\0\0\0\0\0\x05\0\0\x40\0", "speaks HTTP/2 only"),
        (b"220 mail ESMTP\r\n", "does not speak HTTP"),
    ] {
        let (address, shown) = (saying(said), String::from_utf8_lossy(said));
        let why = refused(&address);
        assert!(why.contains(wanted) && why.contains(&address), "{shown:?}: {why}");
    }
}

#[test]
fn another_member_is_asked_where_one_is_no_etcd() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let other = saying(b"HTTP/1.1 501 Unsupported method\r\nContent-Length: 0\r\n\r\n");
    let at = Bench(store_within(&format!("etcd:{other},{}/app", cluster.members[0].address), PATIENCE));
    block_on(async {
        at.set("k", "1").await;
        assert_eq!(at.text("k").await, b"1");
    });
}

#[test]
fn an_etcd_without_its_gateway_is_named_with_what_to_turn_on() {
    let Some(cluster) = Cluster::start(1, &["--enable-grpc-gateway=false"]) else { return };
    let why = refused(&cluster.members[0].address);
    assert!(why.starts_with("the etcd 3.") && why.contains("--enable-grpc-gateway=true"), "{why}");
}

#[test]
fn a_mount_of_what_is_no_etcd_is_refused_in_one_line() {
    let home = TempDir::new().unwrap();
    let address = saying(b"SSH-2.0-OpenSSH_9.2\r\n");
    let mut command = Mount::command(&home);
    let out = command.arg(format!("etcd:{address}/app")).arg(home.path().join("mnt")).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    let line = format!(
        "kvfs: etcd:{address}/app/: what answers at {address} is an SSH server, no etcd; name the client address of one\n"
    );
    assert_eq!((out.status.code(), said), (Some(4), line));
}

#[test]
fn the_endpoints_of_etcdctl_are_those_of_a_store_without_a_host() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    cluster.put("app/k", "{\"from\": \"etcd\"}");
    let home = TempDir::new().unwrap();
    let mut command = Mount::command(&home);
    command.env("ETCDCTL_ENDPOINTS", format!("http://{}", cluster.members[0].address));
    let out = command.args(["copy", "--dry-run", "etcd:/app", "memory:"]).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success() && said.contains("1 to be copied"), "{said}");
}
