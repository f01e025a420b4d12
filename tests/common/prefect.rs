//! The real Prefect 3 server, and its programs.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::http::{exchange, prefect_bin};
use crate::common::port::Port;
use crate::common::postgres;
use crate::common::shared::{Lease, Run};
use crate::common::wait_for;

/// A first start compiles all of Prefect.
const START: Duration = Duration::from_mins(3);

/// For mounts of it: it shares the machine with the tests, and nothing there measures time.
pub(crate) const PATIENT: [&str; 2] = ["--timeout", "30s"];

/// The server that all tests of a run share, without any variable, for one test at a time.
pub(crate) struct Server {
    api: Api,
    _lease: Lease,
}

/// Requests to the server, from any thread.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) address: String,
}

impl Server {
    /// `None`, with a line that says why, where Prefect is not installed.
    pub(crate) fn fresh() -> Option<Self> {
        bin()?;
        let lease = Run::current().lease("prefect", |run| {
            let port = Port::reserve();
            let home = run.keep(|home| command(&port.address(), home));
            let api = Api { address: port.address() };
            wait_for(START, || api.is_healthy());
            Some(format!("{} {}", api.address, home.display()))
        })?;
        let (address, home) = lease.told.split_once(' ').unwrap();
        wipe(Path::new(home));
        Some(Self { api: Api { address: address.to_owned() }, _lease: lease })
    }

    /// As [`Server::fresh`], one that keeps its variables in PostgreSQL.
    pub(crate) fn on_postgres() -> Option<Self> {
        bin()?;
        let programs = postgres::programs()?;
        let lease = Run::current().lease("prefect-postgres", |run| {
            let port = Port::reserve();
            let home = run.keep(|home| {
                let mut server = command(&port.address(), home);
                server.env("PREFECT_API_DATABASE_CONNECTION_URL", postgres::url(home));
                postgres::beside(&programs, &server, home)
            });
            let api = Api { address: port.address() };
            wait_for(START, || api.is_healthy());
            Some(format!("{} {}", api.address, home.display()))
        })?;
        let (address, home) = lease.told.split_once(' ').unwrap();
        postgres::run(&programs, Path::new(home), "DELETE FROM variable");
        Some(Self { api: Api { address: address.to_owned() }, _lease: lease })
    }
}

impl Deref for Server {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Api {
    /// The address of the API.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/api", self.address)
    }

    fn is_healthy(&self) -> bool {
        let healthy = |stream| exchange(stream, "GET /api/health HTTP/1.1", b"").0 == 200;
        TcpStream::connect(&self.address).is_ok_and(healthy)
    }

    /// The answer of the server once it is not too busy.
    fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let head = format!("{method} /api{path} HTTP/1.1\r\nContent-Type: application/json");
        loop {
            let stream = TcpStream::connect(&self.address).unwrap();
            let (status, _, body) = exchange(stream, &head, body.to_string().as_bytes());
            if status != 503 {
                return (status, serde_json::from_str(&body).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        let (status, variable) = self.send("GET", &format!("/variables/name/{name}"), &Value::Null);
        assert!(status == 200 || status == 404, "{status} {variable}");
        (status == 200).then_some(variable)
    }

    pub(crate) fn set(&self, name: &str, value: &Value) {
        let (status, answer) =
            self.send("PATCH", &format!("/variables/name/{name}"), &json!({"value": value}));
        if status == 404 {
            self.create(&json!({"name": name, "value": value}));
        } else {
            assert_eq!(status, 204, "{answer}");
        }
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        let (status, answer) = self.send("PATCH", &format!("/variables/name/{from}"), &json!({"name": to}));
        assert_eq!(status, 204, "{answer}");
    }

    pub(crate) fn create(&self, variable: &Value) {
        let (status, answer) = self.send("POST", "/variables/", variable);
        assert_eq!(status, 201, "{answer}");
    }

    pub(crate) fn delete(&self, name: &str) {
        let (status, answer) = self.send("DELETE", &format!("/variables/name/{name}"), &Value::Null);
        assert_eq!(status, 204, "{name}: {answer}");
    }

    /// Every name and its value.
    pub(crate) fn all(&self) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        loop {
            let page = json!({"offset": all.len(), "sort": "NAME_ASC"});
            let (status, mut page) = self.send("POST", "/variables/filter", &page);
            assert_eq!(status, 200, "{page}");
            let page = page.as_array_mut().unwrap();
            if page.is_empty() {
                return all;
            }
            let row = |row: &mut Value| (row["name"].as_str().unwrap().to_owned(), row["value"].take());
            all.extend(page.iter_mut().map(row));
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.all().into_keys().collect()
    }

    /// A program of Prefect 3, set up for this server.
    pub(crate) fn prefect(&self, program: &str) -> Command {
        let mut command = Command::new(bin().unwrap().join(program));
        command.env("PREFECT_API_URL", self.url()).stdin(Stdio::null());
        quiet(&mut command);
        command
    }
}

/// A server of its own; ended when dropped, or with the program of the tests.
pub(crate) struct Process {
    api: Api,
    _port: Port,
    home: TempDir,
    settings: &'static [(&'static str, &'static str)],
    running: Option<Child>,
}

impl Process {
    /// Starts a server with these settings; `None` where Prefect is not installed.
    pub(crate) fn with(settings: &'static [(&'static str, &'static str)]) -> Option<Self> {
        bin()?;
        let port = Port::reserve();
        let api = Api { address: port.address() };
        let mut process = Self { api, _port: port, home: TempDir::new().unwrap(), settings, running: None };
        process.start();
        Some(process)
    }

    /// Starts it again at the same address.
    pub(crate) fn start(&mut self) {
        let server = command(&self.address, self.home.path());
        let mut command = Command::new("sh");
        // The end of standard input tells the end of the tests, a line that of the server.
        command.args([
            "-c",
            r#""$@" & server=$!; read -r _ || over=1; kill $server; wait $server
               [ -z "$over" ] || rm -rf "$PREFECT_HOME""#,
            "sh",
        ]);
        command.arg(server.get_program()).args(server.get_args());
        command.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
            .envs(self.settings.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = self.running.insert(command.spawn().unwrap());
        wait_for(START, || {
            assert!(child.try_wait().unwrap().is_none(), "the Prefect server ended");
            self.api.is_healthy()
        });
    }

    /// Ends the process; the variables stay.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.running.take() else { return };
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        child.wait().unwrap();
    }
}

impl Deref for Process {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

/// The command of a server at this address with its database below `home`.
fn command(address: &str, home: &Path) -> Command {
    let (host, port) = address.split_once(':').unwrap();
    let mut command = Command::new(bin().unwrap().join("prefect"));
    command.args(["server", "start", "--no-ui", "--host", host, "--port", port]);
    command.env("PREFECT_HOME", home);
    quiet(&mut command);
    command
}

/// A request for each variable would take longer than most tests.
fn wipe(home: &Path) {
    let database = Connection::open(home.join("prefect.db")).unwrap();
    database.busy_timeout(START).unwrap();
    database.execute("DELETE FROM variable", []).unwrap();
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

fn quiet(command: &mut Command) {
    command
        .env("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        .env("DO_NOT_TRACK", "1")
        .env("PREFECT_LOGGING_LEVEL", "ERROR");
}

fn bin() -> Option<PathBuf> {
    prefect_bin("prefect-3.9.1")
}
