//! Mounts whose server misbehaves: each fault gives its errno, nothing hangs, no credential goes astray, and the last
//! known values stay readable.
#![allow(missing_docs, clippy::unwrap_used)]

mod deletes;
mod matrix;
mod refused;
mod shapes;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, thread};

use kvfs::mount::mounts;
use serde_json::Value;

use crate::common;
use crate::common::proxy;
use crate::common::serve as server;
use common::{Mount, can_mount, close, errno, wait_for};
use proxy::{Fault, Proxy, response};
use server::{KEY, Server};

/// Upper bound for whatever is waited for; generous, because nothing here measures time.
const PATIENCE: Duration = crate::common::PATIENCE;

/// A server of the 1.x KV API behind a proxy, and a mount of it.
struct Bench {
    mount: Mount,
    proxy: Proxy,
    server: Server,
}

impl Bench {
    fn prefect_cloud(timeout: &str) -> Self {
        let server = Server::memory();
        server.set("k", 1.into());
        let proxy = Proxy::before(&server.address);
        let args = ["--max-age", "50ms", "--timeout", timeout];
        let mount = Mount::prefect_cloud(&proxy.address, KEY, &args);
        Self { mount, proxy, server }
    }

    /// Misbehaves from now on, when what was read so far has passed its age.
    fn fail(&self, fault: &Fault) {
        self.proxy.set(fault);
        thread::sleep(Duration::from_millis(60));
    }

    /// How often the daemon asked its store. `kvfs status` would have it ask one that is down once more.
    fn calls(&self) -> usize {
        let told: Value = serde_json::from_slice(&mounts::ask(&self.mount.dir).unwrap()).unwrap();
        let calls = told["calls"].as_object().unwrap();
        calls.values().map(|count| usize::try_from(count.as_u64().unwrap()).unwrap()).sum()
    }

    /// The errno of an operation that must end.
    fn errno(&self, operation: Operation) -> i32 {
        let path = self.mount.path(operation.name());
        let (tell, told) = std::sync::mpsc::channel();
        thread::spawn(move || tell.send(operation.errno(&path)));
        told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{operation:?} hangs"))
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.mount.path(name)).ok()
    }

    /// All is well again, without anybody doing anything.
    fn heals(&self) {
        self.proxy.set(&Fault::None);
        wait_for(PATIENCE, || self.errno(Operation::Set) == 0);
        wait_for(PATIENCE, || self.text("k").as_deref() == Some("2"));
        assert_eq!(self.errno(Operation::Get), libc::ENOENT);
        self.server.set("k", 1.into());
        wait_for(PATIENCE, || self.text("k").as_deref() == Some("1\n"));
    }
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    /// Reads a key of which nothing is known.
    Get,
    /// Sets `k` to 2.
    Set,
    Delete,
}

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::Get => "unknown",
            Self::Set | Self::Delete => "k",
        }
    }

    fn errno(self, path: &std::path::Path) -> i32 {
        match self {
            Self::Get => errno(fs::metadata(path)),
            Self::Delete => errno(fs::remove_file(path)),
            Self::Set => match fs::File::create(path) {
                Ok(mut file) => {
                    file.write_all(b"2").unwrap();
                    close(file)
                }
                Err(error) => error.raw_os_error().unwrap(),
            },
        }
    }
}

#[test]
fn a_redirect_takes_no_credential_to_another_host() {
    if !can_mount() {
        return;
    }
    let bench = Bench::prefect_cloud("2s");
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = elsewhere.local_addr().unwrap();
    let visits = Arc::new(AtomicUsize::new(0));
    thread::spawn({
        let visits = visits.clone();
        move || {
            for stream in elsewhere.incoming() {
                visits.fetch_add(1, Ordering::SeqCst);
                let _ = stream.unwrap().read(&mut [0; 1]);
            }
        }
    });
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let fault = Fault::Answer(response(status, &format!("Location: http://{address}/\r\n"), ""));
        bench.fail(&fault);
        let before = bench.proxy.requests();
        assert_eq!(bench.errno(Operation::Get), libc::EIO, "{status}");
        assert_eq!(bench.errno(Operation::Set), libc::EIO, "{status}");
        assert_eq!(bench.proxy.requests() - before, 2, "{status}");
    }
    assert_eq!(visits.load(Ordering::SeqCst), 0);
    bench.heals();
}

