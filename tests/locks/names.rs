//! Locks are of the file, whatever becomes of its name and of its value.

use tempfile::TempDir;

use super::{as_on_a_local_disk, as_on_a_local_disk_with, run};
use crate::common::{Mount, can_mount};

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
