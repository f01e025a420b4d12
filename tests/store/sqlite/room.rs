//! Operations that need no space work on a full disk.

use std::path::Path;

use kvfs::store::{Error, Expect};
use tempfile::TempDir;

use super::full::{SMALL_DISK, fill, has_exactly, set_until_full, value};
use super::{create, open, try_open};
use crate::store::process;
use crate::suite::{Bench, block_on};

/// The blocks of this disk are smaller than the pages of memory.
pub(super) const SMALL_BLOCKS: &str = "
    truncate -s 2M \"$D/image\"; mkfs.ext4 -q -b 1024 -m 0 -O ^has_journal \"$D/image\"; mkdir \"$D/disk\"
    mount -o loop \"$D/image\" \"$D/disk\"; mount --move \"$D/disk\" \"$D\"";

/// Renames and deletes all keys, sets others, and does it again.
async fn use_without_room(at: &Bench, directory: &Path) {
    let mut kept = set_until_full(at, directory, 0).await;
    fill(&directory.join("last"));
    for round in 0..3 {
        for number in 0..kept {
            at.rename(&format!("{number:05}"), &format!("moved{number}")).await.unwrap();
        }
        for number in 0..kept {
            at.delete(&format!("moved{number}")).await.unwrap();
        }
        has_exactly(at, 0..0).await;
        let again = set_until_full(at, directory, 0).await;
        assert!(again > kept / 2, "{again} of {kept} in round {round}");
        kept = again;
        has_exactly(at, 0..kept).await;
    }
}

#[test]
fn a_full_disk_is_used_over_and_over() {
    const TEST: &str = "sqlite::room::a_full_disk_is_used_over_and_over";
    let Some(directory) = process::given() else {
        return process::in_private_mounts(SMALL_DISK, TEST, TempDir::new().unwrap().path());
    };
    let at = open(&directory.join("kv.db"));
    block_on(use_without_room(&at, &directory));
}

#[test]
fn a_full_disk_of_small_blocks_is_used_over_and_over() {
    const TEST: &str = "sqlite::room::a_full_disk_of_small_blocks_is_used_over_and_over";
    let Some(directory) = process::given() else {
        return process::in_private_mounts(SMALL_BLOCKS, TEST, TempDir::new().unwrap().path());
    };
    let at = open(&directory.join("kv.db"));
    block_on(use_without_room(&at, &directory));
}

#[test]
fn deletes_that_are_committed_with_sets_without_room_are_done() {
    const TEST: &str = "sqlite::room::deletes_that_are_committed_with_sets_without_room_are_done";
    let Some(directory) = process::given() else {
        return process::in_private_mounts(SMALL_DISK, TEST, TempDir::new().unwrap().path());
    };
    let at = open(&directory.join("kv.db"));
    block_on(async {
        for number in 0..20 {
            at.set(&format!("{number}"), "1").await;
        }
        fill(&directory.join("ballast"));
        let mut sets = tokio::task::JoinSet::new();
        let mut deletes = tokio::task::JoinSet::new();
        for number in 0..20 {
            let (set, delete) = (at.clone(), at.clone());
            sets.spawn(
                async move { set.try_set(&format!("new{number}"), value(number), Expect::Anything).await },
            );
            deletes.spawn(async move { delete.delete(&format!("{number}")).await });
        }
        for result in deletes.join_all().await {
            result.unwrap();
        }
        for result in sets.join_all().await {
            assert!(matches!(result, Ok(_) | Err(Error::NoSpace(_))), "{result:?}");
        }
    });
}

#[test]
fn the_space_of_the_disk_is_told() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    create(&path, b"1");
    let told = kvfs::store::Store::space(&try_open(&path).unwrap()).unwrap();
    let disk = kvfs::store::disk_space(home.path()).unwrap();
    assert_eq!(told.total, disk.total);
    assert!(told.available <= told.free && told.free <= told.total);
}
