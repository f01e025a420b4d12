//! A real mount of the built binary, unmounted when dropped.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

pub mod bound;
pub mod etcd;
pub mod http;
pub mod inside;
pub mod pipe;
pub mod port;
pub mod postgres;
pub mod prefect;
pub mod proxy;
pub mod renewed;
pub mod serve;
pub mod shared;
pub mod shell;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvfs::store::{Expect, Key, SqliteStore, Store};
use serde_json::Value;
use tempfile::TempDir;

/// Path of the binary that the tests are built with; `KVFS_BIN` is another one to mount by.
pub const KVFS: &str = env!("CARGO_BIN_EXE_kvfs");

/// Upper bound for whatever is waited for: far beyond what a loaded machine takes, because nothing here measures time.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// The process of a mount that has not told it yet.
const UNKNOWN: i32 = -1;

/// True when the machine can mount. With `KVFS_REQUIRE_FUSE=1` a machine that cannot is a failure.
pub fn can_mount() -> bool {
    let there = Path::new("/dev/fuse").exists();
    assert!(there || std::env::var_os("KVFS_REQUIRE_FUSE").is_none(), "/dev/fuse is missing");
    if !there {
        eprintln!("skipped: /dev/fuse is missing");
    }
    there
}

/// One mount in its own temporary directory, with its own XDG directories and store file.
pub struct Mount {
    pub home: TempDir,
    pub dir: PathBuf,
    pub pid: i32,
}

impl Mount {
    /// Mounts the embedded store.
    pub fn sqlite(args: &[&str]) -> Self {
        let home = TempDir::new().unwrap();
        let store = format!("sqlite:{}", home.path().join("kv.db").display());
        Self::start_in(home, &store, args)
    }

