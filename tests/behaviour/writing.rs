//! Creating and changing files: what is published, when, and what is not.

use libc::{EEXIST, EFBIG, EINVAL, ENOENT, O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};

use super::door::{Door, Fd, Outcome};
use super::{eventually, stored_is};

/// A key `k` with `text`.
#[track_caller]
fn key(door: &dyn Door, text: &str) {
    door.save("k", text).unwrap();
    stored_is(door, "k", Some(text));
}

pub(super) fn the_write_that_completes_it_publishes_a_new_file(door: &dyn Door) {
    let fd = door.open("k", O_WRONLY | O_CREAT).unwrap();
    assert_eq!(door.write(fd, b"{\"host\":\"db1\""), Ok(13));
    stored_is(door, "k", None);
    assert_eq!(door.write(fd, b"}\n"), Ok(2));
    stored_is(door, "k", Some("{\"host\":\"db1\"}\n"));
    assert_eq!(door.close(fd), Ok(()));
    stored_is(door, "k", Some("{\"host\":\"db1\"}\n"));
    assert_eq!(door.text("k"), "{\"host\":\"db1\"}\n");
    assert_eq!(door.stat("k").unwrap().size, 15);
    assert_eq!(door.list().unwrap(), ["k"]);
}

pub(super) fn a_new_file_without_content_stays_local(door: &dyn Door) {
    assert_eq!(door.save_with("k", O_CREAT | O_EXCL, ""), Ok(()));
    assert_eq!(door.stat("k").unwrap().size, 0);
    assert_eq!(door.list().unwrap(), ["k"]);
    stored_is(door, "k", None);
    assert_eq!(door.save_with("k", O_CREAT | O_EXCL, "1"), Err(EEXIST));
    assert_eq!(door.save_with("k", 0, "1"), Ok(()));
    stored_is(door, "k", Some("1"));
}

pub(super) fn a_file_without_content_can_be_removed_again(door: &dyn Door) {
    door.save_with("k", O_CREAT, "").unwrap();
    assert_eq!(door.unlink("k"), Ok(()));
    assert_eq!(door.stat("k"), Err(ENOENT));
    assert!(door.list().unwrap().is_empty());
}

pub(super) fn others_read_the_old_value_until_the_document_is_complete(door: &dyn Door) {
    key(door, "[1]");
    let fd = door.open("k", O_RDWR | O_TRUNC).unwrap();
    door.write_all(fd, b"[1,2,3").unwrap();
    assert_eq!(door.text("k"), "[1]");
    assert_eq!(door.read_as_another("k").unwrap(), b"[1]");
    assert_eq!(door.stat("k").unwrap().size, 3);
    assert_eq!(door.fstat(fd).unwrap().size, 6);
    assert_eq!(door.contents(fd).unwrap(), b"[1,2,3");
    door.write_all(fd, b"]").unwrap();
    assert_eq!(door.text("k"), "[1,2,3]");
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("k"), "[1,2,3]");
    assert_eq!(door.read_as_another("k").unwrap(), b"[1,2,3]");
}

pub(super) fn a_new_key_is_never_read_half_written(door: &dyn Door) {
    let fd = door.open("k", O_WRONLY | O_CREAT).unwrap();
    door.write_all(fd, b"{\"a\":").unwrap();
    let seen = door.read_as_another("k").unwrap_or_default();
    assert_eq!(String::from_utf8(seen).unwrap(), "");
    door.write_all(fd, b"1}").unwrap();
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.read_as_another("k").unwrap(), b"{\"a\":1}");
}

pub(super) fn an_exclusive_create_refuses_a_key_that_exists(door: &dyn Door) {
    key(door, "1");
    assert_eq!(door.open("k", O_WRONLY | O_CREAT | O_EXCL), Err(EEXIST));
    assert_eq!(door.open("k", O_RDWR | O_CREAT | O_EXCL | O_TRUNC), Err(EEXIST));
    assert_eq!(door.text("k"), "1");
    assert_eq!(door.open("missing", O_WRONLY), Err(ENOENT));
}

