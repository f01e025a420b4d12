//! flock(2) and fcntl(2) locks, kept here and not in the kernel, because readers and writers of one key may hold
//! different inodes. Ranges are those of POSIX; a flock(2) lock is one over the whole file.

use std::collections::{HashMap, HashSet};

/// Who holds a lock: the kernel's word for an open file (flock, and `F_OFD_SETLK` of fcntl) or a process (fcntl).
pub type Owner = u64;

/// The system call that a lock is of. Locks of one do not see those of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// One that is converted is given up first, and nothing is a deadlock.
    Flock,
    /// What waits in a circle is a deadlock.
    Fcntl,
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
    /// Of which system call it is.
    pub family: Family,
    /// What it excludes.
    pub kind: Kind,
    /// Where.
    pub range: Range,
}

impl Lock {
    fn excludes(&self, wanted: &Self) -> bool {
        self.owner != wanted.owner
            && self.family == wanted.family
            && self.range.overlaps(wanted.range)
            && (self.kind == Kind::Exclusive || wanted.kind == Kind::Exclusive)
    }
}

/// All locks.
#[derive(Debug, Default)]
pub struct Locks {
    /// By file name.
    held: HashMap<String, Vec<Lock>>,
    /// Those that are waited for, by file name.
    waiting: Vec<(String, Lock)>,
}

impl Locks {
    /// A held lock that keeps `wanted` from being granted.
    pub fn conflict(&self, name: &str, wanted: &Lock) -> Option<Lock> {
        self.conflicts(name, wanted).next().copied()
    }

    fn conflicts(&self, name: &str, wanted: &Lock) -> impl Iterator<Item = &Lock> {
        let held = self.held.get(self.place(name, wanted.handle)).into_iter().flatten();
        held.filter(|lock| lock.excludes(wanted))
    }

    /// `lock` is waited for.
    pub fn wait(&mut self, name: &str, lock: Lock) {
        self.waiting.push((name.to_owned(), lock));
    }

    /// `lock` is waited for no more.
    pub fn stop_waiting(&mut self, lock: &Lock) {
        if let Some(position) = self.waiting.iter().position(|(_, waiting)| waiting == lock) {
            self.waiting.swap_remove(position);
        }
    }

    /// Whether who would wait for `wanted` is waited for by those who keep it.
    pub fn is_deadlock(&self, name: &str, wanted: &Lock) -> bool {
        if wanted.family == Family::Flock {
            return false;
        }
        let mut seen = HashSet::new();
        let mut next: Vec<Owner> = self.conflicts(name, wanted).map(|lock| lock.owner).collect();
        while let Some(owner) = next.pop() {
            if owner == wanted.owner {
                return true;
            }
            if seen.insert(owner) {
                let waiting = self.waiting.iter().filter(|(_, lock)| lock.owner == owner);
                next.extend(
                    waiting.flat_map(|(name, lock)| self.conflicts(name, lock)).map(|lock| lock.owner),
                );
            }
        }
        false
    }

    /// Gives up a flock(2) lock that is to be converted to `lock`. Whether there was one.
    pub fn give_up_for(&mut self, name: &str, lock: &Lock) -> bool {
        let held = self.held.get(self.place(name, lock.handle)).into_iter().flatten();
        let converts = lock.family == Family::Flock
            && held.into_iter().any(|held| held.owner == lock.owner && held.kind != lock.kind);
        if converts {
            self.release(name, lock.handle, lock.owner, lock.range);
        }
        converts
    }

    /// Takes `lock`, or leaves all as it was and returns false. Replaces what the owner held in the range.
    pub fn acquire(&mut self, name: &str, lock: Lock) -> bool {
        if self.conflict(name, &lock).is_some() {
            return false;
        }
        let name = self.place(name, lock.handle).to_owned();
        self.release(&name, lock.handle, lock.owner, lock.range);
        self.held.entry(name).or_default().push(lock);
        true
    }

