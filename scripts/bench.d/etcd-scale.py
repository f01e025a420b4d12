#!/usr/bin/env python3
"""Many keys in many directories of a real etcd of its own: etcd-scale.py [KVFS] [KEYS] [DIRECTORIES]

Starts an etcd of one member on free ports of this machine, its data in memory, fills one prefix, mounts it and walks it
twice. Then another client (of etcd itself) adds keys, and sets 10,000 of them in a burst, while all is remembered.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from cluster import Cluster, encode

KVFS = sys.argv[1] if len(sys.argv) > 1 else "target/release/kvfs"
KEYS = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
DIRECTORIES = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
ADDED = 100
BURST = min(10_000, KEYS)
BATCH = 100
PREFIX = "scale/"


def value(mark):
    """A document of 100 bytes."""
    return json.dumps(mark + "." * (98 - len(mark)))


def name(number):
    return f"{number % DIRECTORIES:04}/key-{number:07}"


def status(directory):
    out = subprocess.run([KVFS, "status", "--json", directory], capture_output=True, check=True)
    return json.loads(out.stdout)[0]


def memory(pid):
    with open(f"/proc/{pid}/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return " / ".join(f"{int(lines[field].split()[0]) / 1024:.0f}" for field in ("VmRSS", "VmHWM"))


def show(what, figure, unit, note=""):
    print(f"{what:52} {figure:>14} {unit:6} {note}", flush=True)


def timed(what, command, note=lambda out: ""):
    start = time.perf_counter()
    out = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout.strip()
    show(what, f"{time.perf_counter() - start:.2f}", "s", note(out))
    return out


def until(condition):
    """Since when it is called until it holds, in ms."""
    start = time.perf_counter()
    while not condition():
        if time.perf_counter() - start > 120:
            sys.exit("not seen within 120 s")
    return 1000 * (time.perf_counter() - start)


def added(etcd, directory):
    """Keys in directories that are there, and keys that bring a new one."""
    taken = []
    for number in range(ADDED):
        etcd.put(f"{PREFIX}{number % DIRECTORIES:04}/new-{number}", value("new"))
        taken.append(until(lambda: f"new-{number}" in os.listdir(f"{directory}/{number % DIRECTORIES:04}")))
    spread("a new key of another client is listed", taken)
    taken = []
    for number in range(ADDED // 5):
        etcd.put(f"{PREFIX}other-{number}/k", value("new"))
        taken.append(until(lambda: f"other-{number}" in os.listdir(directory)))
    spread("so is a new directory", taken)


def spread(what, taken):
    taken.sort()
    show(what, f"{statistics.median(taken):.1f}", "ms", f"median of {len(taken)}, worst {taken[-1]:.1f}")


def gets(directory):
    return status(directory)["calls"].get("get_key_value", 0)


def burst(etcd, directory):
    names = [name(number * (KEYS // BURST)) for number in range(BURST)]
    wanted = value("burst").encode()

    def readable(one):
        with open(f"{directory}/{one}", "rb", buffering=0) as file:
            return file.read() == wanted

    before = gets(directory)
    start = time.perf_counter()
    etcd.put_all([PREFIX + one for one in names], value("burst"), BATCH)
    sent = time.perf_counter()
    left = names
    while left:
        left = [one for one in left if not readable(one)]
        if time.perf_counter() - sent > 120:
            sys.exit(f"{len(left)} keys not seen within 120 s")
    end = time.perf_counter()
    show(f"{BURST} sets in {BURST // BATCH} transactions, until the last returns", f"{sent - start:.2f}", "s")
    show("and until all of them have been read", f"{end - sent:.2f}", "s", f"by {BURST} opens and reads, {gets(directory) - before} gets")


def run(home, etcd):
    directory = f"{home}/mnt"
    os.mkdir(directory)
    mounted = False
    try:
        etcd.put_all([PREFIX + name(number) for number in range(KEYS)], value("first"), BATCH)
        print(f"{KEYS} keys of 100 bytes in {DIRECTORIES} directories; {os.path.basename(KVFS)}, load {os.getloadavg()[0]:.1f}")
        start = time.perf_counter()
        etcd.ask("kv/range", {"key": encode(PREFIX), "range_end": encode(PREFIX[:-1] + "0")})
        show("all of them by one request to etcd, not decoded", f"{time.perf_counter() - start:.2f}", "s")
        environment = dict(os.environ, XDG_STATE_HOME=f"{home}/state")
        start = time.perf_counter()
        # What is not pushed is not seen for an hour.
        command = [KVFS, "--max-age", "1h", "--timeout", "1m", f"etcd:{etcd.addresses[0]}/{PREFIX}", directory]
        subprocess.run(command, check=True, env=environment)
        mounted = True
        show("until mounted", f"{1000 * (time.perf_counter() - start):.0f}", "ms")
        pid = status(directory)["pid"]
        show("VmRSS / VmHWM then", memory(pid), "MiB")
        while status(directory)["freshness"] != "pushed":
            time.sleep(0.05)
        lines = timed("ls -R | wc -l, first", f"ls -R {directory} | wc -l", lambda out: f"{out} lines")
        again = timed("ls -R | wc -l, second", f"ls -R {directory} | wc -l", lambda out: f"{out} lines")
        assert lines == again, "the walks differ"
        files = timed("find -type f | wc -l", f"find {directory} -type f | wc -l", lambda out: f"{out} files")
        assert int(files) == KEYS, files
        show("VmRSS / VmHWM after the walks", memory(pid), "MiB")
        added(etcd, directory)
        burst(etcd, directory)
        show("VmRSS / VmHWM at the end", memory(pid), "MiB")
        calls = {call: count for call, count in status(directory)["calls"].items() if count}
        print(f"calls of the store {calls}; load {os.getloadavg()[0]:.1f}")
    finally:
        if mounted:
            subprocess.run(["umount", directory])


home = tempfile.mkdtemp(prefix="kvfs-scale-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
try:
    with Cluster(1, home) as etcd:
        run(home, etcd)
finally:
    shutil.rmtree(home, ignore_errors=True)
