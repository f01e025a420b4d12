//! Writers of four kinds, and what else happens to the name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::board::{Board, Making};
use super::document::{SHORTEST, document, line};
use super::tally::Tally;
use crate::common;

/// How a writer makes the new text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Writer {
    /// `O_TRUNC`, two writes.
    Truncate,
    /// `O_RDWR`, the whole text in two writes from its start, ftruncate(2).
    InPlace,
    /// `O_APPEND`.
    Append,
    /// `O_CREAT | O_TRUNC`, two writes.
    Create,
    /// A file beside it, and rename(2) over the name.
    Rename,
    /// unlink(2), and a new file.
    Unlink,
    /// As [`Self::Truncate`], on another mount of the store.
    Elsewhere,
}

/// The longest text; with the lines that are appended to it, it is a value yet.
const LONGEST: usize = 9_000;

/// Appends to one text; then it is written anew.
const APPENDS: u64 = 5;

/// A call that failed.
struct Failed {
    call: &'static str,
    error: io::Error,
}

/// Makes a [`Failed`] of the error of `call`.
fn failed(call: &'static str) -> impl FnOnce(io::Error) -> Failed {
    move |error| Failed { call, error }
}

pub(super) struct Writing<'a> {
    pub(super) writer: Writer,
    /// What is opened.
    pub(super) path: PathBuf,
    /// The name in the mount, which may be another path.
    pub(super) name: PathBuf,
    /// Others that change the key.
    pub(super) others: Vec<Writer>,
    pub(super) board: &'a Board,
    pub(super) seed: u64,
}

impl Writing<'_> {
    /// Writes until the board says that it is enough.
    pub(super) fn run(&self) -> Tally {
        let mut tally = Tally::default();
        let mut rng = Rng::with_seed(self.seed);
        let mut round = 0;
        while !self.board.is_stopped() {
            let making = self.board.make();
            match self.write(&making, round, &mut rng) {
                Ok(()) => tally.add("writes"),
                Err(failed) => self.judge(&failed, &mut tally),
            }
            round += 1;
            if matches!(self.writer, Writer::Rename | Writer::Unlink | Writer::Elsewhere) {
                thread::sleep(Duration::from_micros(rng.u64(..2_000)));
            }
        }
        tally
    }

    fn judge(&self, failed: &Failed, tally: &mut Tally) {
        let removed = self.others.contains(&Writer::Unlink);
        let explained = match (failed.call, failed.error.raw_os_error()) {
            // A descriptor that reads what it changes goes by what it has read.
            ("write" | "close", Some(libc::ESTALE)) => {
                matches!(self.writer, Writer::InPlace | Writer::Append) && !self.others.is_empty()
            }
            ("open", Some(libc::ENOENT)) => removed,
            // White space was appended to a new file that others had not written yet.
            ("close", Some(libc::EINVAL)) => removed && self.writer == Writer::Append,
            ("create" | "write" | "close", Some(libc::EEXIST)) => self.writer == Writer::Unlink,
            _ => false,
        };
        if explained { tally.add("lost to another") } else { tally.error(failed.call, &failed.error) }
    }

    fn write(&self, making: &Making<'_>, round: u64, rng: &mut Rng) -> Result<(), Failed> {
        let mut options = OpenOptions::new();
        options.write(true);
        let text = document(making.number, length(rng));
        match self.writer {
            Writer::Append if !round.is_multiple_of(APPENDS + 1) => self.append(making),
            Writer::Truncate | Writer::Append | Writer::Elsewhere => {
                self.anew(making, options.truncate(true), &text)
            }
            Writer::Create => self.anew(making, options.create(true).truncate(true), &text),
            Writer::InPlace => self.in_place(making, &text),
            Writer::Rename => self.replace(making, &text),
            Writer::Unlink => {
                self.remove()?;
                let file = File::create_new(&self.name).map_err(failed("create"))?;
                self.halves(making, file, &text)
            }
        }
    }

    fn anew(&self, making: &Making<'_>, options: &OpenOptions, text: &[u8]) -> Result<(), Failed> {
        let file = options.open(&self.path).map_err(failed("open"))?;
        self.halves(making, file, text)
    }

    fn halves(&self, making: &Making<'_>, mut file: File, text: &[u8]) -> Result<(), Failed> {
        let (first, second) = text.split_at(text.len() / 2);
        file.write_all(first).map_err(failed("write"))?;
        // The write that completes the text may publish it, and so may the close.
        self.publish(making, text.len(), || {
            let written = file.write_all(second);
            let closed = close(file);
            written.map_err(failed("write")).and(closed)
        })
    }

    fn in_place(&self, making: &Making<'_>, text: &[u8]) -> Result<(), Failed> {
        let file = File::options().read(true).write(true).open(&self.path).map_err(failed("open"))?;
        let half = text.len() / 2;
        file.write_all_at(&text[..half], 0).map_err(failed("write"))?;
        // One to a new file may publish it.
        self.publish(making, text.len(), || {
            file.write_all_at(&text[half..], half as u64).map_err(failed("write"))?;
            file.set_len(text.len() as u64).map_err(failed("ftruncate"))?;
            let own = file.metadata().map_err(failed("fstat"))?.len() == text.len() as u64;
            close(file)?;
            own.then_some(()).ok_or_else(|| failed("fstat")(io::Error::other("not a writer's own size")))
        })
    }

    fn append(&self, making: &Making<'_>) -> Result<(), Failed> {
        let mut file = File::options().append(true).open(&self.path).map_err(failed("open"))?;
        file.write_all(&line(making.number)).map_err(failed("write"))?;
        let size = file.metadata().map_err(failed("fstat"))?.len() as usize;
        if self.others.contains(&Writer::Unlink) {
            // It may be a new file that others have not written yet, of which white space publishes nothing.
            return making.publish_elsewhere(size, || close(file));
        }
        self.publish(making, size, || close(file))
    }

    fn replace(&self, making: &Making<'_>, text: &[u8]) -> Result<(), Failed> {
        let beside = self.name.with_file_name(format!(".k.{:06}", making.number % 1_000_000));
        let mut file = File::create_new(&beside).map_err(failed("create"))?;
        file.write_all(text).map_err(failed("write"))?;
        close(file)?;
        making.replace(text.len(), || fs::rename(&beside, &self.name)).map_err(failed("rename"))
    }

    fn remove(&self) -> Result<(), Failed> {
        match self.board.remove(|| fs::remove_file(&self.name)) {
            // Gone with the last close of a text that was refused.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(failed("unlink")),
        }
    }

    fn publish(
        &self,
        making: &Making<'_>,
        size: usize,
        publish: impl FnOnce() -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        if self.writer == Writer::Elsewhere {
            making.publish_elsewhere(size, publish)
        } else {
            making.publish(size, publish)
        }
    }
}

/// Often of one page, and often of several.
fn length(rng: &mut Rng) -> usize {
    let below = if rng.bool() { 300 } else { LONGEST };
    rng.usize(SHORTEST..below)
}

fn close(file: File) -> Result<(), Failed> {
    match common::close(file) {
        0 => Ok(()),
        errno => Err(failed("close")(io::Error::from_raw_os_error(errno))),
    }
}
