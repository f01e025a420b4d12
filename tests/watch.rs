//! `kvfs watch`: every change is told once, whoever made it.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::needless_pass_by_value)]

mod ends;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common;
use crate::common::serve as server;
use common::{Elsewhere, Mount, can_mount, unmount, wait_for};
use serde_json::{Value, json};
use server::{KEY, Server};

const PATIENCE: Duration = crate::common::PATIENCE;
const DELETE: &str = "mutation($id: UUID!) { delete_key_value(input: {key_value_id: $id}) { success } }";
/// A key that is set until the watcher tells of it.
const READY: &str = "ready";

struct Watcher {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Watcher {
    /// Watches from now on.
    fn start(mount: &Mount) -> Self {
        Self::of(mount, &mount.dir, &mount.path(READY))
    }

    /// Watches what is at `path` from now on: `ready`, which is of it, is set until it is told of.
    fn of(mount: &Mount, path: &Path, ready: &Path) -> Self {
        let mut command = Mount::command(&mount.home);
        command.arg("watch").arg(path).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (out, kept) = (BufReader::new(child.stdout.take().unwrap()), lines.clone());
        std::thread::spawn(move || {
            for line in out.lines() {
                kept.lock().unwrap().push(serde_json::from_str(&line.unwrap()).unwrap());
            }
        });
        let watcher = Self { child, lines };
        wait_for(PATIENCE, || {
            fs::write(ready, "1").unwrap();
            !watcher.lines.lock().unwrap().is_empty()
        });
        watcher
    }

    /// The events told so far as (event, key), in order.
    fn told(&self) -> Vec<(String, String)> {
        let lines = self.lines.lock().unwrap();
        let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let all = lines.iter().map(|line| (text(line, "event"), text(line, "key")));
        all.filter(|(_, key)| key != READY).collect()
    }

    /// Waits for the last of these events; then all must have been told, and nothing else.
    #[track_caller]
    fn tells(&self, expected: &[(&str, &str)]) {
        let start = std::time::Instant::now();
        while self.told().len() < expected.len() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        // One that is told twice would come soon after.
        std::thread::sleep(Duration::from_millis(200));
        let expected: Vec<_> =
            expected.iter().map(|(event, key)| ((*event).to_owned(), (*key).to_owned())).collect();
        assert_eq!(self.told(), expected);
    }

