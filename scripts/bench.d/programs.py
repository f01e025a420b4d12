#!/usr/bin/env python3
"""What programs do on a mount and on tmpfs, side by side: a line for each that does another thing.

    scripts/bench.d/programs.py [--runs N] [CASE...]

KVFS_BIN is the binary (target/release/kvfs). Programs that are not installed are left out: entr, emacs, vim, node, and in
~/.cache/kvfs-tools/watchers what `npm install nodemon chokidar; python3 -m venv py; py/bin/pip install watchfiles` installs.
"""
import contextlib, os, re, shutil, signal, subprocess, sys, tempfile, threading, time

KVFS = os.path.abspath(os.environ.get("KVFS_BIN", "target/release/kvfs"))
WATCHERS = os.path.expanduser("~/.cache/kvfs-tools/watchers")
CASES = {}
RUNS = 1000


def case(*needs, args=()):
    def add(function):
        if all(shutil.which(need) or os.path.exists(need) for need in needs):
            CASES[function.__name__] = function, args
        else:
            print(f"left out: {function.__name__} needs {', '.join(needs)}", file=sys.stderr)
        return function
    return add


@contextlib.contextmanager
def tmpfs(_):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as home:
        yield home


@contextlib.contextmanager
def mount(args):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        at = os.path.join(home, "mnt")
        env = dict(os.environ, HOME=home, XDG_STATE_HOME=home + "/state")
        subprocess.run([KVFS, "-q", *args, "memory:", at], check=True, env=env)
        try:
            yield at
        finally:
            end = time.monotonic() + 10
            while subprocess.run(["umount", at], stderr=subprocess.DEVNULL).returncode:
                if time.monotonic() > end:
                    print(f"in use: {at}", file=sys.stderr)
                    subprocess.run(["umount", "-l", at])
                    break
                time.sleep(0.1)


def sh(script, at, timeout=60, env=None):
    child = subprocess.Popen(["bash", "-c", script], cwd=at, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env=dict(os.environ, LC_ALL="C.UTF-8", **(env or {})), start_new_session=True)
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return None, "", f"still there after {timeout} s"
    return child.returncode, out, err


def put(at, name, text):
    with open(os.path.join(at, name), "w") as file:
        file.write(text)


# Watches

SAVES = {
    "echo >": "echo 11 > k",
    ">>": "echo >> k",
    "r+": "python3 -c \"f = open('k', 'r+'); f.write('22'); f.truncate(); f.close()\"",
    "mv": "echo 33 > .k.abcdef && mv .k.abcdef k",
    "echo > again": "echo 44 > k",
}


class Watcher:
    """A program that says something of each change."""

    def __init__(self, command, at, ready=None):
        env = dict(os.environ, NODE_PATH=WATCHERS + "/node_modules", LC_ALL="C.UTF-8", TERM="dumb")
        self.child = subprocess.Popen(command, cwd=at, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                      env=env, stdin=subprocess.PIPE, start_new_session=True)
        self.lines = []
        threading.Thread(target=self.listen, daemon=True).start()
        self.wait(lambda: ready in self.lines, 20) if ready else time.sleep(2)

    def listen(self):
        for line in self.child.stdout:
            self.lines.append(line.strip())

    @staticmethod
    def wait(condition, seconds):
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.01)
        return condition()

    def heard(self, at):
        """Of which saves something was said."""
        told = []
        for name, save in SAVES.items():
            before = len(self.lines)
            assert sh(save, at)[0] == 0, save
            told.append(f"{name}: {'yes' if self.wait(lambda: len(self.lines) > before, 3) else 'NO'}")
            # What is said twice of one save is not taken for the next one's.
            time.sleep(1)
        self.end()
        return ", ".join(told)

    def end(self):
        os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()


def watched(command, at, ready=None):
    put(at, "k", "1\n")
    return Watcher(command, at, ready).heard(at)


@case("entr")
def entr(at):
    return watched(["sh", "-c", "echo k | entr -n -p echo ran"], at)


@case(WATCHERS + "/node_modules/nodemon")
def nodemon(at):
    program = WATCHERS + "/node_modules/.bin/nodemon"
    return watched([program, "-q", "--watch", "k", "--ext", "*", "--exec", "echo ran"], at, "ran")


@case(WATCHERS + "/node_modules/chokidar")
def chokidar(at):
    script = "require('chokidar').watch('k', {ignoreInitial: true}).on('all', e => console.log(e))"
    return watched(["node", "-e", script + ".on('ready', () => console.log('ready'))"], at, "ready")


