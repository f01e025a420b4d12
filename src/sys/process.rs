//! Other processes, as /proc shows them: whether they are still there, and what they have open.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// A process, told by its start from a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    id: u32,
    started: u64,
}

impl Process {
    /// The process of this number, if it can be seen.
    pub fn of(id: u32) -> Option<Self> {
        Some(Self { id, started: Stat::of(Path::new(&format!("/proc/{id}"))).ok()?.started })
    }

    /// Whether it has a regular file of `device` open that `is_it`, by its inode number. `None` if that cannot be told.
    pub fn has_open(self, device: u64, is_it: impl Fn(u64) -> bool) -> Option<bool> {
        let process = format!("/proc/{}", self.id);
        match Stat::of(Path::new(&process)) {
            Ok(stat) if stat.started == self.started => {}
            Ok(_) => return Some(false),
            Err(error) if is_gone(&error) => return Some(false),
            Err(_) => return None,
        }
        // The first thread may have ended before the others.
        let threads = match std::fs::read_dir(Path::new(&process).join("task")) {
            Ok(threads) => threads,
            Err(error) => return is_gone(&error).then_some(false),
        };
        for thread in threads {
            match thread.and_then(|thread| has_open(&thread.path(), device, &is_it)) {
                Ok(false) => {}
                Ok(true) => return Some(true),
                Err(error) if is_gone(&error) => {}
                Err(_) => return None,
            }
        }
        Some(false)
    }
}

/// A moment on the clock that tells when processes and threads started.
#[derive(Clone, Copy, Debug)]
pub struct Tick(u64);

impl Tick {
    /// This moment. Makes no system call.
    pub fn now() -> Self {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` outlives the calls; neither fails on Linux.
        let per_second = unsafe {
            libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now);
            libc::sysconf(libc::_SC_CLK_TCK)
        };
        let ticks = now.tv_sec * per_second + now.tv_nsec * per_second / 1_000_000_000;
        Self(ticks.unsigned_abs())
    }

    /// How long ago it was, to a hundredth of a second or so.
    pub fn age(self) -> Duration {
        // SAFETY: this does not fail on Linux.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.unsigned_abs();
        Duration::from_millis((Self::now().0 - self.0) * 1000 / per_second.max(1))
    }
}

/// Whether the thread of this number had started by then, so that it is no later one of its number.
pub fn had_started(thread: u32, by: Tick) -> bool {
    Stat::of(Path::new(&format!("/proc/{thread}"))).is_ok_and(|stat| stat.started <= by.0)
}

/// Whether thread `by` did something at that moment, and `thread`, which waits for an answer, certainly is of its process. (A
/// process of which a thread waits so is not within execve(2), which keeps those out who ask about it.)
pub fn is_of_process(thread: u32, by: u32, at: Tick) -> bool {
    super::same_process(thread, by) && had_started(by, at)
}

/// Whether that thread has a regular file of `device` open that `is_it`, by its inode number. `None` if that cannot be told.
pub fn thread_has_open(thread: u32, device: u64, is_it: impl Fn(u64) -> bool) -> Option<bool> {
    has_open(Path::new(&format!("/proc/{thread}")), device, is_it).ok()
}

fn has_open(thread: &Path, device: u64, is_it: impl Fn(u64) -> bool) -> io::Result<bool> {
    if Stat::of(thread)?.is_dead {
        return Ok(false);
    }
    for descriptor in std::fs::read_dir(thread.join("fd"))? {
        match file_behind(&descriptor?.path()) {
            Ok(file) if file.is_regular && file.device == device && is_it(file.number) => return Ok(true),
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Whether what was asked for is not there any more.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

struct Stat {
    is_dead: bool,
    started: u64,
}

impl Stat {
    /// Of a process or a thread, by its directory in /proc.
    fn of(directory: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(directory.join("stat"))?;
        // Its name, which comes second and may contain anything, is in parentheses.
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let started = fields.get(19).and_then(|field| field.parse().ok());
        let started = started.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { is_dead: matches!(fields.first(), Some(&("Z" | "X" | "x"))), started })
    }
}

struct FileBehind {
    device: u64,
    number: u64,
    is_regular: bool,
}

/// What a link in /proc/PID/fd leads to. Nobody is asked, whatever filesystem it is on.
fn file_behind(link: &Path) -> io::Result<FileBehind> {
    let link = CString::new(link.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    let mask = libc::STATX_TYPE | libc::STATX_INO;
    // SAFETY: `link` is a NUL-terminated string, and both outlive the call.
    super::done(unsafe {
        libc::statx(libc::AT_FDCWD, link.as_ptr(), libc::AT_STATX_DONT_SYNC, mask, found.as_mut_ptr())
    })?;
    // SAFETY: statx succeeded, and zeros are valid for what it left out.
    let found = unsafe { found.assume_init() };
    Ok(FileBehind {
        device: libc::makedev(found.stx_dev_major, found.stx_dev_minor),
        number: found.stx_ino,
        is_regular: u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFREG,
    })
}

/// What a thread that waits for an answer to a lock has called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockCall {
    /// fcntl(2) for a lock of the process.
    OfProcess,
    /// Another, or it cannot be told.
    Unknown,
    /// It has not come to wait yet.
    NotYet,
}

/// What the thread of the process has called.
pub fn lock_call(process: u32, thread: u32) -> LockCall {
    let Ok(call) = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/syscall")) else {
        return LockCall::Unknown;
    };
    if call.starts_with("running") {
        return LockCall::NotYet;
    }
    let mut words = call.split_whitespace();
    let number = words.next().and_then(|word| word.parse().ok());
    let command = words.nth(1).and_then(|word| i32::from_str_radix(word.trim_start_matches("0x"), 16).ok());
    if number == Some(libc::SYS_fcntl) && matches!(command, Some(libc::F_SETLK | libc::F_SETLKW)) {
        LockCall::OfProcess
    } else {
        LockCall::Unknown
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_later_process_is_told_by_its_start() {
        let before = Tick::now();
        while Tick::now().0 == before.0 {
            std::thread::yield_now();
        }
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(!had_started(child.id(), before) && had_started(child.id(), Tick::now()));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(had_started(std::process::id(), before));
    }
}
