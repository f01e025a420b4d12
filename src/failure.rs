//! Why a command ended, and the exit code that goes with it.

use std::fmt;
use std::path::PathBuf;

/// Why a command failed; the exit codes are part of the interface.
#[derive(Debug)]
pub enum Failure {
    /// Anything else: 1.
    Other(String),
    /// Wrong usage: 2.
    Usage(String),
    /// The mount point cannot be used: 3.
    Mountpoint(String),
    /// The store cannot be used: 4.
    Store(String),
    /// The kernel's FUSE cannot be used: 5.
    Fuse(String),
    /// Unmounted, but so many texts were rejected, and are kept in this directory: 6.
    Rejected(usize, PathBuf),
    /// Unmounted, but so many texts were rejected and could not be kept, for this reason: 6.
    Lost(u64, String),
    /// The background process has reported why, and ended with this code.
    AlreadyReported(u8),
}

impl Failure {
    /// The exit code that goes with it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Other(_) => 1,
            Self::Usage(_) => 2,
            Self::Mountpoint(_) => 3,
            Self::Store(_) => 4,
            Self::Fuse(_) => 5,
            Self::Rejected(..) | Self::Lost(..) => 6,
            Self::AlreadyReported(code) => *code,
        }
    }
}

impl Failure {
    /// The same, of what the option or variable `name` says.
    #[must_use]
    pub fn of(self, name: &str) -> Self {
        match self {
            Self::Usage(why) => Self::Usage(format!("{name}: {why}")),
            Self::Store(why) => Self::Store(format!("{name}: {why}")),
            other => other,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(why)
            | Self::Usage(why)
            | Self::Mountpoint(why)
            | Self::Store(why)
            | Self::Fuse(why) => f.write_str(why),
            Self::Rejected(count, directory) => {
                write!(f, "{} kept in {}", rejected_texts(*count as u64), directory.display())
            }
            Self::Lost(count, why) => {
                write!(f, "{} lost: {why}", rejected_texts(*count))
            }
            Self::AlreadyReported(code) => write!(f, "the mount failed (exit code {code})"),
        }
    }
}

fn rejected_texts(count: u64) -> String {
    if count == 1 { "1 rejected text is".to_owned() } else { format!("{count} rejected texts are") }
}
