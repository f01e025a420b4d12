//! flock(2) and fcntl(2) locks, kept here and not in the kernel, because readers and writers of one key may hold
//! different inodes. Ranges are those of POSIX; a flock(2) lock is one over the whole file.

use std::collections::HashSet;

use crate::fs::types::{ByNumber, FileNumber};
use crate::sys::process::Process;

/// The system call that a lock is of. Locks of one do not see those of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// One that is converted is given up first, and nothing is a deadlock.
    Flock,
    /// What waits in a circle is a deadlock.
    Fcntl,
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// By which system call.
    pub family: Family,
    /// The kernel's word for an open file (flock, and `F_OFD_SETLK` of fcntl) or a process (fcntl).
    pub id: u64,
}

/// A range of bytes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
}

impl Range {
    fn overlaps(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    fn touches(self, other: Self) -> bool {
        self.start <= other.end.saturating_add(1) && other.start <= self.end.saturating_add(1)
    }
}

/// What a lock excludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Other owners' exclusive locks.
    Shared,
    /// All other owners' locks.
    Exclusive,
}

/// One lock that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Who holds it.
    pub owner: Owner,
    /// Handle it was taken through; its release drops the lock.
    pub handle: u64,
    /// Process, for `F_GETLK`.
    pub pid: u32,
    /// The process that has it, if it ends with a close(2) that the kernel does not tell of: that of a reader.
    pub process: Option<Process>,
    /// What it excludes.
    pub kind: Kind,
    /// Where.
    pub range: Range,
}

impl Lock {
    fn excludes(&self, wanted: &Self) -> bool {
        self.owner != wanted.owner
            && self.owner.family == wanted.owner.family
            && self.range.overlaps(wanted.range)
            && (self.kind == Kind::Exclusive || wanted.kind == Kind::Exclusive)
    }
}

/// All locks, by the files that they are of.
#[derive(Debug, Default)]
pub struct Locks {
    held: ByNumber<FileNumber, Vec<Lock>>,
    /// Those that are waited for.
    waiting: Vec<(FileNumber, Lock)>,
}

impl Locks {
    /// A held lock that keeps `wanted` from being granted.
    pub fn conflict(&self, file: FileNumber, wanted: &Lock) -> Option<Lock> {
        self.conflicts(file, wanted).next().copied()
    }

    /// Those that do, and whose process may have closed the file.
    pub fn doubtful(&self, file: FileNumber, wanted: &Lock) -> Vec<Lock> {
        self.conflicts(file, wanted).filter(|lock| lock.process.is_some()).copied().collect()
    }

    /// A file of which one is held or waited for.
    pub fn first_file(&self) -> Option<FileNumber> {
        let waiting = self.waiting.first().map(|(file, _)| *file);
        self.held.iter().find(|(_, held)| !held.is_empty()).map(|(file, _)| *file).or(waiting)
    }

    /// Whether `owner` holds one.
    pub fn has(&self, file: FileNumber, owner: Owner) -> bool {
        self.held.get(&file).is_some_and(|held| held.iter().any(|lock| lock.owner == owner))
    }

    fn conflicts(&self, file: FileNumber, wanted: &Lock) -> impl Iterator<Item = &Lock> {
        self.held.get(&file).into_iter().flatten().filter(|lock| lock.excludes(wanted))
    }

    /// `lock` is waited for.
    pub fn wait(&mut self, file: FileNumber, lock: Lock) {
        self.waiting.push((file, lock));
    }

    /// `lock` is waited for no more.
    pub fn stop_waiting(&mut self, lock: &Lock) {
        if let Some(position) = self.waiting.iter().position(|(_, waiting)| waiting == lock) {
            self.waiting.swap_remove(position);
        }
    }

    /// Whether who would wait for `wanted` is waited for by those who keep it.
    pub fn is_deadlock(&self, file: FileNumber, wanted: &Lock) -> bool {
        if wanted.owner.family == Family::Flock {
            return false;
        }
        let mut seen = HashSet::new();
        let mut next: Vec<Owner> = self.conflicts(file, wanted).map(|lock| lock.owner).collect();
        while let Some(owner) = next.pop() {
            if owner == wanted.owner {
                return true;
            }
            if seen.insert(owner) {
                let waiting = self.waiting.iter().filter(|(_, lock)| lock.owner == owner);
                next.extend(
                    waiting.flat_map(|(file, lock)| self.conflicts(*file, lock)).map(|lock| lock.owner),
                );
            }
        }
        false
    }

    /// Gives up a flock(2) lock that is to be converted to `lock`. Whether there was one.
    pub fn give_up_for(&mut self, file: FileNumber, lock: &Lock) -> bool {
        let converts = |held: &Lock| held.owner == lock.owner && held.kind != lock.kind;
        let held = self.held.get(&file).into_iter().flatten();
        let found = lock.owner.family == Family::Flock && held.into_iter().any(converts);
        if found {
            self.release(file, lock.owner, lock.range);
        }
        found
    }

