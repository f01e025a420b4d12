//! Locks between processes: on a mount they are what they are on a local disk.
#![allow(missing_docs, clippy::unwrap_used)]

mod ends;
mod names;

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::common::{Mount, PATIENCE, can_mount};

/// What scripts are written in.
const PROCESSES: &str = include_str!("locks/processes.py");

/// What `script` prints in `dir`.
#[track_caller]
fn run(dir: &Path, script: &str) -> String {
    let seconds = (2 * PATIENCE.as_secs()).to_string();
    let mut command = Command::new("timeout");
    command.args(["-k", "5", &seconds, "python3", "-c", &format!("{PROCESSES}\n{script}")]).current_dir(dir);
    let out = command.stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// `script` prints this on a local disk, and on a mount.
#[track_caller]
fn as_on_a_local_disk(script: &str, printed: &[&str]) {
    as_on_a_local_disk_with(&[], script, printed);
}

#[track_caller]
fn as_on_a_local_disk_with(args: &[&str], script: &str, printed: &[&str]) {
    if !can_mount() {
        return;
    }
    let (plain, mount) = (TempDir::new().unwrap(), Mount::memory(args));
    for (place, dir) in [("a local disk", plain.path()), ("a mount", &*mount.dir)] {
        assert_eq!(run(dir, script).lines().collect::<Vec<_>>(), printed, "on {place}:\n{script}");
    }
}

#[test]
fn two_that_wait_for_each_other_are_a_deadlock() {
    as_on_a_local_disk(
        "
a, b = Process(), Process()
print(a('f, g = rw(\"f\"), rw(\"g\")'), b('f, g = rw(\"f\"), rw(\"g\")'))
print(a('lock(f, \"EX\")'), b('lock(g, \"EX\")'))
a.begin('lock(g, \"EX\", wait=True)').waits()
print(b('lock(f, \"EX\", wait=True)'))
b('os.close(g)')
print(a.end())
",
        &["None None", "granted granted", "EDEADLK", "granted"],
    );
}

#[test]
fn three_that_wait_for_each_other_in_one_file_are_a_deadlock() {
    as_on_a_local_disk(
        "
all = [Process() for _ in range(3)]
for n, p in enumerate(all):
    p('f = rw(\"f\")')
    print(p(f'lock(f, \"EX\", {n}, 1)'))
for n, p in enumerate(all[:2]):
    p.begin(f'lock(f, \"EX\", {n + 1}, 1, wait=True)').waits()
print(all[2]('lock(f, \"EX\", 0, 1, wait=True)'))
print(all[2]('lock(f, \"UN\")'), all[1].end())
print(all[1]('lock(f, \"UN\")'), all[0].end())
",
        &["granted", "granted", "granted", "EDEADLK", "granted granted", "granted granted"],
    );
}

#[test]
fn two_readers_that_both_want_to_write_are_a_deadlock() {
    as_on_a_local_disk(
        "
a, b = Process(), Process()
print(a('lock(rw(\"f\"), \"SH\")'), b('lock(rw(\"f\"), \"SH\")'))
a.begin('lock(rw(\"f\"), \"EX\", wait=True)').waits()
print(b('lock(rw(\"f\"), \"EX\", wait=True)'))
print(b('lock(rw(\"f\"), \"UN\")'), a.end())
",
        &["granted granted", "EDEADLK", "granted granted"],
    );
}

#[test]
fn a_chain_that_is_no_circle_is_waited_for() {
    as_on_a_local_disk(
        "
a, b, c = Process(), Process(), Process()
for p in a, b, c:
    p('f = rw(\"f\")')
print(a('lock(f, \"EX\", 0, 1)'), b('lock(f, \"EX\", 1, 1)'))
b.begin('lock(f, \"EX\", 0, 1, wait=True)').waits()
c.begin('lock(f, \"EX\", 0, 2, wait=True)').waits()
print(a('lock(f, \"EX\", 2, 1, wait=True)'), a('lock(f, \"UN\")'))
print(b.end(), b('lock(f, \"UN\")'), c.end())
",
        &["granted granted", "granted granted", "granted granted granted"],
    );
}

#[test]
fn who_is_killed_while_it_waits_is_in_nobodys_way() {
    as_on_a_local_disk(
        "
a, b, c = Process(), Process(), Process()
for p in a, b, c:
    p('f = rw(\"f\")')
print(a('lock(f, \"EX\", 0, 1)'), b('lock(f, \"EX\", 1, 1)'))
b.begin('lock(f, \"EX\", 0, 1, wait=True)').waits().kill().gone()
print(c('test(f, \"EX\", 1, 1)'), c('lock(f, \"EX\", 1, 1)'))
print(c('lock(f, \"UN\")'), a('lock(f, \"EX\", 1, 1, wait=True)'))
",
        &["granted granted", "free granted", "granted granted"],
    );
}

#[test]
fn a_signal_ends_the_wait_for_a_lock() {
    as_on_a_local_disk(
        "
a, b = Process(), Process()
b('def stop(*_): raise InterruptedError(errno.EINTR, \"stopped\")')
b('_ = signal.signal(signal.SIGUSR1, stop)')
print(a('lock(rw(\"f\"), \"EX\")'))
print(b.begin('lock(rw(\"f\"), \"EX\", wait=True)').waits().kill(signal.SIGUSR1).end())
print(b.begin('flock(rw(\"g\"), \"EX\", wait=True)').end())
",
        &["granted", "EINTR", "granted"],
    );
}

#[test]
fn flock_and_fcntl_do_not_see_each_other() {
    as_on_a_local_disk(
        "
a, b = Process(), Process()
a('f = rw(\"f\")'), b('f = rw(\"f\")')
print(a('flock(f, \"EX\")'), a('lock(f, \"EX\")'))
print(b('flock(f, \"SH\")'), b('lock(f, \"SH\")'))
print(a('flock(f, \"UN\")'), b('flock(f, \"EX\")'), b('lock(f, \"SH\")'))
print(a('lock(f, \"UN\")'), b('lock(f, \"EX\")'), a('flock(f, \"SH\")'))
",
        &["granted granted", "EAGAIN EAGAIN", "granted granted EAGAIN", "granted granted EAGAIN"],
    );
}

#[test]
fn locks_of_both_kinds_of_one_open_file_description_live_side_by_side() {
    as_on_a_local_disk(
        "
a, b = Process(), Process()
a('f = rw(\"f\")'), b('f = rw(\"f\")')
print(a('ofd(f, \"EX\")'), a('flock(f, \"SH\")'), b('ofd(f, \"SH\")'), b('flock(f, \"SH\")'))
print(a('ofd(f, \"UN\")'), b('ofd(f, \"SH\")'), b('flock(f, \"EX\")'))
",
        &["granted granted EAGAIN granted", "granted granted EAGAIN"],
    );
}

#[test]
fn a_flock_that_is_converted_is_given_up_first() {
    as_on_a_local_disk(
        "
a, b, c = Process(), Process(), Process()
for p in a, b, c:
    p('f = ro(\"f\")')
print(a('flock(f, \"SH\")'), b('flock(f, \"SH\")'))
a.begin('flock(f, \"EX\", wait=True)').waits()
print(b('flock(f, \"EX\", wait=True)'))
print(b('flock(f, \"UN\")'), a.end())
print(a('flock(f, \"SH\")'), c('flock(f, \"SH\")'))
print(a('flock(f, \"EX\")'), c('flock(f, \"EX\")'), a('flock(f, \"SH\")'))
",
        &["granted granted", "granted", "granted granted", "granted granted", "EAGAIN granted EAGAIN"],
    );
}

#[test]
fn ranges_are_split_joined_and_told() {
    as_on_a_local_disk(
        "
a, b = Process(), Process()
a('f = rw(\"f\")'), b('f = rw(\"f\")')
print(a('lock(f, \"EX\", 0, 10), lock(f, \"EX\", 10)'), a('lock(f, \"UN\", 10, 10)'), a('lock(f, \"SH\", 100, 1)'))
print(b('test(f, \"SH\", 5, 1)'), b('test(f, \"SH\", 10, 10)'), b('test(f, \"SH\", 100, 1)'))
print(b('test(f, \"EX\", 100, 1)'), b('test(f, \"SH\", 1000, 0)'))
print(b('lock(f, \"EX\", 10, 10)'), b('lock(f, \"EX\", 10, 11)'), b('lock(f, \"SH\", 100, 1)'))
print(a('lock(f, \"EX\", 20, 30)'), b('test(f, \"EX\", 30, 1)'))
print(a('lock(f, \"EX\", 100, 1)'), b('lock(f, \"UN\")'), a('lock(f, \"EX\")'), b('test(f, \"SH\")'))
",
        &[
            "('granted', 'granted') granted granted",
            "('EX', 0, 10) free free",
            "('SH', 100, 1) ('EX', 101, 0)",
            "granted EAGAIN granted",
            "granted ('EX', 20, 80)",
            "EAGAIN granted granted ('EX', 0, 0)",
        ],
    );
}

#[test]
fn an_open_file_description_holds_its_lock_for_all_who_have_it() {
    as_on_a_local_disk(
        "
a, b = Process(), Process()
for name in 'ro(\"f\")', 'rw(\"f\")':
    for call in 'ofd', 'flock':
        a(f'f = {name}'), b(f'f = rw(\"f\")')
        kind = 'SH' if name.startswith('ro') else 'EX'
        print(a(f'{call}(f, \"{kind}\")'), b(f'{call}(f, \"EX\")'))
        child = a.fork()
        a('os.close(f)')
        print(b(f'{call}(f, \"EX\")'), child('g = os.dup(f)'), child('os.close(f)'))
        print(b(f'{call}(f, \"EX\")'), child('os.close(g)'))
        wait_for(lambda: b(f'{call}(f, \"EX\")') == 'granted')
        b('os.close(f)')
",
        &["granted EAGAIN", "EAGAIN None None", "EAGAIN None"].repeat(4),
    );
}
