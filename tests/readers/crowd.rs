//! Readers and writers, all at once and each a process of its own: threads of one process would be one writer.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::board::Board;
use super::document::SHORTEST;
use super::place::{Place, Way};
use super::reading::{self, READERS, Reader};
use super::tally::Tally;
use super::writing::{Writer, Writing};

/// The environment variable that tells a process of the crowd its task.
const TASK: &str = "KVFS_TASK";

/// What one process of the crowd does.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    role: Role,
    path: PathBuf,
    name: PathBuf,
    board: PathBuf,
    /// Where its tally is left.
    tally: PathBuf,
    seed: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Role {
    Reads(Reader, u64),
    Writes(Writer, Vec<Writer>),
}

impl Role {
    fn name(&self) -> String {
        match self {
            Self::Reads(reader, _) => format!("reader {reader:?}"),
            Self::Writes(writer, _) => format!("writer {writer:?}"),
        }
    }
}

/// A process of the crowd.
struct Member {
    role: Role,
    tally: PathBuf,
    child: Child,
}

/// Each reader reads so many times beside these writers. What each process counted.
pub(super) fn meet(place: &Place, writers: &[Writer], reads: u64) -> Vec<(String, Tally)> {
    let home = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
    let path = home.path().join("board");
    let board = Board::create(&path, SHORTEST);
    place.begin();
    let mut seed = 0;
    let mut start = |role: Role| {
        seed += 1;
        Member::start(place, role, home.path(), seed)
    };
    let others = |at: usize| {
        writers.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, writer)| *writer).collect()
    };
    let writing: Vec<Member> =
        writers.iter().enumerate().map(|(at, writer)| start(Role::Writes(*writer, others(at)))).collect();
    let reading: Vec<Member> = READERS.iter().map(|reader| start(Role::Reads(*reader, reads))).collect();
    let mut tallies: Vec<(String, Tally)> = reading.into_iter().map(Member::end).collect();
    board.stop();
    tallies.extend(writing.into_iter().map(Member::end));
    tallies
}

impl Member {
    fn start(place: &Place, role: Role, home: &Path, seed: u64) -> Self {
        let tally = home.join(format!("tally-{seed}"));
        let elsewhere = matches!(role, Role::Writes(Writer::Elsewhere, _));
        let task = Task {
            path: if elsewhere { place.elsewhere() } else { place.path() },
            name: place.name(),
            board: home.join("board"),
            tally: tally.clone(),
            role: role.clone(),
            seed,
        };
        let mut command = process(place.way);
        command.env(TASK, serde_json::to_string(&task).unwrap());
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        Self { role, tally, child }
    }

    fn end(self) -> (String, Tally) {
        let out = self.child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{:?}: {}: {said}", self.role, out.status);
        (self.role.name(), serde_json::from_slice(&fs::read(self.tally).unwrap()).unwrap())
    }
}

/// This program again, as [`member`], in the PID namespace that the way asks for.
fn process(way: Way) -> Command {
    let this = env::current_exe().unwrap();
    let mut command = match way {
        Way::Below => {
            let mut unshare = Command::new("unshare");
            unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(this);
            unshare
        }
        _ => Command::new(this),
    };
    command.args(["--exact", "readers::member_of_a_crowd", "--include-ignored", "--nocapture"]);
    command
}

/// Does the task that the environment tells, if it does.
pub(super) fn member() {
    let Ok(task) = env::var(TASK) else { return };
    let task: Task = serde_json::from_str(&task).unwrap();
    let board = Board::open(&task.board);
    let tally = match task.role {
        Role::Reads(reader, reads) => reading::run(reader, &task.path, reads, &board),
        Role::Writes(writer, others) => {
            let Task { path, name, seed, .. } = task;
            Writing { writer, path, name, others, board: &board, seed }.run()
        }
    };
    fs::write(task.tally, serde_json::to_vec(&tally).unwrap()).unwrap();
}
