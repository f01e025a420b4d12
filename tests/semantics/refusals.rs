//! `kvfs why`: what was refused of late.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::common::{Mount, can_mount, wait_for};

/// Upper bound for whatever is waited for; generous, because nothing here measures time.
const PATIENCE: Duration = Duration::from_mins(2);

fn why(mount: &Mount, args: &[&str]) -> Output {
    Mount::command(&mount.home).arg("why").args(args).current_dir(&mount.dir).output().unwrap()
}

/// What `kvfs why --json` tells of `place`.
#[track_caller]
fn told(mount: &Mount, place: &Path) -> Vec<Value> {
    let out = why(mount, &["--json", place.to_str().unwrap()]);
    assert!(out.status.success(), "{out:?}");
    serde_json::from_slice(&out.stdout).unwrap()
}

fn text<'a>(refusal: &'a Value, field: &str) -> &'a str {
    refusal[field].as_str().unwrap_or_default()
}

#[test]
fn each_refusal_is_told_once_with_its_place_and_where_the_text_is() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    assert!(told(&mount, &mount.dir).is_empty());
    let out = why(&mount, &["."]);
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("nothing of . was refused"), "{out:?}");
    assert!(!mount.sh("printf '{\"é\":1,\\n \"b\": x}\\n' > new").status.success());
    // These are told by close(2) alone, which no shell looks at.
    mount.sh("echo '{\"a\":1}' > k; printf '[1' > k; : > k");
    assert!(!mount.sh("mkdir d").status.success());
    assert!(!mount.sh("head -c 10001 /dev/zero | tr '\\0' 1 > large").status.success());
    wait_for(PATIENCE, || {
        let all = told(&mount, &mount.dir);
        all.len() == 5 && all.iter().filter(|one| one["kept"].is_string()).count() == 3
    });
    let all = told(&mount, &mount.dir);
    let of = |name: &str, errno: &str| {
        let wanted = mount.path(name);
        let found: Vec<&Value> = all
            .iter()
            .filter(|one| text(one, "file") == wanted.to_str().unwrap() && text(one, "errno") == errno)
            .collect();
        found.into_iter().cloned().collect::<Vec<Value>>()
    };
    let new = of("new", "EINVAL");
    assert_eq!((new.len(), &new[0]["line"], &new[0]["column"]), (1, &2.into(), &7.into()), "{all:?}");
    assert!(text(&new[0], "reason").starts_with("not JSON at byte 15 (line 2, column 7): "), "{new:?}");
    assert_eq!((text(&new[0], "key"), text(&new[0], "error")), ("new", "Invalid argument"));
    assert_eq!(fs::read_to_string(text(&new[0], "kept")).unwrap(), "{\"é\":1,\n \"b\": x}\n");
    let cut = of("k", "EINVAL");
    assert_eq!(fs::read_to_string(text(&cut[0], "kept")).unwrap(), "[1");
    assert!(text(&cut[0], "reason").contains("incomplete after 2 bytes (line 1, column 3)"), "{cut:?}");
    assert!(text(&cut[1], "reason").contains("the text is empty") && cut[1]["kept"].is_null(), "{cut:?}");
    assert_eq!((of("d", "EPERM").len(), of("large", "EFBIG").len()), (1, 1), "{all:?}");
    // Of one file, which may be gone.
    assert_eq!((told(&mount, &mount.path("new")), told(&mount, &mount.path("k"))), (new, cut));
    assert!(told(&mount, &mount.path("other")).is_empty());
    assert!(mount.last_error().contains("limit is 10000"), "{}", mount.last_error());
    let of_k = mount.sh("getfattr --only-values -n user.kvfs.last_error k");
    assert!(String::from_utf8_lossy(&of_k.stdout).contains("the text is empty"), "{of_k:?}");
}

#[test]
fn why_tells_people_in_words_and_obeys_no_name() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    assert!(!mount.sh("echo '[1,]' > k").status.success());
    wait_for(PATIENCE, || told(&mount, &mount.dir).iter().any(|one| one["kept"].is_string()));
    assert!(!mount.sh("echo 1 > \"$(printf 'a\\033[2J')\"").status.success());
    for args in [&["k"][..], &["./k"], &["."], &[]] {
        let out = why(&mount, args);
        let shown = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success() && shown.contains("/k: Invalid argument (EINVAL)\n  not JSON at byte 3 (line 1, column 4): a value was expected; the old value stays\n  the text is kept in /"), "{args:?} {shown}");
    }
    let out = String::from_utf8(why(&mount, &["."]).stdout).unwrap();
    assert!(out.contains("a\\u{1b}[2J: Invalid argument (EINVAL)\n") && !out.contains('\u{1b}'), "{out}");
    let elsewhere = why(&mount, &[mount.home.path().to_str().unwrap()]);
    let said = String::from_utf8(elsewhere.stderr).unwrap();
    assert_eq!((elsewhere.status.code(), said.contains("is in no mount of kvfs")), (Some(3), true), "{said}");
}

#[test]
fn why_asks_directories_and_what_is_bound_elsewhere() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--separator", "/"]);
    mount.sh("mkdir -p a/b ab; echo 1 > a/b/k; echo 2 > ab/k");
    assert!(!mount.sh("echo bad > a/b/k").status.success());
    assert!(!mount.sh("echo bad > a/b/new").status.success());
    assert!(!mount.sh("echo bad > ab/k").status.success());
    let (file, directory) = (mount.home.path().join("file"), mount.home.path().join("directory"));
    fs::write(&file, "").unwrap();
    fs::create_dir(&directory).unwrap();
    let places = [("a/b/k", &file), ("a/b", &directory)];
    for (name, place) in places {
        assert!(mount.sh(&format!("mount --bind {name} {}", place.display())).status.success());
    }
    wait_for(PATIENCE, || told(&mount, &mount.dir).iter().filter(|one| one["kept"].is_string()).count() == 3);
    let files = |place: &Path| {
        let all = told(&mount, place);
        all.iter().map(|one| text(one, "file").to_owned()).collect::<Vec<String>>()
    };
    let below = |directory: &Path| {
        ["k", "new"].map(|name| directory.join(name).to_str().unwrap().to_owned()).to_vec()
    };
    let found = (files(&mount.path("a")), files(&mount.path("a/b")), files(&directory), files(&file));
    let gone = files(&directory.join("new"));
    for (_, place) in places {
        assert!(mount.sh(&format!("umount {}", place.display())).status.success());
    }
    let (inside, shown) = (below(&mount.path("a/b")), below(&directory));
    assert_eq!(gone, [shown[1].clone()]);
    assert_eq!(found, (inside.clone(), inside, shown, vec![file.to_str().unwrap().to_owned()]));
}

#[test]
fn the_last_hundred_are_remembered_and_fit_into_an_attribute() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--separator", "/"]);
    let long = "n".repeat(250);
    mount.sh(&format!(
        "mkdir -p {long}/{long}; cd {long}/{long}; for n in $(seq 130); do echo bad > $n; done 2>/dev/null"
    ));
    wait_for(PATIENCE, || {
        let all = told(&mount, &mount.dir);
        all.last().is_some_and(|one| text(one, "file").ends_with("/130") && one["kept"].is_string())
    });
    let all = told(&mount, &mount.dir);
    assert!((40..=100).contains(&all.len()), "{}", all.len());
    mount.sh("for n in $(seq 130); do echo bad > s$n; done 2>/dev/null");
    wait_for(PATIENCE, || {
        let all = told(&mount, &mount.dir);
        all.len() == 100 && all.iter().all(|one| one["kept"].is_string())
    });
}
