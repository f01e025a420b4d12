//! The background start. A process with threads cannot fork safely, so the daemon is this program started anew;
//! the parent waits until the mount answers.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::{logging, sys, threads};

/// Marks the second process.
const VARIABLE: &str = "_KVFS_BACKGROUND";
const READY: &str = "ready";

/// The role of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Parent,
    Child,
}

pub(super) fn role() -> Role {
    if std::env::var_os(VARIABLE).is_some() { Role::Child } else { Role::Parent }
}

/// Starts the background process; returns when its mount answers.
pub(super) fn spawn() -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::Other(format!("cannot start in the background: {}", threads::explained(&error)))
    };
    let program = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(program)
        // mount(8) calls it by another name.
        .arg0(std::env::args_os().next().unwrap_or_else(|| "kvfs".into()))
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    }
    if line.trim() == READY {
        return Ok(());
    }
    // It has reported why on the standard error that it shares with this process.
    let status = child.wait().map_err(failed)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
    match code {
        Some(code) => Err(Failure::AlreadyReported(code)),
        None => {
            Err(Failure::Other(format!("the background process ended before the mount answered ({status})")))
        }
    }
}

/// Lets the parent exit, and detaches from its terminal and directory.
#[allow(clippy::print_stdout, reason = "standard output is the pipe to the parent")]
pub(super) fn ready(log_file: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Other(format!("cannot go to the background: {error}"));
    sys::new_session();
    std::env::set_current_dir("/").map_err(failed)?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(failed)?;
    let logged = logging::to_file(log_file);
    if let Err(error) = &logged {
        logging::report(&format!("nothing is logged, for {} cannot be used: {error}", log_file.display()));
    }
    println!("{READY}");
    std::io::stdout().flush().map_err(failed)?;
    sys::redirect_standard_streams(&null, logged.is_err()).map_err(failed)
}