pub(super) fn appended_bytes_go_to_the_end_wherever_the_position_is(door: &dyn Door) {
    key(door, "1");
    let fd = door.open("k", O_RDWR | O_APPEND).unwrap();
    door.seek(fd, 0).unwrap();
    assert_eq!(door.write(fd, b"23"), Ok(2));
    door.seek(fd, 1).unwrap();
    assert_eq!(door.write(fd, b".5\n"), Ok(3));
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("k"), "123.5\n");
}

pub(super) fn an_open_that_truncates_and_writes_nothing_keeps_the_value(door: &dyn Door) {
    key(door, "{\"a\":1}");
    let fd = door.open("k", O_WRONLY | O_TRUNC).unwrap();
    assert_eq!(door.fstat(fd).unwrap().size, 0);
    assert_eq!(door.close(fd), Err(EINVAL));
    assert_eq!(door.text("k"), "{\"a\":1}");
    stored_is(door, "k", Some("{\"a\":1}"));
}

pub(super) fn a_file_that_is_cut_is_judged_at_its_close_by_what_is_left(door: &dyn Door) {
    key(door, "[1]  \n");
    for (size, left) in
        [(2, Err(EINVAL)), (0, Err(EINVAL)), (7, Err(EINVAL)), (6, Ok(())), (5, Ok(())), (3, Ok(()))]
    {
        let before = door.text("k");
        let mut cut = before.clone().into_bytes();
        cut.resize(size, 0);
        let fd = door.open("k", O_RDWR).unwrap();
        assert_eq!(door.ftruncate(fd, size as u64), Ok(()));
        assert_eq!(door.contents(fd).unwrap(), cut);
        assert_eq!(door.text("k"), before);
        assert_eq!(door.close(fd), left, "{size}");
        let now = if left.is_ok() { &before[..size] } else { &before };
        assert_eq!(door.text("k"), now);
        stored_is(door, "k", Some(now));
    }
}

pub(super) fn a_file_that_is_cut_by_name_has_what_is_left_at_once_or_its_old_value(door: &dyn Door) {
    key(door, "[1]  ");
    let sizes = [(2, Err(EINVAL)), (0, Err(EINVAL)), (6, Err(EINVAL)), (5, Ok(())), (4, Ok(())), (3, Ok(()))];
    for (size, cut) in sizes {
        let before = door.text("k");
        let reader = door.open("k", O_RDONLY).unwrap();
        assert_eq!(door.truncate("k", size as u64), cut, "{size}");
        let now = if cut.is_ok() { &before[..size] } else { &before };
        assert_eq!(
            (door.text("k").as_str(), door.stat("k").unwrap().size),
            (now, now.len() as u64),
            "{size}"
        );
        stored_is(door, "k", Some(now));
        assert_eq!(door.contents(reader).unwrap(), before.as_bytes());
        assert_eq!(door.close(reader), Ok(()));
    }
}

pub(super) fn what_is_unsaved_takes_the_place_of_what_its_process_cuts_by_name(door: &dyn Door) {
    key(door, "[1]\n");
    let writer = door.open("k", O_RDWR).unwrap();
    assert_eq!(door.pwrite(writer, 1, b"2"), Ok(1));
    assert_eq!(door.truncate("k", 3), Ok(()));
    assert_eq!(door.text("k"), "[1]");
    assert_eq!(door.close(writer), Ok(()));
    assert_eq!(door.text("k"), "[2]\n");
}

pub(super) fn a_new_file_cannot_be_cut_by_name_to_what_is_no_document(door: &dyn Door) {
    let fd = door.open("k", O_WRONLY | O_CREAT).unwrap();
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.truncate("k", 0), Ok(()));
    assert_eq!(door.truncate("k", 1), Err(EINVAL));
    assert_eq!(door.truncate("k", 10_001), Err(EFBIG));
    assert_eq!(door.stat("k").unwrap().size, 0);
    stored_is(door, "k", None);
}

pub(super) fn a_file_cut_to_nothing_and_written_anew_is_published(door: &dyn Door) {
    key(door, "{\"a\":1}");
    let fd = door.open("k", O_RDWR).unwrap();
    assert_eq!(door.ftruncate(fd, 0), Ok(()));
    assert_eq!(door.write(fd, b"[]"), Ok(2));
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("k"), "[]");
    stored_is(door, "k", Some("[]"));
}

