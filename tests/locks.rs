//! Locks between processes: on a mount they are what they are on a local disk.
#![allow(missing_docs, clippy::unwrap_used)]

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

#[test]
fn a_lock_goes_with_the_file_to_its_new_name() {
    as_on_a_local_disk(
        "
a, b = Process(), Process()
for call in 'lock', 'flock', 'ofd':
    put('f', '1\\n')
    a('f = rw(\"f\")')
    print(a(f'{call}(f, \"EX\")'), a('os.rename(\"f\", \"h\")'))
    b('h = rw(\"h\")'), put('f', '2\\n'), b('f = rw(\"f\")')
    print(b(f'{call}(h, \"SH\")'), b(f'{call}(f, \"EX\")'))
    print(a('os.rename(\"h\", \"i\")'), b('i = rw(\"i\")'), b(f'{call}(i, \"SH\")'))
    print(a(f'{call}(f, \"UN\")'), b(f'{call}(i, \"EX\")'), a(f'{call}(f, \"SH\")'))
    b('os.close(f), os.close(h), os.close(i)')
",
        &["granted None", "EAGAIN granted", "None None EAGAIN", "granted granted EAGAIN"].repeat(3),
    );
}

#[test]
fn a_lock_stays_with_the_file_that_has_lost_its_name() {
    let successors = ["os.unlink('f'), put('f', '2\\n')", "put('h', '2\\n'), os.rename('h', 'f')"];
    for successor in successors {
        as_on_a_local_disk(
            &format!(
                "
a, b = Process(), Process()
for call in 'lock', 'flock', 'ofd':
    a('f = rw(\"f\")'), b('old = rw(\"f\")')
    print(a(f'{{call}}(f, \"EX\")'))
    {successor}
    b('f = rw(\"f\")')
    print(b(f'{{call}}(f, \"EX\")'), b(f'{{call}}(old, \"EX\")'), a(f'{{call}}(f, \"UN\")'))
    print(b(f'{{call}}(old, \"EX\")'), a(f'{{call}}(f, \"SH\")'), a(f'{{call}}(rw(\"f\"), \"SH\")'))
    b('os.close(f), os.close(old)')
"
            ),
            &["granted", "granted EAGAIN granted", "granted EAGAIN EAGAIN"].repeat(3),
        );
    }
}

#[test]
fn a_lock_of_a_new_file_stays_with_it_through_its_first_value() {
    as_on_a_local_disk(
        "
a, b = Process(), Process()
for call in 'lock', 'flock', 'ofd':
    a('f = os.open(\"new\", os.O_RDWR | os.O_CREAT)')
    print(a(f'{call}(f, \"EX\")'), b('early = rw(\"new\")'), b(f'{call}(early, \"SH\")'))
    print(a('os.write(f, b\"3\")'), a('os.fsync(f)'), b('late = rw(\"new\")'), b(f'{call}(late, \"SH\")'))
    print(a(f'{call}(f, \"UN\")'), b(f'{call}(early, \"EX\")'), a(f'{call}(f, \"EX\")'))
    a('os.close(f)'), b('os.close(early), os.close(late)'), os.unlink('new')
",
        &["granted None EAGAIN", "1 None None EAGAIN", "granted granted EAGAIN"].repeat(3),
    );
}

#[test]
fn a_lock_holds_whichever_version_of_the_file_is_open() {
    as_on_a_local_disk(
        "
a, b, c = Process(), Process(), Process()
for call in 'lock', 'flock', 'ofd':
    put('f', '1\\n')
    a('f = ro(\"f\")')
    print(a(f'{call}(f, \"SH\")'), put('f', '2\\n'), b('f = rw(\"f\")'), b(f'{call}(f, \"EX\")'))
    print(put('f', '3\\n'), c('f = rw(\"f\")'), c(f'{call}(f, \"SH\")'), b(f'{call}(f, \"EX\")'))
    print(a(f'{call}(f, \"UN\")'), b(f'{call}(f, \"EX\")'), c(f'{call}(f, \"UN\")'), b(f'{call}(f, \"EX\")'))
    print(a(f'{call}(f, \"SH\")'), a(f'{call}(ro(\"f\"), \"SH\")'), c(f'{call}(f, \"EX\")'))
    b('os.close(f)'), c('os.close(f)')
",
        &[
            "granted None None EAGAIN",
            "None None granted EAGAIN",
            "granted EAGAIN granted granted",
            "EAGAIN EAGAIN EAGAIN",
        ]
        .repeat(3),
    );
}

#[test]
fn a_lock_goes_with_a_file_that_is_moved_aside() {
    as_on_a_local_disk(
        "
a, b = Process(), Process()
a('f = rw(\"f\")')
print(a('lock(f, \"EX\")'), a('os.rename(\"f\", \"f~\")'), put('f', '2\\n'))
print(b('f = rw(\"f\")'), b('lock(f, \"EX\")'), b('old = rw(\"f~\")'), b('lock(old, \"EX\")'))
",
        &["granted None None", "None granted None EAGAIN"],
    );
}

#[test]
fn a_lock_goes_with_the_directory_that_its_file_is_in() {
    as_on_a_local_disk_with(
        &["--separator", "/"],
        "
a, b = Process(), Process()
os.mkdir('d'), put('d/f', '1\\n'), put('d/g', '1\\n')
a('f, g = ro(\"d/f\"), rw(\"d/g\")')
print(a('lock(f, \"SH\")'), a('flock(g, \"EX\")'), put('d/f', '2\\n'), os.rename('d', 'e'))
print(b('f, g = rw(\"e/f\"), rw(\"e/g\")'), b('lock(f, \"EX\")'), b('flock(g, \"EX\")'))
os.mkdir('d'), put('d/f', '3\\n')
print(b('lock(rw(\"d/f\"), \"EX\")'), a('os.close(g)'), b('flock(g, \"EX\")'))
",
        &["granted granted None None", "None EAGAIN EAGAIN", "granted None granted"],
    );
}

/// What others do to a key, by another mount of its store.
#[test]
fn a_file_that_is_set_elsewhere_is_the_same_and_one_that_is_deleted_elsewhere_has_ended() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let store = format!("sqlite:{}", mount.home.path().join("kv.db").display());
    let other = Mount::start_in(TempDir::new().unwrap(), &store, &[]);
    let script = format!(
        "
elsewhere = '{}/'
a, b = Process(), Process()
a('f, g = ro(\"f\"), rw(\"g\")')
print(a('lock(f, \"SH\")'), a('lock(g, \"EX\")'))
put(elsewhere + 'f', '3\\n'), put(elsewhere + 'g', '4\\n')
wait_for(lambda: open('f').read() + open('g').read() == '3\\n4\\n')
print(b('f, g = rw(\"f\"), rw(\"g\")'), b('lock(f, \"EX\")'), b('lock(g, \"EX\")'))
os.unlink(elsewhere + 'f'), os.unlink(elsewhere + 'g')
wait_for(lambda: not os.path.exists('f') and not os.path.exists('g'))
put('f', '5\\n'), put(elsewhere + 'g', '6\\n')
wait_for(lambda: os.path.exists('g'))
print(b('lock(f, \"EX\")'), b('new_f, new_g = rw(\"f\"), rw(\"g\")'))
print(b('lock(new_f, \"EX\")'), b('lock(new_g, \"EX\")'))
",
        other.dir.display()
    );
    let printed = run(&mount.dir, &script);
    let expected = ["granted granted", "None EAGAIN EAGAIN", "EAGAIN None", "granted granted"];
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}
