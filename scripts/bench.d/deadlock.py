#!/usr/bin/env python3
"""Looks for system calls that wait for each other: each that has the kernel lock a directory or a file, in loops beside saves,
fsync(2), readers that hold the file, bind mounts and changes by another mount.

    scripts/bench.d/deadlock.py [--seconds N] [STORE]      N: 600; STORE: memory: (sqlite: has the changes by another mount)

KVFS_BIN is the binary (target/release/kvfs). A line for each kind of call: how many, how many of them failed, the longest.
Exit code 1 if one took longer than kvfs --timeout, with what the kernel waits for where one did not end.
"""
import collections, ctypes, errno, multiprocessing, os, subprocess, sys, tempfile, time

KVFS = os.path.abspath(os.environ.get("KVFS_BIN", "target/release/kvfs"))
TIMEOUT = 5
AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400
LIBC = ctypes.CDLL(None, use_errno=True)
# The second is renamed now and then, the third removed.
KEYS = ["k0", "k1", "k2"]


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Caller:
    """Times each call; `since` is when the present one began, or 0."""

    def __init__(self, slot):
        self.slot, self.calls = slot, collections.defaultdict(lambda: [0, 0, 0.0])

    def __call__(self, kind, function, *arguments):
        counts = self.calls[kind]
        begun = self.slot.value = time.monotonic()
        try:
            return function(*arguments)
        except OSError as error:
            counts[1] += 1
            if error.errno in (errno.EIO, errno.ETIMEDOUT):
                raise
        finally:
            self.slot.value = 0
            counts[0] += 1
            counts[2] = max(counts[2], time.monotonic() - begun)


# What writes, each in a directory with the keys.

def put(call, name, flags, text, sync=False, pause=0.0):
    fd = call("open", os.open, name, flags, 0o644)
    if fd is None:
        return
    call("write", os.write, fd, text)
    if flags & os.O_TRUNC == 0:
        call("ftruncate", os.ftruncate, fd, len(text))
    if sync:
        call("fsync", os.fsync, fd)
    time.sleep(pause)
    call("close", os.close, fd)


def saves(call, n):
    put(call, KEYS[n % 3], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, b"[%d]\n" % n)


def saves_in_place(call, n):
    put(call, KEYS[n % 3], os.O_RDWR, b"[%d]\n" % n, sync=True, pause=0.001)