    /// Drops what `owner` holds within `range` of the file that `handle` has open; what lies outside stays.
    pub fn release(&mut self, name: &str, handle: u64, owner: Owner, range: Range) {
        let name = self.place(name, handle).to_owned();
        let Some(held) = self.held.get_mut(&name) else { return };
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
            self.held.remove(&name);
        }
    }

    /// Drops all that was taken through `handle`.
    pub fn release_handle(&mut self, handle: u64) {
        self.held.retain(|_, held| {
            held.retain(|lock| lock.handle != handle);
            !held.is_empty()
        });
    }

    /// The name that the locks of `handle` are under. They follow a file that is renamed; an older version of it,
    /// which the handle may have open, keeps the old `name`.
    fn place<'a>(&'a self, name: &'a str, handle: u64) -> &'a str {
        let held_in = |held: &[Lock]| held.iter().any(|lock| lock.handle == handle);
        if self.held.get(name).is_some_and(|held| held_in(held)) {
            return name;
        }
        self.held.iter().find(|(_, held)| held_in(held)).map_or(name, |(elsewhere, _)| elsewhere)
    }

    /// Locks follow a renamed file.
    pub fn rename(&mut self, from: &str, to: &str) {
        if let Some(held) = self.held.remove(from) {
            self.held.insert(to.to_owned(), held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Range = Range { start: 0, end: u64::MAX };

    fn lock(owner: Owner, kind: Kind, start: u64, end: u64) -> Lock {
        Lock { owner, handle: owner, pid: 1, family: Family::Fcntl, kind, range: Range { start, end } }
    }

    #[test]
    fn exclusive_locks_exclude_and_shared_ones_do_not() {
        let mut locks = Locks::default();
        assert!(locks.acquire("a", lock(1, Kind::Shared, 0, 9)));
        assert!(locks.acquire("a", lock(2, Kind::Shared, 5, 20)));
        assert!(!locks.acquire("a", lock(3, Kind::Exclusive, 9, 9)));
        assert!(locks.acquire("a", lock(3, Kind::Exclusive, 21, 30)));
        assert!(locks.acquire("b", lock(5, Kind::Exclusive, 0, u64::MAX)));
        assert_eq!(locks.conflict("a", &lock(4, Kind::Shared, 25, 25)).unwrap().owner, 3);
    }

    #[test]
    fn an_owner_replaces_its_own_locks_and_keeps_the_rest() {
        let mut locks = Locks::default();
        assert!(locks.acquire("a", lock(1, Kind::Exclusive, 0, 99)));
        locks.release("a", 1, 1, Range { start: 10, end: 19 });
        assert!(locks.acquire("a", lock(2, Kind::Exclusive, 10, 19)));
        assert!(!locks.acquire("a", lock(2, Kind::Exclusive, 9, 19)));
        assert!(!locks.acquire("a", lock(2, Kind::Shared, 20, 20)));
        assert!(locks.acquire("a", lock(1, Kind::Shared, 20, 99)));
        assert!(locks.acquire("a", lock(2, Kind::Shared, 50, 60)));
    }

    #[test]
    fn closing_a_handle_drops_its_locks_and_nothing_is_left_behind() {
        let mut locks = Locks::default();
        assert!(locks.acquire("a", lock(1, Kind::Exclusive, 0, u64::MAX)));
        locks.rename("a", "b");
        assert!(!locks.acquire("b", lock(2, Kind::Shared, 0, 0)));
        locks.release_handle(1);
        assert!(locks.acquire("b", lock(2, Kind::Exclusive, 0, 0)));
        locks.release("b", 2, 2, ALL);
        assert!(locks.held.is_empty());
    }

    #[test]
    fn locks_that_followed_a_renamed_file_are_found_under_the_old_name() {
        let mut locks = Locks::default();
        let half = Range { start: 0, end: 9 };
        assert!(locks.acquire("a", lock(1, Kind::Exclusive, 0, u64::MAX)));
        locks.rename("a", "b");
        assert!(locks.acquire("a", lock(2, Kind::Exclusive, 0, u64::MAX)));
        assert!(locks.acquire("a", lock(1, Kind::Shared, 20, u64::MAX)));
        locks.release("a", 1, 1, half);
        assert!(locks.acquire("b", lock(3, Kind::Exclusive, 0, 9)));
        assert!(!locks.acquire("b", lock(4, Kind::Exclusive, 10, 19)));
        assert!(!locks.acquire("a", lock(4, Kind::Shared, 0, 0)));
        locks.release("a", 1, 1, ALL);
        locks.release("a", 2, 2, ALL);
        locks.release("b", 3, 3, ALL);
        assert!(locks.held.is_empty());
    }
}
