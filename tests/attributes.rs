//! Owner, mode and times are the key's: after a restart, on every mount, and whoever writes the database.
#![allow(missing_docs, clippy::unwrap_used)]

mod tools;
mod trouble;

use std::path::Path;

use crate::common;
use common::{Elsewhere, Mount, PATIENCE, can_mount, wait_for};
use rusqlite::Connection;
use tempfile::TempDir;

/// What chmod, chown and touch are asked for, and what stat shows then.
const SET: &str = "umask 022; echo 1 > k; chmod 600 k; chown 12:34 k; touch -d @1000000000 k";
const SHOWN: &str = "600 12 34 1000000000\n";

fn shown(mount: &Mount, name: &str) -> String {
    String::from_utf8(mount.sh(&format!("stat -c '%a %u %g %Y' {name}")).stdout).unwrap()
}

fn again(mount: Mount) -> Mount {
    again_with(mount, &[])
}

fn again_with(mount: Mount, args: &[&str]) -> Mount {
    let home = mount.unmount();
    let store = format!("sqlite:{}", home.path().join("kv.db").display());
    Mount::start_in(home, &store, args)
}

fn done(mount: &Mount, script: &str) {
    let out = mount.sh(&format!("exec 2>&1; set -e; {script}"));
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stdout));
}

/// Another mount of the same database.
fn second(mount: &Mount) -> Mount {
    let store = format!("sqlite:{}", mount.home.path().join("kv.db").display());
    Mount::start_in(TempDir::new().unwrap(), &store, &[])
}

#[test]
fn what_chmod_chown_and_touch_set_is_there_after_a_restart_and_on_every_mount() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let other = second(&mount);
    done(&mount, "umask 022; echo 1 > k");
    wait_for(PATIENCE, || shown(&other, "k").starts_with("644 0 0"));
    done(&mount, SET);
    assert_eq!(shown(&mount, "k"), SHOWN);
    wait_for(PATIENCE, || shown(&other, "k") == SHOWN);
    done(&other, "chmod 640 k");
    wait_for(PATIENCE, || shown(&mount, "k").starts_with("640 12 34"));
    assert_eq!(mount.status()["in_memory"]["attributes"], 0);
    drop(other);
    let mount = again(mount);
    assert_eq!(shown(&mount, "k"), SHOWN.replace("600", "640"));
    assert_eq!(mount.status()["in_memory"]["attributes"], 0);
    // A set keeps mode and owner, and has its own time.
    done(&mount, "echo 2 > k");
    let mount = again(mount);
    let now = shown(&mount, "k");
    assert!(now.starts_with("640 12 34") && !now.contains("1000000000"), "{now}");
}

#[test]
fn attributes_go_with_a_rename_and_end_with_the_key() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    done(&mount, &format!("{SET}; mv k new; echo 5 > k; echo 6 > l; chmod 600 l; rm l; echo 7 > l"));
    let check = |mount: &Mount| {
        assert_eq!(shown(mount, "new"), SHOWN);
        for name in ["k", "l"] {
            assert!(shown(mount, name).starts_with("644 0 0"), "{name}: {}", shown(mount, name));
        }
    };
    check(&mount);
    check(&again(mount));
}

#[test]
fn what_replaces_a_key_brings_its_own_attributes() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let script = format!(
        "{SET}; cp -p k copied; install -m 640 -o 7 -g 8 k installed; echo 1 > e; chmod 600 e
         printf 2 > .t.tmp; mv .t.tmp e
         echo 3 > f; chmod 604 f; sed -i s/3/4/ f
         (umask 077; echo 1 > private)
         mkdir ../s; echo 9 > ../s/r; chmod 611 ../s/r; touch -d @5 ../s/r; cp -p ../s/r outside"
    );
    done(&mount, &script);
    let all = "k copied installed e f private outside";
    let modes = |mount: &Mount| {
        String::from_utf8(
            mount.sh(&format!("stat -c '%n %a %u %g' {all}; stat -c %Y k copied outside")).stdout,
        )
        .unwrap()
    };
    let before = modes(&mount);
    let expected = "k 600 12 34\ncopied 600 12 34\ninstalled 640 7 8\ne 644 0 0\nf 604 0 0\nprivate 600 0 0\noutside 611 0 0\n1000000000\n1000000000\n5\n";
    assert_eq!(before, expected);
    let mount = again(mount);
    assert_eq!(modes(&mount), expected);
}

