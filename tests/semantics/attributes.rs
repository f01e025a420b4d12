//! What everyday tools do with extended attributes and with mknod(2).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use crate::common::{Elsewhere, Mount, can_mount, wait_for};

/// Upper bound for whatever is waited for; generous, because nothing here measures time.
const PATIENCE: Duration = Duration::from_mins(2);

/// The names of the extended attributes of the files named on standard output, as Python sees them.
const LISTED: &str = "python3 -c 'import os,sys
for name in sys.argv[1:]: print(name, os.listxattr(name))' ";

/// A mount of its own, flat or with directories, whose working directory for scripts is `at`; beside the mount are `out` and
/// the file `from` with an attribute of its own.
fn mounts() -> Vec<(Mount, &'static str)> {
    if !can_mount() {
        return Vec::new();
    }
    let mounts = [(Mount::sqlite(&[]), "."), (Mount::sqlite(&["--separator", "/"]), "d/e")];
    for (mount, at) in &mounts {
        let home = mount.home.path();
        fs::create_dir(home.join("out")).unwrap();
        fs::write(home.join("out/from"), "{\"from\":1}\n").unwrap();
        let marked = ["-n", "user.origin", "-v", "elsewhere"];
        assert!(Command::new("setfattr").args(marked).arg(home.join("out/from")).status().unwrap().success());
        fs::create_dir_all(mount.path(at)).unwrap();
    }
    mounts.into()
}

