//! Keys with parts as directories over a server that keeps neither directories nor revisions, and tells of no change.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::DELETE;
use super::common::bound::{lives_on, moves, sets_and_deletes};
use super::common::{Mount, can_mount, errno};
use super::server::{KEY, Server};

const MAX_AGE: Duration = Duration::from_millis(300);
/// What the kernel rounds up.
const TICK: Duration = Duration::from_millis(30);

fn tree() -> Option<(Server, Mount)> {
    can_mount().then(|| {
        let server = Server::memory();
        let mount = Mount::prefect_cloud(&server.address, KEY, &["--separator", "/", "--max-age", "300ms"]);
        (server, mount)
    })
}

/// The keys of a server, sorted.
fn keys(server: &Server) -> Vec<String> {
    let rows = server.data("{ key_value(order_by: [{key: asc}]) { key } }", Value::Null);
    let rows = rows["key_value"].as_array().unwrap();
    rows.iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn keys_with_parts_are_files_in_directories() {
    let Some((server, mount)) = tree() else { return };
    server.set("app/db/host", json!("db1"));
    server.set("app/debug", json!(true));
    server.set("app", json!({"n": 1}));
    sleep(MAX_AGE + TICK);
    assert_eq!(names(&mount.dir), ["app", "app%(value)"]);
    assert_eq!(names(&mount.path("app")), ["db", "debug"]);
    assert_eq!(fs::read_to_string(mount.path("app/db/host")).unwrap(), "\"db1\"\n");
    assert_eq!(fs::read_to_string(mount.path("app%(value)")).unwrap(), "{\n  \"n\": 1\n}\n");
    fs::create_dir_all(mount.path("web/eu")).unwrap();
    assert_eq!(keys(&server), ["app", "app/db/host", "app/debug"]);
    fs::write(mount.path("web/eu/port"), "80\n").unwrap();
    assert_eq!(server.get("web/eu/port"), Some(json!(80)));
    // It stays while it is empty, however old the listing is.
    fs::create_dir(mount.path("made")).unwrap();
    sleep(MAX_AGE + TICK);
    assert_eq!(names(&mount.path("made")), [""; 0]);
    fs::remove_dir(mount.path("made")).unwrap();
    assert_eq!(errno(fs::remove_dir(mount.path("web"))), libc::ENOTEMPTY);
    fs::remove_dir_all(mount.path("web")).unwrap();
    assert_eq!(keys(&server), ["app", "app/db/host", "app/debug"]);
}

#[test]
fn a_directory_of_one_key_is_renamed_and_one_of_several_is_copied_by_mv() {
    let Some((server, mount)) = tree() else { return };
    server.set("one/k", json!([1]));
    for number in 0..5 {
        server.set(&format!("old/deep/{number}"), json!({"number": number}));
    }
    server.set("old/k", json!("k"));
    let before = keys(&server);
    sleep(MAX_AGE + TICK);
    assert_eq!(errno(fs::rename(mount.path("old"), mount.path("new"))), libc::EXDEV);
    assert_eq!(keys(&server), before);
    assert!(mount.path("old/deep/4").exists() && !mount.path("new").exists());
    let out = mount.sh("mv old new");
    assert!(out.status.success(), "{out:?}");
    assert_eq!(
        keys(&server),
        ["new/deep/0", "new/deep/1", "new/deep/2", "new/deep/3", "new/deep/4", "new/k", "one/k"]
    );
    assert_eq!(server.get("new/deep/3"), Some(json!({"number": 3})));
    assert_eq!(names(&mount.dir), ["new", "one"]);
    assert_eq!(fs::read_to_string(mount.path("new/k")).unwrap(), "\"k\"\n");
    fs::rename(mount.path("one"), mount.path("moved")).unwrap();
    assert_eq!((server.get("one/k"), server.get("moved/k")), (None, Some(json!([1]))));
    assert_eq!(names(&mount.path("moved")), ["k"]);
}

#[test]
fn what_others_change_in_directories_is_seen_within_the_age() {
    let Some((server, mount)) = tree() else { return };
    for round in 0..6 {
        // The cache is right now, and will be wrong in a moment.
        assert_eq!(errno(fs::metadata(mount.path("a/b/k"))), libc::ENOENT);
        assert_eq!(names(&mount.dir), [""; 0]);
        let id = server.set("a/b/k", json!(round));
        sleep(MAX_AGE + TICK);
        assert_eq!(fs::read_to_string(mount.path("a/b/k")).unwrap(), format!("{round}\n"));
        assert_eq!((names(&mount.dir), names(&mount.path("a"))), (vec!["a".into()], vec!["b".into()]));
        server.set("a/b/k", json!("new"));
        server.set("a/c", json!(1));
        sleep(MAX_AGE + TICK);
        // The listing or the file first.
        if round % 2 == 0 {
            assert_eq!(names(&mount.path("a")), ["b", "c"]);
        }
        assert_eq!(fs::read_to_string(mount.path("a/b/k")).unwrap(), "\"new\"\n");
        assert_eq!(names(&mount.path("a")), ["b", "c"]);
        fs::remove_file(mount.path("a/c")).unwrap();
        server.data(DELETE, json!({"id": id}));
        sleep(MAX_AGE + TICK);
        assert_eq!(errno(fs::read(mount.path("a/b/k"))), libc::ENOENT);
        // Something was removed from it here, so it stays; the other one had its key from others alone.
        assert_eq!(names(&mount.path("a")), [""; 0]);
        fs::remove_dir(mount.path("a")).unwrap();
    }
}

#[test]
fn a_bound_directory_lives_on_though_the_server_tells_of_no_change() {
    let Some((server, mount)) = tree() else { return };
    let args = ["--separator", "/", "--max-age", "0s"];
    let other = Mount::prefect_cloud(&server.address, KEY, &args);
    lives_on(&mount, "p/d/k", sets_and_deletes(&other));
    lives_on(&mount, "m/d/k", moves(&other));
    let told = Mount::prefect_cloud(
        &server.address,
        KEY,
        &[&args[..2], &["--max-age", "300ms", "--notify"]].concat(),
    );
    lives_on(&told, "p/d/k", sets_and_deletes(&other));
}
