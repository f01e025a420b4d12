//! Keys that are also directories.

use std::fs;

use super::common::errno;
use super::{tree, walk};

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
        super::common::wait_for(std::time::Duration::from_secs(10), || mount.path("a").is_dir());
        assert_eq!(fs::read_to_string(mount.path("a/b")).unwrap(), "2\n");
        assert_eq!(fs::read_to_string(mount.path("a%(value)")).unwrap(), "1\n");
        assert_eq!(walk(&mount.dir), ["a%(value)", "a/", "a/b"]);
        elsewhere.delete("a/b");
        super::common::wait_for(std::time::Duration::from_secs(10), || mount.path("a").is_file());
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
        super::common::wait_for(std::time::Duration::from_secs(10), || walk(&mount.dir).len() == 3);
        let files: Vec<String> = walk(&mount.dir).into_iter().filter(|path| !path.contains('/')).collect();
        let [file] = &files[..] else { panic!("{files:?}") };
        assert!(file.len() <= 255 && file.ends_with("%(value)"), "{file}");
        assert_eq!(fs::read_to_string(mount.path(file)).unwrap(), "1\n");
        fs::write(mount.path(file), "3\n").unwrap();
        assert_eq!(elsewhere.get(&part).as_deref(), Some("3\n"));
        elsewhere.delete(&part);
        elsewhere.delete(&format!("{part}/k"));
        super::common::wait_for(std::time::Duration::from_secs(10), || walk(&mount.dir).is_empty());
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
    super::common::wait_for(std::time::Duration::from_secs(10), || mount.path("a").is_dir());
    assert_eq!(super::common::close(writer), 0);
    assert_eq!(elsewhere.get("a").as_deref(), Some("[1]\n"));
    assert_eq!(fs::read_to_string(mount.path("a%(value)")).unwrap(), "[1]\n");
}
