//! Programs that use a mount until it dies.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use super::Number;

/// Writes and deletes keys until the mount dies. Says what it is about to do, and that it was done; a process
/// of its own, because close(2) reports the failure and `File` does not.
const WRITER: &str = r#"
import json, os, random, sys, zlib
writer, round, seed = sys.argv[1:4]
rng = random.Random(f"{seed}/{writer}/{round}")
sequence = 0
step = "start"
try:
    while True:
        key = f"w{writer}-{rng.randrange(40)}"
        sequence += 1
        if rng.randrange(10) == 0 and os.path.exists(key):
            os.write(1, f"try {key} 0\n".encode())
            step = f"unlink {key}"
            os.unlink(key)
            os.write(1, f"ack {key} 0\n".encode())
            continue
        number = int(round) * 1000000 + sequence
        pad = "".join(rng.choices("abcdefgh", k=8)) * rng.choice([1, 10, 100, 1200])
        check = zlib.adler32(f"{key} {number} {pad}".encode())
        text = json.dumps({"key": key, "number": number, "pad": pad, "check": check})
        os.write(1, f"try {key} {number}\n".encode())
        step = f"open {key}"
        fd = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        step = f"write {key}"
        half = rng.randrange(len(text))
        os.write(fd, text[:half].encode())
        os.write(fd, text[half:].encode())
        step = f"close {key}"
        os.close(fd)
        os.write(1, f"ack {key} {number}\n".encode())
except OSError as error:
    print("end", error.errno, step, flush=True)
"#;

/// Keeps files open while they are replaced, until the mount dies: the kernel must be told of each new version, and
/// the daemon is killed while it does.
const READER: &str = r#"
import os, random
held = []
while True:
    try:
        held.append(os.open(random.choice(os.listdir(".") or ["none"]), os.O_RDONLY))
        os.read(held[-1], 1)
        if len(held) > 20:
            os.close(held.pop(random.randrange(20)))
    except OSError as error:
        if error.errno in (107, 103):
            break
"#;

/// A message of a writer.
pub(super) enum Event {
    Try(String, Number),
    Ack(String, Number),
    End(i32, String),
}

/// A process that writes.
pub(super) struct Writer {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(dir: &Path, numbers: [u64; 3], events: Sender<Event>) -> Self {
        let mut child = python(dir, WRITER).args(numbers.map(|number| number.to_string())).spawn().unwrap();
        let out = child.stdout.take().unwrap();
        Self { child, reader: Some(std::thread::spawn(move || read_events(out, &events))) }
    }
}

/// A process that keeps files open and reads them. Ends with 0 when the mount dies.
pub(super) fn start_reader(dir: &Path) -> Child {
    python(dir, READER).spawn().unwrap()
}

fn python(dir: &Path, script: &str) -> Command {
    let mut command = Command::new("python3");
    // Isolated, it does not look for modules on a mount that may be gone.
    command.args(["-I", "-c", script]).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.reader.take().map(JoinHandle::join);
    }
}

fn read_events(out: ChildStdout, events: &Sender<Event>) {
    for line in BufReader::new(out).lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let event = match words[..] {
            ["try", key, number] => Event::Try(key.to_owned(), number.parse().unwrap()),
            ["ack", key, number] => Event::Ack(key.to_owned(), number.parse().unwrap()),
            ["end", errno, ..] => Event::End(errno.parse().unwrap(), line),
            _ => panic!("a writer said {line:?}"),
        };
        if events.send(event).is_err() {
            return;
        }
    }
}
