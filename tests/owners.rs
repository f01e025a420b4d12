//! Whose a new file is: as on a local disk where the store keeps that with the key, else as the options say.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

use crate::common;
use common::serve::{KEY, Server};
use common::{Elsewhere, Mount, PATIENCE, can_mount, wait_for};
use tempfile::TempDir;

/// What `script` prints in `dir` as user and group `id`, who is in group 2000 too.
fn as_user(id: u32, dir: &Path, script: &str) -> String {
    let id = id.to_string();
    let out = Command::new("setpriv")
        .args(["--reuid", &id, "--regid", &id, "--groups", "2000", "sh", "-c"])
        .arg(format!("exec 2>&1; {script}"))
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8(out.stdout).unwrap()
}

fn sh(dir: &Path, script: &str) -> String {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("exec 2>&1; set -e; {script}")).current_dir(dir).stdin(Stdio::null());
    let out = command.output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{script}: {text}");
    text
}

const SHOW: &str = "LC_ALL=C; for f in $(find . | sort); do stat -c '%n %a %u %g' $f; done";

/// A directory for a group, and what its members, a stranger and root make in it.
fn shared_by_a_group(dir: &Path) -> String {
    sh(
        dir,
        "umask 022; mkdir shared open; chgrp 2000 shared; chmod 2775 shared; chgrp 3000 open; chmod 2777 open",
    );
    let first = as_user(1001, dir, "umask 002; echo 1 > shared/k; mkdir shared/d; echo 1 > shared/d/k");
    let second = as_user(1002, dir, "umask 002; echo 2 > shared/k; echo 2 > shared/d/k; mkdir shared/d/e");
    // Who is not in the group.
    let make = "import os; os.umask(0); os.close(os.open('open/x', os.O_CREAT | os.O_WRONLY, 0o2777)); os.mkdir('open/d', 0o700)";
    let stranger = as_user(1003, dir, &format!("python3 -c \"{make}\"; echo 1 > open/k; chmod 2755 open/k"));
    let root = "umask 022; echo 1 > shared/root; mkdir shared/r; echo 1 > shared/t~; mv shared/t~ shared/t; mkdir shared/n
        cp shared/k shared/r/k; mv shared/r/k shared/n; mv shared/n shared/moved; sed -i s/2/3/ shared/k";
    format!("{first}{second}{stranger}{}{}", sh(dir, root), sh(dir, SHOW))
}

#[test]
fn a_setgid_directory_gives_its_group_to_what_is_new_in_it_as_on_a_local_disk() {
    if !can_mount() {
        return;
    }
    let local = TempDir::new().unwrap();
    let expected = shared_by_a_group(local.path());
    assert!(expected.contains("./shared/d 2775 1001 2000\n./shared/d/e 2775 1002 2000\n"), "{expected}");
    assert!(expected.contains("./open/x 777 1003 3000\n"), "{expected}");
    for start in [Mount::sqlite, Mount::memory] {
        let mount = start(&["--separator", "/", "--allow-other"]);
        assert_eq!(shared_by_a_group(&mount.dir), expected);
    }
}

/// Modes after what ends that a file runs as its owner or group, and after what does not.
fn privileges(dir: &Path) -> String {
    let script = "umask 022; echo 1 > k; show() { stat -c '%a %u %g' k; chmod 6755 k; }; chmod 6755 k; chown 1001:1001 k; show
        chgrp 1001 k; show; chmod 6705 k; chown 1001 k; stat -c '%a %u %g' k; chmod 6755 k; echo 2 > k; show; truncate -s 1 k; show
        mkdir d; chmod 6755 d; chown 1001 d; stat -c '%a %u %g' d";
    let root = sh(dir, script);
    let user = as_user(
        1001,
        dir,
        "truncate -s 1 k; stat -c '%a %u %g' k; chmod 6755 k; chgrp 2000 k; stat -c '%a %u %g' k
         show() { stat -c '%a %u %g' k; cat k; chmod 6755 k; }; chmod 6755 k; echo 4 > k; show; echo ' ' >> k; show
         chmod 6705 k; printf 5 | dd of=k conv=notrunc 2> /dev/null; show; chmod 6755 k; echo 6 > k; show",
    );
    root + &user
}

