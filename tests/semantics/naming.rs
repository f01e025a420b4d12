//! Rules 7 to 10: scratch files, attributes, and what is not lost.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::common::{Elsewhere, Mount, PATIENCE, can_mount, close, errno, wait_for};

#[test]
fn rule_07_scratch_files_are_never_sent_and_temporary_ones_become_keys() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let elsewhere = Elsewhere::of(&mount);
    fs::write(mount.path(".doc.swp"), vec![7; 12_288]).unwrap();
    fs::write(mount.path("doc~"), "not json").unwrap();
    assert_eq!(fs::read_dir(&mount.dir).unwrap().count(), 2);
    assert_eq!(mount.calls("set_key_value"), 0);
    let mut temporary =
        OpenOptions::new().write(true).create_new(true).open(mount.path("sedAbCdEf")).unwrap();
    temporary.write_all(b"{\"a\":1}").unwrap();
    drop(temporary);
    assert_eq!(mount.calls("set_key_value"), 0);
    fs::rename(mount.path("sedAbCdEf"), mount.path("doc")).unwrap();
    assert_eq!(mount.calls("set_key_value"), 1);
    let mut stays = OpenOptions::new().write(true).create_new(true).open(mount.path("sedatives")).unwrap();
    stays.write_all(b"[\"valium\"]").unwrap();
    drop(stays);
    wait_for(PATIENCE, || elsewhere.get("sedatives").is_some());
    assert_eq!(fs::read_to_string(mount.path("sedatives")).unwrap(), "[\"valium\"]");
    // An editor's backup dance: the key stays in the store until its successor is there.
    fs::rename(mount.path("doc"), mount.path("doc~")).unwrap();
    assert_eq!(errno(File::open(mount.path("doc"))), libc::ENOENT);
    assert_eq!(elsewhere.get("doc").as_deref(), Some("{\"a\":1}"));
    fs::write(mount.path("doc"), "{\"a\":2}").unwrap();
    fs::remove_file(mount.path("doc~")).unwrap();
    assert_eq!(elsewhere.get("doc").as_deref(), Some("{\"a\":2}"));
    assert_eq!(mount.calls("delete_key"), 0);
    let renamed = mount.sh("mv doc doc~");
    assert!(renamed.status.success());
    wait_for(PATIENCE, || elsewhere.get("doc").is_none());
    assert_eq!(elsewhere.get("doc~").as_deref(), Some("{\"a\":2}"));
    assert_eq!(fs::read_to_string(mount.path("doc~")).unwrap(), "{\"a\":2}");
    // By another process than the one that renamed it.
    let saved = mount.sh("echo 3 > app; mv app app~; sed s/3/4/ app~ > app");
    assert!(saved.status.success());
    assert_eq!(["app", "app~"].map(|key| elsewhere.get(key)), ["4\n", "3\n"].map(|text| Some(text.into())));
    let synced = mount.sh("mv app~ new; mv new new~; sync new~");
    assert!(synced.status.success());
    assert_eq!(["new", "new~"].map(|key| elsewhere.get(key)), [None, Some("3\n".into())]);
}

#[test]
fn rule_08_attributes_can_be_set_and_tell_about_the_key() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let out = mount
        .sh("echo 1 > doc && chmod 600 doc && touch -d '2001-02-03 04:05:06 UTC' doc && stat -c '%a %Y' doc");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "600 981173106\n");
    let source = mount.home.path().join("source");
    fs::write(&source, "[2]").unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o640)).unwrap();
    let out = mount.sh("touch -d @1000000000 ../source && cp -p ../source doc && stat -c '%a %Y %s' doc");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "640 1000000000 3\n", "{out:?}");
    fs::write(mount.path("doc"), "[33]").unwrap();
    assert!(fs::metadata(mount.path("doc")).unwrap().mtime() > 1_000_000_000);
    let out =
        mount.sh("getfattr -n user.kvfs.id --only-values doc; setfattr -n user.x -v 1 doc || echo refused");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.len() > 36 && text.ends_with("refused\n"), "{text}");
    let out = mount.sh("echo xyz > doc; getfattr -n user.kvfs.last_error --only-values .; getfattr -n user.kvfs.last_error --only-values doc");
    assert_eq!(String::from_utf8_lossy(&out.stdout).matches("not JSON at byte 0").count(), 2, "{out:?}");
}

#[test]
fn rule_09_what_could_not_be_published_is_kept() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    fs::write(mount.path("doc"), "1").unwrap();
    let mut file = File::create(mount.path("doc")).unwrap();
    file.write_all(b"{\"half\":").unwrap();
    assert_eq!(close(file), libc::EINVAL);
    assert!(!mount.sh("echo nonsense > doc").status.success());
    wait_for(PATIENCE, || mount.rejected().len() == 4);
    let kept: Vec<String> = mount.rejected().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    assert!(kept.contains(&"{\"half\":".to_owned()) && kept.contains(&"nonsense\n".to_owned()), "{kept:?}");
    assert!(kept.iter().filter(|text| text.contains("reason: ")).count() == 2, "{kept:?}");
    for path in mount.rejected() {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::read_to_string(mount.path("doc")).unwrap(), "1");
    fs::remove_file(mount.path("doc")).unwrap();
    let deleted =
        || mount.rejected().into_iter().find(|path| path.extension().is_some_and(|end| end == "deleted"));
    wait_for(PATIENCE, || deleted().is_some_and(|path| fs::read_to_string(path).unwrap() == "1"));
}