    /// Waits until it has told that changes were missed, and then these events, and nothing else.
    #[track_caller]
    fn tells_since_missed(&self, expected: &[(String, String)]) {
        let start = std::time::Instant::now();
        loop {
            let told = self.told();
            let missed = told.iter().position(|(event, _)| event == "missed");
            if missed.is_some_and(|missed| told[missed + 1..] == *expected) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{told:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Exit code and what was said on standard error.
    fn ended(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn command(mount: &Mount, args: &[&str]) -> Command {
    let mut command = Mount::command(&mount.home);
    command.arg("watch").args(args).arg(&mount.dir);
    command
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn changes_through_this_mount_are_told_from_the_start_of_the_watch() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    fs::write(mount.path("early"), "1").unwrap();
    let watcher = Watcher::start(&mount);
    fs::write(mount.path("a"), "1").unwrap();
    fs::write(mount.path("a"), "2").unwrap();
    fs::rename(mount.path("a"), mount.path("b")).unwrap();
    fs::write(mount.path(".a.swp"), "never a key").unwrap();
    let late = Watcher::start(&mount);
    fs::remove_file(mount.path("b")).unwrap();
    watcher.tells(&[("set", "a"), ("set", "a"), ("deleted", "a"), ("set", "b"), ("deleted", "b")]);
    late.tells(&[("deleted", "b")]);
    let lines = watcher.lines.lock().unwrap();
    let of_b = lines.iter().find(|line| line["key"] == "b").unwrap();
    assert_eq!(of_b["file"], json!(mount.path("b").to_str()));
    assert!(of_b["revision"].is_u64() && of_b["time"].as_str().unwrap().ends_with('Z'), "{of_b}");
}

#[test]
fn changes_made_elsewhere_are_told_once_and_are_there_to_be_read() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let elsewhere = Elsewhere::of(&mount);
    elsewhere.set("k", "0");
    let watcher = Watcher::start(&mount);
    for round in 1..=30 {
        // The kernel remembers the value, and that there is no such file.
        assert!(text(mount.path("k")).parse::<u32>().is_ok() && !mount.path("new").exists());
        let seen = watcher.told().len();
        elsewhere.set("k", &round.to_string());
        elsewhere.set("new", "1");
        wait_for(PATIENCE, || watcher.told().len() == seen + 2);
        assert_eq!((text(mount.path("k")), text(mount.path("new"))), (round.to_string(), "1".into()));
        elsewhere.delete("new");
        wait_for(PATIENCE, || watcher.told().len() == seen + 3);
        assert!(!mount.path("new").exists());
    }
    let told = watcher.told().len();
    fs::write(mount.path("k"), "\"own\"").unwrap();
    elsewhere.set("k", "\"theirs\"");
    wait_for(PATIENCE, || watcher.told().len() >= told + 2);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(watcher.told().len(), told + 2);
    let lines = watcher.lines.lock().unwrap();
    // Those of one key are in order; of two keys a change made here may be told before one made elsewhere.
    for key in ["k", "new"] {
        let of_key = lines.iter().filter(|line| line["key"] == key);
        let revisions: Vec<u64> = of_key.map(|line| line["revision"].as_u64().unwrap()).collect();
        assert!(revisions.is_sorted_by(|a, b| a < b), "{key}: {revisions:?}");
    }
}

#[test]
fn a_burst_of_changes_is_told_whole_and_in_order() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let elsewhere = Elsewhere::of(&mount);
    let watcher = Watcher::start(&mount);
    std::thread::scope(|scope| {
        for thread in 0..20 {
            let elsewhere = &elsewhere;
            scope.spawn(move || {
                for number in 0..500 {
                    elsewhere.set(&format!("key{}", thread * 500 + number), "1");
                }
            });
        }
        for number in 1..=500 {
            fs::write(mount.path("own"), number.to_string()).unwrap();
        }
    });
    wait_for(PATIENCE, || watcher.told().len() >= 10_500);
    std::thread::sleep(Duration::from_millis(200));
    let mut told = HashMap::new();
    for (event, key) in watcher.told() {
        assert_eq!(event, "set");
        *told.entry(key).or_insert(0) += 1;
    }
    assert_eq!(told.remove("own"), Some(500));
    assert_eq!(told.len(), 10_000);
    assert!(told.values().all(|times| *times == 1));
}

#[test]
fn a_store_that_does_not_tell_is_looked_at_while_somebody_watches() {
    if !can_mount() {
        return;
    }
    let server = Server::memory();
    server.set("k", json!(1));
    let mount = Mount::prefect_cloud(&server.address, KEY, &["--max-age", "200ms"]);
    let watcher = Watcher::start(&mount);
    assert!(!mount.path("new").exists());
    server.set("k", json!(2));
    watcher.tells(&[("set", "k")]);
    assert_eq!(text(mount.path("k")), "2\n");
    let id = server.set("new", json!([1]));
    watcher.tells(&[("set", "k"), ("set", "new")]);
    assert_eq!(text(mount.path("new")), "[\n  1\n]\n");
    fs::write(mount.path("own"), "1").unwrap();
    fs::rename(mount.path("own"), mount.path("mine")).unwrap();
    watcher.tells(&[("set", "k"), ("set", "new"), ("set", "own"), ("deleted", "own"), ("set", "mine")]);
    server.data(DELETE, json!({"id": id}));
    wait_for(PATIENCE, || {
        watcher.told().last().is_some_and(|(event, key)| event == "deleted" && key == "new")
    });
    assert_eq!(watcher.told().len(), 6);
    let calls = || mount.calls("list_keys");
    let before = calls();
    wait_for(PATIENCE, || calls() > before);
    drop(watcher);
    std::thread::sleep(Duration::from_millis(300));
    let after = calls();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(calls(), after, "nobody watches any more");
}

#[test]
fn a_command_gets_each_change_as_data_and_the_newest_of_a_key() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let elsewhere = Elsewhere::of(&mount);
    let log = mount.home.path().join("log");
    let script = "printf '%s|%s|%s|%s\\0' \"$KVFS_EVENT\" \"$KVFS_KEY\" \"$KVFS_FILE\" \"$KVFS_REVISION\" >> \"$LOG\"; \
                  test -z \"$KVFS_KEY\" || cat \"$KVFS_FILE\" >> \"$LOG.values\"; sleep 0.3; exit 3";
    let mut command = command(&mount, &["--exec", script]);
    let child = command.env("LOG", &log).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut watcher = Watcher { child, lines: Arc::default() };
    let lines = || fs::read_to_string(&log).unwrap_or_default();
    wait_for(PATIENCE, || {
        elsewhere.set(READY, "1");
        lines().contains(READY)
    });
    for number in 0..50 {
        elsewhere.set("k", &number.to_string());
    }
    let hostile =
        ["$(touch pwned)", "`touch pwned`", "a\nb", "'; touch pwned; '", "\"q\"", "-n", "a/b", "nul\0nul"];
    for key in hostile {
        elsewhere.set(key, "true");
    }
    let of = |key: &str| lines().split('\0').filter(|line| line.starts_with(&format!("set|{key}|"))).count();
    wait_for(PATIENCE, || hostile[..7].iter().all(|key| of(key) == 1) && lines().contains("set||"));
    wait_for(PATIENCE, || {
        fs::read_to_string(log.with_extension("values")).is_ok_and(|all| all.contains("49"))
    });
    assert!((1..10).contains(&of("k")), "{}", lines());
    assert!(lines().contains(&format!("|{}|", mount.path("a%2Fb").display())), "{}", lines());
    assert!(lines().contains(&format!("set||{}|", mount.path("nul%00nul").display())), "{}", lines());
    assert!(!Path::new("pwned").exists());
    signal(&watcher.child, "-TERM");
    assert_eq!(watcher.child.wait().unwrap().code(), Some(0));
    let (_, said) = watcher.ended();
    assert!(said.contains("the command for set \"$(touch pwned)\" failed: exit status: 3"), "{said}");
}

impl Watcher {
    /// Waits until the deletion of `last` is told. Then nothing but files of these was, and the last change of each other one.
    #[track_caller]
    fn tells_only_of(&self, last: &Path, files: &[&Path]) {
        let told = || -> Vec<(String, String)> {
            let lines = self.lines.lock().unwrap();
            let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
            lines.iter().map(|line| (text(line, "event"), text(line, "file"))).collect()
        };
        let ends = ("deleted".to_owned(), last.display().to_string());
        wait_for(PATIENCE, || told().contains(&ends));
        // A surplus event would come soon after.
        std::thread::sleep(Duration::from_millis(200));
        let told = told();
        let seen: BTreeSet<&str> = told.iter().map(|(_, file)| file.as_str()).collect();
        let wanted: BTreeSet<&str> =
            files.iter().copied().chain([last]).map(|file| file.to_str().unwrap()).collect();
        assert_eq!(seen, wanted, "{told:?}");
    }
}

/// A bind mount, until it is dropped.
struct Bound<'a>(&'a Path);

impl<'a> Bound<'a> {
    fn at(place: &'a Path, from: &Path) -> Self {
        assert!(Command::new("mount").arg("--bind").args([from, place]).status().unwrap().success());
        Self(place)
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_file_and_a_directory_are_watched_alone_and_so_are_those_that_are_bound_elsewhere() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--separator", "/"]);
    let elsewhere = Elsewhere::of(&mount);
    let (key, other, beside) = (mount.path("app/db"), mount.path("app/web"), mount.path("app2"));
    fs::create_dir(mount.path("app")).unwrap();
    for file in [&key, &other, &beside] {
        fs::write(file, "1").unwrap();
    }
    let (file, dir) = (mount.home.path().join("file"), mount.home.path().join("dir"));
    fs::write(&file, "").unwrap();
    fs::create_dir(&dir).unwrap();
    let _bound = [Bound::at(&file, &key), Bound::at(&dir, &mount.path("app"))];
    let places = [&key, &mount.path("app"), &file, &dir, &dir.join("db"), &mount.dir];
    let watchers = places.map(|path| Watcher::of(&mount, path, &key));
    elsewhere.set("app2", "2");
    elsewhere.set("app/web", "2");
    elsewhere.set("app/db", "2");
    fs::write(mount.path("new"), "3").unwrap();
    fs::write(&other, "3").unwrap();
    // Other inodes have the name from here on.
    let temporary = mount.path("app/db.tmp");
    fs::File::create_new(&temporary).unwrap().write_all(b"4").unwrap();
    fs::rename(&temporary, &key).unwrap();
    fs::remove_file(&key).unwrap();
    elsewhere.set("app/db", "5");
    wait_for(PATIENCE, || mount.text("app/db").as_deref() == Some("5"));
    elsewhere.delete("app/db");
    let bound = (dir.join("db"), dir.join("web"));
    let [of_file, of_dir, of_bound_file, of_bound_dir, of_file_there, of_all] = &watchers;
    of_file.tells_only_of(&key, &[]);
    of_bound_file.tells_only_of(&file, &[]);
    of_file_there.tells_only_of(&bound.0, &[]);
    of_dir.tells_only_of(&key, &[&other]);
    of_bound_dir.tells_only_of(&bound.0, &[&bound.1]);
    of_all.tells_only_of(&key, &[&other, &beside, &mount.path("new")]);
    for watcher in watchers {
        signal(&watcher.child, "-TERM");
        assert_eq!(watcher.ended(), (Some(0), String::new()));
    }
}

#[test]
fn a_file_that_is_yet_to_be_set_is_watched_with_a_word_and_the_watch_ends_with_its_mount() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let new = mount.path("new");
    let mut command = Mount::command(&mount.home);
    command.arg("watch").arg(&new).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let shown = new.display();
    assert_eq!(line, format!("kvfs: {shown} is not there yet; it is told of when it is set\n"));
    fs::write(mount.path("newer"), "1").unwrap();
    fs::write(&new, "1").unwrap();
    let mut told = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut told).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["event"], &told["file"]), (&json!("set"), &json!(new)));
    unmount(&mount.dir);
    line.clear();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, format!("kvfs: the mount at {} has ended\n", mount.dir.display()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_is_no_mount_cannot_be_watched() {
    let home = tempfile::TempDir::new().unwrap();
    let out = Mount::command(&home).arg("watch").arg(home.path()).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!((out.status.code(), said.lines().count()), (Some(3), 1), "{said}");
    assert!(
        said.starts_with("kvfs: ") && said.contains(" is in no mount of kvfs; `kvfs status` lists"),
        "{said}"
    );
}
