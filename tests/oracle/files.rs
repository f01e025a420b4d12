//! Sequences on one open file: every combination of flags, on a file that exists and on one that does not.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use libc::{O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, SEEK_CUR, SEEK_END, SEEK_SET};

use super::common::{PATIENCE, wait_for};
use super::sys::{allocate, close, open, seek, told, truncate, truncate_path};

/// What is in the file before, and what is written.
pub(super) struct Texts {
    pub(super) old: &'static str,
    pub(super) new: &'static str,
    pub(super) byte: &'static str,
}

/// How the file is opened.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "one for each flag")]
pub(super) struct Open {
    access: i32,
    create: bool,
    exclusive: bool,
    truncate: bool,
    append: bool,
    exists: bool,
}

/// What a sequence has at hand.
pub(super) struct Hands<'a> {
    pub(super) dir: &'a Path,
    pub(super) file: &'a mut File,
    pub(super) texts: &'a Texts,
}

/// One sequence of calls; the answers in words.
pub(super) type Work = fn(&mut Hands) -> Vec<String>;

impl Open {
    /// Every combination.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        [O_RDONLY, O_WRONLY, O_RDWR].into_iter().flat_map(|access| {
            (0..32).map(move |bits: u32| {
                let bit = |at: u32| bits >> at & 1 == 1;
                let (create, exclusive, truncate) = (bit(0), bit(1), bit(2));
                Self { access, create, exclusive, truncate, append: bit(3), exists: bit(4) }
            })
        })
    }

    fn all_flags(&self) -> i32 {
        let set = |on: bool, flag: i32| if on { flag } else { 0 };
        self.access
            | set(self.create, O_CREAT)
            | set(self.exclusive, O_EXCL)
            | set(self.truncate, O_TRUNC)
            | set(self.append, O_APPEND)
    }

    /// Runs `work` in `dir` on the file `f`: the answers, then what is left. Leaves nothing behind.
    pub(super) fn run(self, dir: &Path, texts: &Texts, work: Work) -> Vec<String> {
        let path = dir.join("f");
        if self.exists {
            fs::write(&path, texts.old).unwrap();
        }
        let mut log = Vec::new();
        match open(&path, self.all_flags()) {
            Ok(mut file) => {
                log.extend(work(&mut Hands { dir, file: &mut file, texts }));
                log.push(format!("size {}", told(file.metadata().map(|meta| meta.len()))));
                let closed = close(file);
                if closed.is_err() {
                    // The kernel lets go of the file after close(2) has returned.
                    wait_for(PATIENCE, || {
                        let text = fs::read_to_string(&path).or_else(|_| fs::read_to_string(dir.join("g")));
                        let stays =
                            |text: String| ["", texts.old.trim_end(), texts.new].contains(&text.trim_end());
                        text.is_err() || text.is_ok_and(stays)
                    });
                }
                log.push(format!("close {}", told(closed)));
            }
            Err(error) => log.push(format!("open {}", told::<()>(Err(error)))),
        }
        for name in ["f", "g"] {
            let path = dir.join(name);
            log.push(format!("{name} {}", told(fs::metadata(&path).map(|meta| meta.len()))));
            log.push(format!(
                "{name}={}",
                told(fs::read(&path).map(|text| String::from_utf8_lossy(&text).into_owned()))
            ));
        }
        super::clear(dir);
        log
    }
}

/// The text that is left in `f`, or else in `g`.
pub(super) fn value(log: &[String]) -> Option<String> {
    let text = |name: &str| {
        let line = log.iter().find_map(|line| line.strip_prefix(name))?;
        serde_json::from_str(&line.replace("\\0", "\\u0000")).ok()
    };
    text("f=").or_else(|| text("g="))
}

/// What is said of an fsync(2) that succeeds after a write.
const SYNCED: &str = "synced";

/// Whether a mount failed to refuse `text`, which is no document.
pub(super) fn refused(open: Open, texts: &Texts, text: &str, found: &[String]) -> bool {
    let left = value(found);
    if text.is_empty() && !open.exists {
        // A new file without content: there, and local.
        return left.as_deref() != Some("");
    }
    // A new file of which nothing but such a text was written is gone. What was synced before it stays.
    let synced = found.iter().any(|line| line == SYNCED);
    let kept = open.exists.then_some(if synced { texts.new } else { texts.old });
    left.as_deref().map(str::trim_end) != kept || !found.iter().any(|line| line.contains("EINVAL"))
}

fn all_of(hands: &Hands) -> String {
    let mut buffer = [0; 64];
    told(
        hands
            .file
            .read_at(&mut buffer, 0)
            .map(|count| String::from_utf8_lossy(&buffer[..count]).into_owned()),
    )
}

fn write(hands: &mut Hands, text: &str) -> String {
    told(hands.file.write(text.as_bytes()))
}

