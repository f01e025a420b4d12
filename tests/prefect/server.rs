//! The real Prefect 3 server, one for all tests of a program, and its programs.

use std::net::{TcpListener, TcpStream};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::common::http::{exchange, prefect_bin};
use super::common::wait_for;

/// A first start compiles all of Prefect.
const START: Duration = Duration::from_mins(3);

/// The server without any variable, for one test at a time.
pub(super) struct Server {
    api: Api,
    _alone: MutexGuard<'static, ()>,
}

/// What the server is asked, from any thread.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) address: String,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Server {
    /// `None`, with a line that says why, where Prefect is not installed.
    pub(super) fn fresh() -> Option<Self> {
        let alone = ALONE.lock();
        let process = process()?;
        let api = Api { address: process.address.clone() };
        for name in api.names() {
            api.delete(&name);
        }
        Some(Self { api, _alone: alone })
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
    pub(super) fn url(&self) -> String {
        format!("http://{}/api", self.address)
    }

    /// What the server says once it is not too busy.
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

    pub(super) fn get(&self, name: &str) -> Option<Value> {
        let (status, variable) = self.send("GET", &format!("/variables/name/{name}"), &Value::Null);
        assert!(status == 200 || status == 404, "{status} {variable}");
        (status == 200).then_some(variable)
    }

    pub(super) fn set(&self, name: &str, value: &Value) {
        let (status, answer) =
            self.send("PATCH", &format!("/variables/name/{name}"), &json!({"value": value}));
        if status == 404 {
            let (status, answer) = self.send("POST", "/variables/", &json!({"name": name, "value": value}));
            assert_eq!(status, 201, "{answer}");
        } else {
            assert_eq!(status, 204, "{answer}");
        }
    }

    pub(super) fn delete(&self, name: &str) {
        let (status, answer) = self.send("DELETE", &format!("/variables/name/{name}"), &Value::Null);
        assert_eq!(status, 204, "{name}: {answer}");
    }

    pub(super) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        loop {
            let page = json!({"offset": names.len(), "sort": "NAME_ASC"});
            let (status, page) = self.send("POST", "/variables/filter", &page);
            assert_eq!(status, 200, "{page}");
            let page = page.as_array().unwrap();
            if page.is_empty() {
                return names;
            }
            names.extend(page.iter().map(|variable| variable["name"].as_str().unwrap().to_owned()));
        }
    }

    /// A program of Prefect 3, set up for this server.
    pub(super) fn prefect(&self, program: &str) -> Command {
        let mut command = Command::new(bin().unwrap().join(program));
        command.env("PREFECT_API_URL", self.url()).stdin(Stdio::null());
        quiet(&mut command);
        command
    }
}

struct Process {
    address: String,
    /// Closed when the program of the tests ends, which ends the server.
    _stdin: Mutex<ChildStdin>,
    _home: TempDir,
}

fn process() -> Option<&'static Process> {
    static PROCESS: OnceLock<Option<Process>> = OnceLock::new();
    PROCESS.get_or_init(start).as_ref()
}

fn start() -> Option<Process> {
    let program = bin()?.join("prefect");
    let home = TempDir::new().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("sh");
    // Statics are not dropped: the end of standard input tells the end of the tests.
    command.args([
        "-c",
        r#""$@" & server=$!; read -r line; kill $server; wait $server; rm -rf "$PREFECT_HOME""#,
        "sh",
    ]);
    command.arg(program).args([
        "server",
        "start",
        "--no-ui",
        "--host",
        "127.0.0.1",
        "--port",
        &port.to_string(),
    ]);
    command
        .env("PREFECT_HOME", home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet(&mut command);
    let mut child = command.spawn().unwrap();
    let address = format!("127.0.0.1:{port}");
    wait_for(START, || {
        assert!(child.try_wait().unwrap().is_none(), "the Prefect server ended");
        let healthy = |stream| exchange(stream, "GET /api/health HTTP/1.1", b"").0 == 200;
        TcpStream::connect(&address).is_ok_and(healthy)
    });
    Some(Process { address, _stdin: Mutex::new(child.stdin.take().unwrap()), _home: home })
}

fn quiet(command: &mut Command) {
    command
        .env("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        .env("DO_NOT_TRACK", "1")
        .env("PREFECT_LOGGING_LEVEL", "ERROR");
}

fn bin() -> Option<PathBuf> {
    prefect_bin("prefect-3.8.0")
}