pub(super) fn a_longer_value_overwritten_by_a_shorter_one_can_be_cut(door: &dyn Door) {
    key(door, "{\"long\":\"value\"}");
    let fd = door.open("k", O_WRONLY).unwrap();
    assert_eq!(door.write(fd, b"[2]"), Ok(3));
    assert_eq!(door.ftruncate(fd, 3), Ok(()));
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("k"), "[2]");
}

pub(super) fn bytes_in_the_middle_can_be_replaced(door: &dyn Door) {
    key(door, "{\"a\":1,\"b\":2}");
    let fd = door.open("k", O_RDWR).unwrap();
    assert_eq!(door.pwrite(fd, 5, b"7"), Ok(1));
    door.seek(fd, 11).unwrap();
    assert_eq!(door.write(fd, b"8"), Ok(1));
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("k"), "{\"a\":7,\"b\":8}");
}

pub(super) fn a_hole_reads_as_zeros_and_is_no_json_until_it_is_filled(door: &dyn Door) {
    let fd = door.open("k", O_RDWR | O_CREAT).unwrap();
    door.write_all(fd, b"[1").unwrap();
    assert_eq!(door.pwrite(fd, 5, b"]"), Ok(1));
    assert_eq!(door.contents(fd).unwrap(), b"[1\0\0\0]");
    assert_eq!(door.fsync(fd), Err(EINVAL));
    assert_eq!(door.pwrite(fd, 2, b",23"), Ok(3));
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("k"), "[1,23]");
}

pub(super) fn text_that_can_be_no_document_is_refused_by_the_write(door: &dyn Door) {
    key(door, "1");
    let fd = door.open("k", O_WRONLY | O_TRUNC).unwrap();
    assert_eq!(door.write(fd, b"bad"), Err(EINVAL));
    assert_eq!(door.close(fd), Err(EINVAL));
    assert_eq!(door.save("new", "{]"), Err(EINVAL));
    assert_eq!(door.save_with("k", O_APPEND, " 2"), Err(EINVAL));
    assert_eq!(door.text("k"), "1");
    stored_is(door, "k", Some("1"));
    stored_is(door, "new", None);
}

pub(super) fn half_a_document_is_refused_by_close_and_kept(door: &dyn Door) {
    key(door, "1");
    assert_eq!(door.save("k", "{\"a\":"), Err(EINVAL));
    assert_eq!(door.text("k"), "1");
    stored_is(door, "k", Some("1"));
    eventually(|| door.rejected().contains(&b"{\"a\":".to_vec()));
}

pub(super) fn a_new_file_whose_text_is_refused_is_gone_with_its_close(door: &dyn Door) {
    let large = "1".repeat(10_001);
    for (text, why) in [("[1,", EINVAL), ("bad", EINVAL), (&large, EFBIG)] {
        assert_eq!(door.save("k", text), Err(why));
        eventually(|| door.list().unwrap().is_empty());
        assert_eq!(door.stat("k").err(), Some(ENOENT));
        stored_is(door, "k", None);
    }
    eventually(|| door.rejected().contains(&b"[1,".to_vec()) && door.rejected().contains(&b"bad".to_vec()));
    assert_eq!(door.save("k", "[1]"), Ok(()));
    assert_eq!(door.text("k"), "[1]");
    assert_eq!(door.save("k", "bad"), Err(EINVAL));
    assert_eq!(door.text("k"), "[1]");
}

pub(super) fn a_file_that_was_made_empty_stays_where_a_text_is_refused(door: &dyn Door) {
    assert_eq!(door.save_with("k", O_CREAT, ""), Ok(()));
    for count in 1..3 {
        assert_eq!(door.save("k", "bad"), Err(EINVAL));
        eventually(|| door.rejected().len() == count);
        assert_eq!(door.list().unwrap(), ["k"]);
        assert_eq!((door.text("k").as_str(), door.stat("k").unwrap().size), ("", 0));
    }
    stored_is(door, "k", None);
}

