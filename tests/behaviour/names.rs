//! Keys of any text.

use libc::EINVAL;

use super::door::Door;
use super::{eventually, stored_is};

pub(super) fn odd_names_are_listed_once(door: &dyn Door) {
    for name in ["b", "a c", "%", "é", ".hidden", "K"] {
        door.save(name, "1").unwrap();
        stored_is(door, name, Some("1"));
    }
    assert_eq!(door.list().unwrap(), ["%", ".hidden", "K", "a c", "b", "é"]);
}

pub(super) fn a_key_called_as_a_backup_is_a_key(door: &dyn Door) {
    let client = door.store().unwrap();
    client.set("k.tmp", "1");
    client.set("k~", "2");
    eventually(|| door.list().unwrap() == ["k.tmp", "k~"]);
    assert_eq!(door.save("k.tmp", "[1]"), Ok(()));
    assert_eq!(door.save("k~", "[2]"), Ok(()));
    stored_is(door, "k.tmp", Some("[1]"));
    stored_is(door, "k~", Some("[2]"));
    assert_eq!(door.save("k~", "no JSON"), Err(EINVAL));
}

pub(super) fn a_backup_without_a_successor_is_a_key(door: &dyn Door) {
    let client = door.store().unwrap();
    door.save("k", "[1]").unwrap();
    assert_eq!(door.rename("k", "k~", false), Ok(()));
    stored_is(door, "k", Some("[1]"));
    eventually(|| client.get("k").is_none());
    eventually(|| door.read_as_another("k").is_none());
    stored_is(door, "k~", Some("[1]"));
    assert_eq!(door.text("k~"), "[1]");
    assert_eq!(door.list().unwrap(), ["k~"]);
    assert_eq!(door.save("k~", "[2]"), Ok(()));
    stored_is(door, "k~", Some("[2]"));
}