#[test]
fn a_mode_that_was_acknowledged_outlives_a_kill() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    done(&mount, SET);
    let other = second(&mount);
    done(&mount, &format!("chmod 400 k; kill -9 {}", mount.pid));
    wait_for(PATIENCE, || shown(&other, "k").starts_with("400 12 34"));
}

#[test]
fn a_database_of_the_first_version_keeps_them_and_that_version_goes_on_writing_it() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    first_version(&path);
    let mount = Mount::start_in(home, &format!("sqlite:{}", path.display()), &[]);
    done(&mount, &format!("{SET}; for i in a b c; do echo 1 > $i; chmod 600 $i; done"));
    // As that version does it: of each statement the columns that it names, and no more.
    let db = Connection::open(mount.home.path().join("kv.db")).unwrap();
    db.busy_timeout(PATIENCE).unwrap();
    db.execute_batch(
        "BEGIN IMMEDIATE;
         CREATE TEMP TABLE old AS SELECT * FROM entry WHERE key = 'a';
         DELETE FROM entry WHERE key = 'a';
         INSERT INTO change (revision, key) SELECT max(revision) + 1, 'a' FROM change;
         INSERT INTO change (revision, key) SELECT max(revision) + 1, 'd' FROM change;
         DELETE FROM value WHERE id = (SELECT value_id FROM entry WHERE key = 'b');
         DELETE FROM entry WHERE key = 'b';
         INSERT INTO value (bytes) VALUES ('8');
         COMMIT;",
    )
    .unwrap();
    let columns: i64 =
        db.query_row("SELECT count(*) FROM pragma_table_info('entry')", [], |row| row.get(0)).unwrap();
    assert_eq!(columns, 8);
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 1);
    drop(db);
    let mount = again(mount);
    assert_eq!(shown(&mount, "k"), SHOWN);
    assert!(shown(&mount, "c").starts_with("600"));
}

/// An empty database as the first version makes it.
fn first_version(path: &Path) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(
        "CREATE TABLE entry (
             key TEXT PRIMARY KEY NOT NULL, id BLOB NOT NULL, revision INTEGER NOT NULL, size INTEGER NOT NULL,
             created INTEGER NOT NULL, modified INTEGER NOT NULL, value_id INTEGER NOT NULL, sum INTEGER NOT NULL
         ) WITHOUT ROWID;
         CREATE TABLE value (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
         CREATE TABLE change (revision INTEGER PRIMARY KEY, key TEXT NOT NULL);
         CREATE VIEW kv AS SELECT key, bytes AS value, revision FROM entry JOIN value ON value.id = entry.value_id;
         PRAGMA application_id = 0x6b766673; PRAGMA user_version = 1; PRAGMA journal_mode = WAL;",
    )
    .unwrap();
}

/// The checksum of a key and its value.
fn sum(key: &str, value: &str) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(key.as_bytes());
    sum.update(value.as_bytes());
    sum.finalize()
}

/// What the first version does with the key `from`: it renames it to `to`, or sets it to this value.
fn by_first_version(db: &Connection, from: &str, to: &str, value: Option<&str>) {
    let sum = sum(to, value.unwrap_or("1\n"));
    db.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         CREATE TEMP TABLE old AS SELECT * FROM entry WHERE key = '{from}';
         {}
         INSERT INTO change (revision, key) SELECT max(revision) + 1, '{to}' FROM change;
         INSERT OR REPLACE INTO entry SELECT '{to}', id, (SELECT max(revision) FROM change), 2, created, modified + 1000, value_id, {sum} FROM old;
         DROP TABLE old; COMMIT;",
        match value {
            Some(value) => format!("UPDATE value SET bytes = '{value}' WHERE id = (SELECT value_id FROM old);"),
            None => format!(
                "DELETE FROM entry WHERE key = '{from}';
                 INSERT INTO change (revision, key) SELECT max(revision) + 1, '{from}' FROM change;"
            ),
        }
    ))
    .unwrap();
}

#[test]
fn a_time_that_was_set_outlives_a_rename_by_the_first_version_and_no_set_by_it() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    first_version(&path);
    for mount in [Mount::start_in(home, &format!("sqlite:{}", path.display()), &[]), Mount::sqlite(&[])] {
        done(&mount, &format!("{SET}; cp -p k set; cp -p k plain; chmod 601 plain; echo 1 > plain"));
        let db = Connection::open(mount.home.path().join("kv.db")).unwrap();
        db.busy_timeout(PATIENCE).unwrap();
        by_first_version(&db, "k", "renamed", None);
        by_first_version(&db, "plain", "plain", None);
        by_first_version(&db, "set", "set", Some("2\n"));
        drop(db);
        let mount = again(mount);
        assert_eq!(shown(&mount, "renamed"), SHOWN);
        for (name, mode) in [("set", "600"), ("plain", "601")] {
            let now = shown(&mount, name);
            assert!(now.starts_with(mode) && !now.contains("1000000000"), "{name}: {now}");
        }
        done(&mount, "mv renamed k; touch -d @5 k; cp -p k l; mv l m");
        let mount = again(mount);
        assert_eq!(shown(&mount, "k") + &shown(&mount, "m"), "600 12 34 5\n".repeat(2));
    }
}

