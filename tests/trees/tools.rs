//! Real tools on trees.

use std::fs;
use std::process::Command;

use super::common::{Mount, PATIENCE};
use super::{tree, walk};

/// Runs `script` in the mount, with a directory beside it at `$BESIDE`; it must succeed.
#[track_caller]
fn sh(mount: &Mount, script: &str) -> String {
    let beside = mount.home.path().join("beside");
    fs::create_dir_all(&beside).unwrap();
    let mut command = Command::new("bash");
    let out = command.args(["-euc", script]).current_dir(&mount.dir).env("BESIDE", &beside).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{script}: {said}");
    String::from_utf8(out.stdout).unwrap()
}

const PLANT: &str = "mkdir -p app/db web/eu && echo '{\"host\":\"db1\"}' > app/db/main && echo 80 > web/eu/port \
    && echo true > web/debug";

#[test]
fn find_grep_and_du_walk_the_tree() {
    let Some((mount, _)) = tree(&[]) else { return };
    sh(&mount, PLANT);
    let found = sh(&mount, "find . -type f | sort");
    assert_eq!(found, "./app/db/main\n./web/debug\n./web/eu/port\n");
    assert_eq!(sh(&mount, "find . -type d | sort"), ".\n./app\n./app/db\n./web\n./web/eu\n");
    assert_eq!(sh(&mount, "grep -rl db1 ."), "./app/db/main\n");
    assert_eq!(sh(&mount, "jq -r .host app/db/main"), "db1\n");
    sh(&mount, "du -a . && ls -lR . && tree_size=$(find . | wc -l) && [ $tree_size = 8 ]");
}

#[test]
fn cp_r_and_rm_r_carry_whole_trees() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    sh(&mount, PLANT);
    sh(&mount, "cp -r web copy && cp -a app $BESIDE/ && diff -r app $BESIDE/app && diff -r web copy");
    assert_eq!(elsewhere.get("copy/eu/port").as_deref(), Some("80\n"));
    sh(&mount, "rm -r web copy && [ ! -e web ]");
    assert_eq!(elsewhere.get("web/eu/port"), None);
    assert_eq!(walk(&mount.dir), ["app/", "app/db/", "app/db/main"]);
    sh(&mount, "cp -r $BESIDE/app back && mv back/db . && rmdir back && mv db/main db/other");
    assert_eq!(elsewhere.get("db/other").as_deref(), Some("{\"host\":\"db1\"}\n"));
}

#[test]
fn rsync_brings_trees_in_and_out_and_deletes() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    sh(&mount, PLANT);
    sh(&mount, "rsync -a ./ $BESIDE/out/ && diff -r . $BESIDE/out");
    assert_eq!(sh(&mount, "rsync -ai ./ $BESIDE/out/"), "", "nothing is left to be done");
    sh(
        &mount,
        "rm -r $BESIDE/out/web/eu && echo 1 > $BESIDE/out/app/new && rsync -a --delete $BESIDE/out/ ./",
    );
    assert_eq!(walk(&mount.dir), ["app/", "app/db/", "app/db/main", "app/new", "web/", "web/debug"]);
    assert_eq!(elsewhere.get("web/eu/port"), None);
    assert_eq!(sh(&mount, "rsync -ai --delete $BESIDE/out/ ./"), "");
}

#[test]
fn tar_git_and_editors_work_in_directories() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    sh(&mount, PLANT);
    sh(
        &mount,
        "tar cf $BESIDE/all.tar . && rm -r app web && tar xf $BESIDE/all.tar && [ $(cat web/eu/port) = 80 ]",
    );
    sh(&mount, "sed -i s/80/8080/ web/eu/port");
    assert_eq!(elsewhere.get("web/eu/port").as_deref(), Some("8080\n"));
    sh(
        &mount,
        "vim -Es -u NONE -c 's/8080/81/' -c wq web/eu/port < /dev/null || true; [ $(cat web/eu/port) = 81 ]",
    );
    assert_eq!(elsewhere.get("web/eu/port").as_deref(), Some("81\n"));
    sh(&mount, "cd web/eu && echo 82 > port.tmp && mv port.tmp port && [ $(cat port) = 82 ]");
    assert_eq!(elsewhere.get("web/eu/port").as_deref(), Some("82\n"));
    sh(&mount, "install -D -m 600 web/debug new/deep/debug && [ $(stat -c %a new/deep/debug) = 600 ]");
    assert_eq!(elsewhere.get("new/deep/debug").as_deref(), Some("true\n"));
}

#[test]
fn rejected_text_of_a_file_in_a_directory_is_kept_and_named() {
    let Some((mount, _)) = tree(&[]) else { return };
    sh(&mount, PLANT);
    let out = mount.sh("echo '{\"host\":' > app/db/main");
    assert!(!out.status.success() || mount.last_error().contains("app/db/main"));
    super::common::wait_for(PATIENCE, || !mount.rejected().is_empty());
    let kept = mount.rejected().iter().any(|path| path.to_string_lossy().contains("app%2Fdb%2Fmain"));
    assert!(kept, "{:?}", mount.rejected());
}
