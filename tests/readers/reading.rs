//! Readers of six kinds, and what is wrong with what they read.
#![allow(unsafe_code, reason = "mmap(2)")]

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;
use std::thread;
use std::time::Duration;

use libc::{c_void, iovec};
use serde::{Deserialize, Serialize};

use super::board::{Board, Look};
use super::document::{Fault, judge};
use super::tally::Tally;

/// How a reader finds the end of the file.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Reader {
    /// By reading until there is no more.
    ToEnd,
    /// By fstat(2), in one read.
    Fstat,
    /// Looks at it by stat(2) first.
    Stat,
    /// By fstat(2), through a memory map.
    Map,
    /// In many small reads.
    Small,
    /// In three reads, with time between them.
    Kept,
}

pub(super) const READERS: [Reader; 6] =
    [Reader::ToEnd, Reader::Fstat, Reader::Stat, Reader::Map, Reader::Small, Reader::Kept];

/// Between the reads of one that keeps the file open.
const PAUSE: Duration = Duration::from_millis(10);

/// More than the largest text.
const ALL: usize = 16 << 10;

impl Reader {
    /// How many times this one reads where others read `reads` times: it takes that much longer.
    const fn times(self, reads: u64) -> u64 {
        match self {
            Self::Kept => reads.div_ceil(50),
            _ => reads,
        }
    }

    fn read(self, file: &File) -> io::Result<Vec<u8>> {
        match self {
            Self::ToEnd | Self::Stat => in_parts(file, 4096),
            Self::Small => in_parts(file, 700),
            Self::Fstat => part(file, file.metadata()?.len() as usize),
            Self::Map => mapped(file, file.metadata()?.len() as usize),
            Self::Kept => slowly(file),
        }
    }
}

/// Reads so many times, and judges each text.
pub(super) fn run(reader: Reader, path: &Path, reads: u64, board: &Board) -> Tally {
    let mut tally = Tally::default();
    let mut last = None;
    for _ in 0..reader.times(reads) {
        tally.add("reads");
        let look = board.look();
        if matches!(reader, Reader::Stat) {
            stat(path, board, look, &mut tally);
        }
        let text = match File::open(path) {
            Ok(file) => reader.read(&file),
            Err(error) => {
                absent_or(&error, board, look, &mut tally);
                continue;
            }
        };
        let number = text.map(|text| judged(&text, board, look, &mut tally));
        match number {
            Ok(number) if number == last => {}
            Ok(number) => {
                tally.add("new");
                last = number;
            }
            Err(error) => tally.error("read", &error),
        }
    }
    tally
}

fn stat(path: &Path, board: &Board, look: Look, tally: &mut Tally) {
    match fs::metadata(path) {
        Ok(found) if board.has_size(found.len(), look) => {}
        Ok(found) if found.len() == 0 && board.may_be_absent(look) => tally.add("absent"),
        Ok(_) => tally.add("size of a draft"),
        Err(error) => absent_or(&error, board, look, tally),
    }
}

fn absent_or(error: &io::Error, board: &Board, look: Look, tally: &mut Tally) {
    match error.kind() {
        io::ErrorKind::NotFound if board.may_be_absent(look) => tally.add("absent"),
        io::ErrorKind::NotFound => tally.fault("missing", || error.to_string()),
        _ => tally.error("open", error),
    }
}

fn judged(text: &[u8], board: &Board, look: Look, tally: &mut Tally) -> Option<u32> {
    match judge(text) {
        Ok(number) => {
            if let Some(fault) = board.fault_of(number, look) {
                tally.fault(fault, || format!("write {number}"));
            }
            Some(number)
        }
        // One that was made, and has no value yet.
        Err(Fault::Empty) if board.may_be_absent(look) => {
            tally.add("absent");
            None
        }
        Err(fault) => {
            let head = String::from_utf8_lossy(&text[..text.len().min(40)]);
            tally.fault(fault.name(), || format!("{} bytes, {head:?}", text.len()));
            None
        }
    }
}

fn part(mut file: &File, size: usize) -> io::Result<Vec<u8>> {
    let mut text = vec![0; size];
    let length = file.read(&mut text)?;
    text.truncate(length);
    Ok(text)
}

fn in_parts(file: &File, size: usize) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let next = part(file, size)?;
        if next.is_empty() {
            return Ok(text);
        }
        text.extend(next);
    }
}

fn slowly(file: &File) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len();
    let third = (size / 3) as usize;
    let mut text = part(file, third)?;
    for next in [third, ALL] {
        thread::sleep(PAUSE);
        text.extend(part(file, next)?);
    }
    let now = file.metadata()?.len();
    if now == size { Ok(text) } else { Err(io::Error::other("another size by fstat")) }
}

fn mapped(file: &File, size: usize) -> io::Result<Vec<u8>> {
    if size == 0 {
        return Ok(Vec::new());
    }
    let (fd, protection) = (file.as_raw_fd(), libc::PROT_READ);
    // SAFETY: a new mapping, which is unmapped below.
    let start = unsafe { libc::mmap(ptr::null_mut(), size, protection, libc::MAP_SHARED, fd, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let text = copied(start, size);
    // SAFETY: nothing refers to it.
    unsafe { libc::munmap(start, size) };
    text
}

/// By a system call, which fails (EFAULT) where a look would end the process (SIGBUS).
fn copied(start: *mut c_void, size: usize) -> io::Result<Vec<u8>> {
    let mut text = vec![0; size];
    let to = iovec { iov_base: text.as_mut_ptr().cast(), iov_len: size };
    let from = iovec { iov_base: start, iov_len: size };
    // SAFETY: both are memory of this process, of this size.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &raw const to, 1, &raw const from, 1, 0) };
    if copied < 0 {
        return Err(io::Error::last_os_error());
    }
    text.truncate(copied.cast_unsigned());
    Ok(text)
}
