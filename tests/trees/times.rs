//! When the names in a directory last changed.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use super::common::{PATIENCE, wait_for};
use super::tree;
use crate::common::{Elsewhere, Mount, can_mount};

const OLD: SystemTime = SystemTime::UNIX_EPOCH;

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

/// As `touch -d` does.
fn make_old(path: &Path) {
    let times = FileTimes::new().set_accessed(OLD).set_modified(OLD);
    File::open(path).unwrap().set_times(times).unwrap();
    assert_eq!(modified(path), OLD);
}

/// What is done here to the names in `directory` is a change of it, and nothing else is.
fn changes_here(mount: &Mount, directory: &str) {
    let of = mount.path(directory);
    let at = |name: &str| of.join(name);
    fs::write(at("key"), "1\n").unwrap();
    let moves: [(&str, &dyn Fn()); 8] = [
        ("create", &|| fs::write(at("new"), "1\n").unwrap()),
        ("touch", &|| drop(File::create(at("empty")).unwrap())),
        ("scratch", &|| fs::write(at(".key.swp"), "1").unwrap()),
        ("rename", &|| fs::rename(at("new"), at("newer")).unwrap()),
        ("rename of a new file", &|| fs::rename(at("empty"), at("emptier")).unwrap()),
        ("replace", &|| fs::rename(at("newer"), at("key")).unwrap()),
        ("unlink", &|| fs::remove_file(at("key")).unwrap()),
        ("unlink of a scratch file", &|| fs::remove_file(at(".key.swp")).unwrap()),
    ];
    for (what, change) in moves {
        make_old(&of);
        let before = fs::metadata(&of).unwrap();
        change();
        let after = fs::metadata(&of).unwrap();
        assert_ne!(after.modified().unwrap(), OLD, "{directory}: {what}");
        let changed = |meta: &fs::Metadata| (meta.ctime(), meta.ctime_nsec());
        assert!(changed(&after) > changed(&before), "{directory}: {what}");
    }
    fs::write(at("key"), "1\n").unwrap();
    make_old(&of);
    fs::write(at("key"), "2\n").unwrap();
    fs::write(at(".key.swp"), "2").unwrap();
    make_old(&of);
    fs::write(at(".key.swp"), "3").unwrap();
    assert_eq!((fs::read_to_string(at("key")).unwrap().as_str(), modified(&of)), ("2\n", OLD));
}

#[test]
fn names_that_change_here_move_the_times_of_their_directory() {
    if !can_mount() {
        return;
    }
    changes_here(&Mount::sqlite(&[]), "");
    let Some((mount, _)) = tree(&[]) else { return };
    fs::create_dir_all(mount.path("d/e")).unwrap();
    for directory in ["", "d", "d/e"] {
        changes_here(&mount, directory);
        let of = mount.path(directory);
        for make in [true, false] {
            make_old(&of);
            let made = of.join("made");
            if make {
                fs::create_dir(&made).unwrap();
            } else {
                fs::remove_dir(&made).unwrap();
            }
            assert_ne!(modified(&of), OLD, "{directory}: {make}");
        }
    }
    fs::create_dir(mount.path("from")).unwrap();
    make_old(&mount.dir);
    make_old(&mount.path("d"));
    make_old(&mount.path("from"));
    fs::rename(mount.path("from"), mount.path("d/to")).unwrap();
    assert!(modified(&mount.dir) != OLD && modified(&mount.path("d")) != OLD);
    assert_eq!(modified(&mount.path("d/to")), OLD);
}

/// What others do to the names in `directory` is a change of it, and a set of a key that is there is none.
fn changes_elsewhere(mount: &Mount, elsewhere: &Elsewhere, directory: &str, looked_at: bool) {
    let of = mount.path(directory);
    let key = |name: &str| Path::new(directory).join(name).to_str().unwrap().to_owned();
    elsewhere.set(&key("there"), "1\n");
    elsewhere.set(&key("known"), "1\n");
    wait_for(PATIENCE, || mount.text(&key("known")).is_some());
    if looked_at {
        assert_eq!(mount.text(&key("there")).as_deref(), Some("1\n"));
    }
    make_old(&of);
    for round in 2..5 {
        elsewhere.set(&key("there"), &format!("{round}\n"));
        elsewhere.set(&key("known"), &format!("{round}\n"));
        // What is told of in order is taken in in order.
        wait_for(PATIENCE, || mount.text(&key("known")) == Some(format!("{round}\n")));
        assert_eq!(modified(&of), OLD, "{directory}, looked at: {looked_at}");
    }
    elsewhere.set(&key("new"), "1\n");
    wait_for(PATIENCE, || modified(&of) != OLD);
    make_old(&of);
    elsewhere.delete(&key("new"));
    wait_for(PATIENCE, || modified(&of) != OLD);
    make_old(&of);
    elsewhere.delete(&key("there"));
    wait_for(PATIENCE, || modified(&of) != OLD);
}

#[test]
fn names_that_change_elsewhere_move_the_times_of_their_directory() {
    if !can_mount() {
        return;
    }
    for looked_at in [false, true] {
        let mount = Mount::sqlite(&[]);
        let elsewhere = Elsewhere::of(&mount);
        changes_elsewhere(&mount, &elsewhere, "", looked_at);
        let Some((mount, elsewhere)) = tree(&[]) else { return };
        for directory in ["", "d", "d/e"] {
            changes_elsewhere(&mount, &elsewhere, directory, looked_at);
        }
        // A directory that comes or goes with a key is a name in the one that it is in; what is in it is none.
        make_old(&mount.dir);
        make_old(&mount.path("d"));
        elsewhere.set("d/e/f/key", "1\n");
        wait_for(PATIENCE, || mount.path("d/e/f/key").exists());
        assert_eq!([modified(&mount.dir), modified(&mount.path("d"))], [OLD, OLD]);
        assert_ne!(modified(&mount.path("d/e")), OLD);
        make_old(&mount.path("d/e"));
        elsewhere.delete("d/e/f/key");
        wait_for(PATIENCE, || modified(&mount.path("d/e")) != OLD);
        assert_eq!([modified(&mount.dir), modified(&mount.path("d"))], [OLD, OLD]);
    }
}
