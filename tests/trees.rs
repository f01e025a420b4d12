//! Keys with parts as directories, on a real mount.
#![allow(missing_docs, clippy::unwrap_used)]

mod clash;
mod elsewhere;
mod inside;
mod model;
mod times;
mod tools;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::common;
use common::{Elsewhere, KVFS, Mount, PATIENCE, can_mount, errno};

/// A mount in directories, and another door to its keys.
fn tree(args: &[&str]) -> Option<(Mount, Elsewhere)> {
    can_mount().then(|| {
        let mount = Mount::sqlite(&[&["--separator", "/"], args].concat());
        let elsewhere = Elsewhere::of(&mount);
        (mount, elsewhere)
    })
}

/// All paths below `directory`, sorted; those of directories end in a slash. What vanishes meanwhile is left out.
fn walk(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(within) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&within) else { continue };
        for entry in entries {
            let entry = entry.unwrap();
            let mut shown = entry.path().strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                shown.push('/');
                waiting.push(entry.path());
            }
            found.push(shown);
        }
    }
    found.sort();
    found
}

#[test]
fn rule_13_the_parts_of_a_key_are_the_directories_on_the_way_to_its_file() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("app/db/host", "\"db1\"\n");
    elsewhere.set("app/debug", "true\n");
    elsewhere.set("plain", "1\n");
    assert_eq!(walk(&mount.dir), ["app/", "app/db/", "app/db/host", "app/debug", "plain"]);
    assert_eq!(fs::read_to_string(mount.path("app/db/host")).unwrap(), "\"db1\"\n");
    let meta = fs::metadata(mount.path("app/db")).unwrap();
    assert!(meta.is_dir() && meta.nlink() == 2 && meta.mode() & 0o777 == 0o755);
    fs::create_dir_all(mount.path("web/eu")).unwrap();
    fs::write(mount.path("web/eu/port"), "80\n").unwrap();
    assert_eq!(elsewhere.get("web/eu/port").as_deref(), Some("80\n"));
    fs::remove_file(mount.path("app/db/host")).unwrap();
    assert_eq!(elsewhere.get("app/db/host"), None);
    assert_eq!(errno(fs::read(mount.path("app"))), libc::EISDIR);
    assert_eq!(errno(fs::read(mount.path("plain/x"))), libc::ENOTDIR);
    assert_eq!(errno(fs::write(mount.path("none/x"), "1")), libc::ENOENT);
    assert_eq!(errno(fs::remove_file(mount.path("app"))), libc::EISDIR);
    assert_eq!(errno(fs::hard_link(mount.path("plain"), mount.path("app/link"))), libc::EPERM);
}

#[test]
fn rule_13_a_directory_that_is_emptied_here_stays_until_it_is_removed() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("a/b/k", "1\n");
    fs::remove_file(mount.path("a/b/k")).unwrap();
    assert_eq!(walk(&mount.dir), ["a/", "a/b/"]);
    assert_eq!(errno(fs::remove_dir(mount.path("a"))), libc::ENOTEMPTY);
    fs::remove_dir(mount.path("a/b")).unwrap();
    fs::remove_dir(mount.path("a")).unwrap();
    assert_eq!(walk(&mount.dir), [""; 0]);
    assert_eq!(errno(fs::remove_dir(mount.path("a"))), libc::ENOENT);
}

#[test]
fn rule_13_directories_are_made_where_nothing_is_and_end_with_the_mount() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("file", "1\n");
    fs::create_dir(mount.path("new")).unwrap();
    for name in ["new", "file"] {
        assert_eq!(errno(fs::create_dir(mount.path(name))), libc::EEXIST, "{name}");
    }
    assert_eq!(errno(fs::create_dir(mount.path("none/x"))), libc::ENOENT);
    assert_eq!(errno(fs::create_dir(mount.path("file/x"))), libc::ENOTDIR);
    assert_eq!(errno(fs::create_dir(mount.path("a\nb"))), libc::EINVAL);
    assert_eq!(errno(fs::create_dir(mount.path("x".repeat(256)))), libc::ENAMETOOLONG);
    assert_eq!(errno(fs::remove_dir(mount.path("file"))), libc::ENOTDIR);
    assert_eq!(walk(&mount.dir), ["file", "new/"]);
    let home = mount.unmount();
    let store = format!("sqlite:{}", home.path().join("kv.db").display());
    let mount = Mount::start_in(home, &store, &["--separator", "/"]);
    assert_eq!(walk(&mount.dir), ["file"]);
}

