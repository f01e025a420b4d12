//! Properties of Variables as files: names by the server's rule, its limit and numbers, tags.

use std::fs;
use std::io::Write;
use std::process::Command;

use serde_json::json;

use super::common::{Mount, PATIENCE, can_mount, close, errno, wait_for};
use super::mount;
use super::server::Server;

fn fresh(args: &[&str]) -> Option<(Server, Mount)> {
    let server = can_mount().then(Server::fresh)??;
    let mount = mount(&server.address, args);
    Some((server, mount))
}

#[test]
fn a_name_that_no_variable_has_is_refused_without_a_request() {
    let Some((server, mount)) = fresh(&[]) else { return };
    let before = mount.status()["calls"].clone();
    for name in ["Upper", "a.b", "a b", "ü"] {
        assert_eq!(errno(fs::write(mount.path(name), "1")), libc::EINVAL, "{name}");
    }
    assert_eq!(errno(fs::write(mount.path("x".repeat(255)), "1")), 0);
    assert_eq!(mount.status()["calls"]["set_key_value"], 1);
    assert_eq!(server.names(), ["x".repeat(255)]);
    for name in ["Upper", "a.b"] {
        assert_eq!(errno(fs::read(mount.path(name))), libc::ENOENT);
    }
    assert_eq!(before["list_keys"], mount.status()["calls"]["list_keys"]);
    // Scratch files may be called anything, and stay.
    for name in [".k.swp", "k~", "k.tmp", "sedABCDEF", "k.part"] {
        for how in ["set -C", "true"] {
            let out = mount
                .sh(&format!("{how}; echo 1 > '{name}' && sync '{name}' && cat '{name}' && rm '{name}'"));
            assert_eq!(String::from_utf8_lossy(&out.stdout), "1\n", "{name}: {out:?}");
        }
    }
    fs::write(mount.path("k.tmp"), "1").unwrap();
    fs::rename(mount.path("k.tmp"), mount.path("k")).unwrap();
    assert_eq!(server.get("k").unwrap()["value"], 1);
    for name in ["Upper", "k.part"] {
        assert_eq!(errno(fs::rename(mount.path("k"), mount.path(name))), libc::EINVAL);
    }
    assert_eq!(server.names(), ["k".to_owned(), "x".repeat(255)]);
}

#[test]
fn the_limit_counts_compact_bytes_and_what_would_be_changed_is_refused() {
    let Some((server, mount)) = fresh(&[]) else { return };
    let write = |text: &str| {
        let mut file = fs::File::create(mount.path("k")).unwrap();
        // Text that can be no document is refused by the write already.
        let written = errno(file.write_all(text.as_bytes()));
        let closed = close(file);
        if written == 0 { closed } else { written }
    };
    let string = |char: &str, count: usize| json!(char.repeat(count)).to_string();
    for (char, most) in [("x", 4_998), ("é", 2_499), ("😀", 1_249)] {
        assert_eq!(write(&string(char, most)), 0);
        assert_eq!(server.get("k").unwrap()["value"], char.repeat(most));
        assert_eq!(write(&string(char, most + 1)), libc::EFBIG, "{char}");
    }
    let zeros = vec!["0"; 2_499].join(",\n ");
    assert_eq!(write(&format!("[{zeros}]")), 0);
    assert_eq!(write(&format!("[0,{zeros}]")), libc::EFBIG);
    for text in
        ["{\"a\":1,\"a\":2}", "18446744073709551615", "[18446744073709551616]", "[1e400]", "\"\\ud800\""]
    {
        assert_eq!(write(text), libc::EINVAL, "{text}");
    }
    for text in ["[18446744073709551615]", "-9223372036854775808", "{\"b\":1.50,\"a\":[1e2]}", "1.0", "null"]
    {
        assert_eq!(write(text), 0, "{text}");
        assert_eq!(fs::read_to_string(mount.path("k")).unwrap(), text);
    }
}

#[test]
fn tags_are_an_attribute_and_a_write_leaves_them_alone() {
    let Some((server, mount)) = fresh(&[]) else { return };
    fs::write(mount.path("k"), "1").unwrap();
    let id = server.get("k").unwrap()["id"].clone();
    let fattr = |program: &str, args: &[&str]| {
        let out = Command::new(program).args(args).arg(mount.path("k")).output().unwrap();
        (out.status.success(), String::from_utf8(out.stdout).unwrap())
    };
    let get = || fattr("getfattr", &["--absolute-names", "--only-values", "-n", "user.kvfs.tags"]).1;
    assert_eq!(get(), "[]");
    assert!(fattr("setfattr", &["-n", "user.kvfs.tags", "-v", r#"["a","b c"]"#]).0);
    assert_eq!(server.get("k").unwrap()["tags"], json!(["a", "b c"]));
    fs::write(mount.path("k"), "2").unwrap();
    fs::rename(mount.path("k"), mount.path("moved")).unwrap();
    fs::rename(mount.path("moved"), mount.path("k")).unwrap();
    let now = server.get("k").unwrap();
    assert_eq!((&now["value"], &now["tags"], &now["id"]), (&json!(2), &json!(["a", "b c"]), &id));
    assert_eq!(get(), r#"["a","b c"]"#);
    let listed = fattr("getfattr", &["-d", "-m", "-", "--absolute-names"]).1;
    assert_eq!(listed.matches("user.").count(), 1, "{listed}");
    assert!(listed.contains("user.kvfs.tags="), "{listed}");
    assert!(!fattr("setfattr", &["-n", "user.kvfs.tags", "-v", "a"]).0);
    assert!(!fattr("setfattr", &["-n", "user.kvfs.id", "-v", "x"]).0);
    assert!(!fattr("setfattr", &["-n", "user.foreign", "-v", "x"]).0);
    assert!(fattr("setfattr", &["-x", "user.kvfs.tags"]).0);
    assert_eq!(server.get("k").unwrap()["tags"], json!([]));
}

#[test]
fn files_may_end_in_an_extension() {
    let Some((server, mount)) = fresh(&["--extension", ".json"]) else { return };
    server.set("given", &json!({"a": 1}));
    let out = mount.sh(
        "cat given.json && echo '[1]' > app.json && sed -i s/1/2/ app.json && mv app.json moved.json && ls",
    );
    assert_eq!(String::from_utf8_lossy(&out.stdout), "{\n  \"a\": 1\n}\ngiven.json\nmoved.json\n", "{out:?}");
    assert_eq!(server.names(), ["given", "moved"]);
    assert_eq!(server.get("moved").unwrap()["value"], json!([2]));
    assert_eq!(errno(fs::write(mount.path("app"), "1")), libc::EINVAL);
    assert!(mount.last_error().contains(".json"), "{}", mount.last_error());
    assert_eq!(errno(fs::read(mount.path("moved"))), libc::ENOENT);
}

#[test]
fn a_variable_that_is_renamed_to_a_backup_keeps_its_name() {
    let Some((server, mount)) = fresh(&[]) else { return };
    server.set("k", &json!(1));
    let out = mount.sh("mv k k~ && cat k~");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "1\n", "{out:?}");
    wait_for(PATIENCE, || mount.last_error().contains("keeps its old name"));
    assert_eq!(fs::read_to_string(mount.path("k")).unwrap(), "1\n");
    assert!(!mount.sh("sync k~").status.success());
    let out = mount.sh("mv k k~ && cp k~ k && cat k k~");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "1\n1\n", "{out:?}");
    assert_eq!(server.names(), ["k"]);
    assert_eq!(mount.calls("delete_key"), 0);
}
