//! The same random operations on a mount and on a local directory: the same errors, the same tree. `KVFS_OPS` says how
//! many, `KVFS_SEED` repeats a run.

use std::fs;
use std::path::{Path, PathBuf};

use super::common::{Mount, can_mount, errno};

/// A small generator of numbers that a seed repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn path(&mut self) -> PathBuf {
        let depth = 1 + self.below(3);
        (0..depth).map(|_| ["a", "b", "c"][self.below(3)]).collect()
    }
}

#[derive(Debug)]
enum Op {
    MakeDirectory(PathBuf),
    Write(PathBuf, u32),
    CreateNew(PathBuf, u32),
    Read(PathBuf),
    RemoveFile(PathBuf),
    RemoveDirectory(PathBuf),
    Rename(PathBuf, PathBuf),
    RemoveAll(PathBuf),
    Stat(PathBuf),
}

impl Op {
    fn random(random: &mut Random) -> Self {
        let (path, other, text) = (random.path(), random.path(), random.below(1000) as u32);
        match random.below(20) {
            0..4 => Self::MakeDirectory(path),
            4..8 => Self::Write(path, text),
            8 => Self::CreateNew(path, text),
            9..11 => Self::Read(path),
            11..13 => Self::RemoveFile(path),
            13..15 => Self::RemoveDirectory(path),
            15..18 => Self::Rename(path, other),
            18 => Self::RemoveAll(path),
            _ => Self::Stat(path),
        }
    }

    /// What comes of it below `root`, in words.
    fn run(&self, root: &Path) -> String {
        let done = |result: std::io::Result<()>| errno(result).to_string();
        match self {
            Self::MakeDirectory(path) => done(fs::create_dir(root.join(path))),
            Self::Write(path, text) => done(fs::write(root.join(path), format!("{text}\n"))),
            Self::CreateNew(path, text) => {
                done(fs::File::create_new(root.join(path)).and_then(|mut file| {
                    std::io::Write::write_all(&mut file, format!("{text}\n").as_bytes())
                }))
            }
            Self::Read(path) => fs::read_to_string(root.join(path))
                .unwrap_or_else(|error| error.raw_os_error().unwrap_or(0).to_string()),
            Self::RemoveFile(path) => done(fs::remove_file(root.join(path))),
            Self::RemoveDirectory(path) => done(fs::remove_dir(root.join(path))),
            Self::Rename(from, to) => done(fs::rename(root.join(from), root.join(to))),
            Self::RemoveAll(path) => done(fs::remove_dir_all(root.join(path))),
            Self::Stat(path) => match fs::metadata(root.join(path)) {
                Ok(meta) if meta.is_dir() => "directory".into(),
                Ok(meta) => format!("file of {}", meta.len()),
                Err(error) => error.raw_os_error().unwrap_or(0).to_string(),
            },
        }
    }
}

fn tree(root: &Path) -> Vec<(String, String)> {
    let text = |path: &String| fs::read_to_string(root.join(path)).unwrap_or_default();
    super::walk(root).into_iter().map(|path| (path.clone(), text(&path))).collect()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

#[test]
fn a_tree_is_what_a_local_tree_is() {
    if !can_mount() {
        return;
    }
    let (seeds, ops) = match number("KVFS_SEED") {
        Some(seed) => (seed..=seed, number("KVFS_OPS").unwrap_or(1_000)),
        None => (1..=4, number("KVFS_OPS").unwrap_or(1_000)),
    };
    for seed in seeds {
        let (mount, local) = (Mount::memory(&["--separator", "/"]), tempfile::TempDir::new().unwrap());
        let (mut random, mut past) = (Random(seed), Vec::new());
        for step in 0..ops {
            let op = Op::random(&mut random);
            let (here, there) = (op.run(&mount.dir), op.run(local.path()));
            past.push(format!("{op:?} -> {here}"));
            let last = &past[past.len().saturating_sub(12)..];
            assert_eq!(here, there, "KVFS_SEED={seed}, step {step}: {op:?} after {last:#?}");
            if step % 10 == 0 {
                assert_eq!(tree(&mount.dir), tree(local.path()), "KVFS_SEED={seed}, step {step}: {last:#?}");
            }
        }
    }
}
