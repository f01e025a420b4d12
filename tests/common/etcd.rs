//! Real etcd clusters, and what they are asked past kvfs.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::http::exchange;
use crate::common::port::Port;
use crate::common::shared::{Lease, Run};
use crate::common::wait_for;

const START: Duration = Duration::from_mins(1);

/// The one cluster of so many members that all tests of a run share: each has keys of its own.
pub(crate) struct Shared {
    cluster: Cluster,
    name: String,
    _lease: Lease,
}

impl Shared {
    /// One member; `None`, with a line that says why, where etcd is not installed.
    pub(crate) fn one() -> Option<Self> {
        Self::of(1)
    }

    /// Three members.
    pub(crate) fn three() -> Option<Self> {
        Self::of(3)
    }

    /// As many members as `KVFS_ETCD_MEMBERS` says, 1 or 3; else one.
    pub(crate) fn usual() -> Option<Self> {
        if std::env::var("KVFS_ETCD_MEMBERS").is_ok_and(|members| members == "3") {
            Self::three()
        } else {
            Self::one()
        }
    }

    fn of(members: usize) -> Option<Self> {
        let lease = Run::current().lease(&format!("etcd-{members}"), |run| {
            Some(Cluster::kept_by(run, members)?.addresses().join(","))
        })?;
        let members = lease.told.split(',').map(Member::at).collect();
        let name = format!("test-{:016x}", fastrand::u64(..));
        Some(Self { cluster: Cluster { members }, name, _lease: lease })
    }

    /// The store argument, for keys of this test alone.
    pub(crate) fn argument(&self) -> String {
        format!("etcd:{}/{}", self.addresses().join(","), self.name)
    }

    /// The prefix of this test's keys.
    pub(crate) fn prefix(&self) -> String {
        format!("{}/", self.name)
    }

    /// The keys of this test as they are in the cluster.
    pub(crate) fn keys(&self) -> Keys {
        Keys { address: self.members[0].address.clone(), prefix: self.prefix() }
    }
}

impl std::ops::Deref for Shared {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

/// Keys below a prefix, asked for from any thread.
pub(crate) struct Keys {
    address: String,
    prefix: String,
}

impl Keys {
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        get(&self.address, format!("{}{key}", self.prefix))
    }
}

/// Members that know one another; ended when dropped, or with the program of the tests.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
}

pub(crate) struct Member {
    pub(crate) address: String,
    scheme: &'static str,
    /// Only of a member that this test has to itself.
    own: Option<Own>,
}

struct Own {
    _ports: [Port; 2],
    command: Vec<String>,
    home: TempDir,
    running: Mutex<Option<Running>>,
}

struct Running {
    child: Child,
    pid: i32,
}

impl Cluster {
    /// `None`, with a line that says why, where etcd is not installed.
    pub(crate) fn start(members: usize, args: &[&str]) -> Option<Self> {
        Self::start_with("http", members, args)
    }

    pub(crate) fn start_with(scheme: &'static str, members: usize, args: &[&str]) -> Option<Self> {
        let members = planned(scheme, members, args)?.into_iter().map(|(ports, command)| {
            // In memory where that can be: nothing here tests a disk.
            let home = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
            let address = ports[0].address();
            Member {
                address,
                scheme,
                own: Some(Own { _ports: ports, command, home, running: Mutex::default() }),
            }
        });
        let cluster = Self { members: members.collect() };
        cluster.members.iter().for_each(Member::launch);
        cluster.members.iter().for_each(Member::wait);
        Some(cluster)
    }

    /// Starts one that outlives this test.
    fn kept_by(run: &Run, members: usize) -> Option<Self> {
        let planned = planned("http", members, &[])?;
        let members = planned.iter().map(|(ports, line)| {
            run.keep(|home| {
                let mut command = Command::new(&line[0]);
                command.args(&line[1..]).arg("--data-dir").arg(home.join("data"));
                command
            });
            Member::at(&ports[0].address())
        });
        let cluster = Self { members: members.collect() };
        cluster.members.iter().for_each(Member::wait);
        Some(cluster)
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.members.iter().map(|member| member.address.clone()).collect()
    }

    /// The member that leads, as one that runs says.
    pub(crate) fn leader(&self) -> usize {
        let (mut found, ask) = (None, |member: &Member| member.ask("maintenance/status", &json!({})).1);
        wait_for(START, || {
            let running: Vec<Option<Value>> =
                self.members.iter().map(|one| one.is_up().then(|| ask(one))).collect();
            let leader =
                running.iter().flatten().find_map(|status| status["leader"].as_str().filter(|id| *id != "0"));
            found = running.iter().position(|status| {
                status.as_ref().is_some_and(|status| status["header"]["member_id"].as_str() == leader)
            });
            found.is_some() && leader.is_some()
        });
        found.unwrap()
    }

    pub(crate) fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> u64 {
        self.members[0].put(key, value)
    }
}