/// By name. What passes the limit says so.
pub(super) const WORKS: &[(&str, Work)] = &[
    ("nothing", |_| Vec::new()),
    ("write", |at| vec![write(at, at.texts.new), all_of(at)]),
    ("two writes", |at| vec![write(at, at.texts.new), write(at, " \n"), all_of(at)]),
    ("an empty write", |at| vec![write(at, ""), all_of(at)]),
    ("write at 1", |at| vec![told(at.file.write_at(at.texts.byte.as_bytes(), 1)), all_of(at)]),
    ("write at the end", |at| {
        let end = told(seek(at.file, 0, SEEK_END));
        vec![end, write(at, "\n"), told(seek(at.file, 0, SEEK_CUR)), all_of(at)]
    }),
    ("write past the end", |at| vec![told(at.file.write_at(at.texts.byte.as_bytes(), 20)), all_of(at)]),
    ("write, sync, write", |at| {
        let first = write(at, at.texts.new);
        let synced = at.file.sync_all().map_or_else(|error| told::<()>(Err(error)), |()| SYNCED.to_owned());
        vec![first, synced, write(at, "\n"), told(at.file.sync_data()), all_of(at)]
    }),
    ("read", |at| {
        let mut buffer = [0; 4];
        let first = told(at.file.read(&mut buffer).map(|count| buffer[..count].to_vec()));
        vec![first, told(seek(at.file, 0, SEEK_CUR)), told(at.file.read(&mut buffer))]
    }),
    ("read, then write", |at| {
        let mut buffer = [0; 1];
        vec![told(at.file.read(&mut buffer)), write(at, at.texts.byte), told(seek(at.file, 0, SEEK_CUR))]
    }),
    ("positions", |at| {
        let origins =
            [(3, SEEK_SET), (-1, SEEK_SET), (-2, SEEK_END), (-99, SEEK_END), (5, SEEK_CUR), (0, 99)];
        origins.iter().map(|(offset, origin)| told(seek(at.file, *offset, *origin))).collect()
    }),
    ("data and holes", |at| {
        let origins =
            [(0, libc::SEEK_DATA), (0, libc::SEEK_HOLE), (99, libc::SEEK_DATA), (99, libc::SEEK_HOLE)];
        origins.iter().map(|(offset, origin)| told(seek(at.file, *offset, *origin))).collect()
    }),
    ("cut to nothing", |at| vec![told(truncate(at.file, 0)), all_of(at)]),
    ("cut to nothing and write", |at| {
        let cut = told(truncate(at.file, 0));
        vec![cut, write(at, at.texts.new), all_of(at)]
    }),
    ("write and cut", |at| {
        let first = write(at, at.texts.new);
        vec![first, told(truncate(at.file, 3)), all_of(at)]
    }),
    ("cut to 2", |at| vec![told(truncate(at.file, 2)), all_of(at)]),
    ("grow to 30", |at| vec![told(truncate(at.file, 30)), all_of(at)]),
    ("a size below zero", |at| vec![told(truncate(at.file, -1)), all_of(at)]),
    // truncate(2) by name is a change by somebody else to who has the file open (rules 3 and 10): left out.
    ("cut by name below zero", |at| vec![told(truncate_path(&at.dir.join("f"), -1))]),
    ("reserve", |at| vec![told(allocate(at.file, 0, 0, 30)), all_of(at)]),
    ("reserve nothing", |at| vec![told(allocate(at.file, 0, 0, 0)), told(allocate(at.file, 0, -1, 5))]),
    ("reserve and keep the size", |at| {
        vec![told(allocate(at.file, libc::FALLOC_FL_KEEP_SIZE, 0, 30)), all_of(at)]
    }),
    ("remove while open", |at| {
        let gone = told(fs::remove_file(at.dir.join("f")));
        vec![gone, write(at, at.texts.new), all_of(at), told(at.file.sync_all())]
    }),
    ("write and rename while open", |at| {
        let (f, g) = (at.dir.join("f"), at.dir.join("g"));
        vec![
            told(truncate(at.file, 0)),
            write(at, at.texts.new),
            told(at.file.sync_all()),
            told(fs::rename(f, g)),
        ]
    }),
    ("rename while open and write", |at| {
        let renamed = told(fs::rename(at.dir.join("f"), at.dir.join("g")));
        vec![renamed, told(truncate(at.file, 0)), write(at, at.texts.new), all_of(at)]
    }),
    ("write through a copy", |at| {
        let mut copy = at.file.try_clone().unwrap();
        let written = told(copy.write(at.texts.new.as_bytes()));
        vec![written, told(close(copy)), told(seek(at.file, 0, SEEK_CUR)), all_of(at)]
    }),
    ("over the limit by a write", |at| vec![write(at, &"x".repeat(10_002))]),
    ("over the limit by a write at 10,001", |at| vec![told(at.file.write_at(b"x", 10_001))]),
    ("over the limit by truncate", |at| vec![told(truncate(at.file, 10_001))]),
    ("over the limit by reserving", |at| vec![told(allocate(at.file, 0, 5_000, 5_001))]),
];
