#!/usr/bin/env python3
"""What a healthy client of `kvfs serve` sees while others misuse the server.

    scripts/bench.d/abuse.py [--seconds N] [ATTACK...]

KVFS_BIN is the binary (target/release/kvfs). Each attack has a server of its own with 1,000 values of 10 KB. A line per attack:
requests of the healthy client (a new connection each, as the 1.x client makes them), those that failed, the median and 99th
percentile of its times, the server's peak memory and the CPU seconds it used per second.
"""
import json, multiprocessing, os, re, select, signal, socket, subprocess, sys, time

KEY = "pcu_bench"
AUTH = f"Authorization: Bearer {KEY}\r\n"
HEAD = "POST / HTTP/1.1\r\nHost: localhost\r\n"
VALUES = 1000


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def receive(sock):
    data = b""
    while piece := sock.recv(1 << 16):
        data += piece
    return data


def ask(port, query, variables=None, auth=AUTH):
    body = json.dumps({"query": query, "variables": variables}).encode()
    with connect(port) as sock:
        sock.sendall(f"{HEAD}{auth}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        return receive(sock)


def put(port, key, value):
    query = "mutation($input: set_key_value_input!) { set_key_value(input: $input) { id } }"
    return ask(port, query, {"input": {"key": key, "value": value}})


def crowd(port, count, first, drip=None, every=0.2):
    """`count` sockets that send `first`, then `drip` piece by piece; those that the server drops come again."""
    socks = {}
    while True:
        while len(socks) < count:
            try:
                sock = connect(port)
                sock.sendall(first)
                sock.setblocking(False)
                socks[sock.fileno()] = [sock, 0]
            except OSError:
                time.sleep(0.01)
        time.sleep(every)
        for number, state in list(socks.items()):
            sock, at = state
            try:
                if drip:
                    sock.send(drip[at % len(drip):][:1])
                    state[1] = at + 1
                if drip is not None and select.select([sock], [], [], 0)[0] and not sock.recv(1 << 16):
                    raise ConnectionError
            except OSError:
                sock.close()
                del socks[number]


def slow_heads(port):
    crowd(port, 600, b"P", b"OST / HTTP/1.1\r\nX: " + b"y" * 10000)


def half_open(port):
    crowd(port, 600, b"", b"")


def unread_answers(port):
    body = json.dumps({"query": "{ key_value { id key value } }"}).encode()
    head = f"{HEAD}{AUTH}Content-Length: {len(body)}\r\n\r\n".encode()
    crowd(port, 100, head + body)


def slow_bodies(port):
    crowd(port, 600, f"{HEAD}{AUTH}Content-Length: 100000\r\n\r\n".encode(), b" " * 100000)


def strangers_slow_bodies(port):
    crowd(port, 600, f"{HEAD}Content-Length: 100000\r\n\r\n".encode(), b" " * 100000)


def flood(port):
    def loop():
        while True:
            try:
                ask(port, "{ key_value { value } }", auth="Authorization: Bearer no\r\n")
            except OSError:
                pass
    forks(loop, 64)


def giant_bodies(port):
    def loop():
        while True:
            try:
                with connect(port) as sock:
                    sock.sendall(f"{HEAD}{AUTH}Content-Length: {100 << 20}\r\n\r\n".encode())
                    for _ in range(100):
                        sock.sendall(b" " * (1 << 20))
            except OSError:
                pass
    forks(loop, 4)


def giant_heads(port):
    def loop():
        while True:
            try:
                with connect(port) as sock:
                    sock.sendall(HEAD.encode() + b"X: " + b"y" * (1 << 20) + b"\r\n\r\n")
                    receive(sock)
            except OSError:
                pass
    forks(loop, 4)


def pipelined(port):
    body = json.dumps({"query": "{ key_value { id key value } }"}).encode()
    one = f"{HEAD}{AUTH}Content-Length: {len(body)}\r\n\r\n".encode() + body
    crowd(port, 50, one * 50)


def aliases(port):
    query = "{ " + " ".join(f"a{n}: key_value {{ value }}" for n in range(49)) + " }"
    forks(lambda: [ask(port, query) for _ in iter(int, 1)], 8)


def wide_queries(port):
    query = "{" + "a " * 400_000 + "}"
    forks(lambda: [ask(port, query) for _ in iter(int, 1)], 8)


def wide_values(port):
    value = [0] * 340_000
    forks(lambda: [put(port, "k", value) for _ in iter(int, 1)], 8)


def nothing(port):
    time.sleep(1e6)


def forks(function, count):
    for _ in range(count - 1):
        if os.fork() == 0:
            break
    function()


ATTACKS = [nothing, slow_heads, half_open, slow_bodies, strangers_slow_bodies, unread_answers, pipelined, flood, giant_bodies,
           giant_heads, aliases, wide_queries, wide_values]


def healthy(port, end):
    times, failed = [], 0
    while time.time() < end:
        start = time.perf_counter()
        try:
            if b"200 OK" not in ask(port, '{ key_value(where: { key: { _eq: "k7" } }) { value } }')[:20]:
                failed += 1
        except OSError:
            failed += 1
        times.append(time.perf_counter() - start)
        time.sleep(0.005)
    return sorted(times), failed


def measure(attack, binary, seconds):
    environment = {**os.environ, "KVFS_API_KEY": KEY, "KVFS_LOG_LEVEL": "error"}
    server = subprocess.Popen([binary, "serve", "memory:", "--listen", "127.0.0.1:0"], env=environment,
                              stderr=subprocess.PIPE, text=True)
    port = int(re.search(r":(\d+)$", server.stderr.readline())[1])
    for number in range(VALUES):
        put(port, f"k{number}", "v" * 9990)
    attacker = multiprocessing.Process(target=lambda: (os.setsid(), attack(port)))
    attacker.start()
    time.sleep(1)
    ticks = lambda: sum(map(int, open(f"/proc/{server.pid}/stat").read().rsplit(")", 1)[1].split()[11:13]))
    before = ticks()
    times, failed = healthy(port, time.time() + seconds)
    cpu = (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds
    peak = int(re.search(r"VmHWM:\s*(\d+)", open(f"/proc/{server.pid}/status").read())[1]) >> 10
    os.killpg(attacker.pid, signal.SIGKILL)
    attacker.join()
    server.kill()
    server.wait()
    at = lambda part: times[min(int(len(times) * part), len(times) - 1)] * 1e3
    print(f"{attack.__name__:22} {len(times):6} {failed:6} {at(.5):9.1f} {at(.99):9.1f} {peak:9} {cpu:6.2f}", flush=True)


def main():
    multiprocessing.set_start_method("fork")
    args = sys.argv[1:]
    seconds = float(args.pop(args.index("--seconds") + 1)) if "--seconds" in args else 10
    chosen = [attack for attack in ATTACKS if attack.__name__ in args] or ATTACKS
    print(f"{'attack':22} {'asked':>6} {'failed':>6} {'p50 ms':>9} {'p99 ms':>9} {'peak MiB':>9} {'CPU':>6}")
    for attack in chosen:
        measure(attack, os.environ.get("KVFS_BIN", "target/release/kvfs"), seconds)


if __name__ == "__main__":
    main()