/// Ports and command lines of so many members; `None`, with a line that says why, where etcd is not installed.
fn planned(scheme: &str, members: usize, args: &[&str]) -> Option<Vec<([Port; 2], Vec<String>)>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|dir| dir.join("etcd").is_file()) {
        assert!(std::env::var_os("KVFS_REQUIRE_FUSE").is_none(), "etcd is missing: run scripts/setup");
        eprintln!("skipped: etcd is missing: run scripts/setup");
        return None;
    }
    let ports: Vec<[Port; 2]> = (0..members).map(|_| [Port::reserve(), Port::reserve()]).collect();
    let addresses = |of: usize| ports.iter().map(|ports| ports[of].address()).collect::<Vec<_>>();
    let (clients, peers) = (addresses(0), addresses(1));
    let all: Vec<String> =
        peers.iter().enumerate().map(|(index, peer)| format!("m{index}=http://{peer}")).collect();
    let planned = ports.into_iter().enumerate().map(|(index, ports)| {
        let (client, peer) = (&clients[index], &peers[index]);
        let mut command: Vec<String> = vec!["etcd".into(), "--name".into(), format!("m{index}")];
        for (flag, value) in [
            ("--listen-client-urls", format!("{scheme}://{client}")),
            ("--advertise-client-urls", format!("{scheme}://{client}")),
            ("--listen-peer-urls", format!("http://{peer}")),
            ("--initial-advertise-peer-urls", format!("http://{peer}")),
            ("--initial-cluster", all.join(",")),
        ] {
            command.extend([flag.to_owned(), value]);
        }
        command.extend(args.iter().map(|arg| (*arg).to_owned()));
        (ports, command)
    });
    Some(planned.collect())
}

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

impl Member {
    /// One that runs already, and is not of this test.
    fn at(address: &str) -> Self {
        Self { address: address.to_owned(), scheme: "http", own: None }
    }

    fn own(&self) -> &Own {
        self.own.as_ref().expect("a member that other tests share is left as it is")
    }

    fn launch(&self) {
        let own = self.own();
        let mut command = Command::new("sh");
        // Statics are not dropped: the end of standard input tells the end of the tests, a line that of the member.
        command.args([
            "-c",
            r#""$@" >/dev/null 2>&1 </dev/null & member=$!; echo $member; read -r _ || over=1
               kill -9 $member; wait $member; [ -z "$over" ] || rm -rf "$KVFS_DATA""#,
            "sh",
        ]);
        command.args(&own.command).arg("--data-dir").arg(own.home.path().join("data"));
        command.env("KVFS_DATA", own.home.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        *own.running.lock() = Some(Running { child, pid: line.trim().parse().unwrap() });
    }

    /// Until it answers with a majority of the others.
    fn wait(&self) {
        if self.scheme == "http" {
            wait_for(START, || self.is_up() && self.ask("kv/range", &json!({"key": base64("x")})).0 != 503);
        } else {
            wait_for(START, || TcpStream::connect(&self.address).is_ok());
        }
    }

    fn is_up(&self) -> bool {
        let started = self.own.as_ref().is_none_or(|own| own.running.lock().is_some());
        started && TcpStream::connect(&self.address).is_ok()
    }

    pub(crate) fn kill(&self) {
        let Some(mut running) = self.own().running.lock().take() else { return };
        running.child.stdin.take().unwrap().write_all(b"\n").unwrap();
        running.child.wait().unwrap();
    }

    pub(crate) fn start(&self) {
        self.launch();
        self.wait();
    }

    /// Keeps a copy of its data, from which [`Member::restore`] starts it anew.
    pub(crate) fn back_up(&self) {
        self.kill();
        self.copy("data", "backup");
        self.start();
    }

    pub(crate) fn restore(&self) {
        self.kill();
        std::fs::remove_dir_all(self.own().home.path().join("data")).unwrap();
        self.copy("backup", "data");
        self.start();
    }

    fn copy(&self, from: &str, to: &str) {
        let home = self.own().home.path();
        let (from, to) = (home.join(from), home.join(to));
        assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
    }

    /// It hangs: its connections stay, and new ones are made.
    pub(crate) fn stop(&self) {
        let pid = self.own().running.lock().as_ref().unwrap().pid;
        super::stop(pid);
    }

    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.own().running.lock().as_ref().unwrap().pid.to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub(crate) fn ask(&self, path: &str, body: &Value) -> (u16, Value) {
        ask(&self.address, path, body)
    }

    /// Sets a key; the revision that it made.
    pub(crate) fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> u64 {
        let (status, answer) = self.ask("kv/put", &json!({"key": base64(key), "value": base64(value)}));
        assert_eq!(status, 200, "{answer}");
        answer["header"]["revision"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn get(&self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        get(&self.address, key)
    }

    pub(crate) fn delete(&self, key: impl AsRef<[u8]>) {
        let (status, answer) = self.ask("kv/deleterange", &json!({"key": base64(key)}));
        assert_eq!(status, 200, "{answer}");
    }

    pub(crate) fn compact(&self, revision: u64) {
        let (status, answer) = self.ask("kv/compaction", &json!({"revision": revision.to_string()}));
        assert_eq!(status, 200, "{answer}");
    }
}

fn get(address: &str, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    let (status, answer) = ask(address, "kv/range", &json!({"key": base64(key)}));
    assert_eq!(status, 200, "{answer}");
    let pair = answer["kvs"].get(0)?;
    Some(STANDARD.decode(pair["value"].as_str().unwrap_or_default()).unwrap())
}

fn ask(address: &str, path: &str, body: &Value) -> (u16, Value) {
    let Ok(stream) = TcpStream::connect(address) else { return (503, Value::Null) };
    let head = format!("POST /v3/{path} HTTP/1.1");
    let (status, head, mut text) = exchange(stream, &head, body.to_string().as_bytes());
    if head.contains("transfer-encoding: chunked") {
        // One chunk holds all of an error.
        text = text.split("\r\n").nth(1).unwrap_or_default().to_owned();
    }
    (status, serde_json::from_str(&text).unwrap_or_default())
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.own.is_some() {
            self.kill();
        }
    }
}
