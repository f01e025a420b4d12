#!/usr/bin/env python3
"""How fast a set on one mount is read on another, over a real etcd of its own: etcd.py [KVFS] [SETS]

Starts etcd of one and of three members on free ports of this machine, mounts two directories below one prefix, sets a key
on the first mount and reads it on the second again and again until it is there. Then the same while another process sets
1,000 keys a second below the same prefix. Last, what a hot read costs: calls of the store, and messages of the kernel.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from cluster import Cluster

KVFS = sys.argv[1] if len(sys.argv) > 1 else "target/release/kvfs"
SETS = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
READS = 1000

LOAD = """
import base64, http.client, json, sys, threading, time
host, rate, threads = sys.argv[1], float(sys.argv[2]), 8
done = [0] * threads
def run(index):
    connection, start = http.client.HTTPConnection(host), time.monotonic()
    while True:
        due = start + done[index] * threads / rate
        time.sleep(max(0, due - time.monotonic()))
        key = base64.b64encode(b"bench/load-%d-%d" % (index, done[index] % 100)).decode()
        connection.request("POST", "/v3/kv/put", json.dumps({"key": key, "value": "MQ=="}))
        connection.getresponse().read()
        done[index] += 1
for index in range(threads):
    threading.Thread(target=run, args=(index,), daemon=True).start()
start = time.monotonic()
sys.stdin.readline()
print(sum(done) / (time.monotonic() - start), flush=True)
"""


def status(directory):
    out = subprocess.run([KVFS, "status", "--json", directory], capture_output=True, check=True)
    return json.loads(out.stdout)[0]


def mount(store, home, name):
    directory = f"{home}/{name}"
    os.mkdir(directory)
    environment = dict(os.environ, XDG_STATE_HOME=f"{home}/state")
    # What is not pushed is not seen for an hour. A machine that is busy with other things is waited for.
    subprocess.run([KVFS, "--max-age", "1h", "--timeout", "1m", store, directory], check=True, env=environment)
    while status(directory)["freshness"] != "pushed":
        time.sleep(0.05)
    return directory


def latencies(one, other):
    taken = []
    for number in range(SETS):
        text = b"%d" % number
        start = time.perf_counter()
        with open(f"{one}/k", "wb", buffering=0) as file:
            file.write(text)
        closed = time.perf_counter()
        while True:
            try:
                with open(f"{other}/k", "rb", buffering=0) as file:
                    if file.read() == text:
                        break
            except FileNotFoundError:
                pass
        end = time.perf_counter()
        taken.append((1000 * (end - start), 1000 * (closed - start), 1000 * (end - closed)))
        time.sleep(0.002)
    return list(zip(*taken))


def show(title, taken):
    for what, series in zip(("set begins to read elsewhere", "the set itself", "set returns to read elsewhere"), taken):
        series = sorted(series)
        p99 = series[int(len(series) * 0.99)]
        print(f"{title:26} {what:30} {statistics.median(series):9.2f} {p99:9.2f} {series[-1]:9.2f}")


def hot(directory):
    with open(f"{directory}/k", "rb") as file:
        file.read()
    before = status(directory)
    start = time.perf_counter()
    for _ in range(READS):
        subprocess.run(["cat", f"{directory}/k"], stdout=subprocess.DEVNULL, check=True)
    took = time.perf_counter() - start
    after = status(directory)
    changed = lambda part: {
        name: count - before[part].get(name, 0)
        for name, count in after[part].items()
        if count != before[part].get(name, 0)
    }
    print(f"{READS} x cat in {took:.1f} s: calls {changed('calls')}, messages {changed('messages')}")


def run(members):
    home = tempfile.mkdtemp(prefix="kvfs-bench-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    mounts = []
    with contextlib.ExitStack() as ended:
        ended.callback(shutil.rmtree, home, ignore_errors=True)
        addresses = ended.enter_context(Cluster(members, home)).addresses
        store = f"etcd:{','.join(addresses)}/bench"
        for name in ("one", "other"):
            mounts.append(mount(store, home, name))
            ended.callback(subprocess.run, ["umount", mounts[-1]])
        title = f"{members} member{'s' if members > 1 else ''}"
        show(f"{title}, idle", latencies(*mounts))
        load = subprocess.Popen(
            [sys.executable, "-c", LOAD, addresses[0], "1000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            time.sleep(1)
            taken = latencies(*mounts)
        finally:
            rate = float(load.communicate("\n")[0])
        show(f"{title}, {rate:.0f} sets/s", taken)
        hot(mounts[1])


print(f"{'etcd, ms of ' + str(SETS) + ' sets':26} {'':30} {'median':>9} {'p99':>9} {'worst':>9}")
for members in (1, 3):
    run(members)