/// What a script prints that runs in `at`, where `$OUT` is a directory of another filesystem. It must succeed.
#[track_caller]
fn prints(mount: &Mount, at: &str, script: &str) -> String {
    let out = mount.home.path().join("out");
    let script = format!("set -e; cd {at}; OUT={}; {script}", out.display());
    let ran = mount.sh(&script);
    assert!(ran.status.success(), "{script}: {ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

fn key(at: &str, name: &str) -> String {
    if at == "." { name.into() } else { format!("{at}/{name}") }
}

#[test]
fn tar_with_extended_attributes_takes_keys_out_and_in() {
    for (mount, at) in mounts() {
        prints(&mount, at, "echo '{\"a\":1}' > f; tar --xattrs -cf $OUT/t f; tar --xattrs -xf $OUT/t");
        assert_eq!(prints(&mount, at, "cat f"), "{\"a\":1}\n");
        // Of a file with attributes tar makes a file by mknod(2) first.
        prints(&mount, at, "tar --xattrs -C $OUT -cf $OUT/t from; tar --xattrs -xf $OUT/t");
        prints(&mount, at, "echo 1 > from; tar --xattrs -xf $OUT/t");
        assert_eq!(prints(&mount, at, "cat from; ls"), "{\"from\":1}\nf\nfrom\n");
        let elsewhere = Elsewhere::of(&mount);
        assert_eq!(elsewhere.get(&key(at, "f")).as_deref(), Some("{\"a\":1}\n"));
        assert_eq!(elsewhere.get(&key(at, "from")).as_deref(), Some("{\"from\":1}\n"));
    }
}

#[test]
fn nothing_lists_an_attribute_where_no_key_has_tags() {
    for (mount, at) in mounts() {
        let names = "f 'q~' 'f~' new written .x.Ab12Cd .";
        let made = "echo 1 > f; touch 'q~' new; echo 2 > g; mv g 'f~'; echo 3 > .x.Ab12Cd; exec 9>written; echo '[' >&9";
        let listed = prints(&mount, at, &format!("{made}; {LISTED} {names}; getfattr -d -m - {names}"));
        let empty: String =
            ["f", "q~", "f~", "new", "written", ".x.Ab12Cd", "."].map(|name| format!("{name} []\n")).concat();
        assert_eq!(listed, empty);
        assert_eq!(prints(&mount, ".", &format!("{LISTED} .")), ". []\n");
    }
}

#[test]
fn what_the_store_knows_is_had_by_name() {
    for (mount, at) in mounts() {
        prints(&mount, at, "echo 1 > f");
        for name in ["id", "revision", "created", "age", "store"] {
            let value = prints(&mount, at, &format!("getfattr --only-values -n user.kvfs.{name} f"));
            assert!(!value.is_empty(), "{name}");
        }
        for file in [".", "/"] {
            let file = if file == "/" { mount.dir.display().to_string() } else { file.into() };
            let get = format!("getfattr --absolute-names --only-values -n user.kvfs.store {file}");
            assert!(prints(&mount, at, &get).starts_with("sqlite:"));
        }
    }
}

#[test]
fn copies_carry_none_of_what_the_store_knows() {
    for (mount, at) in mounts() {
        prints(&mount, at, "echo '{\"a\":1}' > f; echo 2 > g; mkdir $OUT/x");
        for copy in [
            "cp -a f $OUT/x/cp",
            "cp f m; mv m $OUT/x/mv",
            "rsync -aX f $OUT/x/rsync",
            "python3 -c 'import shutil,sys; shutil.copy2(*sys.argv[1:])' f $OUT/x/python",
            "install -p f $OUT/x/install",
            "cp --preserve=all f $OUT/x/all",
            "cd $OUT/x; (cd $OLDPWD; tar --xattrs -cf - f) | tar --xattrs -xf -; mv f tar",
            "echo f | cpio --quiet -pm $OUT/x; mv $OUT/x/f $OUT/x/cpio",
            "busybox cp -a f $OUT/x/busybox",
        ] {
            prints(&mount, at, copy);
        }
        let count = prints(&mount, at, &format!("cd $OUT/x; cat * | sort | uniq -c; {LISTED} *"));
        assert!(count.trim_start().starts_with("9 {\"a\":1}\n"), "{count}");
        assert_eq!(count.matches("[]").count(), 9, "{count}");
        // An editor's backup, within the mount and out of it.
        assert_eq!(prints(&mount, at, &format!("cp -a f 'f~'; {LISTED} 'f~'")), "f~ []\n");
        // Nothing has changed for the second run.
        prints(&mount, at, "rsync -aX ./ $OUT/mirror/");
        assert_eq!(prints(&mount, at, "rsync -aXi ./ $OUT/mirror/"), "");
    }
}

#[test]
fn tools_that_carry_attributes_bring_files_in() {
    for (mount, at) in mounts() {
        for (name, copy) in [
            ("cp", "cp -a $OUT/from cp"),
            ("python", "python3 -c 'import shutil,sys; shutil.copy2(*sys.argv[1:])' $OUT/from python"),
            ("install", "install -p $OUT/from install"),
            ("rsync", "cp $OUT/from $OUT/plain; rsync -aX $OUT/plain rsync"),
            ("cpio", "cd $OUT; echo plain | cpio --quiet -pm $OLDPWD; cd $OLDPWD; mv plain cpio"),
            ("busybox", "busybox cp -a $OUT/from busybox"),
            ("mv", "cp -a $OUT/from $OUT/mv; mv $OUT/mv mv"),
            ("key~", "rsync -aX $OUT/plain 'key~'"),
        ] {
            prints(&mount, at, copy);
            assert_eq!(prints(&mount, at, &format!("cat {name}")), "{\"from\":1}\n", "{name}");
        }
        let elsewhere = Elsewhere::of(&mount);
        for name in ["cp", "python", "install", "rsync", "cpio", "busybox", "mv"] {
            assert_eq!(elsewhere.get(&key(at, name)).as_deref(), Some("{\"from\":1}\n"), "{name}");
        }
    }
}

#[test]
fn no_computed_attribute_can_be_set_or_removed() {
    for (mount, at) in mounts() {
        prints(&mount, at, "echo 1 > f; touch 'q~'");
        for name in ["id", "revision", "created", "age", "store", "last_error", "tags", "other"] {
            for change in ["-v x -n", "-x"] {
                for file in ["f", "'q~'", "."] {
                    let ran = mount.sh(&format!("cd {at}; setfattr {change} user.kvfs.{name} {file}"));
                    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
                    assert!(
                        !ran.status.success() && said.contains("not supported"),
                        "{name} {change}: {said}"
                    );
                }
            }
        }
        assert_eq!(prints(&mount, at, "cat f"), "1\n");
    }
}

/// mknod(2) of each name with a type and a mode, as Python does it; what it comes to.
fn mknod(mount: &Mount, at: &str, kind: &str, name: &str) -> String {
    let script = format!(
        "umask 022; cd {at}; python3 -c '
import os, stat, errno
try: os.mknod(\"{name}\", stat.{kind} | 0o640, os.makedev(1, 3))
except OSError as error: print(errno.errorcode[error.errno])'"
    );
    String::from_utf8(mount.sh(&script).stdout).unwrap().trim().to_owned()
}

#[test]
fn mknod_of_a_regular_file_is_a_create_and_a_close() {
    for (mount, at) in mounts() {
        let elsewhere = Elsewhere::of(&mount);
        assert_eq!(mknod(&mount, at, "S_IFREG", "k"), "");
        assert_eq!(mknod(&mount, at, "S_IFREG", "k"), "EEXIST");
        let meta = fs::metadata(mount.path(at).join("k")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.len(), meta.is_file()), (0o640, 0, true));
        // As after touch(1), nothing is set, and a key that somebody else sets takes its place.
        assert_eq!(elsewhere.get(&key(at, "k")), None);
        assert_eq!(prints(&mount, at, "echo 7 > k; cat k; stat -c %a k"), "7\n640\n");
        assert_eq!(elsewhere.get(&key(at, "k")).as_deref(), Some("7\n"));
        assert_eq!(mknod(&mount, at, "S_IFREG", "other"), "");
        elsewhere.set(&key(at, "other"), "8");
        wait_for(PATIENCE, || prints(&mount, at, "cat other") == "8");
        assert_eq!(mknod(&mount, at, "S_IFREG", "q~"), "");
        assert_eq!(mknod(&mount, at, "S_IFREG", ".x.Ab12Cd"), "");
        assert_eq!(prints(&mount, at, "echo 9 > .x.Ab12Cd; mv .x.Ab12Cd moved; cat moved"), "9\n");
        assert_eq!(elsewhere.get(&key(at, "moved")).as_deref(), Some("9\n"));
        for kind in ["S_IFIFO", "S_IFCHR", "S_IFBLK", "S_IFSOCK"] {
            assert_eq!(mknod(&mount, at, kind, "special"), "EPERM", "{kind}");
        }
        assert_eq!(mknod(&mount, at, "S_IFREG", "\\x01"), "EINVAL");
        assert_eq!(mknod(&mount, at, "S_IFREG", &"n".repeat(256)), "ENAMETOOLONG");
    }
}

#[test]
fn mknod_sets_an_empty_value_where_any_bytes_are_one() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--validate", "none", "--separator", "/"]);
    fs::create_dir(mount.path("d")).unwrap();
    assert_eq!(mknod(&mount, "d", "S_IFREG", "k"), "");
    assert_eq!(Elsewhere::of(&mount).get("d/k").as_deref(), Some(""));
    assert_eq!(prints(&mount, "d", "ls; stat -c %s k; echo any > k; cat k"), "k\n0\nany\n");
    let home = mount.unmount();
    let store = format!("sqlite:{}", home.path().join("kv.db").display());
    let mount = Mount::start_in(home, &store, &["-o", "ro", "--separator", "/"]);
    assert_eq!(mknod(&mount, "d", "S_IFREG", "k2"), "EROFS");
}