#[test]
fn rule_10_a_conflict_is_estale_and_the_losers_text_is_kept() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let elsewhere = Elsewhere::of(&mount);
    fs::write(mount.path("doc"), "[1]").unwrap();
    let file = OpenOptions::new().read(true).write(true).open(mount.path("doc")).unwrap();
    elsewhere.set("doc", "[2]");
    file.write_all_at(b"[3]", 0).unwrap();
    assert_eq!(close(file), libc::ESTALE);
    assert_eq!(elsewhere.get("doc").as_deref(), Some("[2]"));
    wait_for(PATIENCE, || fs::read_to_string(mount.path("doc")).unwrap() == "[2]");
    wait_for(PATIENCE, || mount.rejected().iter().any(|path| fs::read(path).unwrap() == b"[3]"));
    let file = OpenOptions::new().write(true).truncate(true).open(mount.path("doc")).unwrap();
    elsewhere.set("doc", "[4]");
    file.write_all_at(b"[5]", 0).unwrap();
    assert_eq!(close(file), 0);
    assert_eq!(elsewhere.get("doc").as_deref(), Some("[5]"));
    let file = OpenOptions::new().write(true).create_new(true).open(mount.path("new")).unwrap();
    elsewhere.set("new", "[6]");
    assert_eq!(errno(file.write_all_at(b"[7]", 0)), libc::EEXIST);
    assert_eq!(close(file), libc::EEXIST);
    let file = OpenOptions::new().read(true).write(true).open(mount.path("doc")).unwrap();
    elsewhere.delete("doc");
    file.write_all_at(b"[8]", 0).unwrap();
    assert_eq!(close(file), libc::ESTALE);
    wait_for(PATIENCE, || !mount.path("doc").exists());
}

/// The system calls of a save, by the names of the key and of the file beside it.
type Save = fn(&Path, &Path);

#[test]
fn rule_07_a_save_by_way_of_an_editors_own_names_is_one_set() {
    if !can_mount() {
        return;
    }
    let jetbrains: Save = |key, temporary| {
        let old = temporary.with_file_name("k.json___jb_old___");
        fs::write(temporary, "{\"new\":1}").unwrap();
        fs::rename(key, &old).unwrap();
        fs::rename(temporary, key).unwrap();
        fs::remove_file(old).unwrap();
    };
    let code: Save = |key, temporary| {
        fs::write(temporary, "{\"new\":1}").unwrap();
        fs::rename(temporary, key).unwrap();
    };
    let helix: Save = |key, backup| {
        fs::rename(key, backup).unwrap();
        fs::write(key, "{\"new\":1}").unwrap();
        fs::remove_file(backup).unwrap();
    };
    for (beside, save) in
        [("k.json___jb_tmp___", jetbrains), ("k.json.vsctmp", code), ("k.jsonaB3xYz.bck", helix)]
    {
        let mount = Mount::sqlite(&[]);
        fs::write(mount.path("k.json"), "{}").unwrap();
        let changes = || ["set_key_value", "rename_key", "delete_key"].map(|call| mount.calls(call));
        let before = changes();
        save(&mount.path("k.json"), &mount.path(beside));
        assert_eq!(changes(), [before[0] + 1, before[1], before[2]], "{beside}");
        assert_eq!(mount.text("k.json").as_deref(), Some("{\"new\":1}"), "{beside}");
        assert_eq!(mount.names(), ["k.json"], "{beside}");
    }
}

#[test]
fn rule_09_who_is_killed_after_a_set_that_failed_leaves_the_old_value_and_the_text() {
    if !can_mount() {
        return;
    }
    for (opening, text) in [("WRONLY | os.O_TRUNC", "[1]"), ("RDWR", "[2]"), ("WRONLY | os.O_CREAT", "[3]")] {
        let mount = Mount::sqlite(&["--timeout", "500ms"]);
        fs::write(mount.path("doc"), "[0]").unwrap();
        let name = if opening.contains("CREAT") { "new" } else { "doc" };
        let other = rusqlite::Connection::open(mount.home.path().join("kv.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let script = format!(
            "import os\nfd = os.open('{name}', os.O_{opening})\ntry: os.write(fd, b'{text}'); os.fsync(fd)\n\
             except OSError as error: print(error.errno, flush=True)\nos.kill(os.getpid(), 9)"
        );
        let out = Command::new("python3").args(["-c", &script]).current_dir(&mount.dir).output().unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), format!("{}\n", libc::EBUSY), "{opening}");
        wait_for(PATIENCE, || mount.rejected().iter().any(|path| fs::read(path).unwrap() == text.as_bytes()));
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(mount.text("doc").as_deref(), Some("[0]"), "{opening}");
        assert_eq!(mount.names(), ["doc"], "{opening}");
    }
}