pub(super) fn a_new_file_that_is_emptied_again_stays(door: &dyn Door) {
    let fd = door.open("k", O_WRONLY | O_CREAT).unwrap();
    assert_eq!(door.write(fd, b"1"), Ok(1));
    assert_eq!(door.ftruncate(fd, 0), Ok(()));
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.save("k", "bad"), Err(EINVAL));
    eventually(|| door.rejected().len() == 1);
    assert_eq!((door.list().unwrap(), door.text("k")), (vec!["k".to_owned()], String::new()));
}

pub(super) fn a_file_that_is_made_anew_and_emptied_again_stays_empty(door: &dyn Door) {
    key(door, "1");
    assert_eq!(door.unlink("k"), Ok(()));
    let fd = door.open("k", O_WRONLY | O_CREAT).unwrap();
    assert_eq!((door.ftruncate(fd, 5), door.ftruncate(fd, 0), door.close(fd)), (Ok(()), Ok(()), Ok(())));
    eventually(|| door.unlink("k") == Ok(()));
    assert_eq!(door.list().unwrap(), Vec::<String>::new());
}

pub(super) fn who_reads_a_new_file_that_is_refused_reads_nothing(door: &dyn Door) {
    let fd = door.open("k", O_WRONLY | O_CREAT).unwrap();
    let reader = door.open("k", O_RDONLY).unwrap();
    assert_eq!(door.write(fd, b"[1,"), Ok(3));
    assert_eq!(door.close(fd), Err(EINVAL));
    eventually(|| door.list().unwrap().is_empty());
    assert_eq!(door.contents(reader).unwrap(), b"");
    assert_eq!(door.save("k", "[2]"), Ok(()));
    assert_eq!(door.contents(reader).unwrap(), b"");
    assert_eq!(door.close(reader), Ok(()));
    assert_eq!(door.text("k"), "[2]");
}

#[track_caller]
fn stays_failed(door: &dyn Door, fd: Fd) {
    assert_eq!(door.write(fd, b"1}"), Err(EINVAL));
    assert_eq!(door.fsync(fd), Err(EINVAL));
    assert_eq!(door.close(fd), Err(EINVAL));
}

pub(super) fn a_handle_stays_failed_after_a_failed_write(door: &dyn Door) {
    key(door, "1");
    let fd = door.open("k", O_WRONLY | O_TRUNC).unwrap();
    door.write_all(fd, b"{\"a\":").unwrap();
    assert_eq!(door.write(fd, b"}"), Err(EINVAL));
    stays_failed(door, fd);
    stored_is(door, "k", Some("1"));
    assert_eq!(door.save("k", "{\"a\":2}"), Ok(()));
    assert_eq!(door.text("k"), "{\"a\":2}");
}

pub(super) fn fsync_publishes_and_the_writer_goes_on(door: &dyn Door) {
    let fd = door.open("k", O_RDWR | O_CREAT).unwrap();
    door.write_all(fd, b"[1]").unwrap();
    assert_eq!(door.fsync(fd), Ok(()));
    assert_eq!(door.read_as_another("k").unwrap(), b"[1]");
    stored_is(door, "k", Some("[1]"));
    assert_eq!(door.pwrite(fd, 2, b",2]"), Ok(3));
    assert_eq!(door.text("k"), "[1]");
    assert_eq!(door.contents(fd).unwrap(), b"[1,2]");
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("k"), "[1,2]");
    stored_is(door, "k", Some("[1,2]"));
}

pub(super) fn fsync_sets_a_document_over_a_longer_text_that_is_yet_to_be_cut(door: &dyn Door) {
    key(door, "{\"long\":\"value\"}");
    let fd = door.open("k", O_RDWR).unwrap();
    for text in ["{\"n\":22}", "[2]"].map(str::as_bytes) {
        let (begin, end) = text.split_at(text.len() / 2);
        assert_eq!(door.pwrite(fd, 0, begin), Ok(begin.len()));
        assert_eq!(door.fsync(fd), Err(EINVAL));
        assert_eq!(door.pwrite(fd, begin.len() as u64, end), Ok(end.len()));
        assert_eq!(door.fsync(fd), Ok(()));
        assert_eq!(door.read_as_another("k").unwrap(), text);
        assert_eq!(door.ftruncate(fd, text.len() as u64), Ok(()));
        assert_eq!(door.contents(fd).unwrap(), text);
    }
    assert_eq!(door.close(fd), Ok(()));
    stored_is(door, "k", Some("[2]"));
}

