//! A mount to use tools on, and what is behind it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::etcd;
use crate::common::prefect;
use crate::common::serve::{KEY, Server};
use crate::common::{Mount, can_mount, wait_for};

/// Upper bound for whatever is waited for; generous, because nothing here measures time.
pub(super) const PATIENCE: Duration = crate::common::PATIENCE;

/// Changes the daemon asked its store for. A rename is one call, whatever it takes on the wire: a set and a delete on
/// `prefect-cloud`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Calls {
    set: u64,
    delete: u64,
    rename: u64,
}

impl Calls {
    pub(super) const NONE: Self = Self::new(0, 0, 0);

    pub(super) const fn new(set: u64, delete: u64, rename: u64) -> Self {
        Self { set, delete, rename }
    }

    pub(super) const fn sets(set: u64) -> Self {
        Self::new(set, 0, 0)
    }

    pub(super) fn of(mount: &Mount) -> Self {
        let status = mount.status();
        let count = |call: &str| status["calls"][call].as_u64().unwrap_or(0);
        Self::new(count("set_key_value"), count("delete_key"), count("rename_key"))
    }

    pub(super) const fn since(self, before: Self) -> Self {
        Self::new(self.set - before.set, self.delete - before.delete, self.rename - before.rename)
    }
}

/// A finished tool, and what it cost the store.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
    pub(super) calls: Calls,
}

impl Ran {
    pub(super) fn of(output: &Output, calls: Calls) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr), calls }
    }

    /// The tool succeeded with exactly these store calls; returns what it printed.
    #[track_caller]
    pub(super) fn succeeds(self, calls: Calls) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.calls, calls, "{self:?}");
        self.out
    }

    /// The tool failed, gave `reason` on stderr, and made exactly these store calls.
    #[track_caller]
    pub(super) fn fails(self, reason: &str, calls: Calls) {
        assert!(self.code.is_some_and(|code| code != 0), "{self:?}");
        assert!(self.err.contains(reason), "no {reason:?} in {self:?}");
        assert_eq!(self.calls, calls, "{self:?}");
    }
}

/// What is mounted.
#[derive(Debug, Clone, Copy)]
pub(super) enum On {
    /// A store of this machine, which keeps bytes.
    Local,
    /// A real etcd, which keeps bytes.
    Etcd,
    /// The API of Prefect Cloud 1 over another store, which keeps JSON: a value of which no text was written on the
    /// present mount is shown indented.
    PrefectCloud,
    /// The real Prefect 3 server. It takes fewer names and smaller values ("Where stores differ" in docs/semantics.md):
    /// no case but those of the room `names`, which is left out, needs others, and none expects something else.
    Prefect,
}

impl On {
    /// How often each of many processes changes a value; fewer times where one change takes long.
    pub(super) const fn rounds(self) -> usize {
        match self {
            Self::Local | Self::Etcd | Self::PrefectCloud => 25,
            Self::Prefect => 5,
        }
    }

    /// Any store. `None`, with a line that says why, where the machine cannot run the test.
    pub(super) fn any(self, tools: &[&str]) -> Option<Bench> {
        self.bench(tools, || (TempDir::new().unwrap(), Behind::Memory))
    }

    /// A store whose keys outlive the mount, and are seen past it.
    /// Whether a mount without options shows no directories.
    pub(super) fn is_flat(self) -> bool {
        !matches!(self, Self::Etcd)
    }

    pub(super) fn lasting(self, tools: &[&str]) -> Option<Bench> {
        self.bench(tools, || (TempDir::new().unwrap(), Behind::Database))
    }

    /// Away from /tmp, where editors do not make the backups they make elsewhere.
    pub(super) fn for_editors(self, tools: &[&str]) -> Option<Bench> {
        self.bench(tools, || (TempDir::new_in("/var/tmp").unwrap(), Behind::Database))
    }

    fn bench(self, tools: &[&str], local: impl FnOnce() -> (TempDir, Behind)) -> Option<Bench> {
        let (home, behind) = ready(tools).then(local)?;
        let behind = match self {
            Self::Local => behind,
            Self::Etcd => Behind::Etcd(etcd::Shared::usual()?),
            Self::PrefectCloud => Behind::Server(Arc::new(Server::memory())),
            Self::Prefect => Behind::Prefect(prefect::Server::fresh()?),
        };
        Some(Bench::start(home, behind))
    }
}

/// What keeps the keys of a mount.
enum Behind {
    Memory,
    /// The embedded store's, in the home of the mount.
    Database,
    Etcd(etcd::Shared),
    Server(Arc<Server>),
    Prefect(prefect::Server),
}

/// A way to the store past the mount.
pub(super) enum Past {
    Database(Connection),
    Etcd(etcd::Keys),
    Server(Arc<Server>),
    Prefect(prefect::Api),
}

