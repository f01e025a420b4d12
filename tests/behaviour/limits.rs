//! 10,000 bytes, and one final newline that does not count.

use libc::{EFBIG, O_APPEND, O_CREAT, O_RDWR, O_TRUNC, O_WRONLY};

use super::door::Door;
use super::stored_is;

/// A document of so many bytes. Its value has at most the 5,000 that Prefect 3 takes, without the white space.
fn document(size: usize) -> String {
    let value = "x".repeat(4_996);
    format!("[{}\"{value}\"]", " ".repeat(size - value.len() - 4))
}

pub(super) fn ten_thousand_bytes_and_a_newline_fit(door: &dyn Door) {
    let text = document(10_000);
    assert_eq!(door.save("bare", &text), Ok(()));
    assert_eq!(door.stat("bare").unwrap().size, 10_000);
    let line = text + "\n";
    assert_eq!(door.save("line", &line), Ok(()));
    assert_eq!(door.text("line"), line);
    assert_eq!(door.stat("line").unwrap().size, 10_001);
    stored_is(door, "line", Some(&line));
}

pub(super) fn one_byte_more_is_refused_by_the_write(door: &dyn Door) {
    door.save("k", "1").unwrap();
    for text in [document(10_001), document(10_000) + " ", document(10_000) + "\n\n"] {
        let fd = door.open("k", O_WRONLY | O_TRUNC).unwrap();
        assert_eq!(door.write(fd, text.as_bytes()), Err(EFBIG));
        assert_eq!(door.write(fd, b"2"), Err(EFBIG));
        assert_eq!(door.close(fd), Err(EFBIG));
    }
    assert_eq!(door.text("k"), "1");
    stored_is(door, "k", Some("1"));
}

pub(super) fn a_positioned_write_past_the_limit_writes_nothing(door: &dyn Door) {
    door.save("k", "[1]").unwrap();
    let fd = door.open("k", O_RDWR).unwrap();
    assert_eq!(door.pwrite(fd, 10_000, b"]"), Err(EFBIG));
    assert_eq!(door.contents(fd).unwrap(), b"[1]");
    assert_eq!(door.fstat(fd).unwrap().size, 3);
    assert_eq!(door.close(fd), Err(EFBIG));
    assert_eq!(door.text("k"), "[1]");
}

pub(super) fn an_append_past_the_limit_is_refused(door: &dyn Door) {
    let text = document(10_000);
    door.save("k", &text).unwrap();
    let fd = door.open("k", O_WRONLY | O_APPEND).unwrap();
    assert_eq!(door.write(fd, b"\n"), Ok(1));
    assert_eq!(door.write(fd, b"\n"), Err(EFBIG));
    assert_eq!(door.close(fd), Err(EFBIG));
    assert_eq!(door.text("k"), text);
}

pub(super) fn truncate_past_the_limit_is_refused(door: &dyn Door) {
    door.save("k", "[1]").unwrap();
    let fd = door.open("k", O_RDWR).unwrap();
    assert_eq!(door.ftruncate(fd, 10_001), Err(EFBIG));
    assert_eq!(door.ftruncate(fd, u64::MAX >> 1), Err(EFBIG));
    assert_eq!(door.contents(fd).unwrap(), b"[1]");
    assert_eq!(door.fstat(fd).unwrap().size, 3);
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.truncate("k", 10_001), Err(EFBIG));
    assert_eq!(door.text("k"), "[1]");
}

pub(super) fn a_file_grown_to_the_limit_and_filled_is_published(door: &dyn Door) {
    let text = document(10_000);
    let fd = door.open("k", O_RDWR | O_CREAT).unwrap();
    assert_eq!(door.ftruncate(fd, 10_000), Ok(()));
    door.write_all(fd, text.as_bytes()).unwrap();
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("k"), text);
}

pub(super) fn a_large_value_written_in_pieces_arrives_whole(door: &dyn Door) {
    let text = document(9_999);
    let fd = door.open("k", O_WRONLY | O_CREAT).unwrap();
    for piece in text.as_bytes().chunks(1_000) {
        assert_eq!(door.write(fd, piece), Ok(piece.len()));
    }
    assert_eq!(door.close(fd), Ok(()));
    assert_eq!(door.text("k"), text);
    stored_is(door, "k", Some(&text));
}