    /// Takes `lock`, or leaves all as it was and returns false. Replaces what the owner held in the range.
    pub fn acquire(&mut self, file: FileNumber, lock: Lock) -> bool {
        if self.conflict(file, &lock).is_some() {
            return false;
        }
        let range = self.joined(file, &lock);
        self.release(file, lock.owner, range);
        self.held.entry(file).or_default().push(Lock { range, ..lock });
        true
    }

    /// The range of `lock` and of those of its owner and kind that it touches.
    fn joined(&self, file: FileNumber, lock: &Lock) -> Range {
        let own = self.held.get(&file).into_iter().flatten();
        let own = own.filter(|held| held.owner == lock.owner && held.kind == lock.kind);
        own.filter(|held| held.range.touches(lock.range)).fold(lock.range, |all, held| Range {
            start: all.start.min(held.range.start),
            end: all.end.max(held.range.end),
        })
    }

    /// Drops what `owner` holds within `range`; what lies outside stays.
    pub fn release(&mut self, file: FileNumber, owner: Owner, range: Range) {
        let Some(held) = self.held.get_mut(&file) else { return };
        let mut rest = Vec::new();
        held.retain(|lock| {
            if lock.owner != owner || !lock.range.overlaps(range) {
                return true;
            }
            if lock.range.start < range.start {
                rest.push(Lock { range: Range { start: lock.range.start, end: range.start - 1 }, ..*lock });
            }
            if lock.range.end > range.end {
                rest.push(Lock { range: Range { start: range.end + 1, end: lock.range.end }, ..*lock });
            }
            false
        });
        held.append(&mut rest);
        if held.is_empty() {
            self.held.remove(&file);
        }
    }

    /// Drops this one, if it is still held.
    pub fn end(&mut self, file: FileNumber, lock: &Lock) {
        if self.held.get(&file).is_some_and(|held| held.contains(lock)) {
            self.release(file, lock.owner, lock.range);
        }
    }

    /// Drops all that was taken through `handle`.
    pub fn release_handle(&mut self, file: FileNumber, handle: u64) {
        let Some(held) = self.held.get_mut(&file) else { return };
        held.retain(|lock| lock.handle != handle);
        if held.is_empty() {
            self.held.remove(&file);
        }
    }
}

#[cfg(test)]
impl Locks {
    /// Those that are held.
    pub(super) fn all(&self) -> impl Iterator<Item = (FileNumber, &Lock)> {
        self.held.iter().flat_map(|(file, held)| held.iter().map(|lock| (*file, lock)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: FileNumber = FileNumber(1);
    const B: FileNumber = FileNumber(2);
    const ALL: Range = Range { start: 0, end: u64::MAX };

    const fn owner(id: u64) -> Owner {
        Owner { family: Family::Fcntl, id }
    }

    fn lock(id: u64, kind: Kind, start: u64, end: u64) -> Lock {
        Lock { owner: owner(id), handle: id, pid: 1, process: None, kind, range: Range { start, end } }
    }

    #[test]
    fn exclusive_locks_exclude_and_shared_ones_do_not() {
        let mut locks = Locks::default();
        assert!(locks.acquire(A, lock(1, Kind::Shared, 0, 9)));
        assert!(locks.acquire(A, lock(2, Kind::Shared, 5, 20)));
        assert!(!locks.acquire(A, lock(3, Kind::Exclusive, 9, 9)));
        assert!(locks.acquire(A, lock(3, Kind::Exclusive, 21, 30)));
        assert!(locks.acquire(B, lock(5, Kind::Exclusive, 0, u64::MAX)));
        assert_eq!(locks.conflict(A, &lock(4, Kind::Shared, 25, 25)).unwrap().owner, owner(3));
    }

    #[test]
    fn an_owner_replaces_its_own_locks_and_keeps_the_rest() {
        let mut locks = Locks::default();
        assert!(locks.acquire(A, lock(1, Kind::Exclusive, 0, 99)));
        locks.release(A, owner(1), Range { start: 10, end: 19 });
        assert!(locks.acquire(A, lock(2, Kind::Exclusive, 10, 19)));
        assert!(!locks.acquire(A, lock(2, Kind::Exclusive, 9, 19)));
        assert!(!locks.acquire(A, lock(2, Kind::Shared, 20, 20)));
        assert!(locks.acquire(A, lock(1, Kind::Shared, 20, 99)));
        assert!(locks.acquire(A, lock(2, Kind::Shared, 50, 60)));
    }

    #[test]
    fn closing_a_handle_drops_its_locks_and_nothing_is_left_behind() {
        let mut locks = Locks::default();
        assert!(locks.acquire(A, lock(1, Kind::Exclusive, 0, u64::MAX)));
        assert!(!locks.acquire(A, lock(2, Kind::Shared, 0, 0)));
        locks.release_handle(B, 1);
        assert!(!locks.acquire(A, lock(2, Kind::Shared, 0, 0)));
        locks.release_handle(A, 1);
        assert!(locks.acquire(A, lock(2, Kind::Exclusive, 0, 0)));
        locks.release(A, owner(2), ALL);
        assert!(locks.held.is_empty());
    }
}
