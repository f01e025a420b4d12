"""An etcd of its own on free ports of this machine, for what measures kvfs over it."""

import base64
import contextlib
import http.client
import json
import socket
import subprocess
import time

# How long its members may take until they answer, in seconds.
START = 60


class Cluster:
    """Members with their data in the directory `home`, killed at the end of the `with` block."""

    def __init__(self, members, home):
        ports = free_ports(2 * members)
        clients, peers = ports[:members], ports[members:]
        every = ",".join(f"m{i}=http://127.0.0.1:{peer}" for i, peer in enumerate(peers))
        self.addresses = [f"127.0.0.1:{port}" for port in clients]
        self.running = []
        for i, address in enumerate(self.addresses):
            client, peer = f"http://{address}", f"http://127.0.0.1:{peers[i]}"
            command = ["etcd", "--name", f"m{i}", "--data-dir", f"{home}/m{i}", "--initial-cluster", every]
            command += ["--listen-client-urls", client, "--advertise-client-urls", client]
            command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            self.running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def __enter__(self):
        with contextlib.ExitStack() as ended:
            ended.callback(self.end)
            for address in self.addresses:
                wait_for(address)
            self.connection = http.client.HTTPConnection(self.addresses[0], timeout=60)
            ended.pop_all()
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        for process in self.running:
            process.kill()
            process.wait()

    def ask(self, path, body):
        ask(self.connection, path, body)

    def put(self, key, value):
        self.ask("kv/put", {"key": encode(key), "value": encode(value)})

    def put_all(self, keys, value, at_once=100):
        for first in range(0, len(keys), at_once):
            puts = [{"key": encode(key), "value": encode(value)} for key in keys[first : first + at_once]]
            self.ask("kv/txn", {"success": [{"request_put": put} for put in puts]})


def encode(text):
    return base64.b64encode(text.encode()).decode()


def ask(connection, path, body):
    connection.request("POST", f"/v3/{path}", json.dumps(body))
    response = connection.getresponse()
    text = response.read()
    if response.status != 200:
        raise RuntimeError(f"{response.status} {text[:200]}")


def wait_for(address):
    end = time.monotonic() + START
    while True:
        try:
            return ask(http.client.HTTPConnection(address, timeout=2), "kv/range", {"key": encode("x")})
        except (OSError, http.client.HTTPException, RuntimeError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def free_ports(count):
    with contextlib.ExitStack() as closed:
        sockets = [closed.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
