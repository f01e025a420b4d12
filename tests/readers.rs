//! Readers beside writers: nobody reads anything but a whole text that was the key's value, or was just becoming it.
//!
//! Each cell of the table is a crowd of processes: readers of six kinds beside one or two writers, on a store, by a way to the key.
//! `KVFS_READS` is how often each reader reads, `KVFS_READERS_TABLE` a file to which a line of counts is appended for each.
#![allow(missing_docs, clippy::unwrap_used)]

mod board;
mod crowd;
mod document;
mod place;
mod reading;
mod tally;
mod writing;

use std::fs::File;
use std::io::Write as _;

use crate::common::can_mount;
use place::{Behind, Place, Way};
use tally::Tally;
use writing::Writer::{self, Append, Create, Elsewhere, InPlace, Rename, Truncate, Unlink};

/// A writer of each kind.
const ONE: [&[Writer]; 4] = [&[Truncate], &[InPlace], &[Append], &[Create]];

const TWO: [&[Writer]; 4] =
    [&[Truncate, Truncate], &[Truncate, InPlace], &[Append, Create], &[InPlace, InPlace]];

const BESIDE_RENAMES: [&[Writer]; 4] =
    [&[Truncate, Rename], &[InPlace, Rename], &[Append, Rename], &[Create, Rename]];

const BESIDE_REMOVALS: [&[Writer]; 4] =
    [&[Truncate, Unlink], &[InPlace, Unlink], &[Append, Unlink], &[Create, Unlink]];

const BESIDE_CHANGES_ELSEWHERE: [&[Writer]; 4] =
    [&[Truncate, Elsewhere], &[InPlace, Elsewhere], &[Append, Elsewhere], &[Create, Elsewhere]];

/// A crowd on each of these sets of writers.
#[track_caller]
fn nothing_wrong_is_read(behind: Behind, way: Way, sets: &[&[Writer]]) {
    if !can_mount() {
        return;
    }
    let Some(place) = Place::new(behind, way) else { return };
    let reads = std::env::var("KVFS_READS").map_or(150, |reads| reads.parse().unwrap());
    let mut wrong = Vec::new();
    for writers in sets {
        let tallies = crowd::meet(&place, writers, reads);
        let (cell, sum) = (format!("{behind:?}, {way:?}, {writers:?}"), Tally::sum(&tallies));
        for (who, tally) in &tallies {
            eprintln!("{cell}: {who}:{tally}");
        }
        note(&format!("{cell}:{sum}\n"));
        if sum.has_fault() {
            wrong.push(cell);
        }
    }
    assert!(wrong.is_empty(), "wrong: {wrong:#?}");
}

/// Appends a line to the table that is asked for.
fn note(line: &str) {
    if let Some(path) = std::env::var_os("KVFS_READERS_TABLE") {
        File::options().append(true).create(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
    }
}

#[test]
#[ignore = "a process of a crowd, started by the tests below"]
fn member_of_a_crowd() {
    crowd::member();
}

/// A test for each way to a store, beside these sets of writers.
macro_rules! crowds {
    ($($store:ident $behind:ident { $($(#[$mark:meta])? $case:ident: $way:ident, $sets:ident;)+ })+) => {
        $(mod $store {
            use super::*;

            $(#[test]
            $(#[$mark])?
            fn $case() {
                nothing_wrong_is_read(Behind::$behind, Way::$way, &$sets);
            })+
        })+
    };
}

crowds! {
    on_memory Memory {
        by_name: Name, ONE;
        by_name_beside_another_writer: Name, TWO;
        #[ignore = "who waits for his turn for long is served past the page cache"]
        by_a_bind_mount: Bind, ONE;
        #[ignore = "who waits for his turn for long is served past the page cache"]
        by_a_bind_mount_beside_another_writer: Bind, TWO;
        from_below_its_pid_namespace: Below, ONE;
        from_below_its_pid_namespace_beside_another_writer: Below, TWO;
        from_above_its_pid_namespace: Above, ONE;
        #[ignore = "on a busy machine who is sent to look again may come back too late to be known for that"]
        from_above_its_pid_namespace_beside_another_writer: Above, TWO;
        beside_renames: Name, BESIDE_RENAMES;
        #[ignore = "who waits for his turn for long is served past the page cache"]
        by_a_bind_mount_beside_renames: Bind, BESIDE_RENAMES;
        from_above_its_pid_namespace_beside_renames: Above, BESIDE_RENAMES;
        #[ignore = "a new file may be gone twice before it is opened"]
        beside_removals: Name, BESIDE_REMOVALS;
        #[ignore = "a new file may be gone twice before it is opened"]
        from_above_its_pid_namespace_beside_removals: Above, BESIDE_REMOVALS;
    }
    on_sqlite Sqlite {
        #[ignore = "takes long"]
        by_name: Name, ONE;
        #[ignore = "takes long"]
        by_name_beside_another_writer: Name, TWO;
        #[ignore = "takes long"]
        by_a_bind_mount: Bind, ONE;
        #[ignore = "takes long"]
        by_a_bind_mount_beside_another_writer: Bind, TWO;
        #[ignore = "takes long"]
        from_above_its_pid_namespace: Above, ONE;
        #[ignore = "takes long"]
        from_above_its_pid_namespace_beside_another_writer: Above, TWO;
        #[ignore = "takes long"]
        beside_renames: Name, BESIDE_RENAMES;
        #[ignore = "takes long"]
        beside_removals: Name, BESIDE_REMOVALS;
        #[ignore = "takes long"]
        beside_changes_elsewhere: Name, BESIDE_CHANGES_ELSEWHERE;
        #[ignore = "takes long"]
        by_a_bind_mount_beside_changes_elsewhere: Bind, BESIDE_CHANGES_ELSEWHERE;
    }
    on_etcd Etcd {
        #[ignore = "takes long"]
        by_name: Name, ONE;
        #[ignore = "takes long"]
        by_name_beside_another_writer: Name, TWO;
        #[ignore = "takes long"]
        by_a_bind_mount: Bind, ONE;
        #[ignore = "takes long"]
        by_a_bind_mount_beside_another_writer: Bind, TWO;
        #[ignore = "takes long"]
        from_above_its_pid_namespace: Above, ONE;
        #[ignore = "takes long"]
        from_above_its_pid_namespace_beside_another_writer: Above, TWO;
        #[ignore = "takes long"]
        beside_renames: Name, BESIDE_RENAMES;
        #[ignore = "takes long"]
        beside_removals: Name, BESIDE_REMOVALS;
        #[ignore = "takes long"]
        beside_changes_elsewhere: Name, BESIDE_CHANGES_ELSEWHERE;
    }
}
