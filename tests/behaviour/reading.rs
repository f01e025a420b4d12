//! What readers see: one version each, whole, whatever happens to the name.

use libc::{EBADF, EINVAL, ENOENT, O_CREAT, O_EXCL, O_TRUNC, O_WRONLY};

use super::door::{Door, Fd};

pub(super) fn a_reader_keeps_its_version_and_the_next_one_sees_the_new(door: &dyn Door) {
    door.save("k", "{\"version\":1}").unwrap();
    let old = door.reader("k");
    assert_eq!(door.read(old, 5).unwrap(), b"{\"ver");
    door.save("k", "{\"version\":2,\"longer\":true}").unwrap();
    let new = door.reader("k");
    assert_eq!(door.contents(new).unwrap(), b"{\"version\":2,\"longer\":true}");
    assert_eq!(door.read(old, 100).unwrap(), b"sion\":1}");
    assert_eq!(door.contents(old).unwrap(), b"{\"version\":1}");
    assert_eq!(door.fstat(old).unwrap().size, 13);
    assert_eq!(door.fstat(new).unwrap().size, 27);
    assert_eq!(door.close(old), Ok(()));
    assert_eq!(door.close(new), Ok(()));
}

pub(super) fn every_reader_keeps_the_version_it_opened(door: &dyn Door) {
    let text = |version: usize| format!("\"{}\"", version.to_string().repeat(version * 40));
    let mut readers: Vec<(Fd, String)> = Vec::new();
    for version in 1..=9 {
        door.save("k", text(version)).unwrap();
        readers.push((door.reader("k"), text(version)));
    }
    for (fd, text) in &readers {
        assert_eq!(door.contents(*fd).unwrap(), text.as_bytes());
        assert_eq!(door.fstat(*fd).unwrap().size, text.len() as u64);
    }
    for (fd, _) in readers.into_iter().rev() {
        assert_eq!(door.close(fd), Ok(()));
        assert_eq!(door.text("k"), text(9));
    }
}

pub(super) fn a_reader_keeps_its_version_of_a_removed_key(door: &dyn Door) {
    door.save("k", "[1]").unwrap();
    let fd = door.reader("k");
    assert_eq!(door.unlink("k"), Ok(()));
    assert_eq!(door.stat("k"), Err(ENOENT));
    assert_eq!(door.contents(fd).unwrap(), b"[1]");
    assert_eq!(door.fstat(fd).unwrap().links, 0);
    door.save_with("k", O_CREAT | O_EXCL, "[2]").unwrap();
    assert_eq!(door.contents(fd).unwrap(), b"[1]");
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("k"), "[2]");
}

pub(super) fn a_reader_keeps_its_version_of_a_renamed_and_of_a_replaced_key(door: &dyn Door) {
    door.save("a", "\"a\"").unwrap();
    door.save("b", "\"bb\"").unwrap();
    let (a, b) = (door.reader("a"), door.reader("b"));
    assert_eq!(door.rename("a", "b", false), Ok(()));
    assert_eq!(door.contents(a).unwrap(), b"\"a\"");
    assert_eq!(door.contents(b).unwrap(), b"\"bb\"");
    assert_eq!(door.text("b"), "\"a\"");
    assert_eq!(door.close(a), Ok(()));
    assert_eq!(door.close(b), Ok(()));
}

pub(super) fn a_reader_of_a_temporary_file_goes_on_when_it_becomes_a_key(door: &dyn Door) {
    door.save("k", "\"old\"").unwrap();
    door.save_with("k.tmp", O_CREAT, "\"new\"").unwrap();
    let fd = door.reader("k.tmp");
    assert_eq!(door.rename("k.tmp", "k", false), Ok(()));
    assert_eq!(door.contents(fd).unwrap(), b"\"new\"");
    door.save("k", "\"newer\"").unwrap();
    assert_eq!(door.contents(fd).unwrap(), b"\"new\"");
    assert_eq!(door.fstat(fd).unwrap().size, 5);
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("k"), "\"newer\"");
}

