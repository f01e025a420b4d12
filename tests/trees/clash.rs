//! Keys that are also directories.

use std::fs;
use std::time::Duration;

use super::common::{Elsewhere, Mount, can_mount, errno, wait_for};
use super::{tree, walk};

const SOON: Duration = crate::common::PATIENCE;

#[test]
fn rule_13_a_key_that_is_also_a_directory_is_a_file_beside_it() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    for (key, text) in [("a", "1\n"), ("a/b", "2\n"), ("a/b/c", "3\n"), ("a!", "4\n")] {
        elsewhere.set(key, text);
    }
    assert_eq!(walk(&mount.dir), ["a!", "a%(value)", "a/", "a/b%(value)", "a/b/", "a/b/c"]);
    assert_eq!(fs::read_to_string(mount.path("a%(value)")).unwrap(), "1\n");
    assert_eq!(fs::read_to_string(mount.path("a/b%(value)")).unwrap(), "2\n");
    fs::write(mount.path("a%(value)"), "[1]\n").unwrap();
    assert_eq!(elsewhere.get("a").as_deref(), Some("[1]\n"));
    fs::rename(mount.path("a/b%(value)"), mount.path("b")).unwrap();
    assert_eq!((elsewhere.get("b").as_deref(), elsewhere.get("a/b")), (Some("2\n"), None));
    fs::remove_file(mount.path("a%(value)")).unwrap();
    assert_eq!(walk(&mount.dir), ["a!", "a/", "a/b/", "a/b/c", "b"]);
    fs::write(mount.path("a%(value)"), "5\n").unwrap();
    assert_eq!(elsewhere.get("a").as_deref(), Some("5\n"));
    assert_eq!(walk(&mount.dir)[..2], ["a!", "a%(value)"]);
}

#[test]
fn where_there_is_no_directory_no_such_file_is_made() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("a", "1\n");
    assert_eq!(errno(fs::read(mount.path("a%(value)"))), libc::ENOENT);
    assert_eq!(errno(fs::write(mount.path("a%(value)"), "2\n")), libc::EINVAL);
    assert_eq!(errno(fs::rename(mount.path("a"), mount.path("a%(value)"))), libc::EINVAL);
    assert_eq!(errno(fs::create_dir(mount.path("a%(value)"))), libc::EINVAL);
    assert_eq!(walk(&mount.dir), ["a"]);
}

#[test]
fn a_file_becomes_a_directory_and_a_file_again() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("a", "1\n");
    for _ in 0..3 {
        assert_eq!(fs::read_to_string(mount.path("a")).unwrap(), "1\n");
        assert_eq!(errno(fs::read(mount.path("a/b"))), libc::ENOTDIR);
        elsewhere.set("a/b", "2\n");
        wait_for(SOON, || mount.path("a").is_dir());
        assert_eq!(fs::read_to_string(mount.path("a/b")).unwrap(), "2\n");
        assert_eq!(fs::read_to_string(mount.path("a%(value)")).unwrap(), "1\n");
        assert_eq!(walk(&mount.dir), ["a%(value)", "a/", "a/b"]);
        elsewhere.delete("a/b");
        wait_for(SOON, || mount.path("a").is_file());
        assert_eq!(errno(fs::read(mount.path("a%(value)"))), libc::ENOENT);
        assert_eq!(walk(&mount.dir), ["a"]);
    }
}

#[test]
fn long_names_clash_too() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    for length in [100, 247, 248, 255, 256, 300] {
        let part = "x".repeat(length);
        elsewhere.set(&part, "1\n");
        elsewhere.set(&format!("{part}/k"), "2\n");
        wait_for(SOON, || walk(&mount.dir).len() == 3);
        let files: Vec<String> = walk(&mount.dir).into_iter().filter(|path| !path.contains('/')).collect();
        let [file] = &files[..] else { panic!("{files:?}") };
        assert!(file.len() <= 255 && file.ends_with("%(value)"), "{file}");
        assert_eq!(fs::read_to_string(mount.path(file)).unwrap(), "1\n");
        fs::write(mount.path(file), "3\n").unwrap();
        assert_eq!(elsewhere.get(&part).as_deref(), Some("3\n"));
        elsewhere.delete(&part);
        elsewhere.delete(&format!("{part}/k"));
        wait_for(SOON, || walk(&mount.dir).is_empty());
    }
}

#[test]
fn a_writer_of_a_key_that_becomes_a_directory_publishes_it() {
    use std::io::Write;
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("a", "1\n");
    let mut writer = fs::File::options().write(true).truncate(true).open(mount.path("a")).unwrap();
    writer.write_all(b"[1]\n").unwrap();
    elsewhere.set("a/b", "2\n");
    wait_for(SOON, || mount.path("a").is_dir());
    assert_eq!(super::common::close(writer), 0);
    assert_eq!(elsewhere.get("a").as_deref(), Some("[1]\n"));
    assert_eq!(fs::read_to_string(mount.path("a%(value)")).unwrap(), "[1]\n");
}

/// A listing would lead the kernel to the names again: there is none in these.
#[test]
fn a_value_beside_a_directory_comes_and_goes_by_its_own_name() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("a/b", "1\n");
    let value = mount.path("a%(value)");
    for _ in 0..3 {
        assert_eq!(errno(fs::metadata(&value)), libc::ENOENT);
        elsewhere.set("a", "2\n");
        wait_for(SOON, || fs::read_to_string(&value).is_ok_and(|text| text == "2\n"));
        let reader = fs::File::open(&value).unwrap();
        elsewhere.set("a", "[2]\n");
        wait_for(SOON, || fs::metadata(&value).unwrap().len() == 4);
        drop(reader);
        elsewhere.delete("a");
        wait_for(SOON, || errno(fs::metadata(&value)) == libc::ENOENT);
    }
}

#[test]
fn a_directory_that_is_removed_or_renamed_here_gives_the_name_back() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    for (key, text) in [("m", "1\n"), ("m/x", "2\n"), ("n", "3\n"), ("n/x", "4\n")] {
        elsewhere.set(key, text);
    }
    wait_for(SOON, || mount.path("m%(value)").exists() && mount.path("n%(value)").exists());
    fs::remove_file(mount.path("m/x")).unwrap();
    fs::remove_dir(mount.path("m")).unwrap();
    fs::rename(mount.path("n"), mount.path("moved")).unwrap();
    for (name, text) in [("m", "1\n"), ("n", "3\n")] {
        wait_for(SOON, || fs::read_to_string(mount.path(name)).is_ok_and(|read| read == text));
        wait_for(SOON, || errno(fs::metadata(mount.path(format!("{name}%(value)")))) == libc::ENOENT);
    }
}

#[test]
fn an_extension_does_not_keep_names_from_clashing() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--separator", "/", "--extension", ".json"]);
    let elsewhere = Elsewhere::of(&mount);
    elsewhere.set("x", "1\n");
    elsewhere.set("x.json/k", "2\n");
    assert_eq!(walk(&mount.dir), ["x.json%(value)", "x.json/", "x.json/k.json"]);
    assert_eq!(fs::read_to_string(mount.path("x.json%(value)")).unwrap(), "1\n");
}
