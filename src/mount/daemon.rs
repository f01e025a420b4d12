//! The daemon of a mount, as other processes find it: also one that does not answer.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The argument that makes this program the guard of a mount; the daemon's process id and the mount point follow.
pub const GUARD: &str = "__guard";

/// The daemon of the mount at `mountpoint`, by the arguments of its guard, which every user can read.
pub fn of(mountpoint: &Path) -> Option<u32> {
    all_of(mountpoint).into_iter().max()
}

/// The daemons other than `own` that had a mount there, which was replaced, and still serve the files that are open of it.
pub fn replaced(mountpoint: &Path, own: u32) -> Vec<u32> {
    all_of(mountpoint).into_iter().filter(|daemon| *daemon != own).collect()
}

fn all_of(mountpoint: &Path) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let guarded = processes.filter_map(|process| {
        let line = fs::read(process.path().join("cmdline")).ok()?;
        let mut arguments = line.split(|byte| *byte == 0).skip_while(|word| *word != GUARD.as_bytes());
        let daemon = std::str::from_utf8(arguments.nth(1)?).ok()?.parse().ok()?;
        arguments.next().filter(|path| *path == mountpoint.as_os_str().as_bytes()).map(|_| daemon)
    });
    guarded.filter(|daemon| !has_ended(*daemon)).collect()
}

/// Whether the process `id` has ended with all its threads, reaped by its parent or not.
pub fn has_ended(id: u32) -> bool {
    // The main thread may be a zombie before the others have closed the shared files.
    let threads = || fs::read_dir(format!("/proc/{id}/task")).map_or(0, Iterator::count);
    match state(id) {
        None => true,
        Some('Z' | 'X') => threads() <= 1,
        Some(_) => false,
    }
}

/// Whether the process `id` is stopped, as by SIGSTOP.
pub fn is_stopped(id: u32) -> bool {
    matches!(state(id), Some('T' | 't'))
}

/// The state of the process, as the letter of proc(5).
fn state(id: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