#[test]
fn a_new_owner_and_a_write_end_that_a_file_runs_as_somebody_as_on_a_local_disk() {
    if !can_mount() {
        return;
    }
    let local = TempDir::new().unwrap();
    let expected = privileges(local.path());
    let mount = Mount::sqlite(TREE);
    assert_eq!(privileges(&mount.dir), expected);
    as_user(1001, &mount.dir, "echo 6 > k");
    let mount = again(mount, TREE);
    assert_eq!(sh(&mount.dir, "stat -c %a k"), "755\n");
    let server = Server::memory();
    let mount = Mount::prefect_cloud(&server.address, KEY, TREE);
    assert_eq!(privileges(&mount.dir), expected);
}

/// What root and another user make; what they ask for by chmod and the like stays theirs.
const MAKE: &str =
    "umask 022; echo 1 > k; (umask 077; echo 1 > private); mkdir d; printf 1 > .k.tmp; mv .k.tmp t
    echo 1 > asked; chmod 640 asked; chown 5:6 asked; echo 1 > d/k; chmod 777 d";

fn made(mount: &Mount) -> String {
    let root = sh(&mount.dir, MAKE);
    format!("{root}{}{}", as_user(1001, &mount.dir, "umask 007; echo 1 > d/user"), sh(&mount.dir, SHOW))
}

#[test]
fn what_is_new_belongs_to_who_makes_it_where_no_option_says_otherwise() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--separator", "/", "--allow-other"]);
    let expected =
        ". 755 0 0\n./asked 640 5 6\n./d 777 0 0\n./d/k 644 0 0\n./d/user 660 1001 1001\n./k 644 0 0
./private 600 0 0\n./t 644 0 0\n";
    assert_eq!(made(&mount), expected);
}

#[test]
fn options_say_whose_a_new_file_is_and_take_bits_away() {
    if !can_mount() {
        return;
    }
    let args = ["--separator", "/", "--allow-other", "--uid", "7", "--gid", "2000", "--umask", "027"];
    let mount = Mount::sqlite(&args);
    let expected =
        ". 750 7 2000\n./asked 640 5 6\n./d 777 7 2000\n./d/k 640 7 2000\n./d/user 640 7 2000\n./k 640 7 2000
./private 600 7 2000\n./t 640 7 2000\n";
    assert_eq!(made(&mount), expected);
    assert_eq!(
        sh(&mount.dir, "chmod 2775 d; chgrp 9 d; echo 1 > d/new; stat -c '%a %u %g' d/new"),
        "640 7 9\n"
    );
}

#[test]
fn options_decide_for_all_files_where_the_store_cannot_keep_what_a_maker_asks_for() {
    if !can_mount() {
        return;
    }
    let server = Server::memory();
    let args = ["--separator", "/", "--allow-other", "--uid", "7", "--gid", "8", "--umask", "002"];
    let mount = Mount::prefect_cloud(&server.address, KEY, &args);
    let expected = ". 775 7 8\n./asked 640 5 6\n./d 777 7 8\n./d/k 664 7 8\n./d/user 664 7 8\n./k 664 7 8
./private 664 7 8\n./t 664 7 8\n";
    assert_eq!(made(&mount), expected);
    // What is said of a directory holds for the life of the mount, and so does what it gives.
    sh(&mount.dir, "mkdir s; chgrp 9 s; chmod 2775 s; mkdir s/t; echo 1 > s/t/k");
    assert_eq!(sh(&mount.dir, "stat -c '%a %u %g' s/t s/t/k"), "2775 7 9\n664 7 9\n");
    sh(&mount.dir, "rm -r s");
    let mount = Mount::prefect_cloud(&server.address, KEY, &args);
    let again = expected.replace("asked 640 5 6", "asked 664 7 8").replace("./d 777", "./d 775");
    assert_eq!(sh(&mount.dir, SHOW), again);
}

/// The mount once more, with these arguments.
fn again(mount: Mount, args: &[&str]) -> Mount {
    let home = mount.unmount();
    let store = format!("sqlite:{}", home.path().join("kv.db").display());
    Mount::start_in(home, &store, args)
}

