//! Random operations, against a reference that knows only the documented rules.
//!
//! `KVFS_SEED` repeats a run, `KVFS_OPS` sets its length.
#![allow(clippy::unwrap_used, missing_docs)]

mod drafts;
mod naming;
mod reference;

use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

use libc::{O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC};

use crate::behaviour::door;
use crate::behaviour::in_process;
use crate::behaviour::kernel;
use crate::common;
use door::{Door, Fd, Outcome};
use in_process::InProcess;
use kernel::Mounted;
use kvfs::fs::document::Validate;
use reference::Model;

const KEYS: [&str; 4] = ["a", "b", "c", "long name"];
const SWAP: &str = ".x.swp";
const PIECES: [&str; 14] =
    ["[1]", "{\"a\":1}", "12", "\"x\"", " ", "\n", ",2]", "]", "[", "bad", "7", "null", "[1,[2],{}]\n", "3"];
const DOCUMENTS: [&str; 5] =
    ["[1]", "{\"key\":\"value\"}\n", "12", "\"longer than the others are\"", "false"];
/// Most files open at once.
const OPEN: usize = 12;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

struct Run<'a> {
    door: &'a dyn Door,
    model: Model,
    random: Random,
    open: Vec<(Fd, usize)>,
    /// What was done, for the message of a failure.
    log: Vec<String>,
}

impl<'a> Run<'a> {
    fn new(door: &'a dyn Door, json: bool, seed: u64) -> Self {
        Self { door, model: Model::new(json), random: Random(seed | 1), open: Vec::new(), log: Vec::new() }
    }

    #[track_caller]
    #[allow(clippy::needless_pass_by_value, reason = "most callers have just made them")]
    fn same<T: Debug + PartialEq>(&self, found: T, expected: T) {
        assert!(found == expected, "found {found:?}, expected {expected:?}, after\n{}", self.log.join("\n"));
    }

    /// As [`Run::same`], of texts that may be long.
    #[track_caller]
    #[allow(clippy::needless_pass_by_value, reason = "callers have just read it")]
    fn same_text(&self, found: Outcome<Vec<u8>>, expected: Outcome<&[u8]>) {
        let short =
            |text: &[u8]| (text.len(), String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned());
        let found = found.as_deref().map_err(|errno| *errno);
        if found != expected {
            self.same(found.map(short), expected.map(short));
            panic!("the texts differ after 60 bytes");
        }
    }

    fn name(&mut self) -> String {
        match self.random.below(12) {
            0 | 1 => SWAP.to_owned(),
            2 => format!("{}~", self.random.of(&KEYS)),
            _ => self.random.of(&KEYS).to_owned(),
        }
    }

    fn handle(&mut self) -> Option<(Fd, usize)> {
        if self.open.is_empty() { None } else { Some(self.open[self.random.below(self.open.len())]) }
    }

    fn writer(&mut self) -> Option<(Fd, usize)> {
        self.handle().filter(|(_, handle)| self.model.can_write(*handle))
    }

    fn step(&mut self) {
        match self.random.below(26) {
            0..6 => self.open_one(),
            6..11 => self.write(),
            11..15 => self.close_one(),
            15 => self.truncate_open(),
            16 => self.truncate_by_name(),
            17..19 => self.sync(),
            19 => self.unlink(),
            20..22 => self.rename(),
            22..24 => self.save_through_a_temporary_file(),
            24 => self.save_with_a_backup(),
            _ => self.look(),
        }
        self.check();
    }

    fn open_one(&mut self) {
        if self.open.len() == OPEN {
            return;
        }
        let name = self.name();
        let mut flags = self.random.of(&[O_RDONLY, O_RDONLY, O_RDWR, O_RDWR]);
        for flag in [O_CREAT, O_APPEND] {
            flags |= if self.random.one_in(2) { flag } else { 0 };
        }
        flags |= if self.random.one_in(8) { O_CREAT | O_EXCL } else { 0 };
        if flags & O_RDWR != 0 && self.random.one_in(2) {
            flags |= O_TRUNC;
        }
        if name.ends_with('~') {
            // What is renamed to a backup name still is what its readers have open.
            flags = O_RDONLY;
        }
        self.log.push(format!("open {name:?} {flags:o}"));
        let (found, expected) = (self.door.open(&name, flags), self.model.open(&name, flags));
        self.same(found.err(), expected.err());
        if let (Ok(fd), Ok(handle)) = (found, expected) {
            self.open.push((fd, handle));
            self.log.push(format!("    is {fd:?}"));
        }
    }

    fn write(&mut self) {
        let Some((fd, handle)) = self.writer() else { return };
        let length = self.model.contents(handle).unwrap().len();
        let at = match self.random.below(40) {
            0 => 10_000,
            1..8 => self.random.below(length + 3),
            _ => length,
        };
        let piece = self.random.of(&PIECES).as_bytes();
        self.log.push(format!("write {fd:?} at {at} {:?}", String::from_utf8_lossy(piece)));
        let found = self.door.pwrite(fd, at as u64, piece);
        let expected = self.model.write(handle, at, piece);
        self.same(found, expected);
    }

    fn close_one(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let at = self.random.below(self.open.len());
        let (fd, handle) = self.open.swap_remove(at);
        self.log.push(format!("close {fd:?}"));
        let (found, expected) = (self.door.close(fd), self.model.close(handle));
        self.same(found, expected);
    }

    fn truncate_open(&mut self) {
        let Some((fd, handle)) = self.writer() else { return };
        let size = self.random.of(&[0, 0, 1, 3, 9, 10_000, 10_001]);
        self.log.push(format!("truncate {fd:?} {size}"));
        let (found, expected) = (self.door.ftruncate(fd, size as u64), self.model.ftruncate(handle, size));
        self.same(found, expected);
    }