    pub fn memory(args: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), "memory:", args)
    }

    pub fn start_in(home: TempDir, store: &str, args: &[&str]) -> Self {
        let mut command = Self::command(&home);
        command.args(args).arg(store);
        let (mount, out) = Self::made_by(command, home);
        mount.unwrap_or_else(|| panic!("kvfs {args:?} {store}: {}", serve::both(&out)))
    }

    /// What `command` mounts below `home`, if it does, and what it says.
    pub fn made_by(mut command: Command, home: TempDir) -> (Option<Self>, Output) {
        let dir = home.path().join("mnt");
        let out = command.arg(&dir).output().unwrap();
        if !out.status.success() {
            return (None, out);
        }
        // From here on it is unmounted, whatever fails.
        let mut mount = Self { home, dir, pid: UNKNOWN };
        mount.pid = i32::try_from(mount.status()["pid"].as_i64().unwrap()).unwrap();
        (Some(mount), out)
    }

    /// Mounts what a server of the Prefect 1.x KV API serves at `address`, logged in by `key` as its client is.
    pub fn prefect_cloud(address: &str, key: &str, args: &[&str]) -> Self {
        Self::prefect_cloud_in(TempDir::new().unwrap(), address, key, args)
    }

    pub fn prefect_cloud_in(home: TempDir, address: &str, key: &str, args: &[&str]) -> Self {
        fs::create_dir_all(home.path().join(".prefect")).unwrap();
        let login = format!("[\"{}\"]\napi_key = \"{key}\"\n", address.replace(':', "-"));
        fs::write(home.path().join(".prefect/auth.toml"), login).unwrap();
        Self::start_in(home, &format!("prefect-cloud:http://{address}"), args)
    }

    /// Mounts the Variables of the Prefect 3 server at `address`.
    pub fn prefect(address: &str, args: &[&str]) -> Self {
        Self::prefect_in(TempDir::new().unwrap(), address, args)
    }

    pub fn prefect_in(home: TempDir, address: &str, args: &[&str]) -> Self {
        Self::start_in(home, &format!("prefect:http://{address}/api"), args)
    }

    /// The binary with its directories moved below `home`.
    pub fn command(home: &TempDir) -> Command {
        let mut command = Command::new(std::env::var_os("KVFS_BIN").unwrap_or_else(|| KVFS.into()));
        // Those of the tests are none of its settings.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KVFS_")) {
            command.env_remove(name);
        }
        command
            .env("HOME", home.path())
            .env("XDG_DATA_HOME", home.path().join("data"))
            .env("XDG_STATE_HOME", home.path().join("state"))
            .stdin(Stdio::null());
        command
    }

    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.dir.join(Path::new(name.as_ref()))
    }

    /// The file names, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The text of a file, if it can be read.
    pub fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok()
    }

    /// The counters and settings of the daemon, as `kvfs status --json` shows them for this mount.
    pub fn status(&self) -> Value {
        status_of(&self.dir)
    }

    /// How often the daemon asked its store for `call` (`set_key_value`, ...).
    pub fn calls(&self, call: &str) -> u64 {
        self.status()["calls"][call].as_u64().unwrap_or(0)
    }

    /// How many messages of the FUSE opcode (`OPEN`, `LOOKUP`, ...) the kernel has sent.
    pub fn messages(&self, opcode: &str) -> u64 {
        self.status()["messages"][opcode].as_u64().unwrap_or(0)
    }

    /// The reason behind the last errno of anybody, as the root tells it.
    pub fn last_error(&self) -> String {
        self.status()["last_error"].as_str().unwrap_or_default().to_owned()
    }

    /// Texts that the daemon has rejected (rule 9).
    pub fn rejected(&self) -> Vec<PathBuf> {
        let dir = self.home.path().join("state/kvfs/rejected");
        let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Runs `script` with `sh -c` inside the mount.
    pub fn sh(&self, script: &str) -> Output {
        Command::new("sh").arg("-c").arg(script).current_dir(&self.dir).stdin(Stdio::null()).output().unwrap()
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        let sent = Command::new("kill").args(["-HUP", &self.pid.to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// What the daemon has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("state/kvfs/kvfs.log")).unwrap_or_default()
    }

    /// Unmounts and waits for the daemon to end; returns the home with its store file.
    pub fn unmount(mut self) -> TempDir {
        self.end();
        std::mem::replace(&mut self.home, TempDir::new().unwrap())
    }

    fn end(&mut self) {
        if self.pid == 0 {
            return;
        }
        let pid = std::mem::take(&mut self.pid);
        let path = self.dir.display().to_string();
        let done = Command::new("umount").arg(&path).output().unwrap().status.success();
        if !done {
            let _ = Command::new("umount").arg("-l").arg(&path).output();
        }
        let start = Instant::now();
        while is_running(pid) {
            // The assertion that failed is printed first.
            let patience = if std::thread::panicking() { Duration::from_secs(5) } else { PATIENCE };
            if start.elapsed() > patience {
                let late = format!("kvfs outlives its mount (umount: {done});\n{}", threads(pid));
                assert!(std::thread::panicking(), "{late}");
                eprintln!("{late}");
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Unmounts. Who looks at all mounts of the machine, as `kvfs status` of another test does, may be there for a moment.
#[track_caller]
pub fn unmount(dir: &Path) {
    wait_for(PATIENCE, || Command::new("umount").arg(dir).output().unwrap().status.success());
}

/// The kernel function in which each thread of the processes named kvfs, and of `pid`, waits.
pub fn threads(pid: i32) -> String {
    let format = "pid,tid,ppid,stat,wchan:30,time,comm";
    let out = Command::new("ps").args(["-L", "-o", format, "-C", "kvfs", "-p", &pid.to_string()]).output();
    String::from_utf8_lossy(&out.unwrap().stdout).into_owned()
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.end();
    }
}

/// False once the process has ended with all its threads, reaped by its parent or not.
pub fn is_running(pid: i32) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let Ok(stat) = fs::read_to_string(process.join("stat")) else { return false };
    let zombie = stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"));
    // The first thread is a zombie before the others have closed the files they share.
    !zombie || fs::read_dir(process.join("task")).is_ok_and(|threads| threads.count() > 1)
}

/// Stops a process (SIGSTOP); returns when each of its threads has.
pub fn stop(pid: i32) {
    assert!(Command::new("kill").args(["-STOP", &pid.to_string()]).status().unwrap().success());
    let stopped = |thread: std::io::Result<fs::DirEntry>| {
        let stat = fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    };
    wait_for(PATIENCE, || fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(stopped));
}

/// The most memory a process has had, in bytes.
pub fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The status document of the mount at `dir`.
pub fn status_of(dir: &Path) -> Value {
    let out = Command::new(KVFS).arg("status").arg("--json").arg(dir).output().unwrap();
    assert!(out.status.success(), "kvfs status: {}", String::from_utf8_lossy(&out.stderr));
    let all: Value = serde_json::from_slice(&out.stdout).unwrap();
    all[0].clone()
}

/// Polls `condition` until it holds; panics after `limit`.
pub fn wait_for(limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "condition did not hold within {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Another process's door to the same database.
pub struct Elsewhere {
    store: SqliteStore,
    runtime: tokio::runtime::Runtime,
}

impl Elsewhere {
    pub fn of(mount: &Mount) -> Self {
        let store = SqliteStore::open(&mount.home.path().join("kv.db"), Duration::from_secs(5)).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { store, runtime }
    }

    pub fn set(&self, key: &str, text: &str) {
        let key = Key::from(key);
        let set = self.store.set_key_value(&key, Arc::from(text.as_bytes()), Expect::Anything);
        self.runtime.block_on(set).unwrap();
    }

    pub fn get(&self, key: &str) -> Option<String> {
        let entry = self.runtime.block_on(self.store.get_key_value(&Key::from(key))).ok()?;
        Some(String::from_utf8(entry.text.to_vec()).unwrap())
    }

    pub fn delete(&self, key: &str) {
        self.runtime.block_on(self.store.delete_key(&Key::from(key), Expect::Anything)).unwrap();
    }
}

pub fn errno<T>(result: std::io::Result<T>) -> i32 {
    result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

/// The errno of write(2), or else that of close(2), which sets what no write completed; 0 if both succeeded.
pub fn write_and_close(mut file: File, text: &[u8]) -> i32 {
    match std::io::Write::write_all(&mut file, text) {
        Ok(()) => close(file),
        Err(error) => error.raw_os_error().unwrap(),
    }
}

/// close(2) with its result.
#[allow(unsafe_code)]
pub fn close(file: File) -> i32 {
    use std::os::fd::IntoRawFd;
    let fd = file.into_raw_fd();
    // SAFETY: the descriptor was just taken out of its owner.
    if unsafe { libc::close(fd) } == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap() }
}

/// Raises a flag when it is dropped: the threads of a scope that look at it end when one of them panics, too.
pub struct Raise<'a>(pub &'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