#[test]
fn rule_13_a_directory_is_renamed_with_all_that_is_in_it() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    for number in 0..100 {
        elsewhere.set(&format!("old/deep/{number}"), &format!("{number}\n"));
    }
    elsewhere.set("old/k", "\"k\"\n");
    fs::create_dir(mount.path("old/empty")).unwrap();
    fs::write(mount.path("old/.k.swp"), "scratch").unwrap();
    let reader = fs::File::open(mount.path("old/k")).unwrap();
    let before = mount.calls("rename_keys");
    fs::rename(mount.path("old"), mount.path("new")).unwrap();
    assert_eq!(mount.calls("rename_keys") - before, 1);
    assert_eq!(std::io::read_to_string(reader).unwrap(), "\"k\"\n");
    assert_eq!(walk(&mount.dir).len(), 3 + 100 + 2);
    assert_eq!(fs::read_to_string(mount.path("new/.k.swp")).unwrap(), "scratch");
    for number in [0, 57, 99] {
        let text = format!("{number}\n");
        assert_eq!(fs::read_to_string(mount.path(format!("new/deep/{number}"))).unwrap(), text);
        assert_eq!(elsewhere.get(&format!("new/deep/{number}")), Some(text));
        assert_eq!(elsewhere.get(&format!("old/deep/{number}")), None);
    }
    assert_eq!(errno(fs::metadata(mount.path("old"))), libc::ENOENT);
}

#[test]
fn rule_13_a_directory_is_renamed_onto_an_empty_one_only() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("a/k", "1\n");
    elsewhere.set("full/k", "2\n");
    elsewhere.set("file", "3\n");
    fs::create_dir(mount.path("empty")).unwrap();
    assert_eq!(errno(fs::rename(mount.path("a"), mount.path("full"))), libc::ENOTEMPTY);
    assert_eq!(errno(fs::rename(mount.path("a"), mount.path("file"))), libc::ENOTDIR);
    assert_eq!(errno(fs::rename(mount.path("file"), mount.path("a"))), libc::EISDIR);
    assert_eq!(errno(fs::rename(mount.path("a"), mount.path("a/b"))), libc::EINVAL);
    fs::rename(mount.path("a"), mount.path("empty")).unwrap();
    fs::rename(mount.path("empty"), mount.path("full/a")).unwrap();
    assert_eq!(walk(&mount.dir), ["file", "full/", "full/a/", "full/a/k", "full/k"]);
    assert_eq!(elsewhere.get("full/a/k").as_deref(), Some("1\n"));
    fs::rename(mount.path("full/a/k"), mount.path("k")).unwrap();
    assert_eq!(elsewhere.get("k").as_deref(), Some("1\n"));
    assert_eq!(walk(&mount.dir), ["file", "full/", "full/a/", "full/k", "k"]);
}

#[test]
fn who_writes_in_a_directory_goes_on_when_it_is_renamed() {
    use std::io::Write;
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("old/k", "1\n");
    let mut writer = fs::File::options().write(true).truncate(true).open(mount.path("old/k")).unwrap();
    let mut new = fs::File::create(mount.path("old/new")).unwrap();
    writer.write_all(b"[1]\n").unwrap();
    new.write_all(b"[2]\n").unwrap();
    fs::rename(mount.path("old"), mount.path("moved")).unwrap();
    assert_eq!((common::close(writer), common::close(new)), (0, 0));
    assert_eq!(elsewhere.get("moved/k").as_deref(), Some("[1]\n"));
    assert_eq!(elsewhere.get("moved/new").as_deref(), Some("[2]\n"));
    assert_eq!((elsewhere.get("old/k"), elsewhere.get("old/new")), (None, None));
    assert_eq!(walk(&mount.dir), ["moved/", "moved/k", "moved/new"]);
}

