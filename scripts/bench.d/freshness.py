#!/usr/bin/env python3
"""How soon a change made elsewhere is read on a mount: freshness.py [KVFS]

Two mounts of one SQLite file, a set through one and reads on the other until it is there, 300 times. Then a mount of
`kvfs serve memory:` (prefect-cloud, --max-age 1s), 50 changes by another client, at random moments. Counted from when the
set has returned.
"""

import http.client
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

KVFS = sys.argv[1] if len(sys.argv) > 1 else "target/release/kvfs"
SET = "mutation($input: set_key_value_input!) { set_key_value(input: $input) { id } }"


def mount(store, home, name, *options):
    directory = f"{home}/{name}"
    os.mkdir(directory)
    environment = dict(os.environ, HOME=home, XDG_STATE_HOME=f"{home}/state", PREFECT__CLOUD__API_KEY="bench")
    subprocess.run([KVFS, *options, store, directory], check=True, env=environment)
    return directory


def until_read(path, text):
    """How long it takes from now on, in ms."""
    start = time.perf_counter()
    while True:
        try:
            with open(path, "rb", buffering=0) as file:
                if file.read() == text:
                    return 1000 * (time.perf_counter() - start)
        except FileNotFoundError:
            pass
        if time.perf_counter() - start > 60:
            sys.exit(f"{path}: not seen within 60 s")


def show(title, taken):
    taken.sort()
    p99 = taken[int(len(taken) * 0.99)]
    print(f"{title:52} {statistics.median(taken):9.2f} {p99:9.2f} {taken[-1]:9.2f} {len(taken):8}", flush=True)


def sqlite(home):
    store = f"sqlite:{home}/kv.db"
    # What is not pushed is not seen for an hour.
    mounts = [mount(store, home, name, "--max-age", "1h") for name in ("one", "other")]
    try:
        taken = []
        for number in range(300):
            text = b"%d" % number
            with open(f"{mounts[0]}/k", "wb", buffering=0) as file:
                file.write(text)
            taken.append(until_read(f"{mounts[1]}/k", text))
            time.sleep(random.random() * 0.02)
        show("sqlite: set by another mount", taken)
    finally:
        for directory in mounts:
            subprocess.run(["umount", directory])


def prefect_cloud(home):
    command = [KVFS, "serve", "--listen", "127.0.0.1:0", "memory:"]
    environment = dict(os.environ, HOME=home, XDG_DATA_HOME=f"{home}/data", KVFS_API_KEY="bench")
    server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    directory = None
    try:
        address = next(line for line in server.stderr if " at http://" in line).split("http://")[1].strip()
        os.makedirs(f"{home}/.prefect")
        with open(f"{home}/.prefect/auth.toml", "w") as file:
            file.write(f'["{address.replace(":", "-")}"]\napi_key = "bench"\n')
        directory = mount(f"prefect-cloud:http://{address}", home, "cloud", "--max-age", "1s")
        taken = []
        for number in range(50):
            connection = http.client.HTTPConnection(address)
            body = json.dumps({"query": SET, "variables": {"input": {"key": "k", "value": number}}})
            connection.request("POST", "/", body, {"Authorization": "Bearer bench"})
            answer = connection.getresponse().read()
            assert b"errors" not in answer, answer
            connection.close()
            taken.append(until_read(f"{directory}/k", b"%d\n" % number))
            # Reads go on meanwhile, so that the next change comes at any age of what is known.
            end = time.perf_counter() + random.random()
            while time.perf_counter() < end:
                with open(f"{directory}/k", "rb") as file:
                    file.read()
                time.sleep(0.01)
        show("prefect-cloud: set by another client, max-age 1s", taken)
    finally:
        if directory:
            subprocess.run(["umount", directory])
        server.terminate()
        server.wait()


home = tempfile.mkdtemp(prefix="kvfs-bench-", dir=os.environ.get("KVFS_BENCH_DISK"))
try:
    load = os.getloadavg()[0]
    print(f"{f'ms until it is read (load {load:.1f})':52} {'median':>9} {'p99':>9} {'worst':>9} {'changes':>8}")
    sqlite(home)
    prefect_cloud(home)
finally:
    shutil.rmtree(home, ignore_errors=True)
