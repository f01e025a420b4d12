//! Programs that are in a directory while it is renamed, removed, or empty for a moment.

use std::os::unix::fs::MetadataExt;
use std::{fs, thread};

use tempfile::TempDir;

use super::common::bound::{lives_on, moves, sets_and_deletes};
use super::common::shell::Shell;
use super::common::{Elsewhere, Mount, PATIENCE, wait_for};
use super::tree;

/// What was to be told to the kernel before has been.
fn settle(mount: &Mount, elsewhere: &Elsewhere) {
    for round in 0..3 {
        elsewhere.set("settled", &format!("{round}\n"));
        wait_for(PATIENCE, || mount.text("settled") == Some(format!("{round}\n")));
    }
}

fn shown(mount: &Mount, path: &str) -> String {
    mount.path(path).canonicalize().unwrap().display().to_string()
}

#[test]
fn who_is_in_a_directory_that_is_renamed_goes_along() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("d/deep/k", "1\n");
    elsewhere.set("other/k", "1\n");
    fs::create_dir_all(mount.path("d/deep/empty")).unwrap();
    fs::write(mount.path("d/deep/.k.swp"), "scratch").unwrap();
    fs::create_dir(mount.path("onto")).unwrap();
    let number = |path: &str| fs::metadata(mount.path(path)).unwrap().ino();
    let numbers = ["d/deep", "d/deep/empty", "d/deep/k"].map(number);
    let open = fs::File::open(mount.path("d/deep")).unwrap();
    let mut at = ["d/deep", "d/deep/empty"].map(|path| Shell::at(&mount.path(path)));
    let (mut deep, mut round) = ("d/deep".to_owned(), 0);
    for (from, to) in [
        ("d/deep", "d/renamed"),
        ("d/renamed", "other/moved"),
        ("other", "onto"),
        ("onto/moved", "e"),
        ("e", "d/deep"),
        ("d", "p"),
    ] {
        fs::rename(mount.path(from), mount.path(to)).unwrap();
        settle(&mount, &elsewhere);
        deep = deep.replacen(from, to, 1);
        let [here, empty] = &mut at;
        assert_eq!(here.place(), shown(&mount, &deep));
        assert_eq!(empty.place(), shown(&mount, &format!("{deep}/empty")));
        assert_eq!(here.says("ls -A; cat k .k.swp"), ".k.swp empty k 1 scratch");
        let before = round;
        round += 1;
        assert_eq!(
            here.says(&format!("rm -f new{before}; echo {round} > new{round}; cat new{round}")),
            round.to_string()
        );
        assert_eq!(elsewhere.get(&format!("{deep}/new{round}")), Some(format!("{round}\n")));
        assert_eq!(empty.says("touch file; ls; mkdir a; rmdir a; rm file; ls"), "file");
        assert_eq!(here.says("find . -name k -execdir cat {} +"), "1");
        here.says(&format!("rm new{round}"));
        let now = ["", "/empty", "/k"].map(|inside| number(&format!("{deep}{inside}")));
        assert_eq!((now, open.metadata().unwrap().nlink()), (numbers, 2));
    }
}

#[test]
fn who_is_in_a_directory_that_another_one_replaces_is_nowhere() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("d/k", "1\n");
    fs::create_dir(mount.path("e")).unwrap();
    let (mut old, mut new) = (Shell::at(&mount.path("e")), Shell::at(&mount.path("d")));
    let open = fs::File::open(mount.path("e")).unwrap();
    let refused = new.says("mv -nT ../d ../e; ls ..");
    assert!(refused.contains("d e"), "{refused}");
    fs::rename(mount.path("d"), mount.path("e")).unwrap();
    settle(&mount, &elsewhere);
    assert_eq!(new.place(), shown(&mount, "e"));
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    assert!(old.says("echo 1 > x").contains("No such file"));
    assert_eq!(old.says("ls -A; stat -c %h ."), "0");
    assert!(old.says("python3 -c 'import os; os.getcwd()'").contains("FileNotFoundError"));
    fs::remove_file(mount.path("e/k")).unwrap();
    fs::remove_dir(mount.path("e")).unwrap();
    fs::create_dir(mount.path("e")).unwrap();
    for shell in [&mut old, &mut new] {
        assert!(shell.says("echo 1 > x").contains("No such file"));
        assert!(shell.says("readlink /proc/self/cwd").ends_with("/e (deleted)"));
    }
    assert_eq!(fs::read_dir(mount.path("e")).unwrap().count(), 0);
}

