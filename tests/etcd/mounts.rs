//! Several mounts and servers over one cluster, as the machines of a fleet have them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use serde_json::json;
use tempfile::TempDir;

use super::PATIENCE;
use super::common::bound::{lives_on, moves, sets_and_deletes};
use super::common::{Mount, can_mount, close, errno, wait_for};
use super::pipe::Pipe;
use super::serve::Server;
use super::server::Shared;

/// Nothing is seen by asking again.
const NEVER: [&str; 2] = ["--max-age", "1h"];

fn mount(store: &str) -> Mount {
    let mount = Mount::start_in(TempDir::new().unwrap(), store, &NEVER);
    wait_for(PATIENCE, || mount.status()["freshness"] == "pushed");
    mount
}

#[test]
fn what_one_mount_does_the_other_shows() {
    let Some(cluster) = can_mount().then(Shared::one).flatten() else { return };
    let (one, other) = (mount(&cluster.argument()), mount(&cluster.argument()));
    assert_eq!(other.names(), [""; 0]);
    assert_eq!(errno(fs::metadata(other.path("k"))), libc::ENOENT);
    fs::write(one.path("k"), "[1]").unwrap();
    wait_for(PATIENCE, || other.text("k").as_deref() == Some("[1]"));
    wait_for(PATIENCE, || other.names() == ["k"]);
    fs::write(other.path("k"), "[1, 2]\n").unwrap();
    wait_for(PATIENCE, || one.text("k").as_deref() == Some("[1, 2]\n"));
    assert_eq!(fs::metadata(one.path("k")).unwrap().len(), 7);
    fs::rename(one.path("k"), one.path("moved")).unwrap();
    wait_for(PATIENCE, || other.names() == ["moved"]);
    wait_for(PATIENCE, || errno(fs::metadata(other.path("k"))) == libc::ENOENT);
    assert_eq!(other.text("moved").as_deref(), Some("[1, 2]\n"));
    fs::remove_file(other.path("moved")).unwrap();
    wait_for(PATIENCE, || one.names().is_empty());
    // The others' JSON need be none.
    cluster.put(format!("{}raw", cluster.prefix()), "no JSON");
    wait_for(PATIENCE, || one.text("raw").as_deref() == Some("no JSON"));
}

#[test]
fn a_bound_directory_lives_on_whatever_another_machine_does_with_its_only_key() {
    let Some(cluster) = can_mount().then(Shared::one).flatten() else { return };
    let other = mount(&cluster.argument());
    for args in [&[][..], &["--notify"]] {
        let one = Mount::start_in(TempDir::new().unwrap(), &cluster.argument(), args);
        lives_on(&one, &format!("p{}/d/k", args.len()), sets_and_deletes(&other));
        lives_on(&one, &format!("m{}/d/k", args.len()), moves(&other));
    }
}

#[test]
fn what_is_appended_on_two_mounts_at_once_is_all_there() {
    let Some(cluster) = can_mount().then(Shared::one).flatten() else { return };
    let mount = || Mount::start_in(TempDir::new().unwrap(), &cluster.argument(), &["--validate", "none"]);
    let mounts = [mount(), mount()];
    let script = "for n in $(seq 20); do echo \"$0 $n\" >> f || exit; done";
    let shells: Vec<_> = [("a", 0), ("b", 0), ("c", 1), ("d", 1)]
        .map(|(name, at)| {
            Command::new("bash").args(["-c", script, name]).current_dir(&mounts[at].dir).spawn().unwrap()
        })
        .into();
    for mut shell in shells {
        assert!(shell.wait().unwrap().success());
    }
    let lines = || {
        let text = mounts[0].text("f").unwrap();
        text.lines().collect::<HashSet<_>>().len()
    };
    wait_for(PATIENCE, || lines() == 80);
}

