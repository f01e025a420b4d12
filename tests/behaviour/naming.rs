//! Removing and renaming, of closed and of open files.

use libc::{EEXIST, EINVAL, ENAMETOOLONG, ENOENT, O_CREAT, O_EXCL, O_RDWR, O_TRUNC, O_WRONLY};

use super::door::Door;
use super::stored_is;

pub(super) fn a_removed_key_is_gone(door: &dyn Door) {
    door.save("k", "1").unwrap();
    assert_eq!(door.unlink("k"), Ok(()));
    stored_is(door, "k", None);
    assert_eq!(door.stat("k"), Err(ENOENT));
    assert_eq!(door.unlink("k"), Err(ENOENT));
    assert!(door.list().unwrap().is_empty());
    assert_eq!(door.save_with("k", O_CREAT | O_EXCL, "2"), Ok(()));
    assert_eq!(door.text("k"), "2");
}

pub(super) fn a_writer_of_a_removed_key_publishes_nothing(door: &dyn Door) {
    door.save("k", "1").unwrap();
    let fd = door.open("k", O_RDWR | O_TRUNC).unwrap();
    door.write_all(fd, b"[2]").unwrap();
    assert_eq!(door.unlink("k"), Ok(()));
    assert_eq!(door.contents(fd).unwrap(), b"[2]");
    assert_eq!(door.fstat(fd).unwrap().links, 0);
    assert_eq!(door.fsync(fd), Ok(()));
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.stat("k"), Err(ENOENT));
    stored_is(door, "k", None);
}

pub(super) fn a_removed_new_file_goes_nowhere_and_the_name_is_free(door: &dyn Door) {
    let fd = door.open("k", O_RDWR | O_CREAT).unwrap();
    door.write_all(fd, b"[1]").unwrap();
    assert_eq!(door.unlink("k"), Ok(()));
    assert_eq!(door.save_with("k", O_CREAT | O_EXCL, "[2]"), Ok(()));
    assert_eq!(door.contents(fd).unwrap(), b"[1]");
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("k"), "[2]");
    stored_is(door, "k", Some("[2]"));
}

pub(super) fn a_removed_open_file_takes_any_bytes(door: &dyn Door) {
    let fd = door.open("k", O_RDWR | O_CREAT).unwrap();
    assert_eq!(door.unlink("k"), Ok(()));
    assert_eq!(door.write(fd, b"no JSON"), Ok(7));
    assert_eq!(door.contents(fd).unwrap(), b"no JSON");
    assert_eq!(door.close(fd), Ok(()));
    stored_is(door, "k", None);
}

pub(super) fn rename_replaces_and_takes_the_name_away(door: &dyn Door) {
    door.save("a", "\"a\"").unwrap();
    door.save("b", "\"b\"").unwrap();
    assert_eq!(door.rename("a", "b", false), Ok(()));
    assert_eq!(door.text("b"), "\"a\"");
    assert_eq!(door.stat("a"), Err(ENOENT));
    assert_eq!(door.list().unwrap(), ["b"]);
    stored_is(door, "a", None);
    stored_is(door, "b", Some("\"a\""));
    assert_eq!(door.rename("b", "c", false), Ok(()));
    assert_eq!(door.text("c"), "\"a\"");
    assert_eq!(door.list().unwrap(), ["c"]);
}

pub(super) fn rename_that_must_not_replace_does_not(door: &dyn Door) {
    door.save("a", "1").unwrap();
    door.save("b", "2").unwrap();
    door.save_with("empty", O_CREAT, "").unwrap();
    assert_eq!(door.rename("a", "b", true), Err(EEXIST));
    assert_eq!(door.rename("a", "empty", true), Err(EEXIST));
    assert_eq!(door.rename("a", "c", true), Ok(()));
    assert_eq!((door.text("b"), door.text("c")), ("2".into(), "1".into()));
    assert_eq!(door.stat("a"), Err(ENOENT));
}

pub(super) fn rename_of_what_is_not_there_or_onto_itself_changes_nothing(door: &dyn Door) {
    door.save("k", "1").unwrap();
    assert_eq!(door.rename("missing", "k", false), Err(ENOENT));
    assert_eq!(door.rename("k", "k", false), Ok(()));
    assert_eq!(door.text("k"), "1");
    assert_eq!(door.list().unwrap(), ["k"]);
}

