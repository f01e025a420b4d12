//! The index of the log is memory that a file backs: the file may be cut, or its disk full. Either ended the process.

use std::fs;
use std::path::Path;
use std::process::Command;

use kvfs::store::{Error, Expect};
use tempfile::TempDir;

use super::full::{fill, value};
use super::room::SMALL_BLOCKS;
use super::{create, open, raw};
use crate::store::process;
use crate::suite::block_on;

/// By another process: closing the file here would end the locks that this one has on it.
fn cut(database: &Path) {
    let index = database.with_extension("db-shm");
    assert!(Command::new("truncate").args(["-s", "0"]).arg(index).status().unwrap().success());
}

#[test]
fn an_index_that_is_cut_is_made_anew_and_nothing_is_lost() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let (at, elsewhere) = (open(&path), open(&path));
    block_on(async {
        for number in 0..50 {
            cut(&path);
            at.set(&format!("here{number}"), value(number)).await;
            cut(&path);
            assert_eq!(elsewhere.text(&format!("here{number}")).await, value(number));
            elsewhere.set("there", value(number)).await;
            cut(&path);
            assert_eq!(at.text("there").await, value(number));
        }
        assert_eq!(at.keys().await.len(), 51);
    });
    let state: String = raw(&path).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(state, "ok");
}

#[test]
fn a_database_on_a_full_disk_of_small_blocks_is_opened_and_used() {
    const TEST: &str = "sqlite::index::a_database_on_a_full_disk_of_small_blocks_is_opened_and_used";
    let Some(directory) = process::given() else {
        return process::in_private_mounts(SMALL_BLOCKS, TEST, TempDir::new().unwrap().path());
    };
    let path = directory.join("kv.db");
    create(&path, b"1");
    fill(&directory.join("ballast"));
    fill(&directory.join("last"));
    let at = open(&path);
    block_on(async {
        assert_eq!(at.text("k").await, b"1");
        let set = at.try_set("new", value(1), Expect::Anything).await;
        assert!(matches!(set, Err(Error::NoSpace(_))), "{set:?}");
        fs::remove_file(directory.join("ballast")).unwrap();
        at.set("new", value(1)).await;
        for number in 0..50 {
            at.set("k", value(number)).await;
        }
        fill(&directory.join("ballast"));
        for number in 0..50 {
            at.set("k", value(number)).await;
            assert_eq!(at.text("k").await, value(number));
        }
    });
}
