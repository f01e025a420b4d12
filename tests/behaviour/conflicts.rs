//! More than one writer.

use libc::{EINVAL, ESTALE, O_CREAT, O_RDWR, O_TRUNC, O_WRONLY};

use super::door::Door;
use super::{eventually, stored_is};

pub(super) fn of_two_writers_that_truncate_the_last_to_write_wins(door: &dyn Door) {
    door.save("k", "0").unwrap();
    let first = door.open("k", O_WRONLY | O_TRUNC).unwrap();
    let second = door.open("k", O_WRONLY | O_TRUNC).unwrap();
    door.write_all(first, b"[1]").unwrap();
    door.write_all(second, b"[2,2]").unwrap();
    assert_eq!(door.close(second), Ok(()));
    assert_eq!(door.text("k"), "[2,2]");
    assert_eq!(door.close(first), Ok(()));
    assert_eq!(door.text("k"), "[2,2]");
    stored_is(door, "k", Some("[2,2]"));
}

pub(super) fn a_change_based_on_an_old_value_is_stale_and_its_text_is_kept(door: &dyn Door) {
    door.save("k", "[1]").unwrap();
    let slow = door.open("k", O_RDWR).unwrap();
    assert_eq!(door.contents(slow).unwrap(), b"[1]");
    door.save_as_another("k", "[2]").unwrap();
    assert_eq!(door.pwrite(slow, 1, b"3"), Ok(1));
    assert_eq!(door.close(slow), Err(ESTALE));
    assert_eq!(door.text("k"), "[2]");
    stored_is(door, "k", Some("[2]"));
    eventually(|| door.rejected() == [b"[3]"]);
}

pub(super) fn descriptors_of_one_process_share_what_they_write(door: &dyn Door) {
    door.save("k", "[1]").unwrap();
    let writers = [door.open("k", O_RDWR).unwrap(), door.open("k", O_RDWR).unwrap()];
    assert_eq!(door.pwrite(writers[0], 1, b"2"), Ok(1));
    assert_eq!(door.contents(writers[1]).unwrap(), b"[2]");
    assert_eq!(door.fsync(writers[1]), Ok(()));
    stored_is(door, "k", Some("[2]"));
    let emptied = door.open("k", O_WRONLY | O_TRUNC).unwrap();
    assert_eq!(door.close(emptied), Ok(()));
    assert_eq!((door.fstat(writers[0]).unwrap().size, door.text("k").as_str()), (0, "[2]"));
    assert_eq!(door.pwrite(writers[0], 0, b"[3,3]"), Ok(5));
    assert_eq!(door.truncate("k", 0), Ok(()));
    assert_eq!(door.pwrite(writers[1], 0, b"[4]"), Ok(3));
    for writer in writers {
        assert_eq!(door.close(writer), Ok(()));
    }
    assert_eq!(door.text("k"), "[4]");
    stored_is(door, "k", Some("[4]"));
}

pub(super) fn of_those_that_share_nothing_the_last_close_wins(door: &dyn Door) {
    door.save("k", "[1]").unwrap();
    let slow = door.open("k", O_RDWR).unwrap();
    assert_eq!(door.pwrite(slow, 1, b"2,"), Ok(2));
    // What is unsaved is not cut.
    door.save("k", "[3, 3, 3]").unwrap();
    assert_eq!((door.text("k").as_str(), door.contents(slow).unwrap()), ("[3, 3, 3]", b"[2,".to_vec()));
    assert_eq!(door.pwrite(slow, 3, b"2]"), Ok(2));
    assert_eq!(door.close(slow), Ok(()));
    assert_eq!(door.text("k"), "[2,2]");
    stored_is(door, "k", Some("[2,2]"));
}

pub(super) fn who_wrote_a_text_that_cannot_be_hears_of_it_at_his_close(door: &dyn Door) {
    door.save("k", "[1]").unwrap();
    let [first, second] = [(); 2].map(|()| door.open("k", O_RDWR).unwrap());
    assert_eq!(door.pwrite(second, 1, b"{"), Ok(1));
    assert_eq!(door.close(second), Err(EINVAL));
    assert_eq!(door.close(first), Err(EINVAL));
    assert_eq!(door.text("k"), "[1]");
}

pub(super) fn writers_of_a_new_file_share_it_until_it_is_a_key(door: &dyn Door) {
    let first = door.open("k", O_RDWR | O_CREAT).unwrap();
    let second = door.open("k", O_RDWR | O_CREAT).unwrap();
    door.write_all(first, b"[1]").unwrap();
    assert_eq!(door.contents(second).unwrap(), b"[1]");
    assert_eq!(door.close(first), Ok(()));
    assert_eq!(door.pwrite(second, 1, b"2"), Ok(1));
    assert_eq!(door.close(second), Ok(()));
    assert_eq!(door.text("k"), "[2]");
    stored_is(door, "k", Some("[2]"));
}

pub(super) fn a_conflict_can_be_settled_by_a_new_attempt(door: &dyn Door) {
    door.save("k", "[1]").unwrap();
    let loser = door.open("k", O_RDWR).unwrap();
    door.save_as_another("k", "[2]").unwrap();
    door.pwrite(loser, 1, b"9").unwrap();
    assert_eq!(door.close(loser), Err(ESTALE));
    let again = door.open("k", O_RDWR).unwrap();
    assert_eq!(door.contents(again).unwrap(), b"[2]");
    assert_eq!(door.pwrite(again, 1, b"9"), Ok(1));
    assert_eq!(door.close(again), Ok(()));
    assert_eq!(door.text("k"), "[9]");
}

pub(super) fn a_rename_does_not_hide_that_a_change_is_stale(door: &dyn Door) {
    door.save("k", "[1]").unwrap();
    let slow = door.open("k", O_RDWR).unwrap();
    door.save_as_another("k", "[2]").unwrap();
    assert_eq!(door.rename("k", "m", false), Ok(()));
    assert_eq!(door.pwrite(slow, 1, b"3"), Ok(1));
    assert_eq!(door.close(slow), Err(ESTALE));
    assert_eq!(door.text("m"), "[2]");
    stored_is(door, "m", Some("[2]"));
}