pub(super) fn a_writer_goes_on_under_the_new_name(door: &dyn Door) {
    door.save("a", "[1]").unwrap();
    let fd = door.open("a", O_RDWR).unwrap();
    assert_eq!(door.pwrite(fd, 1, b"2"), Ok(1));
    assert_eq!(door.rename("a", "b", false), Ok(()));
    assert_eq!(door.text("b"), "[1]");
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("b"), "[2]");
    assert_eq!(door.stat("a"), Err(ENOENT));
    assert_eq!(door.list().unwrap(), ["b"]);
    stored_is(door, "a", None);
    stored_is(door, "b", Some("[2]"));
}

pub(super) fn a_new_file_can_be_renamed_before_it_is_closed(door: &dyn Door) {
    let fd = door.open("a", O_RDWR | O_CREAT).unwrap();
    door.write_all(fd, b"[1]").unwrap();
    assert_eq!(door.rename("a", "b", false), Ok(()));
    assert_eq!(door.text("b"), "[1]");
    assert_eq!(door.pwrite(fd, 1, b"2"), Ok(1));
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("b"), "[2]");
    assert_eq!(door.list().unwrap(), ["b"]);
    stored_is(door, "a", None);
}

pub(super) fn an_empty_file_moves_but_replaces_no_value(door: &dyn Door) {
    door.save("k", "1").unwrap();
    door.save_with("a", O_CREAT, "").unwrap();
    assert_eq!(door.rename("a", "k", false), Err(EINVAL));
    assert_eq!(door.text("k"), "1");
    assert_eq!(door.rename("a", "b", false), Ok(()));
    assert_eq!(door.list().unwrap(), ["b", "k"]);
    assert_eq!(door.save("b", "2"), Ok(()));
    assert_eq!(door.text("b"), "2");
    stored_is(door, "b", Some("2"));
    stored_is(door, "a", None);
}

pub(super) fn the_last_name_decides_after_many_renames(door: &dyn Door) {
    door.save("a", "[0]").unwrap();
    let reader = door.reader("a");
    for (from, to) in [("a", "b"), ("b", "c"), ("c", "a"), ("a", "d")] {
        assert_eq!(door.rename(from, to, false), Ok(()));
        assert_eq!(door.text(to), "[0]");
        assert_eq!(door.list().unwrap(), [to]);
    }
    assert_eq!(door.contents(reader).unwrap(), b"[0]");
    assert_eq!(door.close(reader), Ok(()));
    assert_eq!(door.save("a", "[1]"), Ok(()));
    assert_eq!((door.text("a"), door.text("d")), ("[1]".into(), "[0]".into()));
}

pub(super) fn names_that_no_key_can_have_are_refused(door: &dyn Door) {
    let long = "x".repeat(256);
    let control = "a\u{1}b";
    assert_eq!(door.open(&long, O_WRONLY | O_CREAT), Err(ENAMETOOLONG));
    assert_eq!(door.stat(&long), Err(ENAMETOOLONG));
    assert_eq!(door.open(control, O_WRONLY | O_CREAT), Err(EINVAL));
    assert_eq!(door.stat(control), Err(ENOENT));
    door.save("k", "1").unwrap();
    assert_eq!(door.rename("k", &long, false), Err(ENAMETOOLONG));
    assert_eq!(door.rename("k", control, false), Err(EINVAL));
    let longest = "x".repeat(255);
    assert_eq!(door.rename("k", &longest, false), Ok(()));
    assert_eq!(door.text(&longest), "1");
    stored_is(door, &longest, Some("1"));
}

pub(super) fn the_new_name_leads_to_what_its_writer_published(door: &dyn Door) {
    // Many times, because the store tells of the rename while it is going on. Behind a server it is asked.
    let rounds = if door.store().is_none_or(|client| client.keeps_bytes) { 200 } else { 20 };
    for round in 0..rounds {
        door.save("a", "[1,2,3,4]").unwrap();
        let fd = door.open("a", O_RDWR | O_TRUNC).unwrap();
        assert_eq!(door.rename("a", "b", false), Ok(()));
        door.write_all(fd, b"[4]").unwrap();
        assert_eq!(door.close(fd), Ok(()));
        assert_eq!(door.stat("b").map(|stat| stat.size), Ok(3), "round {round}");
        assert_eq!(door.text("b"), "[4]");
        assert_eq!(door.unlink("b"), Ok(()));
    }
}