#[test]
fn modes_and_times_of_directories_are_kept() {
    use std::os::unix::fs::PermissionsExt;
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("a/k", "1\n");
    fs::set_permissions(mount.path("a"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(fs::metadata(mount.path("a")).unwrap().mode() & 0o777, 0o700);
    let before = fs::metadata(mount.path("a")).unwrap().modified().unwrap();
    fs::write(mount.path("a/new"), "1\n").unwrap();
    assert!(fs::metadata(mount.path("a")).unwrap().modified().unwrap() > before);
    fs::rename(mount.path("a"), mount.path("b")).unwrap();
    assert_eq!(fs::metadata(mount.path("b")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn odd_keys_have_files_in_directories() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    let long = "é".repeat(300);
    let keys = ["/", "//a", "a//b", "../..", "./x", "a/", "%(value)", "x/%2F/y%", &format!("{long}/{long}")];
    for key in keys {
        elsewhere.set(key, &format!("{key:?}\n"));
    }
    let files: Vec<String> = walk(&mount.dir).into_iter().filter(|path| !path.ends_with('/')).collect();
    assert_eq!(files.len(), keys.len(), "{files:?}");
    let texts: Vec<String> = files.iter().map(|file| fs::read_to_string(mount.path(file)).unwrap()).collect();
    for key in keys {
        assert!(texts.contains(&format!("{key:?}\n")), "{key}");
    }
    for file in &files {
        fs::write(mount.path(file), "0\n").unwrap();
        fs::remove_file(mount.path(file)).unwrap();
    }
    assert!(keys.iter().all(|key| elsewhere.get(key).is_none()));
}

#[test]
fn any_text_separates_and_names_may_end_in_an_extension() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--separator", "::", "--extension", ".json"]);
    let elsewhere = Elsewhere::of(&mount);
    elsewhere.set("app::db", "1\n");
    elsewhere.set("app", "2\n");
    assert_eq!(walk(&mount.dir), ["app.json", "app/", "app/db.json"]);
    fs::create_dir(mount.path("x")).unwrap();
    fs::write(mount.path("x/y.json"), "3\n").unwrap();
    assert_eq!(elsewhere.get("x::y").as_deref(), Some("3\n"));
    assert_eq!(errno(fs::write(mount.path("x/y"), "3\n")), libc::EINVAL);
    assert_eq!(errno(fs::create_dir(mount.path("a::b"))), libc::EINVAL);
}

#[test]
fn a_separator_and_a_flat_view_contradict_each_other() {
    let run = |args: &[&str]| {
        let out = std::process::Command::new(KVFS).args(args).arg("/nonexistent/kv").output().unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    let (code, said) = run(&["--separator", "/", "--flat"]);
    assert!(code == Some(2) && said.contains("--flat"), "{said}");
    let (code, said) = run(&["--separator", ""]);
    assert!(code == Some(2) && said.contains("separator"), "{said}");
}

#[test]
fn what_is_written_while_a_directory_is_renamed_is_in_it_afterwards() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    for number in 0..200 {
        elsewhere.set(&format!("r0/old{number}"), "1\n");
    }
    let inside = fs::File::open(mount.path("r0")).unwrap();
    let within = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&inside));
    let over = std::sync::atomic::AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut written = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let mut file = fs::File::create(format!("{within}/new{written}")).unwrap();
                std::io::Write::write_all(&mut file, b"2\n").unwrap();
                assert_eq!(common::close(file), 0);
                written += 1;
            }
            written
        });
        let end = common::Raise(&over);
        for round in 0..10 {
            let (from, to) = (format!("r{round}"), format!("r{}", round + 1));
            fs::rename(mount.path(from), mount.path(to)).unwrap();
        }
        drop(end);
        writing.join().unwrap()
    });
    let found = walk(&mount.dir);
    assert!(found.iter().all(|path| path.starts_with("r10/")), "{found:?}");
    assert_eq!(found.len(), 1 + 200 + written);
}

#[test]
fn a_directory_that_is_renamed_while_it_is_listed_is_listed_to_its_end() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    for number in 0..500 {
        elsewhere.set(&format!("p/{number}-{}", "y".repeat(200)), "1\n");
    }
    elsewhere.set("p/z/k", "2\n");
    let entries = fs::read_dir(mount.path("p")).unwrap();
    fs::rename(mount.path("p"), mount.path("q")).unwrap();
    assert_eq!(entries.count(), 501);
    assert_eq!(fs::read_to_string(mount.path("q/z/k")).unwrap(), "2\n");
}

#[test]
fn a_backup_without_a_successor_goes_along_with_its_directory() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("h/k", "1\n");
    elsewhere.set("h/l", "1\n");
    fs::rename(mount.path("h/k"), mount.path("h/k~")).unwrap();
    fs::rename(mount.path("h"), mount.path("i")).unwrap();
    common::wait_for(PATIENCE, || {
        walk(&mount.dir) == ["i/", "i/k~", "i/l"] && elsewhere.get("i/k").is_none()
    });
    assert_eq!(elsewhere.get("i/k~").as_deref(), Some("1\n"));
}

#[test]
fn a_backup_that_was_removed_keeps_no_directory_from_being_removed_or_replaced() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    for way in ["removed", "replaced"] {
        fs::create_dir(mount.path(way)).unwrap();
        fs::create_dir(mount.path("d")).unwrap();
        fs::write(mount.path("d/k"), "1\n").unwrap();
        fs::rename(mount.path("d/k"), mount.path("d/k~")).unwrap();
        assert_eq!(errno(fs::remove_dir(mount.path("d"))), libc::ENOTEMPTY, "the backup is in it");
        assert_eq!(elsewhere.get("d/k").as_deref(), Some("1\n"), "others still see it");
        fs::remove_file(mount.path("d/k~")).unwrap();
        match way {
            "removed" => fs::remove_dir(mount.path("d")).unwrap(),
            _ => fs::rename(mount.path(way), mount.path("d")).unwrap(),
        }
        assert_eq!(elsewhere.get("d/k"), None);
    }
    fs::write(mount.path("k"), "2\n").unwrap();
    fs::rename(mount.path("k"), mount.path("k~")).unwrap();
    fs::rename(mount.path("d"), mount.path("k")).unwrap();
    assert_eq!(walk(&mount.dir), ["k/", "k~", "removed/"]);
}
