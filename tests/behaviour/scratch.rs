//! Swap, backup and temporary files.

use libc::{EINVAL, ENOENT, ENOSPC, O_CREAT, O_EXCL, O_RDWR, O_TRUNC, O_WRONLY};

use super::door::{Door, Fd};
use super::stored_is;

pub(super) fn scratch_files_take_any_bytes_and_are_never_sent(door: &dyn Door) {
    let swap = vec![0_u8; 12_288];
    for name in [".k.swp", "k~", ".#k", "#k#", ".nfs001", "._k"] {
        assert_eq!(door.save(name, &swap), Ok(()));
        assert_eq!(door.load(name).unwrap(), swap);
        assert_eq!(door.stat(name).unwrap().size, 12_288);
        stored_is(door, name, None);
    }
    assert_eq!(door.list().unwrap().len(), 6);
    assert_eq!(door.unlink("k~"), Ok(()));
    assert_eq!(door.stat("k~"), Err(ENOENT));
}

pub(super) fn a_temporary_file_renamed_onto_a_key_is_its_new_value(door: &dyn Door) {
    door.save("k", "[1]").unwrap();
    let reader = door.reader("k");
    door.save_with("k.tmp", O_CREAT | O_EXCL, "[1,2]").unwrap();
    stored_is(door, "k.tmp", None);
    assert_eq!(door.text("k"), "[1]");
    assert_eq!(door.rename("k.tmp", "k", false), Ok(()));
    assert_eq!(door.text("k"), "[1,2]");
    assert_eq!(door.contents(reader).unwrap(), b"[1]");
    assert_eq!(door.close(reader), Ok(()));
    assert_eq!(door.list().unwrap(), ["k"]);
    stored_is(door, "k", Some("[1,2]"));
    stored_is(door, "k.tmp", None);
}

pub(super) fn a_scratch_file_without_a_document_replaces_no_key(door: &dyn Door) {
    door.save("k", "1").unwrap();
    door.save_with("sedAbCdEf", O_CREAT | O_EXCL, "no JSON").unwrap();
    assert_eq!(door.rename("sedAbCdEf", "k", false), Err(EINVAL));
    assert_eq!(door.text("k"), "1");
    assert_eq!(door.text("sedAbCdEf"), "no JSON");
    stored_is(door, "k", Some("1"));
}

pub(super) fn a_scratch_file_renamed_onto_a_new_name_is_a_key(door: &dyn Door) {
    door.save("k~", "[1]").unwrap();
    assert_eq!(door.rename("k~", "k", true), Ok(()));
    assert_eq!(door.text("k"), "[1]");
    assert_eq!(door.list().unwrap(), ["k"]);
    stored_is(door, "k", Some("[1]"));
    assert_eq!(door.save("k", "[2]"), Ok(()));
    stored_is(door, "k", Some("[2]"));
}

pub(super) fn fsync_of_a_temporary_file_makes_it_a_key(door: &dyn Door) {
    let fd = door.open("tmp12345678", O_RDWR | O_CREAT | O_EXCL).unwrap();
    door.write_all(fd, b"[1").unwrap();
    assert_eq!(door.fsync(fd), Err(EINVAL));
    door.write_all(fd, b"]").unwrap();
    assert_eq!(door.fsync(fd), Ok(()));
    stored_is(door, "tmp12345678", Some("[1]"));
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("tmp12345678"), "[1]");
}

pub(super) fn a_key_is_never_absent_while_its_backup_is_made(door: &dyn Door) {
    door.save("k", "[1]").unwrap();
    // A machine may be so busy that the successor takes two seconds: then the store renames the key.
    while !is_seen_while_its_backup_is_made(door) {
        door.unlink("k~").unwrap();
        door.save("k", "[1]").unwrap();
    }
    assert_eq!(door.read_as_another("k").unwrap(), b"[1,2]");
    assert_eq!(door.text("k"), "[1,2]");
    assert_eq!(door.unlink("k~"), Ok(()));
    assert_eq!(door.list().unwrap(), ["k"]);
    stored_is(door, "k", Some("[1,2]"));
}

/// False if the store has renamed the key meanwhile.
fn is_seen_while_its_backup_is_made(door: &dyn Door) -> bool {
    assert_eq!(door.rename("k", "k~", false), Ok(()));
    assert_eq!(door.stat("k"), Err(ENOENT));
    assert_eq!(door.text("k~"), "[1]");
    let mut seen = vec![door.read_as_another("k")];
    let fd = door.open("k", O_WRONLY | O_CREAT | O_TRUNC).unwrap();
    seen.push(door.read_as_another("k"));
    door.write_all(fd, b"[1,").unwrap();
    seen.push(door.read_as_another("k"));
    let stored = |key: &str| door.store().and_then(|client| client.get(key));
    seen.extend(door.store().map(|_| stored("k")));
    let is_renamed = stored("k~").is_some();
    door.write_all(fd, b"2]").unwrap();
    assert_eq!(door.close(fd), Ok(()));
    let value = |text: &Vec<u8>| serde_json::from_slice::<serde_json::Value>(text).ok();
    let is_old = |text: &Option<Vec<u8>>| text.as_ref().and_then(value) == Some(serde_json::json!([1]));
    assert!(is_renamed || seen.iter().all(is_old), "{seen:?}");
    !is_renamed
}