#[test]
fn inotify_tells_of_changes_made_here_once_although_the_watch_tells_of_them_first() {
    let Some(cluster) = can_mount().then(Shared::one).flatten() else { return };
    let mount = Mount::start_in(TempDir::new().unwrap(), &cluster.argument(), &["--notify"]);
    let mut watch = Command::new("inotifywait");
    let watch = watch.args(["-m", "--format", "%e %f", "-e", "create,close_write,delete"]).arg(&mount.dir);
    let mut child = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().starts_with("Watches established")));
    let (line, lines) = mpsc::channel();
    let said = BufReader::new(child.stdout.take().unwrap()).lines();
    std::thread::spawn(move || said.map(|said| said.unwrap()).try_for_each(|said| line.send(said)));
    // A change made here before the feed begins may be reported twice. A mount that has just begun to follow them says `pushed`
    // until it has heard that it is not so yet.
    let told = |name: &str| {
        cluster.put(format!("{}{name}", cluster.prefix()), "1");
        lines.try_iter().any(|line| line == format!("CLOSE_WRITE,CLOSE {name}"))
    };
    wait_for(PATIENCE, || told("first"));
    wait_for(PATIENCE, || mount.status()["freshness"] == "pushed");
    wait_for(PATIENCE, || told("start"));
    for round in 0..50 {
        fs::write(mount.path("k"), round.to_string()).unwrap();
        fs::write(mount.path("k"), (round + 1).to_string()).unwrap();
        fs::remove_file(mount.path("k")).unwrap();
    }
    cluster.put(format!("{}end", cluster.prefix()), "1");
    let lines = lines.iter().take_while(|line| !line.ends_with("end")).filter(|line| line.ends_with(" k"));
    let mut told: Vec<String> = lines.collect();
    child.kill().unwrap();
    child.wait().unwrap();
    // The kernel merges equal events that follow each other, unless they are read in between.
    told.dedup();
    assert_eq!(told, ["CREATE k", "CLOSE_WRITE,CLOSE k", "DELETE k"].repeat(50));
}

#[test]
fn what_is_known_is_not_asked_for_again() {
    let Some(cluster) = can_mount().then(Shared::one).flatten() else { return };
    let mount = mount(&cluster.argument());
    fs::write(mount.path("k"), "1").unwrap();
    assert_eq!(mount.text("k").as_deref(), Some("1"));
    assert_eq!(mount.names(), ["k"]);
    let before = mount.status()["calls"].clone();
    for _ in 0..50 {
        assert_eq!(mount.text("k").as_deref(), Some("1"));
    }
    assert_eq!(mount.status()["calls"], before);
}

#[test]
fn while_the_way_is_cut_answers_age_and_afterwards_nothing_is_missed() {
    let Some(cluster) = can_mount().then(Shared::one).flatten() else { return };
    let pipe = Pipe::before(&cluster.members[0].address);
    let prefix = cluster.prefix();
    let store = format!("etcd:{}/{prefix}", pipe.address);
    let mount = Mount::start_in(TempDir::new().unwrap(), &store, &["--max-age", "100ms", "--timeout", "1s"]);
    wait_for(PATIENCE, || mount.status()["freshness"] == "pushed");
    cluster.put(format!("{prefix}k"), "1");
    wait_for(PATIENCE, || mount.text("k").as_deref() == Some("1"));
    pipe.cut();
    wait_for(PATIENCE, || mount.status()["freshness"] == "bounded");
    cluster.put(format!("{prefix}k"), "2");
    cluster.put(format!("{prefix}new"), "3");
    assert_eq!(mount.text("k").as_deref(), Some("1"));
    let mut file = File::create(mount.path("k")).unwrap();
    file.write_all(b"4").unwrap();
    assert_ne!(close(file), 0);
    pipe.mend();
    wait_for(PATIENCE, || mount.text("k").as_deref() == Some("2"));
    wait_for(PATIENCE, || mount.text("new").as_deref() == Some("3"));
    wait_for(PATIENCE, || mount.status()["freshness"] == "pushed");
    fs::write(mount.path("k"), "5").unwrap();
    assert_eq!(cluster.members[0].get(format!("{prefix}k")).unwrap(), b"5");
}

#[test]
fn of_two_mounts_that_change_one_value_the_second_is_stale() {
    let Some(cluster) = can_mount().then(Shared::one).flatten() else { return };
    let (one, other) = (mount(&cluster.argument()), mount(&cluster.argument()));
    fs::write(one.path("k"), "[1]").unwrap();
    wait_for(PATIENCE, || other.text("k").as_deref() == Some("[1]"));
    let open = |mount: &Mount| fs::OpenOptions::new().write(true).open(mount.path("k")).unwrap();
    let (mut first, mut second) = (open(&one), open(&other));
    first.write_all(b"[2]").unwrap();
    second.write_all(b"[3]").unwrap();
    assert_eq!(close(first), 0);
    assert_eq!(close(second), libc::ESTALE);
    assert_eq!(cluster.members[0].get(format!("{}k", cluster.prefix())).unwrap(), b"[2]");
}

#[test]
fn what_is_set_through_one_server_is_read_through_another_at_once() {
    let Some(cluster) = Shared::three() else { return };
    let serve = || Server::start(TempDir::new().unwrap(), &[&cluster.argument()]);
    let (one, other) = (serve(), serve());
    for number in 0..20 {
        one.set("k", json!({"number": number}));
        assert_eq!(other.get("k").unwrap(), json!({"number": number}));
        other.set("k", json!([number]));
        assert_eq!(one.get("k").unwrap(), json!([number]));
    }
}
