//! The same system calls on a plain directory and on a mount: what they return and what is left must agree, but
//! for the differences that are listed here because a flat directory of values wants them.
#![allow(clippy::unwrap_used, missing_docs)]

mod files;
mod names;
mod sys;

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::common;
use common::{Mount, can_mount};
use files::{Open, Texts};

/// A directory that is what it looks like.
fn plain() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

/// Removes everything in `dir`, and an empty file of each name: what a process removes comes back where it makes the file anew and
/// is refused.
fn clear(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
            fs::File::create(&path).unwrap();
            fs::remove_file(&path).unwrap();
        }
    }
}

/// Panics with all `faults`, a line each.
#[track_caller]
fn none_of(faults: &[String]) {
    assert!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn open_files_behave_as_on_a_plain_directory_in_every_mode() {
    if !can_mount() {
        return;
    }
    let (plain, mount) = (plain(), Mount::memory(&["--validate", "none"]));
    let texts = Texts { old: "old text\n", new: "new", byte: "X" };
    let mut faults = Vec::new();
    for open in Open::all() {
        for (label, work) in files::WORKS {
            let expected = open.run(plain.path(), &texts, *work);
            let found = open.run(&mount.dir, &texts, *work);
            // Rule 5: 10,000 bytes are the limit, which no plain directory has.
            let wanted =
                label.starts_with("over the limit") && found.iter().any(|line| line.contains("EFBIG"));
            if expected != found && !wanted {
                faults.push(format!("{open:?}, {label}\n    plain {expected:?}\n    mount {found:?}"));
            }
        }
    }
    none_of(&faults);
}

#[test]
fn open_files_with_documents_behave_as_on_a_plain_directory() {
    if !can_mount() {
        return;
    }
    let (plain, mount) = (plain(), Mount::memory(&[]));
    let texts = Texts { old: "[1,2,3]", new: "[4]", byte: "9" };
    let mut faults = Vec::new();
    let mut agreed = 0;
    for open in Open::all() {
        for (label, work) in files::WORKS.iter().filter(|(label, _)| !label.starts_with("over the limit")) {
            let expected = open.run(plain.path(), &texts, *work);
            let found = open.run(&mount.dir, &texts, *work);
            let fault = match files::value(&expected) {
                // Rule 4: what is no document is refused, aloud, and the old value stays.
                Some(text) if serde_json::from_slice::<serde_json::Value>(text.as_bytes()).is_err() => {
                    files::refused(open, &texts, &text, &found)
                }
                _ => {
                    agreed += 1;
                    expected != found
                }
            };
            if fault {
                faults.push(format!("{open:?}, {label}\n    plain {expected:?}\n    mount {found:?}"));
            }
        }
    }
    none_of(&faults);
    assert!(agreed > 500, "only {agreed} of the sequences leave a document");
}

#[test]
fn names_behave_as_on_a_plain_directory() {
    if !can_mount() {
        return;
    }
    for validate in ["none", "json"] {
        let (plain, mount) = (plain(), Mount::memory(&["--validate", validate]));
        let mut faults = Vec::new();
        for (label, work) in names::WORKS {
            let expected = names::run(plain.path(), *work);
            let found = names::run(&mount.dir, *work);
            let wanted = names::WANTED.iter().find(|wanted| wanted.label == *label);
            match wanted {
                None if expected != found => {
                    faults.push(format!("{label}\n    plain {expected:?}\n    mount {found:?}"));
                }
                Some(wanted)
                    if found.first().map(String::as_str) != Some(wanted.mount) || expected == found =>
                {
                    faults.push(format!("{label}: {:?} is wanted, not {found:?}", wanted.mount));
                }
                _ => {}
            }
        }
        none_of(&faults);
    }
}

#[test]
fn every_wanted_difference_is_about_a_case_that_is_run() {
    for wanted in names::WANTED {
        assert!(names::WORKS.iter().any(|(label, _)| *label == wanted.label), "{}", wanted.label);
    }
}