impl Past {
    /// What the store has for `key`: bytes as text, or a value as compact JSON.
    pub(super) fn stored(&self, key: &str) -> Option<String> {
        match self {
            Self::Database(database) => {
                let mut query = database.prepare("SELECT value FROM kv WHERE key = ?1").unwrap();
                let value: Option<Vec<u8>> = query.query_row([key], |row| row.get(0)).optional().unwrap();
                value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            }
            Self::Etcd(keys) => keys.get(key).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            Self::Server(server) => server.get(key).map(|value| value.to_string()),
            Self::Prefect(api) => api.get(key).map(|variable| variable["value"].to_string()),
        }
    }

    /// What [`Past::stored`] is of a key with this text.
    #[allow(clippy::unnecessary_wraps, reason = "to be compared with")]
    pub(super) fn kept(&self, text: &str) -> Option<String> {
        match self {
            Self::Database(_) | Self::Etcd(_) => Some(text.to_owned()),
            Self::Server(_) | Self::Prefect(_) => {
                Some(serde_json::from_str::<Value>(text).unwrap().to_string())
            }
        }
    }
}

/// A mount, and a directory beside it on another filesystem.
pub(super) struct Bench {
    pub(super) mount: Mount,
    pub(super) beside: PathBuf,
    behind: Behind,
}

impl Bench {
    fn start(home: TempDir, behind: Behind) -> Self {
        let mount = match &behind {
            Behind::Memory => Mount::start_in(home, "memory:", &[]),
            Behind::Database => {
                let store = format!("sqlite:{}", home.path().join("kv.db").display());
                Mount::start_in(home, &store, &[])
            }
            Behind::Etcd(cluster) => Mount::start_in(home, &cluster.argument(), &prefect::PATIENT),
            Behind::Server(server) => Mount::prefect_cloud_in(home, &server.address, KEY, &[]),
            Behind::Prefect(server) => Mount::prefect_in(home, &server.address, &prefect::PATIENT),
        };
        let beside = mount.home.path().join("beside");
        fs::create_dir_all(&beside).unwrap();
        Self { mount, beside, behind }
    }

    /// Unmounts and mounts the store again, with nothing remembered.
    pub(super) fn afresh(self) -> Self {
        Self::start(self.mount.unmount(), self.behind)
    }

    pub(super) fn past(&self) -> Past {
        match &self.behind {
            Behind::Memory => panic!("memory: is not seen past the mount"),
            Behind::Database => {
                let path = self.mount.home.path().join("kv.db");
                Past::Database(Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap())
            }
            Behind::Etcd(cluster) => Past::Etcd(cluster.keys()),
            Behind::Server(server) => Past::Server(server.clone()),
            Behind::Prefect(server) => Past::Prefect((*server).clone()),
        }
    }

    /// See [`Past::stored`].
    pub(super) fn stored(&self, key: &str) -> Option<String> {
        self.past().stored(key)
    }

    /// See [`Past::kept`].
    pub(super) fn kept(&self, text: &str) -> Option<String> {
        self.past().kept(text)
    }

    #[track_caller]
    pub(super) fn put(&self, name: &str, text: &str) {
        fs::write(self.mount.path(name), text).unwrap();
        assert_eq!(self.text(name), text);
    }

    /// A file beside the mount; `$BESIDE` is its directory in scripts.
    pub(super) fn put_beside(&self, name: &str, text: &str) {
        fs::write(self.beside.join(name), text).unwrap();
    }

    #[track_caller]
    pub(super) fn text(&self, name: &str) -> String {
        let path = self.mount.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(super) fn names(&self) -> Vec<String> {
        names_in(&self.mount.dir)
    }

    /// A text that the daemon has rejected, once there is one.
    pub(super) fn set_aside(&self) -> Vec<String> {
        wait_for(PATIENCE, || !self.mount.rejected().is_empty());
        self.mount.rejected().iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.mount.dir)
            .env("HOME", self.mount.home.path())
            .env("BESIDE", &self.beside)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("LANGUAGE")
            .stdin(Stdio::null());
        command
    }

    pub(super) fn run(&self, command: &mut Command) -> Ran {
        let before = Calls::of(&self.mount);
        let output = command.output().unwrap();
        Ran::of(&output, Calls::of(&self.mount).since(before))
    }

    /// Runs a script inside the mount.
    pub(super) fn sh(&self, script: &str) -> Ran {
        self.run(self.command("sh").arg("-c").arg(script))
    }

    pub(super) fn python(&self, script: &str) -> Ran {
        self.run(self.command("python3").arg("-c").arg(script))
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Says what is missing; with `KVFS_REQUIRE_FUSE=1` that is a failure.
pub(super) fn ready(tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |tool: &str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    let missing: Vec<&str> = tools.iter().copied().filter(|tool| !there(tool)).collect();
    if missing.is_empty() {
        return can_mount();
    }
    assert!(std::env::var_os("KVFS_REQUIRE_FUSE").is_none(), "not installed: {missing:?}");
    eprintln!("skipped: not installed: {missing:?}");
    false
}
