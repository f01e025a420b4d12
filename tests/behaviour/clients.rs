//! Another client of the same store: what it sees of the files, and what the files show of it.
//!
//! The API of `prefect-cloud` cannot compare and set: a change that must not overtake another is checked just before it
//! is made (rule 10). Here the other change is always complete by then, so that nothing may be lost there either.

use libc::{EEXIST, EINVAL, ENOENT, ESTALE, O_APPEND, O_CREAT, O_EXCL, O_RDWR, O_TRUNC, O_WRONLY};

use super::door::Door;
use super::{eventually, stored_is};

pub(super) fn another_clients_set_is_seen_by_the_next_open(door: &dyn Door) {
    let client = door.store().unwrap();
    door.save("k", "[1]").unwrap();
    let reader = door.reader("k");
    client.set("k", "[1,2,3]");
    client.set("new", "true");
    let (k, new) = (client.shown("[1,2,3]"), client.shown("true"));
    eventually(|| door.text("k") == k);
    eventually(|| door.stat("new").is_ok_and(|stat| stat.size == new.len() as u64));
    eventually(|| door.list().unwrap() == ["k", "new"]);
    assert_eq!(door.stat("k").unwrap().size, k.len() as u64);
    assert_eq!(door.contents(reader).unwrap(), b"[1]");
    assert_eq!(door.close(reader), Ok(()));
    assert_eq!(door.text("k"), k);
}

pub(super) fn another_clients_delete_is_seen_by_the_next_open(door: &dyn Door) {
    let client = door.store().unwrap();
    door.save("k", "[1]").unwrap();
    let reader = door.reader("k");
    client.delete("k");
    eventually(|| door.stat("k") == Err(ENOENT));
    eventually(|| door.list().unwrap().is_empty());
    assert_eq!(door.contents(reader).unwrap(), b"[1]");
    assert_eq!(door.close(reader), Ok(()));
    assert_eq!(door.save_with("k", O_CREAT | O_EXCL, "[2]"), Ok(()));
    stored_is(door, "k", Some("[2]"));
}

pub(super) fn a_change_of_a_key_that_another_client_set_is_stale(door: &dyn Door) {
    let client = door.store().unwrap();
    door.save("k", "[1]").unwrap();
    let fd = door.open("k", O_RDWR).unwrap();
    client.set("k", "[5]");
    assert_eq!(door.pwrite(fd, 1, b"3"), Ok(1));
    assert_eq!(door.close(fd), Err(ESTALE));
    stored_is(door, "k", Some("[5]"));
    eventually(|| door.text("k") == client.shown("[5]"));
    eventually(|| door.rejected() == [b"[3]"]);
}

pub(super) fn a_change_of_a_key_that_another_client_deleted_is_stale(door: &dyn Door) {
    let client = door.store().unwrap();
    door.save("k", "[1]").unwrap();
    let fd = door.open("k", O_RDWR).unwrap();
    client.delete("k");
    eventually(|| door.stat("k") == Err(ENOENT));
    assert_eq!(door.pwrite(fd, 1, b"3"), Ok(1));
    assert_eq!(door.close(fd), Err(ESTALE));
    stored_is(door, "k", None);
    eventually(|| door.rejected().contains(&b"[3]".to_vec()));
}

pub(super) fn a_truncating_writer_overwrites_another_clients_set(door: &dyn Door) {
    let client = door.store().unwrap();
    door.save("k", "[1]").unwrap();
    let fd = door.open("k", O_WRONLY | O_TRUNC).unwrap();
    client.set("k", "[5]");
    eventually(|| door.text("k") == client.shown("[5]"));
    door.write_all(fd, b"[3]").unwrap();
    assert_eq!(door.close(fd), Ok(()));
    stored_is(door, "k", Some("[3]"));
    assert_eq!(door.text("k"), "[3]");
}

