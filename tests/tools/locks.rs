//! flock and fcntl locks between processes.

use std::io::Write;
use std::process::{Child, Stdio};

use super::{Bench, Calls, On, PATIENCE, Ran, wait_for};

const PROCESSES: usize = 8;

/// Runs `script` in several processes at once; all must succeed.
#[track_caller]
fn all_at_once(at: &Bench, program: &str, script: &str) {
    at_once(at, program, &[script; PROCESSES]);
}

/// Runs each script in a process of its own, all at once; all must end and succeed.
#[track_caller]
fn at_once(at: &Bench, program: &str, scripts: &[&str]) {
    let seconds = PATIENCE.as_secs().to_string();
    let start = |script: &&str| {
        let mut command = at.command("timeout");
        command.args([&seconds, program, "-c", script]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let started: Vec<Child> = scripts.iter().map(start).collect();
    for child in started {
        Ran::of(&child.wait_with_output().unwrap(), Calls::NONE).succeeds(Calls::NONE);
    }
}

/// Adds 1 to `counter` under `flock LOCK` so many times, from many processes: no addition is lost.
#[track_caller]
fn counts_under_flock(at: &Bench, lock: &str, rounds: usize) {
    at.put("counter", "0\n");
    let before = Calls::of(&at.mount);
    let add = "n=$(cat counter) && echo $((n + 1)) > counter";
    let script = format!("for i in $(seq {rounds}); do flock {lock} sh -c '{add}' || exit 1; done");
    all_at_once(at, "sh", &script);
    let total = PROCESSES * rounds;
    assert_eq!(at.text("counter"), format!("{total}\n"));
    assert_eq!(at.stored("counter"), at.kept(&format!("{total}\n")));
    assert_eq!(Calls::of(&at.mount).since(before), Calls::sets(total as u64));
}

pub(super) fn a_counter_locked_by_flock_on_itself_loses_nothing(on: On) {
    let Some(at) = on.lasting(&["flock"]) else { return };
    counts_under_flock(&at, "counter", on.rounds());
    assert_eq!(at.names(), ["counter"]);
}

pub(super) fn a_counter_locked_by_flock_on_a_lock_file_loses_nothing(on: On) {
    let Some(at) = on.lasting(&["flock"]) else { return };
    counts_under_flock(&at, "counter-lock", on.rounds());
    assert_eq!(at.stored("counter-lock"), None);
    assert_eq!(at.afresh().names(), ["counter"]);
}

/// Holds a lock until its standard input closes.
fn hold(at: &Bench, program: &str, script: &str) -> Child {
    let mut command = at.command(program);
    command.arg("-c").arg(script).stdin(Stdio::piped()).stdout(Stdio::null());
    let child = command.spawn().unwrap();
    wait_for(PATIENCE, || at.beside.join("locked").exists());
    child
}

fn let_go(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

pub(super) fn flock_excludes_others_until_it_is_released(on: On) {
    let Some(at) = on.any(&["flock"]) else { return };
    at.put("k", "1\n");
    let holder = hold(&at, "sh", "flock k sh -c 'touch $BESIDE/locked; cat'");
    at.sh("flock -n k true").fails("", Calls::NONE);
    at.sh("flock -s -n k true").fails("", Calls::NONE);
    at.sh("echo 2 > k").succeeds(Calls::sets(1));
    at.sh("flock -n k true").fails("", Calls::NONE);
    let_go(holder);
    at.sh("flock -n k true").succeeds(Calls::NONE);
    assert_eq!(at.text("k"), "2\n");
}

pub(super) fn shared_flocks_live_together(on: On) {
    let Some(at) = on.any(&["flock"]) else { return };
    at.put("k", "1\n");
    let holder = hold(&at, "sh", "flock -s k sh -c 'touch $BESIDE/locked; cat'");
    at.sh("flock -s -n k true").succeeds(Calls::NONE);
    at.sh("flock -n k true").fails("", Calls::NONE);
    let_go(holder);
    at.sh("flock -n k true").succeeds(Calls::NONE);
}

pub(super) fn a_killed_holder_releases_its_flock(on: On) {
    let Some(at) = on.any(&["flock"]) else { return };
    at.put("k", "1\n");
    let script = "exec 9< k; flock 9; touch $BESIDE/locked; exec cat";
    let mut holder = hold(&at, "sh", script);
    at.sh("flock -n k true").fails("", Calls::NONE);
    holder.kill().unwrap();
    holder.wait().unwrap();
    at.sh("flock k true").succeeds(Calls::NONE);
}

pub(super) fn fcntl_locks_exclude_others_by_range(on: On) {
    let Some(at) = on.any(&["python3"]) else { return };
    at.put("k", "[1, 2, 3, 4]\n");
    let lock = |flags: &str, length: u32, start: u32| {
        format!("import fcntl; f = open('k', 'r+'); fcntl.lockf(f, fcntl.{flags}, {length}, {start})")
    };
    let holding = format!(
        "{}; import os, sys; open(os.environ['BESIDE'] + '/locked', 'w'); sys.stdin.read()",
        lock("LOCK_EX", 4, 0)
    );
    let holder = hold(&at, "python3", &holding);
    at.python(&lock("LOCK_EX | fcntl.LOCK_NB", 4, 2)).fails("BlockingIOError", Calls::NONE);
    at.python(&lock("LOCK_SH | fcntl.LOCK_NB", 0, 0)).fails("BlockingIOError", Calls::NONE);
    at.python(&lock("LOCK_EX | fcntl.LOCK_NB", 4, 4)).succeeds(Calls::NONE);
    let_go(holder);
    at.python(&lock("LOCK_EX | fcntl.LOCK_NB", 0, 0)).succeeds(Calls::NONE);
    assert_eq!(at.text("k"), "[1, 2, 3, 4]\n");
}

pub(super) fn a_counter_locked_by_lockf_on_a_lock_file_loses_nothing(on: On) {
    let Some(at) = on.lasting(&["python3"]) else { return };
    at.put("counter", "0");
    let script = format!(
        "import fcntl, json\n\
         for _ in range({}):\n\
         \x20   with open('counter-lock', 'w') as lock:\n\
         \x20       fcntl.lockf(lock, fcntl.LOCK_EX)\n\
         \x20       n = json.load(open('counter'))\n\
         \x20       with open('counter', 'w') as f:\n\
         \x20           json.dump(n + 1, f)\n",
        on.rounds()
    );
    all_at_once(&at, "python3", &script);
    assert_eq!(at.text("counter"), (PROCESSES * on.rounds()).to_string());
    assert_eq!(at.stored("counter-lock"), None);
}

/// Adds 1 to `counter` so many times. The handle is opened before the lock is granted, so another process may
/// have changed the key since: the close may say so (ESTALE) and is tried again.
fn add(rounds: usize) -> String {
    format!(
        "
import errno, fcntl, json
done = 0
while done < {rounds}:
    try:
        with open('counter', 'r+') as f:
            fcntl.lockf(f, fcntl.LOCK_EX)
            n = json.load(f)
            f.seek(0)
            json.dump(n + 1, f)
        done += 1
    except OSError as error:
        if error.errno != errno.ESTALE: raise
"
    )
}

pub(super) fn a_counter_locked_by_lockf_on_itself_loses_nothing(on: On) {
    let Some(at) = on.lasting(&["python3"]) else { return };
    at.put("counter", "0");
    all_at_once(&at, "python3", &add(on.rounds()));
    assert_eq!(at.text("counter"), (PROCESSES * on.rounds()).to_string());
    assert_eq!(at.stored("counter"), at.kept(&(PROCESSES * on.rounds()).to_string()));
}

/// Several opens of one inode whose pages are being dropped must not wait for each other.
pub(super) fn readers_in_a_crowd_of_writers_see_whole_values_and_none_waits_for_ever(on: On) {
    let Some(at) = on.any(&["python3"]) else { return };
    let (add, enough) = (add(on.rounds()), 6 * on.rounds());
    let read = format!(
        "
last = 0
while last < {enough}:
    n = int(open('counter').read())
    assert n >= last, f'{{n}} after {{last}}'
    last = n
"
    );
    at.put("counter", "0");
    at_once(&at, "python3", &[[&*add; PROCESSES].as_slice(), &[&*read; 4]].concat());
    assert_eq!(at.text("counter"), (PROCESSES * on.rounds()).to_string());
}

/// What a holder has open is an older version than the one that was renamed, and its lock went along.
pub(super) fn a_lock_on_an_old_version_of_a_renamed_key_is_released(on: On) {
    const UNLOCK: &str = "fcntl.flock(f, fcntl.LOCK_UN)";
    let hold_and = |release: &str| {
        format!(
            "import fcntl, os, sys\nf = open('k')\nfcntl.flock(f, fcntl.LOCK_EX)\n\
             open(os.environ['BESIDE'] + '/locked', 'w')\nsys.stdin.readline()\n{release}\n\
             open(os.environ['BESIDE'] + '/unlocked', 'w')\nsys.stdin.read()\n"
        )
    };
    for release in [UNLOCK, "f.close()"] {
        let Some(at) = on.any(&["flock", "python3"]) else { return };
        at.put("k", "1\n");
        let mut holder = hold(&at, "python3", &hold_and(release));
        at.sh("echo 2 > k && mv k k2").succeeds(Calls::new(1, 0, 1));
        at.sh("flock -n k2 true").fails("", Calls::NONE);
        holder.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        wait_for(PATIENCE, || at.beside.join("unlocked").exists());
        at.sh("timeout 5 flock k2 true").succeeds(Calls::NONE);
        let_go(holder);
    }
}