#[test]
fn a_set_whose_answer_is_lost_is_told_as_such_and_the_next_read_tells_the_truth() {
    if !can_mount() {
        return;
    }
    let bench = Bench::prefect_cloud("2s");
    assert_eq!(bench.text("k").as_deref(), Some("1\n"));
    bench.fail(&Fault::LoseAnswer("mutation"));
    assert_eq!(bench.errno(Operation::Set), libc::ETIMEDOUT);
    bench.proxy.set(&Fault::None);
    wait_for(PATIENCE, || bench.text("k").is_some());
    // As it was written, or as the server's value is shown: which, depends on who gave up first.
    assert_eq!(bench.text("k").as_deref().map(str::trim_end), Some("2"));
    bench.fail(&Fault::LoseAnswer("mutation"));
    wait_for(PATIENCE, || bench.errno(Operation::Delete) == libc::ETIMEDOUT);
    bench.proxy.set(&Fault::None);
    wait_for(PATIENCE, || bench.errno(Operation::Set) == 0);
    assert_eq!(bench.server.get("k"), Some(2.into()));
}

#[test]
fn a_kept_connection_that_the_server_closes_is_no_error() {
    if !can_mount() {
        return;
    }
    let bench = Bench::prefect_cloud("5s");
    bench.fail(&Fault::CloseKept);
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(60));
        assert_eq!(bench.errno(Operation::Set), 0);
        assert_eq!(bench.errno(Operation::Get), libc::ENOENT);
    }
}

#[test]
fn a_busy_server_is_asked_again_within_the_deadline() {
    if !can_mount() {
        return;
    }
    let bench = Bench::prefect_cloud("5s");
    for headers in ["", "Retry-After: 0\r\n", "Retry-After: 1\r\n"] {
        for status in ["429 Too Many Requests", "503 Service Unavailable"] {
            bench.fail(&Fault::EveryOther(response(status, headers, "")));
            let before = (bench.calls(), bench.proxy.requests());
            assert_eq!(bench.errno(Operation::Set), 0, "{status} {headers}");
            // A call is counted before its requests.
            let (cost, calls) = (bench.proxy.requests() - before.1, bench.calls() - before.0);
            assert!(cost <= 2 * calls, "{status} {headers}: {cost} requests for {calls} calls");
        }
    }
}

#[test]
fn what_is_no_prefect_is_told_with_the_address_to_name() {
    let proxy = Proxy::before("127.0.0.1:1");
    let (first, third) =
        ("no server of the Prefect 1.x API; name one", "no API of Prefect 3, whose address ends in /api");
    for (store, said, why) in [
        ("prefect-cloud:http://{}", "404 Not Found", first),
        ("prefect-cloud:http://{}", "501 Unsupported method ('POST')", first),
        ("prefect-cloud:http://{}", "200 OK", first),
        ("prefect:http://{}/api", "404 Not Found", third),
        ("prefect:http://{}/api", "405 Method Not Allowed", third),
        ("prefect:http://{}/api", "501 Unsupported method ('POST')", third),
    ] {
        proxy.set(&Fault::Answer(response(said, "Content-Type: text/html\r\n", "<html>other</html>")));
        let (home, store) = (tempfile::TempDir::new().unwrap(), store.replace("{}", &proxy.address));
        let out = Mount::command(&home).arg(&store).arg(home.path().join("mnt")).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!((out.status.code(), text.lines().count()), (Some(4), 1), "{said}: {text}");
        assert!(text.contains(why) && text.contains(&said[..3]), "{said}: {text}");
    }
}

#[test]
fn a_mount_of_a_server_that_misbehaves_is_refused_with_the_cause() {
    if !can_mount() {
        return;
    }
    let server = Server::memory();
    let proxy = Proxy::before(&server.address);
    for (fault, why) in [
        (Fault::Refuse, "refused"),
        (Fault::Hang, "no answer from the store within 1000 ms"),
        (Fault::Answer(response("401 Unauthorized", "", "")), "401"),
        (Fault::Answer(response("200 OK", "", "<html>")), "not GraphQL"),
    ] {
        proxy.set(&fault);
        let home = tempfile::TempDir::new().unwrap();
        let out = Mount::command(&home)
            .args(["--timeout", "1s"])
            .arg(format!("prefect-cloud:http://{}", proxy.address))
            .arg(home.path().join("mnt"))
            .env("PREFECT__CLOUD__API_KEY", KEY)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!((out.status.code(), text.lines().count()), (Some(4), 1), "{fault:?}: {text}");
        assert!(text.contains(why) && !text.contains(KEY), "{fault:?}: {text}");
    }
}