const TREE: &[&str] = &["--separator", "/", "--allow-other"];

/// Another mount of the same database.
fn second(mount: &Mount) -> Mount {
    let store = format!("sqlite:{}", mount.home.path().join("kv.db").display());
    Mount::start_in(TempDir::new().unwrap(), &store, TREE)
}

#[test]
fn a_directory_of_a_group_is_one_after_a_restart_and_on_every_mount() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(TREE);
    let other = second(&mount);
    sh(
        &mount.dir,
        "chgrp 2000 .; chmod 2775 .; mkdir d private; echo 1 > d/k; chmod 700 private; echo 1 > private/k",
    );
    sh(&mount.dir, "chown 1001 d; echo 1 > d/other; chown 1002 d/other; chmod 664 d/other");
    let shown = "2775 0 2000 .\n2755 1001 2000 d\n644 0 2000 d/k\n2700 0 2000 private\n";
    let show = "stat -c '%a %u %g %n' . d d/k private";
    assert_eq!(sh(&mount.dir, show), shown);
    wait_for(PATIENCE, || sh(&other.dir, &format!("{show} || true")) == shown);
    sh(&other.dir, "chmod 2770 d; chgrp 3000 private");
    wait_for(PATIENCE, || sh(&mount.dir, "stat -c '%a %g' d private") == "2770 2000\n2700 3000\n");
    assert_eq!(mount.status()["in_memory"]["attributes"], 0);
    drop(other);
    let mount = again(mount, TREE);
    assert_eq!(
        sh(&mount.dir, show),
        shown.replace("2755 1001", "2770 1001").replace("2700 0 2000", "2700 0 3000")
    );
    let made = as_user(
        1002,
        &mount.dir,
        "umask 002; echo 2 > new; echo 3 > d/new; echo 4 > d/other; cat d/other; cat private/k",
    );
    assert_eq!(made, "4\ncat: private/k: Permission denied\n");
    assert_eq!(sh(&mount.dir, "stat -c '%a %u %g' new d/new"), "664 1002 2000\n664 1002 2000\n");
}

#[test]
fn what_is_said_of_a_directory_goes_with_it() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(TREE);
    sh(
        &mount.dir,
        "umask 022; mkdir -p -m 700 a a/b old gone target; chmod 2750 a/b; echo 1 > a/b/k; mv a new; echo 1 > old/k
         rm old/k; rmdir old gone; mkdir old; echo 1 > old/k; mkdir gone; echo 1 > gone/k; rm gone/k; echo 2 > gone/k
         mkdir -m 711 empty; mv empty target; echo 1 > target/empty/k; mkdir -m 755 a; echo 1 > a/k",
    );
    let shown = "700 new\n2750 new/b\n755 old\n755 gone\n700 target\n711 target/empty\n755 a\n";
    let show = "stat -c '%a %n' new new/b old gone target target/empty a";
    assert_eq!(sh(&mount.dir, show), shown);
    let mount = again(mount, TREE);
    assert_eq!(sh(&mount.dir, show), shown);
    // One that is empty for a while is the same one then.
    sh(&mount.dir, "rm target/empty/k");
    let mount = again(mount, TREE);
    Elsewhere::of(&mount).set("target/empty/k", "2");
    wait_for(PATIENCE, || mount.path("target/empty/k").exists());
    assert_eq!(sh(&mount.dir, show), shown);
    sh(&mount.dir, "rm -r target; mkdir target; echo 1 > target/k");
    assert_eq!(sh(&mount.dir, "stat -c %a target"), "755\n");
}

#[test]
fn a_directory_of_which_nothing_is_said_costs_the_store_nothing() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(TREE);
    sh(&mount.dir, "umask 022; mkdir d e; echo 1 > d/k; mv d f; rmdir e; touch f; rm -r f");
    assert_eq!((mount.calls("set_prefix"), mount.calls("list_prefixes")), (0, 1));
    sh(&mount.dir, "mkdir d; chmod 2755 d; chmod 2755 d; mkdir d/e");
    assert_eq!(mount.calls("set_prefix"), 2);
}