    fn truncate_by_name(&mut self) {
        let (name, size) = (self.random.of(&KEYS), self.random.of(&[0, 2, 3, 5, 10_001]));
        self.log.push(format!("truncate {name:?} {size}"));
        let (found, expected) = (self.door.truncate(name, size as u64), self.model.truncate(name, size));
        self.same(found, expected);
    }

    fn sync(&mut self) {
        let Some((fd, handle)) = self.writer() else { return };
        self.log.push(format!("fsync {fd:?}"));
        let (found, expected) = (self.door.fsync(fd), self.model.sync(handle, true));
        self.same(found, expected);
    }

    fn unlink(&mut self) {
        let name = self.name();
        self.log.push(format!("unlink {name:?}"));
        let (found, expected) = (self.door.unlink(&name), self.model.unlink(&name));
        self.same(found, expected);
    }

    fn rename(&mut self) {
        let (from, to, no_replace) = (self.name(), self.random.of(&KEYS), self.random.one_in(3));
        self.log.push(format!("rename {from:?} {to:?} {no_replace}"));
        let found = self.door.rename(&from, to, no_replace);
        let expected = self.model.rename(&from, to, no_replace);
        self.same(found, expected);
    }

    /// As `sed -i`, rsync and many libraries do.
    fn save_through_a_temporary_file(&mut self) {
        let (name, text) = (self.random.of(&KEYS), self.random.of(&DOCUMENTS));
        self.log.push(format!("save {name:?} {text:?} through a temporary file"));
        let saved = self.door.save_with("s.tmp", O_CREAT | O_EXCL, text);
        self.same(saved, Ok(()));
        let renamed = self.door.rename("s.tmp", name, false);
        self.same(renamed, Ok(()));
        self.model.replace_by_rename(name, text.as_bytes());
    }

    /// As vim does.
    fn save_with_a_backup(&mut self) {
        let (name, text) = (self.random.of(&KEYS), self.random.of(&DOCUMENTS));
        if !self.model.is_key(name) {
            return;
        }
        let backup = format!("{name}~");
        self.log.push(format!("save {name:?} {text:?} with a backup"));
        let renamed = self.door.rename(name, &backup, false);
        self.same(renamed, Ok(()));
        let saved = self.door.save_with(name, O_CREAT | O_TRUNC, text);
        self.same(saved, Ok(()));
        self.model.replace_with_backup(name, text.as_bytes(), &backup);
    }

    fn look(&mut self) {
        self.log.push("list".to_owned());
        self.same(self.door.list(), Ok(self.model.names()));
        let name = self.name();
        let found = self.door.load(&name);
        match self.model.text(&name) {
            Ok(Some(text)) => self.same_text(found, Ok(text)),
            Ok(None) => self.same(found.map(drop), Ok(())),
            Err(errno) => self.same(found, Err(errno)),
        }
    }

    /// Everything that is open, and one name.
    fn check(&mut self) {
        for (fd, handle) in &self.open {
            if let Some(text) = self.model.contents(*handle) {
                self.same_text(self.door.contents(*fd), Ok(text));
                self.same(self.door.fstat(*fd).map(|stat| stat.size), Ok(text.len() as u64));
            }
        }
        let name = self.name();
        let found = self.door.stat(&name).map(|stat| stat.size);
        match self.model.text(&name) {
            Ok(Some(text)) => self.same(found, Ok(text.len() as u64)),
            Ok(None) => self.same(found.map(drop), Ok(())),
            Err(errno) => self.same(found, Err(errno)),
        }
    }

    fn finish(mut self) {
        while !self.open.is_empty() {
            self.close_one();
        }
        self.same(self.door.list().unwrap(), self.model.names());
        for (name, text) in self.model.stored() {
            self.same_text(self.door.load(&name), Ok(&text));
        }
        let stored = self.door.store().unwrap().all();
        self.same(stored == self.model.stored(), true);
    }
}

fn number_from(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// `operations` in all, with a fresh directory after every few hundred.
fn run(json: bool, operations: u64, mut between: impl FnMut(&mut dyn FnMut(&dyn Door, &dyn Fn()))) {
    let operations = number_from("KVFS_OPS").unwrap_or(operations);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let mut seed = number_from("KVFS_SEED").unwrap_or_else(|| u64::try_from(now).unwrap());
    let mut left = operations;
    while left > 0 {
        let length = left.min(400);
        eprintln!("KVFS_SEED={seed} KVFS_OPS={length}");
        between(&mut |door, forget| {
            let mut run = Run::new(door, json, seed);
            for _ in 0..length {
                run.step();
                if run.random.one_in(20) {
                    forget();
                }
            }
            run.finish();
        });
        left -= length;
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    }
}

fn in_process(validate: Validate) {
    run(validate == Validate::Json, 12_000, |go| {
        let door = InProcess::new(validate);
        go(&door, &|| door.drop_caches());
    });
}

fn on_a_mount(validate: &str) {
    if common::can_mount() {
        run(validate == "json", 1_600, |go| go(&Mounted::sqlite(&["--validate", validate]), &|| ()));
    }
}

#[test]
fn documents_without_a_kernel_follow_the_rules() {
    in_process(Validate::Json);
}

#[test]
fn bytes_without_a_kernel_follow_the_rules() {
    in_process(Validate::None);
}

#[test]
fn documents_on_a_mount_follow_the_rules() {
    on_a_mount("json");
}

#[test]
fn bytes_on_a_mount_follow_the_rules() {
    on_a_mount("none");
}
