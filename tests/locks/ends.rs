//! Locks that end without a word: the kernel tells nobody that a reader closes a file which others have open, too.

use super::{as_on_a_local_disk, run};
use crate::common::{Mount, can_mount};

#[test]
fn a_process_that_closes_a_file_ends_its_locks_of_it_though_a_child_has_it_open() {
    for open in ["ro", "rw"] {
        as_on_a_local_disk(
            &format!(
                "
a, b = Process(), Process()
a('f, g = {open}(\"f\"), ro(\"g\")'), b('f = rw(\"f\")')
print(a('lock(f, \"SH\", 0, 10), lock(f, \"SH\", 20, 10)'), b('lock(f, \"EX\")'))
child = a.fork()
print(b('lock(f, \"EX\")'), child('os.close(f)'), b('lock(f, \"EX\")'))
child = a.fork()
print(a('os.close(f)'), b('test(f, \"EX\")'), b('lock(f, \"EX\")'), child('lock(f, \"SH\")'))
print(b('lock(f, \"UN\")'), child('lock(f, \"SH\")'), b('lock(f, \"EX\")'), a('test(g, \"SH\")'))
"
            ),
            &[
                "('granted', 'granted') EAGAIN",
                "EAGAIN None EAGAIN",
                "None free granted EAGAIN",
                "granted granted EAGAIN free",
            ],
        );
    }
}

#[test]
fn a_process_that_dies_ends_its_locks_though_a_child_has_the_file_open() {
    as_on_a_local_disk(
        "
for reaped in False, True:
    a, b = Process(), Process()
    a('f = ro(\"f\")'), b('f = rw(\"f\")')
    print(a('lock(f, \"SH\")'), put('f', '2\\n'), put('f', '1\\n'), b('lock(f, \"EX\")'))
    child = a.fork()
    a.kill().gone()
    if reaped:
        os.waitpid(a.pid, 0), Process.all.remove(a)
    print(b('test(f, \"EX\")'), b('lock(f, \"EX\")'), b('os.close(f)'))
",
        &["granted None None EAGAIN", "free granted None"].repeat(2),
    );
}

#[test]
fn who_waits_hears_of_a_lock_that_ends_without_a_word() {
    as_on_a_local_disk(
        "
for end in 'a(\"os.close(f)\")', 'a.kill()':
    a, b = Process(), Process()
    a('f = ro(\"f\")'), b('f = rw(\"f\")')
    print(a('lock(f, \"SH\")'))
    child = a.fork()
    b.begin('lock(f, \"EX\", wait=True)').waits()
    eval(end)
    print(b.end(), b('os.close(f)'))
",
        &["granted", "granted None"].repeat(2),
    );
}

#[test]
fn a_lock_stays_with_its_process_whatever_it_runs_and_whichever_of_its_threads_is_left() {
    as_on_a_local_disk(
        "
a, b, c = Process(), Process(), Process()
a('f = ro(\"f\"); os.set_inheritable(f, True)')
b('f = rw(\"f\")'), c('import ctypes, threading; g = ro(\"g\"); r, w = os.pipe()')
c('end = {\"x86_64\": 60, \"aarch64\": 93}[os.uname().machine]')
print(a('lock(f, \"SH\")'), c('lock(g, \"SH\")'))
os.mkfifo(doors + 'runs')
a.begin(f'os.execlp(\"sh\", \"sh\", \"-c\", \": > {doors}runs; exec sleep 1000\")')
open(doors + 'runs').close()
c.begin('threading.Thread(target=os.read, args=(r, 1)).start(), ctypes.CDLL(None).syscall(end, 0)').gone()
print(b('lock(f, \"EX\")'), b('g = rw(\"g\")'), b('lock(g, \"EX\")'))
a.kill(), c.kill(), os.waitpid(a.pid, 0), os.waitpid(c.pid, 0)
Process.all = [b]
print(b('lock(f, \"EX\")'), b('lock(g, \"EX\")'))
",
        &["granted granted", "EAGAIN None EAGAIN", "granted granted"],
    );
}

#[test]
fn a_look_at_who_holds_a_lock_costs_no_message() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    let script = "
def asked():
    messages = json.loads(os.getxattr('.', 'user.kvfs.status'))['messages']
    return {name: count for name, count in messages.items() if name not in ('FORGET', 'GETXATTR')}
def since(before):
    return {name: count - before.get(name, 0) for name, count in asked().items() if count > before.get(name, 0)}
a, b = Process(), Process()
a('f, others = ro(\"f\"), (os.open(\".\", os.O_RDONLY), ro(\"g\"), os.open(\"f\", os.O_PATH))')
b('f = rw(\"f\")'), a('lock(f, \"SH\")')
child = a.fork()
before = asked()
print(b('lock(f, \"EX\")'), since(before))
a('os.close(f), os.close(others[-1])')
before = asked()
print(b('lock(f, \"EX\")'), since(before))
";
    let printed = run(&mount.dir, script);
    assert_eq!(printed.lines().collect::<Vec<_>>(), ["EAGAIN {'SETLK': 1}", "granted {'SETLK': 1}"]);
}