@case("node")
def node_fs_watch(at):
    return watched(["node", "-e", "require('fs').watch('k', e => console.log(e)); console.log('ready')"], at, "ready")


@case(WATCHERS + "/py/bin/python")
def watchfiles(at):
    script = "from watchfiles import watch\nfor changes in watch('k'): print(changes, flush=True)"
    return watched([WATCHERS + "/py/bin/python", "-c", script], at)


@case("tail")
def tail_follows_the_name(at):
    """By polling, as it does where inotify(7) may not hear of others: here often, and the name each time."""
    return watched(["tail", "-F", "---disable-inotify", "-s", "0.2", "--max-unchanged-stats=1", "-n", "0", "k"], at)


@case("inotifywait")
def inotify_events(at):
    """The events of each save, as they come."""
    put(at, "k", "1\n")
    told = []
    for name in ("echo >", ">>", "r+"):
        watcher = Watcher(["inotifywait", "-q", "-m", "--format", "%e", "k"], at)
        assert sh(SAVES[name], at)[0] == 0
        time.sleep(1)
        watcher.end()
        told.append(f"{name}: {' '.join(watcher.lines)}")
    return "; ".join(told)


# Identity

@case()
def flopen(at):
    """The lock of libbsd, which compares the descriptor with the name; not installed: an error."""
    put(at, "k", "1\n")
    told = []
    for flags in "os.O_RDWR", "os.O_RDWR | os.O_CREAT", "os.O_WRONLY | os.O_TRUNC":
        script = f"import ctypes, os; print(ctypes.CDLL('libbsd.so.0').flopen(b'k', {flags}, 0o644) > 0)"
        told.append(str(sh(f'python3 -c "{script}"', at, timeout=5)))
    return ", ".join(told)