#[test]
fn a_set_of_a_file_without_attributes_keeps_none() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    done(&mount, "umask 022; echo 1 > k; echo 2 > k; mv k l; cp l m; mv m .m.tmp; rm .m.tmp");
    let elsewhere = Elsewhere::of(&mount);
    assert_eq!(elsewhere.get("l").as_deref(), Some("2\n"));
    assert_eq!(mount.calls("set_attributes"), 0);
    let db = Connection::open(mount.home.path().join("kv.db")).unwrap();
    let kept: i64 = db.query_row("SELECT count(attributes) FROM value", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 0);
    done(&mount, "chmod 600 l");
    assert_eq!(mount.calls("set_attributes"), 1);
}

#[test]
fn what_is_asked_for_is_kept_although_the_file_shows_it_already() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    done(
        &mount,
        "umask 022; echo 1 > k; chmod 644 k; chown 0:0 k; echo 1 > l; cp -p l m; install -m 644 l n; echo 1 > default",
    );
    let sent = mount.calls("set_attributes");
    done(&mount, "chmod 644 k; chown 0:0 k; chmod 644 m");
    assert_eq!(mount.calls("set_attributes"), sent);
    let mount = again_with(mount, &["--uid", "5", "--gid", "6", "--umask", "077"]);
    for (name, now) in [("k", "644 0 0"), ("m", "644 5 6"), ("n", "644 5 6"), ("default", "600 5 6")] {
        assert!(shown(&mount, name).starts_with(now), "{name}: {}", shown(&mount, name));
    }
}

#[test]
fn a_file_that_is_bound_elsewhere_has_the_attributes_of_its_key_and_sets_them() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let other = second(&mount);
    done(&mount, "umask 022; echo 1 > k");
    let script = "set -e; touch b; mount --bind mnt/k b; show() { stat -c '%a %u %g' b mnt/k; }
        chmod 640 b; chown 5:6 b; touch -d @1000000000 b; show; echo 2 > b; show; chmod 600 mnt/k; show
        umask 022; echo 3 > mnt/t; chmod 604 mnt/t; mv mnt/t mnt/k; cat b > t; show; chmod 606 b; show; umount b";
    let out = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .current_dir(mount.home.path())
        .output();
    let out = out.unwrap();
    assert!(out.status.success(), "{out:?}");
    let modes = ["640 5 6", "640 5 6", "600 5 6", "604 0 0", "606 0 0"];
    let text = String::from_utf8(out.stdout).unwrap();
    let expected: Vec<&str> = modes.iter().flat_map(|mode| [*mode, *mode]).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    wait_for(PATIENCE, || shown(&other, "k").starts_with("606 0 0"));
    drop(other);
    assert!(shown(&again(mount), "k").starts_with("606 0 0"));
}

#[test]
fn mounts_that_change_attributes_at_once_show_the_same_in_the_end() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--separator", "/"]);
    let store = format!("sqlite:{}", mount.home.path().join("kv.db").display());
    let other = Mount::start_in(TempDir::new().unwrap(), &store, &["--separator", "/"]);
    done(&mount, "umask 022; mkdir d; echo 1 > d/k");
    wait_for(PATIENCE, || other.path("d/k").exists());
    std::thread::scope(|scope| {
        for (mount, modes) in [(&mount, "600 640 644 604"), (&other, "700 711 701 710")] {
            scope.spawn(move || {
                done(
                    mount,
                    &format!(
                        "for i in $(seq 25); do for m in {modes}; do chmod $m d/k; chmod $m d; done; done"
                    ),
                );
            });
        }
    });
    let show = |mount: &Mount| {
        shown(mount, "d/k d").split('\n').map(|line| line[..line.len().min(3)].to_owned()).collect::<Vec<_>>()
    };
    wait_for(PATIENCE, || show(&mount) == show(&other));
    let both = show(&mount);
    assert_eq!(show(&again_with(mount, &["--separator", "/"])), both);
}
