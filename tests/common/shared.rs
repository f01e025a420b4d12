//! Servers that all tests of a run share, whichever process each test is in: nextest gives each one of its own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A shared server, for one test at a time; the next one waits until this is dropped.
pub struct Lease {
    _lock: File,
    /// The answer of the process that started the server to [`Run::lease`].
    pub told: String,
}

/// All tests that were started by one command.
pub struct Run {
    directory: PathBuf,
    /// Its end is the end of the run.
    owner: u32,
}

impl Run {
    pub fn current() -> Self {
        let (name, owner) = match std::env::var("NEXTEST_RUN_ID") {
            Ok(id) => (id, parent_id()),
            Err(_) => (std::process::id().to_string(), std::process::id()),
        };
        Self { directory: std::env::temp_dir().join(format!("kvfs-tests-{name}")), owner }
    }

    /// The server of this name. Who comes first starts it, and says what the others need to know of it.
    pub fn lease(&self, name: &str, start: impl FnOnce(&Self) -> Option<String>) -> Option<Lease> {
        fs::create_dir_all(&self.directory).unwrap();
        let path = self.directory.join(name);
        let mut lock = File::options().create(true).append(true).read(true).open(path).unwrap();
        lock.lock().unwrap();
        let mut told = String::new();
        lock.read_to_string(&mut told).unwrap();
        if told.is_empty() {
            told = start(self)?;
            lock.write_all(told.as_bytes()).unwrap();
        }
        Some(Lease { _lock: lock, told })
    }

    /// A new directory that is removed at the end of the run, when `program` has ended: by SIGTERM, or else by SIGKILL.
    #[allow(clippy::zombie_processes, reason = "it outlives this process, or ends with it")]
    pub fn keep(&self, program: impl FnOnce(&Path) -> Command) -> PathBuf {
        // In memory where that can be: nothing here tests a disk.
        let home =
            tempfile::TempDir::new_in("/dev/shm").or_else(|_| tempfile::TempDir::new()).unwrap().keep();
        let program = program(&home);
        let mut keeper = Command::new("sh");
        keeper.args([
            "-c",
            r#"owner=$1 home=$2 run=$3; shift 3
               "$@" & program=$!
               while kill -0 "$owner" && kill -0 $program; do sleep 1; done
               kill $program
               for _ in 1 2 3 4 5 6 7 8 9; do kill -0 $program || break; sleep 1; done
               kill -9 $program
               rm -rf "$home" "$run""#,
            "sh",
        ]);
        keeper.arg(self.owner.to_string()).arg(&home).arg(&self.directory);
        keeper.arg(program.get_program()).args(program.get_args());
        keeper.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        // A test that is ended with all that it started leaves the server to the others.
        keeper.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        keeper.spawn().unwrap();
        home
    }
}