@case("cp")
def cp_beside_writers(at):
    """So many copies of a directory in which four processes overwrite files; how many failed, and how."""
    script = """
import os, sys
n = 0
while True:
    for name in range(10):
        n += 1
        with open(f'd/k{name}', sys.argv[1]) as file:
            file.write('[%s]\\n' % ','.join(str(n) for _ in range(n % 97 + 1))); file.truncate()
"""
    os.makedirs(at + "/d", exist_ok=True)
    for name in range(10):
        put(at, f"d/k{name}", "0\n")
    writers = [subprocess.Popen([sys.executable, "-c", script, mode], cwd=at, stderr=subprocess.DEVNULL) for mode in ("w", "r+")]
    failed, said = 0, {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as out:
        for _ in range(RUNS):
            code, _, err = sh(f"cp -r d {out}/copy", at)
            shutil.rmtree(out + "/copy", ignore_errors=True)
            if code:
                failed += 1
                line = re.sub(r"[0-9]+", "N", err.splitlines()[0])
                said[line] = said.get(line, 0) + 1
    gone = [writer.poll() for writer in writers]
    for writer in writers:
        writer.kill()
        writer.wait()
    return f"{failed} of {RUNS} failed {said or ''}{' a writer ended' if gone != [None, None] else ''}"


# Locks

def counted(at, body):
    """Eight processes count to 250 each; a failure is one addition less."""
    put(at, "k", "0")
    script = "import fcntl, os, sys\nfailed = {}\nfor _ in range(250):\n    try:\n" + "".join(
        f"        {line}\n" for line in body.strip().splitlines()
    ) + ("    except Exception as error:\n        failed[str(error)] = failed.get(str(error), 0) + 1\n"
         "if failed: print(failed)")
    started = [subprocess.Popen([sys.executable, "-c", script], cwd=at, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    said = [child.communicate()[0].strip() for child in started]
    with open(at + "/k") as file:
        return f"{file.read().strip()} of 2000 {max(said, key=len)}".strip()


ADD = "n = int(f.read()); f.seek(0); f.write(str(n + 1)); f.truncate(); f.flush()"


@case()
def counter_with_flock(at):
    return counted(at, f"with open('k', 'r+') as f:\n    fcntl.flock(f, fcntl.LOCK_EX); {ADD}; fcntl.flock(f, fcntl.LOCK_UN)")


@case()
def counter_with_fcntl(at):
    return counted(at, f"with open('k', 'r+') as f:\n    fcntl.lockf(f, fcntl.LOCK_EX); {ADD}; fcntl.lockf(f, fcntl.LOCK_UN)")


@case()
def counter_with_flock_until_close(at):
    return counted(at, f"with open('k', 'r+') as f:\n    fcntl.flock(f, fcntl.LOCK_EX); {ADD}")


@case()
def counter_with_fcntl_until_close(at):
    return counted(at, f"with open('k', 'r+') as f:\n    fcntl.lockf(f, fcntl.LOCK_EX); {ADD}")


@case()
def counter_with_a_reader_that_locks(at):
    return counted(at, f"with open('k') as lock:\n    fcntl.flock(lock, fcntl.LOCK_EX)\n    with open('k', 'r+') as f: {ADD}")


# "The file has changed"

@case("emacs")
def emacs_knows_who_changed_a_file(at):
    put(at, "k", "1\n")
    script = """(progn (setq make-backup-files nil) (find-file "k") (goto-char (point-max)) (insert "\\n") (save-buffer)
    (princ (format "own save: %s" (verify-visited-file-modtime (current-buffer)))) (sleep-for 0.05)
    (call-process "sh" nil nil nil "-c" "echo 2 > k")
    (princ (format ", another's: %s" (verify-visited-file-modtime (current-buffer)))))"""
    run = subprocess.run(["emacs", "-Q", "--batch", "--eval", script], cwd=at, capture_output=True, text=True, timeout=60)
    return f"{run.returncode}: {run.stdout.strip()}"


@case("vim")
def vim_knows_who_changed_a_file(at):
    put(at, "k", "1\n")
    with tempfile.TemporaryDirectory() as beside:
        script = beside + "/script"
        with open(script, "w") as file:
            file.write(f"""let g:heard = []
autocmd FileChangedShell * call add(g:heard, v:fcs_reason)
call append('$', '')
write
sleep 1100m
checktime
call add(g:heard, 'another')
call system('echo 2 > k')
checktime
call writefile([string(g:heard)], '{beside}/heard')
qall!
""")
        code = sh(f"vim -u NONE -N -es -S {script} k", at, timeout=60)[0]
        with open(beside + "/heard") as file:
            return f"{code}: {file.read().strip()}"


# Archives

@case("tar")
def tar_with_xattrs(at):
    for name in range(20):
        put(at, f"k{name}", f"{name}\n")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as out:
        packed = sh(f"tar --xattrs --xattrs-include='*' -cf {out}/t k*", at)
        unpacked = sh(f"tar --xattrs --xattrs-include='*' -xf {out}/t", at)
        mine = sh("cat $(ls | sort -V) | md5sum", at)[1].split()
        return f"pack {packed}, unpack {unpacked}, {mine}"


@case("rsync")
def rsync_there_and_back(at):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as out:
        for name in range(20):
            put(out, f"k{name}", f"{name}\n")
        there = sh(f"rsync -aX {out}/ ./d/ && rsync -aXi {out}/ ./d/", at)
        back = sh(f"rsync -aX ./d/ {out}/back/ && rsync -aXi ./d/ {out}/back/ && cmp k3 d/k3 2>/dev/null; diff -r d {out}/back && echo same", at)
        return f"there {there}, back {back}"


# Python's own tests

def tests_of_python(at, name):
    code, _, err = sh(f"python3 -m unittest test.{name}", at, timeout=280, env={"TMPDIR": at})
    failures = sorted({line.split()[1] for line in err.splitlines() if re.match("(ERROR|FAIL): ", line)})
    ran = re.search("^Ran [0-9]+ tests", err, re.M)
    return f"{ran and ran[0]}, {code}, {len(failures)} failed: {' '.join(failures)}"


ANY = ("--separator", "/", "--validate", "none")


@case(args=ANY)
def python_mailbox(at):
    return tests_of_python(at, "test_mailbox")


@case(args=ANY)
def python_tempfile(at):
    return tests_of_python(at, "test_tempfile")


def main():
    global RUNS
    names = sys.argv[1:]
    if names[:1] == ["--runs"]:
        RUNS, names = int(names[1]), names[2:]
    for name, (function, args) in CASES.items():
        if names and name not in names:
            continue
        found = []
        for place in tmpfs, mount:
            with place(args or ("--separator", "/")) as at:
                try:
                    found.append(function(at))
                except Exception as error:
                    found.append(f"{type(error).__name__}: {error}")
        if found[0] == found[1]:
            print(f"same  {name}: {found[0]}", flush=True)
        else:
            print(f"OTHER {name}\n      tmpfs: {found[0]}\n      kvfs:  {found[1]}", flush=True)


main()