#[test]
fn who_is_in_a_directory_that_others_empty_is_in_it_when_it_is_back() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("p/d/k", "1\n");
    // Nothing that is told of that drops the dentry later, before anybody is in there.
    settle(&mount, &elsewhere);
    let mode =
        |mode| fs::set_permissions(mount.path("p/d"), std::os::unix::fs::PermissionsExt::from_mode(mode));
    mode(0o750).unwrap();
    let number = fs::metadata(mount.path("p/d")).unwrap().ino();
    let mut at = ["p", "p/d"].map(|path| Shell::at(&mount.path(path)));
    for round in 0..10 {
        let (old, new) = if round % 2 == 0 { ("p/d/k", "p/d/l") } else { ("p/d/l", "p/d/k") };
        elsewhere.delete(old);
        if round % 3 == 1 {
            wait_for(PATIENCE, || at[1].says("ls -A; stat -c %h .") == "0");
        }
        // Whether or not somebody sees that it is gone.
        if round % 3 == 0 {
            wait_for(PATIENCE, || !mount.path("p").exists());
            let [_, inside] = &mut at;
            assert_eq!(inside.says("ls -A; stat -c %h ."), "0");
            assert!(inside.says("cat k").contains("No such file"));
            assert!(inside.says("echo 1 > x").contains("No such file"));
        }
        if round % 4 == 0 {
            mount.hang_up();
        }
        elsewhere.set(new, &format!("{round}\n"));
        settle(&mount, &elsewhere);
        let [above, inside] = &mut at;
        assert_eq!(inside.says("ls; cat *"), format!("{} {round}", &new[4..]));
        assert_eq!(above.says("ls d"), new[4..]);
        assert_eq!(mount.text(new), Some(format!("{round}\n")));
        assert_eq!((above.place(), inside.place()), (shown(&mount, "p"), shown(&mount, "p/d")));
        assert_eq!(inside.says("echo 1 > x; cat x; rm x; stat -c %i,%a,%h ."), format!("1 {number},750,2"));
    }
    // One that was removed here is another one.
    fs::remove_dir_all(mount.path("p/d")).unwrap();
    elsewhere.set("p/d/k", "1\n");
    wait_for(PATIENCE, || mount.path("p/d/k").exists());
    assert_ne!(fs::metadata(mount.path("p/d")).unwrap().ino(), number);
    assert!(at[1].says("ls; echo 1 > x").contains("No such file"));
}

#[test]
fn what_is_in_a_directory_is_found_there_while_it_is_renamed() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("d/k", "1\n");
    let mut inside = Shell::at(&mount.path("d"));
    let dir = mount.dir.clone();
    let moving = thread::spawn(move || {
        for _ in 0..100 {
            fs::rename(dir.join("d"), dir.join("e")).unwrap();
            fs::rename(dir.join("e"), dir.join("d")).unwrap();
        }
    });
    while !moving.is_finished() {
        assert_eq!(inside.says("for i in {1..100}; do read x < k && test $x = 1 || echo lost; test ! -e none || echo found; done"), "");
    }
    moving.join().unwrap();
}

#[test]
fn a_bound_directory_lives_on_whatever_another_mount_does_with_its_only_key() {
    for args in [&[][..], &["--notify"]] {
        let Some((mount, _)) = tree(args) else { return };
        let store = format!("sqlite:{}", mount.home.path().join("kv.db").display());
        let other = Mount::start_in(TempDir::new().unwrap(), &store, &["--separator", "/"]);
        lives_on(&mount, "d/k", sets_and_deletes(&other));
        lives_on(&mount, "p/q/d/k", sets_and_deletes(&other));
        lives_on(&mount, "m/k", moves(&other));
        lives_on(&mount, "n/o/d/k", moves(&other));
    }
}
