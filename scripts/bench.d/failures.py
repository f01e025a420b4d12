#!/usr/bin/env python3
"""How programs report a text that could not be published: exit status, the last line they print, and what the key has then.

    scripts/bench.d/failures.py [FAILURE...]        FAILURE: refused truncated large changed gone full

KVFS_BIN is the binary (target/release/kvfs). `gone` needs etcd, `full` root.
"""
import contextlib, os, shutil, socket, subprocess, sys, tempfile, time

KVFS = os.path.abspath(os.environ.get("KVFS_BIN", "target/release/kvfs"))
OLD = '"old"\n'

# $T is the file with the text.
OVERWRITE = {
    "bash echo": ["bash", "-c", 'echo "$(cat $T)" > k'],
    "bash -e echo": ["bash", "-ec", 'echo "$(cat $T)" > k; echo and goes on'],
    "dash echo": ["dash", "-c", 'echo "$(cat $T)" > k'],
    "cat": ["sh", "-c", "cat $T > k"],
    "cp": ["sh", "-c", "cp $T k"],
    "tee": ["sh", "-c", "tee k < $T > /dev/null"],
    "dd": ["sh", "-c", "dd if=$T of=k status=none"],
    "python": ["python3", "-c", "import os\nwith open('k', 'w') as f: f.write(open(os.environ['T']).read())"],
    "node": ["node", "-e", "const fs = require('fs'); fs.writeFileSync('k', fs.readFileSync(process.env.T))"],
}

# $OTHER changes the key meanwhile.
CHANGE = {
    "bash <>": ["bash", "-c", 'exec 3<> k; sh -c "$OTHER"; cat $T >&3; exec 3>&-'],
    "dash <>": ["dash", "-c", 'exec 3<> k; sh -c "$OTHER"; cat $T >&3; exec 3>&-'],
    "dd conv=notrunc": ["sh", "-c", '{ sleep 0.5; sh -c "$OTHER"; cat $T; } | dd of=k conv=notrunc status=none'],
    "tee -a": ["sh", "-c", '{ sleep 0.5; sh -c "$OTHER"; echo; } | tee -a k > /dev/null'],
    "python r+": ["python3", "-c", "import os\nwith open('k', 'r+') as f:\n    os.system(os.environ['OTHER'])\n    f.write(open(os.environ['T']).read())"],
    "node r+": ["node", "-e", "const fs = require('fs'); const fd = fs.openSync('k', 'r+');"
                "require('child_process').execSync(process.env.OTHER); fs.writeSync(fd, fs.readFileSync(process.env.T)); fs.closeSync(fd)"],
}


@contextlib.contextmanager
def mounted(store, home, at):
    env = dict(os.environ, HOME=home, XDG_STATE_HOME=home + "/state", no_proxy="*")
    subprocess.run([KVFS, "-q", "--timeout", "2s", store, at], check=True, env=env)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", at])


def report(programs, home, at, text, prepare, env=()):
    with open(home + "/text", "w") as file:
        file.write(text)
    for name, command in programs.items():
        prepare()
        try:
            run = subprocess.run(command, cwd=at, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
                                 env=dict(os.environ, T=home + "/text", LC_ALL="C", **dict(env)))
            said = [line for line in (run.stdout + run.stderr).splitlines() if "rror" in line or ":" in line or "goes on" in line]
            told = f"{run.returncode}  {'; '.join(dict.fromkeys(line.strip()[:110] for line in said[-2:])) or 'nothing'}"
        except subprocess.TimeoutExpired:
            told = "still there after 60 s"
        try:
            with open(at + "/k") as file:
                value = file.read(30).strip()
        except OSError as error:
            value = error.strerror
        print(f"  {name:16} {told}  -> {value}", flush=True)


def put(at, text):
    with open(at + "/k", "w") as file:
        file.write(text)


def until(attempt):
    for _ in range(200):
        with contextlib.suppress(OSError):
            return attempt()
        time.sleep(0.1)
    attempt()


def refused(home, at, text="bad\n"):
    with mounted("memory:", home, at):
        report(OVERWRITE, home, at, text, lambda: put(at, OLD))


def truncated(home, at):
    """What more could follow: that is known at the close."""
    refused(home, at, text='{"a": ')


def large(home, at):
    refused(home, at, text='"' + "x" * 20000 + '"\n')


def changed(home, at):
    with mounted("memory:", home, at):
        report(CHANGE, home, at, '"mine"\n', lambda: put(at, OLD), {"OTHER": f"""echo '"other"' > {at}/k"""}.items())


def gone(home, at):
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0)), two.bind(("127.0.0.1", 0))
        client, peer = (f"http://127.0.0.1:{socket_.getsockname()[1]}" for socket_ in (one, two))
    command = ["etcd", "--data-dir", home + "/etcd", "--listen-client-urls", client, "--advertise-client-urls", client,
               "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
    start = lambda: subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def just_gone():
        """It has answered until now."""
        etcd = start()
        until(lambda: put(at, OLD))
        etcd.kill()
        etcd.wait()

    etcd = start()
    with socket.socket() as probe:
        until(lambda: probe.connect(tuple(["127.0.0.1", int(client.rsplit(":", 1)[1])])))
    with mounted("etcd:" + client.removeprefix("http://"), home, at):
        until(lambda: put(at, OLD))
        etcd.kill()
        etcd.wait()
        report(OVERWRITE, home, at, '"new"\n', just_gone)


def full(home, at):
    disk = home + "/disk"
    os.mkdir(disk)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], check=True)
    try:
        with mounted(f"sqlite:{disk}/kv.db", home, at):
            filler = disk + "/filler"

            def just_full():
                """There was room until now."""
                with contextlib.suppress(OSError):
                    os.unlink(filler)
                until(lambda: put(at, OLD))
                subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], stderr=subprocess.DEVNULL)

            # What is reserved is used up first.
            put(at, OLD)
            for number in range(400):
                with contextlib.suppress(OSError), open(f"{at}/other{number}", "w") as file:
                    file.write('"' + "y" * 9000 + '"')
            report(OVERWRITE, home, at, '"' + "x" * 9000 + '"\n', just_full)
    finally:
        time.sleep(1)
        subprocess.run(["umount", "-l", disk])


def main():
    failures = {"refused": refused, "truncated": truncated, "large": large, "changed": changed, "gone": gone, "full": full}
    for name in sys.argv[1:] or failures:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            at = home + "/mnt"
            print(f"{name}:", flush=True)
            failures[name](home, at)


main()
