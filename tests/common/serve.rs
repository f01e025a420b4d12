//! `kvfs serve` as a process, and what talks to it.
#![allow(clippy::needless_pass_by_value, reason = "json! makes values")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::http::{exchange, prefect_bin};
use crate::common::{KVFS, wait_for};

pub(crate) const KEY: &str = "pcu_secret123";
const PATIENCE: Duration = crate::common::PATIENCE;

/// A server with the API key [`KEY`]; ended when dropped.
pub(crate) struct Server {
    pub(crate) home: TempDir,
    pub(crate) address: String,
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

/// The binary with its directories moved below `home`.
pub(crate) fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(KVFS);
    command
        .arg("serve")
        .env("KVFS_LISTEN", "127.0.0.1:0")
        .args(args)
        .env("HOME", home)
        .env("XDG_DATA_HOME", home.join("data"))
        .env("XDG_STATE_HOME", home.join("state"))
        .env_remove("KVFS_STORE")
        .env_remove("KVFS_API_KEY")
        .stdin(Stdio::null());
    command
}

impl Server {
    pub(crate) fn memory() -> Self {
        Self::start(TempDir::new().unwrap(), &["memory:"])
    }

    pub(crate) fn start(home: TempDir, args: &[&str]) -> Self {
        let mut command = command(home.path(), args);
        if !args.iter().any(|arg| arg.contains("keys") || arg.contains("no-auth")) {
            command.env("KVFS_API_KEY", KEY);
        }
        Self::spawn(home, command)
    }

    pub(crate) fn spawn(home: TempDir, mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let address = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "kvfs serve ended: {}", log.lock().unwrap());
            log.lock().unwrap().push_str(&line);
            if let Some((_, address)) = line.trim().split_once(" at http://") {
                break address.to_owned();
            }
        };
        let reader = std::thread::spawn({
            let log = log.clone();
            move || keep(lines, &log)
        });
        Self { home, address, child, log, reader: Some(reader) }
    }

    /// What the server has logged so far, complete while it runs.
    pub(crate) fn log(&self) -> String {
        static MARKS: AtomicU32 = AtomicU32::new(0);
        if let Ok(mut stream) = TcpStream::connect(&self.address) {
            let mark = format!("/mark-{}", MARKS.fetch_add(1, Ordering::Relaxed));
            write!(stream, "GET {mark} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            wait_for(PATIENCE, || self.log.lock().unwrap().contains(&mark));
        }
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that the server has had so far, in KiB.
    pub(crate) fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Connections that the server has open.
    pub(crate) fn connections(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().flatten();
        let socket = |fd: &std::fs::DirEntry| {
            // Closed since it was listed.
            std::fs::read_link(fd.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
        };
        open.filter(socket).count()
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.pid().to_string()]).status().unwrap().success());
    }

    /// Waits for the end; returns the exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends one request of any kind; returns status, head and body.
    pub(crate) fn send(&self, head: &str, body: &[u8]) -> (u16, String, String) {
        exchange(self.connect(), head, body)
    }

    /// Posts a GraphQL request with the API key.
    pub(crate) fn post(&self, body: &Value) -> (u16, Value) {
        let head = format!("POST / HTTP/1.1\r\nAuthorization: Bearer {KEY}");
        let (status, _, body) = self.send(&head, body.to_string().as_bytes());
        (status, serde_json::from_str(&body).unwrap())
    }

    /// The data of a query that must succeed.
    #[track_caller]
    pub(crate) fn data(&self, query: &str, variables: Value) -> Value {
        let (status, mut answer) = self.post(&json!({"query": query, "variables": variables}));
        assert!(status == 200 && answer.get("errors").is_none(), "{query}: {status} {answer}");
        answer["data"].take()
    }

    pub(crate) fn set(&self, key: &str, value: Value) -> String {
        const SET: &str = "mutation($input: set_key_value_input!) { set_key_value(input: $input) { id } }";
        let data = self.data(SET, json!({"input": {"key": key, "value": value}}));
        data["set_key_value"]["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn get(&self, key: &str) -> Option<Value> {
        let query = format!("query {{ key_value(where: {{ key: {{ _eq: {} }} }}) {{ value }} }}", json!(key));
        self.data(&query, Value::Null)["key_value"].get(0).map(|row| row["value"].clone())
    }

    /// A program of the real Prefect 1.x client, set up for this server; `None` where it is not installed.
    pub(crate) fn prefect(&self, program: &str) -> Option<Command> {
        let bin = prefect_bin("prefect-1.4.1")?;
        let mut command = Command::new(bin.join(program));
        command
            .env("HOME", self.home.path())
            .env("PREFECT__BACKEND", "cloud")
            .env("PREFECT__CLOUD__API", format!("http://{}", self.address))
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        Some(command)
    }

    /// Runs a script with the real client; it must say `passed`.
    pub(crate) fn runs(&self, script: &str) {
        let Some(mut python) = self.prefect("python") else { return };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve").join(script);
        let out = python.env("PREFECT__CLOUD__API_KEY", KEY).arg(script).output().unwrap();
        assert!(String::from_utf8_lossy(&out.stdout).trim_end().ends_with("passed"), "{}", both(&out));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.reader.take().map(JoinHandle::join);
    }
}

fn keep(mut lines: BufReader<ChildStderr>, log: &Mutex<String>) {
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|size| size > 0) {
        log.lock().unwrap().push_str(&line);
        line.clear();
    }
}

pub(crate) fn both(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}
