//! Everyday tools on a real mount: their exit codes, what they leave behind, and what reaches the store.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
#[path = "tools/editors.rs"]
mod editors;
#[path = "tools/files.rs"]
mod files;
#[path = "tools/locks.rs"]
mod locks;
#[path = "tools/scripting.rs"]
mod scripting;
#[path = "tools/search.rs"]
mod search;
#[path = "tools/shell.rs"]
mod shell;
#[path = "tools/terminal.rs"]
mod terminal;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use tempfile::TempDir;

use common::{Mount, can_mount, wait_for};

/// Upper bound for whatever is waited for; generous, because nothing here measures time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Changes the daemon asked its store for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Calls {
    set: u64,
    delete: u64,
    rename: u64,
}

impl Calls {
    const NONE: Self = Self::new(0, 0, 0);

    const fn new(set: u64, delete: u64, rename: u64) -> Self {
        Self { set, delete, rename }
    }

    const fn sets(set: u64) -> Self {
        Self::new(set, 0, 0)
    }

    fn of(mount: &Mount) -> Self {
        let status = mount.status();
        let count = |call: &str| status["calls"][call].as_u64().unwrap_or(0);
        Self::new(count("set_key_value"), count("delete_key"), count("rename_key"))
    }

    const fn since(self, before: Self) -> Self {
        Self::new(self.set - before.set, self.delete - before.delete, self.rename - before.rename)
    }
}

/// A finished tool, and what it cost the store.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
    calls: Calls,
}

impl Ran {
    fn of(output: &Output, calls: Calls) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr), calls }
    }

    /// The tool succeeded with exactly these store calls; returns what it printed.
    #[track_caller]
    fn succeeds(self, calls: Calls) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.calls, calls, "{self:?}");
        self.out
    }

    /// The tool failed, gave `reason` on stderr, and made exactly these store calls.
    #[track_caller]
    fn fails(self, reason: &str, calls: Calls) {
        assert!(self.code.is_some_and(|code| code != 0), "{self:?}");
        assert!(self.err.contains(reason), "no {reason:?} in {self:?}");
        assert_eq!(self.calls, calls, "{self:?}");
    }
}

/// A mount, and a directory beside it on another filesystem.
struct Bench {
    mount: Mount,
    beside: PathBuf,
}

impl Bench {
    /// `None`, with a line that says why, where the machine cannot run the test.
    fn memory(tools: &[&str]) -> Option<Self> {
        ready(tools).then(|| Self::on(Mount::memory(&[])))
    }

    fn sqlite(tools: &[&str]) -> Option<Self> {
        ready(tools).then(|| Self::on(Mount::sqlite(&[])))
    }

    /// Away from /tmp, where editors do not make the backups they make elsewhere.
    fn for_editors(tools: &[&str]) -> Option<Self> {
        ready(tools).then(|| Self::on(remount(TempDir::new_in("/var/tmp").unwrap())))
    }

    fn on(mount: Mount) -> Self {
        let beside = mount.home.path().join("beside");
        fs::create_dir_all(&beside).unwrap();
        Self { mount, beside }
    }

    /// Unmounts and mounts the embedded store again, with nothing remembered.
    fn afresh(self) -> Self {
        Self::on(remount(self.mount.unmount()))
    }

    #[track_caller]
    fn put(&self, name: &str, text: &str) {
        fs::write(self.mount.path(name), text).unwrap();
        assert_eq!(self.text(name), text);
    }

    /// A file beside the mount; `$BESIDE` is its directory in scripts.
    fn put_beside(&self, name: &str, text: &str) {
        fs::write(self.beside.join(name), text).unwrap();
    }

    #[track_caller]
    fn text(&self, name: &str) -> String {
        let path = self.mount.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn names(&self) -> Vec<String> {
        names_in(&self.mount.dir)
    }

    fn database(&self) -> Connection {
        let path = self.mount.home.path().join("kv.db");
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
    }

    /// The value as the embedded store holds it, past the mount.
    fn stored(&self, key: &str) -> Option<String> {
        stored(&self.database(), key)
    }

    /// Content set aside by the daemon, once there is any.
    fn set_aside(&self) -> Vec<String> {
        wait_for(PATIENCE, || !self.mount.rejected().is_empty());
        self.mount.rejected().iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    fn command(&self, program: &str) -> Command {
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

    fn run(&self, command: &mut Command) -> Ran {
        let before = Calls::of(&self.mount);
        let output = command.output().unwrap();
        Ran::of(&output, Calls::of(&self.mount).since(before))
    }

    /// Runs a script inside the mount.
    fn sh(&self, script: &str) -> Ran {
        self.run(self.command("sh").arg("-c").arg(script))
    }

    fn python(&self, script: &str) -> Ran {
        self.run(self.command("python3").arg("-c").arg(script))
    }
}

fn remount(home: TempDir) -> Mount {
    let store = format!("sqlite:{}", home.path().join("kv.db").display());
    Mount::start_in(home, &store, &[])
}

fn stored(database: &Connection, key: &str) -> Option<String> {
    let mut query = database.prepare("SELECT value FROM kv WHERE key = ?1").unwrap();
    let value: Option<Vec<u8>> = query.query_row([key], |row| row.get(0)).optional().unwrap();
    value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Says what is missing; with `KVFS_REQUIRE_FUSE=1` that is a failure.
fn ready(tools: &[&str]) -> bool {
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