pub(super) fn an_exclusive_create_loses_against_another_client(door: &dyn Door) {
    let client = door.store().unwrap();
    let fd = door.open("k", O_WRONLY | O_CREAT | O_EXCL).unwrap();
    client.set("k", "[5]");
    assert_eq!(door.write(fd, b"[3]"), Err(EEXIST));
    assert_eq!(door.close(fd), Err(EEXIST));
    stored_is(door, "k", Some("[5]"));
    eventually(|| door.text("k") == client.shown("[5]"));
    eventually(|| door.rejected() == [b"[3]"]);
}

pub(super) fn a_new_file_that_is_still_empty_gives_way_to_another_clients_key(door: &dyn Door) {
    let client = door.store().unwrap();
    door.save_with("k", O_CREAT, "").unwrap();
    client.set("k", "[5]");
    eventually(|| door.text("k") == client.shown("[5]"));
    assert_eq!(door.list().unwrap(), ["k"]);
}

pub(super) fn a_temporary_file_that_stays_becomes_a_key(door: &dyn Door) {
    let client = door.store().unwrap();
    door.save_with("sedatives", O_CREAT | O_EXCL, "[1]").unwrap();
    door.save_with("tmp12345678", O_CREAT | O_EXCL, "no JSON").unwrap();
    stored_is(door, "sedatives", None);
    eventually(|| client.get("sedatives").is_some());
    assert_eq!(door.text("sedatives"), "[1]");
    stored_is(door, "tmp12345678", None);
    assert_eq!(door.text("tmp12345678"), "no JSON");
}

pub(super) fn a_key_with_a_temporary_name_is_a_key(door: &dyn Door) {
    let client = door.store().unwrap();
    client.set("sedatives", "1");
    eventually(|| door.list().unwrap() == ["sedatives"]);
    assert_eq!(door.save("sedatives", "[1]"), Ok(()));
    stored_is(door, "sedatives", Some("[1]"));
    assert_eq!(door.save("sedatives", "no JSON"), Err(EINVAL));
}

pub(super) fn a_key_set_while_an_empty_file_is_held_open_is_shown_afterwards(door: &dyn Door) {
    let client = door.store().unwrap();
    let holder = door.open("k", O_WRONLY | O_CREAT).unwrap();
    client.set("k", "[1]");
    client.set("after", "[2]");
    eventually(|| door.stat("after").is_ok());
    assert_eq!(door.close(holder), Ok(()));
    eventually(|| door.load("k").is_ok_and(|text| text == client.shown("[1]").as_bytes()));
}

pub(super) fn text_appended_to_a_new_file_does_not_replace_another_clients_key(door: &dyn Door) {
    let client = door.store().unwrap();
    let fd = door.open("k", O_WRONLY | O_CREAT | O_APPEND).unwrap();
    door.write_all(fd, b"[1").unwrap();
    client.set("k", "[2]");
    assert_eq!(door.write(fd, b"]"), Err(ESTALE));
    assert_eq!(door.close(fd), Err(ESTALE));
    stored_is(door, "k", Some("[2]"));
    eventually(|| door.rejected() == [b"[1]"]);
    eventually(|| door.load("k").is_ok_and(|text| text == client.shown("[2]").as_bytes()));
}

pub(super) fn a_rename_that_must_not_replace_loses_against_another_client(door: &dyn Door) {
    let client = door.store().unwrap();
    for round in 0..10 {
        let lock = format!("lock{round}");
        assert_eq!(door.stat(&lock), Err(ENOENT));
        door.save("x", "[1]").unwrap();
        client.set(&lock, "[2]");
        assert_eq!(door.rename("x", &lock, true), Err(EEXIST));
        stored_is(door, &lock, Some("[2]"));
        door.unlink("x").unwrap();
    }
}

pub(super) fn a_renamed_key_shows_what_another_client_set_just_before(door: &dyn Door) {
    let client = door.store().unwrap();
    for round in 0..10 {
        let (from, to) = (format!("from{round}"), format!("to{round}"));
        door.save(&from, "[1]").unwrap();
        assert_eq!(door.text(&from), "[1]");
        client.set(&from, "[2]");
        assert_eq!(door.rename(&from, &to, false), Ok(()));
        stored_is(door, &to, Some("[2]"));
        assert_eq!(door.text(&to), client.shown("[2]"));
    }
}
