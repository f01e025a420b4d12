//! Names that not every store takes.

use super::{Calls, On};

pub(super) fn shells_quote_names_with_spaces(on: On) {
    let Some(at) = on.any(&[]) else { return };
    let script = "echo 1 > 'a b'; echo 2 > g; cat *; echo *; rm 'a b' g";
    assert_eq!(at.sh(script).succeeds(Calls::new(2, 2, 0)), "1\n2\na b g\n");
}

pub(super) fn tools_find_names_with_spaces(on: On) {
    let Some(at) = on.lasting(&["find", "grep"]) else { return };
    at.put("small key", "42\n");
    let at = at.afresh();
    let script = "ls; stat -c %s 'small key'; find . -name 'small *' -size 3c; grep -r 42 .";
    assert_eq!(at.sh(script).succeeds(Calls::NONE), "small key\n3\n./small key\n./small key:42\n");
}

pub(super) fn a_lock_file_with_a_dot_is_no_key(on: On) {
    let Some(at) = on.lasting(&["flock"]) else { return };
    at.sh("flock counter.lock sh -c 'echo 1 > counter.json'").succeeds(Calls::sets(1));
    assert_eq!((at.stored("counter.lock"), at.stored("counter.json")), (None, at.kept("1\n")));
    assert_eq!(at.afresh().names(), ["counter.json"]);
}

pub(super) fn a_new_version_with_a_dot_is_renamed_onto_its_key(on: On) {
    let Some(at) = on.lasting(&["jq"]) else { return };
    at.put("f.json", "{\"n\":1}\n");
    at.sh("jq -c '.n = 2' f.json > f.json.new && mv f.json.new f.json").succeeds(Calls::new(1, 0, 1));
    assert_eq!(at.stored("f.json"), at.kept("{\"n\":2}\n"));
    assert_eq!(at.names(), ["f.json"]);
}