pub(super) fn a_reader_of_a_new_file_sees_it_empty_also_when_it_is_set(door: &dyn Door) {
    door.save_with("k", O_CREAT, "").unwrap();
    let fd = door.reader("k");
    assert_eq!(door.contents(fd).unwrap(), b"");
    let writer = door.open("k", O_WRONLY).unwrap();
    assert_eq!(door.write(writer, b"\"half"), Ok(5));
    assert_eq!(door.contents(fd).unwrap(), b"");
    assert_eq!(door.write(writer, b"\""), Ok(1));
    assert_eq!(door.close(writer), Ok(()));
    assert_eq!(door.contents(fd).unwrap(), b"");
    assert_eq!(door.text("k"), "\"half\"");
    assert_eq!(door.close(fd), Ok(()));
}

pub(super) fn size_and_time_are_true_before_the_first_open(door: &dyn Door) {
    door.save("k", "[1]").unwrap();
    let first = door.stat("k").unwrap();
    assert_eq!((first.size, first.links, first.mode), (3, 1, 0o644));
    door.save("k", "[2]").unwrap();
    let second = door.stat("k").unwrap();
    assert_eq!(second.size, 3);
    assert!(second.modified > first.modified);
}

pub(super) fn the_listing_shows_each_file_once(door: &dyn Door) {
    for name in ["b", "a-c", "0", "c"] {
        door.save(name, "1").unwrap();
    }
    door.save_with("empty", O_CREAT, "").unwrap();
    door.save_with("b~", O_CREAT, "scratch").unwrap();
    let fd = door.open("new", O_WRONLY | O_CREAT).unwrap();
    let expected = ["0", "a-c", "b", "b~", "c", "empty", "new"];
    assert_eq!(door.list().unwrap(), expected);
    door.write_all(fd, b"1").unwrap();
    assert_eq!(door.list().unwrap(), expected);
    door.fsync(fd).unwrap();
    assert_eq!(door.list().unwrap(), expected);
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.list().unwrap(), expected);
}

pub(super) fn a_reader_cannot_write(door: &dyn Door) {
    door.save("k", "1").unwrap();
    let fd = door.reader("k");
    assert_eq!(door.write(fd, b"2"), Err(EBADF));
    assert_eq!(door.pwrite(fd, 0, b"2"), Err(EBADF));
    assert_eq!(door.ftruncate(fd, 0), Err(EINVAL));
    assert_eq!(door.fsync(fd), Ok(()));
    assert_eq!(door.close(fd), Ok(()));
    let fd = door.open("k", O_WRONLY).unwrap();
    assert_eq!(door.read(fd, 1), Err(EBADF));
    assert_eq!(door.close(fd), Ok(()));
}

pub(super) fn reads_end_at_the_end(door: &dyn Door) {
    door.save("k", "[1,2]").unwrap();
    let fd = door.reader("k");
    assert_eq!(door.pread(fd, 1, 3).unwrap(), b"1,2");
    assert_eq!(door.pread(fd, 4, 3).unwrap(), b"]");
    assert_eq!(door.pread(fd, 5, 3).unwrap(), b"");
    assert_eq!(door.pread(fd, 1 << 40, 3).unwrap(), b"");
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.open("missing", libc::O_RDONLY), Err(ENOENT));
}

pub(super) fn a_draft_given_up_leaves_readers_alone(door: &dyn Door) {
    door.save("k", "[1]").unwrap();
    let before = door.reader("k");
    assert_eq!(door.save("k", "[2"), Err(EINVAL));
    let fd = door.open("k", O_WRONLY | O_TRUNC).unwrap();
    let during = door.reader("k");
    assert_eq!(door.close(fd), Err(EINVAL));
    for reader in [before, during, door.reader("k")] {
        assert_eq!(door.contents(reader).unwrap(), b"[1]");
        assert_eq!(door.close(reader), Ok(()));
    }
}

pub(super) fn a_file_that_one_of_its_writers_published_is_listed(door: &dyn Door) {
    let first = door.open("k", O_WRONLY | O_CREAT).unwrap();
    let second = door.open("k", O_WRONLY).unwrap();
    door.write_all(second, b"7").unwrap();
    assert_eq!(door.close(second), Ok(()));
    assert_eq!(door.list(), Ok(vec!["k".to_owned()]));
    assert_eq!(door.close(first), Ok(()));
    assert_eq!(door.list(), Ok(vec!["k".to_owned()]));
    assert_eq!(door.text("k"), "7");
}