pub(super) fn a_name_leads_to_what_was_synced_while_its_creator_writes_on(door: &dyn Door) {
    let fd = door.open("k", O_RDWR | O_CREAT).unwrap();
    door.write_all(fd, b"[1]").unwrap();
    assert_eq!(door.fsync(fd), Ok(()));
    assert_eq!(door.stat("k").unwrap().size, 3);
    door.write_all(fd, b"  \n").unwrap();
    assert_eq!(door.fstat(fd).unwrap().size, 6);
    assert_eq!(door.stat("k").unwrap().size, 3);
    assert_eq!(door.truncate("k", 3), Ok(()));
    assert_eq!(door.contents(fd).unwrap(), b"[1]  \n");
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("k"), "[1]  \n");
}

pub(super) fn a_failure_after_an_fsync_leaves_what_was_synced(door: &dyn Door) {
    key(door, "0");
    let fd = door.open("k", O_WRONLY | O_TRUNC).unwrap();
    door.write_all(fd, b"[1]").unwrap();
    assert_eq!(door.fsync(fd), Ok(()));
    assert_eq!(door.write(fd, b"]"), Err(EINVAL));
    assert_eq!(door.close(fd), Err(EINVAL));
    assert_eq!(door.text("k"), "[1]");
    stored_is(door, "k", Some("[1]"));
}

pub(super) fn opening_for_writing_and_closing_changes_nothing(door: &dyn Door) {
    key(door, "[1]");
    let before = door.stat("k").unwrap();
    for flags in [O_RDWR, O_WRONLY | O_APPEND, O_RDWR | O_CREAT] {
        let fd = door.open("k", flags).unwrap();
        assert_eq!(door.close(fd), Ok(()));
    }
    assert_eq!(door.chmod("k", before.mode), Ok(()));
    assert_eq!(door.stat("k").unwrap(), before);
}

pub(super) fn a_mode_is_kept_across_versions(door: &dyn Door) {
    key(door, "1");
    assert_eq!(door.chmod("k", 0o600), Ok(()));
    assert_eq!(door.stat("k").unwrap().mode, 0o600);
    assert_eq!(door.save("k", "[2]"), Ok(()));
    assert_eq!(door.stat("k").unwrap().mode, 0o600);
    assert_eq!(door.text("k"), "[2]");
}

pub(super) fn fsync_through_a_reader_tells_of_the_last_text(door: &dyn Door) {
    key(door, "1");
    assert_eq!(synced(door, "k"), Ok(()));
    assert_eq!(door.save("k", "[2"), Err(EINVAL));
    // The failure is known once the kernel has let go of the writer.
    eventually(|| synced(door, "k") == Err(EINVAL));
    assert_eq!(door.save("k", "3"), Ok(()));
    assert_eq!(synced(door, "k"), Ok(()));
}

pub(super) fn a_new_file_does_not_inherit_the_failure_of_one_that_was_renamed(door: &dyn Door) {
    key(door, "1");
    assert_eq!(door.save("k", "[2"), Err(EINVAL));
    eventually(|| synced(door, "k") == Err(EINVAL));
    assert_eq!(door.rename("k", "m", false), Ok(()));
    door.save_with("k", O_CREAT, "").unwrap();
    assert_eq!(synced(door, "k"), Ok(()));
}

pub(super) fn a_rename_onto_a_file_settles_its_failure(door: &dyn Door) {
    key(door, "1");
    assert_eq!(door.save("k", "[2"), Err(EINVAL));
    eventually(|| synced(door, "k") == Err(EINVAL));
    door.save("m", "3").unwrap();
    assert_eq!(door.rename("m", "k", false), Ok(()));
    assert_eq!(door.text("k"), "3");
    assert_eq!(synced(door, "k"), Ok(()));
}

/// As `sync NAME` does.
#[track_caller]
fn synced(door: &dyn Door, name: &str) -> Outcome<()> {
    let fd = door.reader(name);
    let synced = door.fsync(fd);
    assert_eq!(door.close(fd), Ok(()));
    synced
}