def replaces(call, n):
    put(call, f".k.{n % 1000000:06}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, b"[%d]\n" % n)
    call("rename over", os.rename, f".k.{n % 1000000:06}", KEYS[n % 3])


def holds_and_reads(call, n):
    """Held for a while, then nobody has it: the writers' text goes home."""
    fd = call("open", os.open, KEYS[n % 3], os.O_RDONLY)
    if fd is not None:
        call("read", os.read, fd, 4096)
        time.sleep(n % 7 * 0.01)
        call("lseek", os.lseek, fd, 0, os.SEEK_DATA)
        call("lseek", os.lseek, fd, 0, os.SEEK_END)
        call("close", os.close, fd)


def reads_what_is_bound(call, n):
    """A bind mount of the first key, beside the mount."""
    fd = call("open", os.open, "../bound", os.O_RDONLY if n % 4 else os.O_RDWR)
    if fd is not None:
        call("read", os.read, fd, 4096)
        call("close", os.close, fd)
    time.sleep(n % 50 * 0.001)


# What takes the locks of the directory and of the file.

def links(call, n):
    fd = call("open", os.open, KEYS[n % 3], os.O_RDWR)
    if fd is not None:
        source, target = b"/proc/self/fd/%d" % fd, b"link"
        link = lambda: checked(LIBC.linkat(AT_FDCWD, source, AT_FDCWD, target, AT_SYMLINK_FOLLOW))
        for _ in range(20):
            call("linkat", link)
        call("close", os.close, fd)


def renames(call, n):
    call("rename", os.rename, KEYS[1], "other")
    call("rename", os.rename, "other", KEYS[1])
    time.sleep(0.001)


def removes(call, n):
    call("unlink", os.unlink, KEYS[2])
    time.sleep(0.01)


def truncates(call, n):
    call("truncate", os.truncate, KEYS[n % 3], 3 + n % 3)
    fd = call("open", os.open, KEYS[n % 3], os.O_RDWR)
    if fd is not None:
        call("fallocate", os.posix_fallocate, fd, 0, 4)
        call("close", os.close, fd)


def sets_attributes(call, n):
    name = KEYS[n % 3]
    call("chmod", os.chmod, name, 0o600 + n % 64)
    call("utimes", os.utime, name)
    call("setxattr", os.setxattr, name, "user.other", b"1")
    call("getxattr", os.getxattr, name, "user.kvfs.id")


def lists(call, n):
    for name in call("readdir", os.listdir, ".") or []:
        call("stat", os.stat, name)


WORK = [saves, saves, saves_in_place, replaces, holds_and_reads, holds_and_reads, links, renames, removes, truncates,
        sets_attributes, lists]


def work(function, at, slot, end, results):
    os.chdir(at)
    call, n = Caller(slot), 0
    while time.monotonic() < end:
        function(call, n)
        n += 1
    results.put(dict(call.calls))


def mounted(home, store, at):
    command = [KVFS, "-q", "--timeout", f"{TIMEOUT}s", store, at]
    subprocess.run(command, check=True, env=dict(os.environ, HOME=home, XDG_STATE_HOME=home + "/state"))
    return at


def waits(slot):
    """How long the present call has taken. The slot is read once: the call may end meanwhile."""
    begun = slot.value
    return time.monotonic() - begun if begun else 0


def stuck(pid):
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/stack") as stack:
            print(f"  {pid}: {' < '.join(line.split()[1] for line in stack.read().splitlines()[:6])}")


def hunt(at, elsewhere, seconds):
    """True if no call took too long."""
    end, results, running = time.monotonic() + seconds, multiprocessing.Queue(), []
    bound = [(reads_what_is_bound, at)] if os.getuid() == 0 else []
    tasks = [(function, at) for function in WORK] + bound + [(saves, place) for place in elsewhere]
    for function, place in tasks:
        slot = multiprocessing.Value("d", 0, lock=False)
        process = multiprocessing.Process(target=work, args=(function, place, slot, end, results), daemon=True)
        process.start()
        running.append((function.__name__, process, slot))
    while time.monotonic() < end + TIMEOUT and any(process.is_alive() for _, process, _ in running):
        time.sleep(0.2)
        late = [one for one in running if waits(one[2]) > 2 * TIMEOUT]
        if late:
            for name, process, _ in late:
                print(f"{name} does not come back:")
                stuck(process.pid)
            return False
        if results.qsize() == len(running):
            break
    return report(results, len(running))


def report(results, processes):
    total = collections.defaultdict(lambda: [0, 0, 0.0])
    for _ in range(processes):
        for kind, (calls, failed, longest) in results.get(timeout=TIMEOUT * 4).items():
            entry = total[kind]
            entry[0] += calls
            entry[1] += failed
            entry[2] = max(entry[2], longest)
    print(f"{'call':12} {'calls':>9} {'failed':>9} {'longest':>9}")
    for kind, (calls, failed, longest) in sorted(total.items()):
        print(f"{kind:12} {calls:9} {failed:9} {longest:8.3f}s")
    return all(longest <= TIMEOUT for _, _, longest in total.values())


def main():
    arguments, seconds = sys.argv[1:], 600
    if arguments[:1] == ["--seconds"]:
        seconds, arguments = float(arguments[1]), arguments[2:]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        store = arguments[0] if arguments else "memory:"
        if store == "sqlite:":
            store += home + "/kv.db"
        at, elsewhere, bound = mounted(home, store, home + "/mnt"), [], home + "/bound"
        places = [at]
        if not store.startswith("memory:"):
            elsewhere.append(mounted(home, store, home + "/elsewhere"))
            places += elsewhere
        for name in KEYS:
            with open(f"{at}/{name}", "w") as file:
                file.write("[0]\n")
        open(bound, "w").close()
        if os.getuid() == 0:
            subprocess.run(["mount", "--bind", f"{at}/{KEYS[0]}", bound], check=True)
            places.append(bound)
        fine = hunt(at, elsewhere, seconds)
        for place in reversed(places):
            subprocess.run(["umount", "-l", place])
    sys.exit(0 if fine else 1)


main()