pub(super) fn the_successor_of_a_backup_is_found_by_who_writes_it(door: &dyn Door) {
    door.save("k", "[1]").unwrap();
    assert_eq!(door.rename("k", "k~", false), Ok(()));
    let fd = door.open("k", O_RDWR | O_CREAT | O_EXCL).unwrap();
    assert_eq!(door.stat("k").map(|stat| stat.size), Ok(0));
    assert_eq!(door.list().unwrap(), ["k", "k~"]);
    assert_eq!(door.open("k", O_WRONLY | O_CREAT | O_EXCL), Err(libc::EEXIST));
    door.write_all(fd, b"[2]").unwrap();
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("k"), "[2]");
}

pub(super) fn a_backup_can_be_moved_back(door: &dyn Door) {
    door.save("k", "[1]").unwrap();
    assert_eq!(door.rename("k", "k~", false), Ok(()));
    assert_eq!(door.rename("k~", "k", false), Ok(()));
    assert_eq!(door.text("k"), "[1]");
    assert_eq!(door.list().unwrap(), ["k"]);
    stored_is(door, "k", Some("[1]"));
    assert_eq!(door.save("k", "[2]"), Ok(()));
    assert_eq!(door.text("k"), "[2]");
}

pub(super) fn a_key_that_was_renamed_to_a_backup_keeps_its_name_from_nobody(door: &dyn Door) {
    for name in ["k", "l"] {
        door.save(name, "[1]").unwrap();
    }
    assert_eq!(door.rename("k", "k~", false), Ok(()));
    assert_eq!(door.rename("l", "k", true), Ok(()));
    assert_eq!(door.list().unwrap(), ["k", "k~"]);
    assert_eq!(door.save("l", "[2]"), Ok(()));
    assert_eq!(door.rename("l", "k", true), Err(libc::EEXIST));
}

pub(super) fn a_successor_that_fails_leaves_the_key_to_its_readers(door: &dyn Door) {
    door.save("k", "[1]").unwrap();
    assert_eq!(door.rename("k", "k~", false), Ok(()));
    assert_eq!(door.save("k", "[2"), Err(EINVAL));
    assert_eq!(door.read_as_another("k").unwrap(), b"[1]");
    assert_eq!(door.text("k~"), "[1]");
    assert_eq!(door.rename("k~", "k", false), Ok(()));
    assert_eq!(door.text("k"), "[1]");
    stored_is(door, "k", Some("[1]"));
}

/// What one scratch file may hold; four of them are all there is.
const MOST: u64 = 16 << 20;

pub(super) fn scratch_files_are_bounded_however_they_grow(door: &dyn Door) {
    let file = |name: &str| door.open(name, O_RDWR | O_CREAT).unwrap();
    let [first, second, third, last] = ["a~", "b~", "c~", "d~"].map(file);
    assert_eq!(door.ftruncate(first, MOST), Ok(()));
    assert_eq!(door.truncate("b~", MOST), Ok(()));
    assert_eq!(door.allocate(third, MOST, false), Ok(()));
    assert_eq!(door.allocate(last, MOST, true), Ok(()));
    assert_eq!(door.ftruncate(last, MOST), Ok(()));
    assert_eq!(door.ftruncate(last, MOST + 1), Err(ENOSPC));
    let more = file("e~");
    assert_eq!(door.ftruncate(more, 1), Err(ENOSPC));
    assert_eq!(door.truncate("e~", 1), Err(ENOSPC));
    assert_eq!(door.allocate(more, 1, false), Err(ENOSPC));
    assert_eq!(door.allocate(more, 1, true), Err(ENOSPC));
    assert_eq!(door.fstat(more).unwrap().size, 0);
    assert_eq!(door.pwrite(first, 0, b"what is there can be overwritten"), Ok(32));
    assert_eq!(door.ftruncate(second, 0), Ok(()));
    assert_eq!(door.write_all(more, b"1"), Ok(()));
    for fd in [first, second, third, last, more] {
        assert_eq!(door.close(fd), Ok(()));
    }
    assert_eq!(door.save("k", "[1]"), Ok(()));
}

pub(super) fn temporary_files_without_a_name_are_bounded_too(door: &dyn Door) {
    let nameless = |number: usize| {
        let name = format!("tmp0000000{number}");
        let fd = door.open(&name, O_RDWR | O_CREAT | O_EXCL).unwrap();
        door.unlink(&name).unwrap();
        fd
    };
    let files: Vec<Fd> = (0..5).map(nameless).collect();
    for fd in &files[..4] {
        assert_eq!(door.ftruncate(*fd, MOST), Ok(()));
    }
    assert_eq!(door.ftruncate(files[4], 1), Err(ENOSPC));
    assert_eq!(door.write(files[4], b"1"), Err(ENOSPC));
    assert_eq!(door.save(".k.swp", "1"), Err(ENOSPC));
    for fd in files {
        _ = door.close(fd);
    }
    super::eventually(|| door.save(".k.swp", "1").is_ok());
}
