//! Wrong usages, each with the one line that it gets. Nothing of it mounts, makes a directory or opens a store.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::common::{KVFS, Mount};

/// Runs kvfs in `home`.
fn run(home: &TempDir, environment: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Mount::command(home);
    command.envs(environment.iter().copied()).args(args).current_dir(home.path()).output().unwrap()
}

/// Asserts that each of `usages` gets its line and exit code, and leaves `home` as it was.
fn refused(code: i32, home: &TempDir, usages: &[(&[&str], &str)]) {
    let shown = |text: &str| text.replace("HOME", home.path().to_str().unwrap());
    let before = names(home.path());
    for (args, says) in usages {
        let args: Vec<String> = args.iter().map(|arg| shown(arg)).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let out = run(home, &[], &args);
        let line = String::from_utf8(out.stderr).unwrap();
        assert_eq!(line, format!("kvfs: {}\n", shown(says)), "{args:?}");
        assert_eq!((out.status.code(), out.stdout.len()), (Some(code), 0), "{args:?}");
    }
    assert_eq!(names(home.path()), before);
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_mistyped_command_names_the_nearest_one_and_mounts_nothing() {
    refused(
        2,
        &TempDir::new().unwrap(),
        &[
            (&["stauts"], "\"stauts\" is no command, store or directory; the nearest is: kvfs status"),
            (
                &["stauts", "/mnt"],
                "\"stauts\" is no command, store or directory; the nearest is: kvfs status",
            ),
            (&["-f", "stauts"], "\"stauts\" is no command, store or directory; the nearest is: kvfs status"),
            (
                &["unmount", "/mnt"],
                "\"unmount\" is no command, store or directory; the nearest is: kvfs umount",
            ),
            (&["Status"], "\"Status\" is no command, store or directory; the nearest is: kvfs status"),
            (
                &["list"],
                "\"list\" is no command, store or directory; `kvfs help` lists the commands, `kvfs ./list` makes the \
                 directory and mounts on it",
            ),
            (
                &["memory", "x"],
                "\"memory\" is no command, store or directory; the nearest is the store memory:, as in: kvfs memory: \
                 /mnt/kv",
            ),
            (
                &["prefct", "/mnt"],
                "\"prefct\" is no command, store or directory; the nearest is the store prefect, as in: kvfs prefect \
                 /mnt/kv",
            ),
            (&[""], "the first word is empty; name the directory to mount on"),
            (&["help", "stauts"], "there is no command \"stauts\"; the nearest is: kvfs help status"),
            (&["help", "me"], "there is no command \"me\" (kvfs help lists the commands)"),
            (&["mount"], "name the directory to mount on, as in `kvfs /mnt/kv` (see kvfs --help)"),
        ],
    );
}

#[test]
fn a_wrong_option_or_word_is_named_with_what_may_be_meant() {
    refused(
        2,
        &TempDir::new().unwrap(),
        &[
            (&["--read-onyl", "/x"], "there is no option --read-onyl; the nearest is --read-only"),
            (&["--read-onyl", "x"], "there is no option --read-onyl; the nearest is --read-only"),
            (&["-read-only", "/x"], "there is no option -read-only; the nearest is --read-only"),
            (&["-o", "ro,allow_othr", "/x"], "there is no option -o allow_othr; the nearest is allow_other"),
            (&["-o", "frobnicate", "/x"], "there is no option -o frobnicate (kvfs --help lists them)"),
            (&["--no-such-flag"], "there is no option --no-such-flag (kvfs --help lists them)"),
            (&["status", "--jsn"], "there is no option --jsn; the nearest is --json"),
            (&["--json", "/x"], "--json is an option of `kvfs status` only; leave it away"),
            (&["-f", "status"], "-f is an option of a mount, not of `kvfs status`; leave it away"),
            (
                &["--log-level", "debug", "status"],
                "--log-level is an option of a mount, not of `kvfs status`; leave it away",
            ),
            (
                &["--max-age", "soon", "/x"],
                "--max-age soon: a time is a number with ms, s, m, h or d, as in 5s",
            ),
            (&["--max-age"], "--max-age needs a value: --max-age TIME"),
            (&["--validate", "xml", "/x"], "--validate xml: it is one of json, none"),
            (&["--foreground=1", "/x"], "--foreground takes no value; leave it away"),
            (
                &["--flat", "--separator", "/", "/x"],
                "--flat and --separator exclude each other; leave one away",
            ),
            (&["a/", "b", "c"], "that is a word too many; as in: kvfs [OPTIONS] [STORE] MOUNTPOINT"),
            (&["copy", "a", "b", "c"], "\"c\" is a word too many; as in: kvfs copy [OPTIONS] <FROM> <TO>"),
            (&["watch"], "<PATH> is missing; as in: kvfs watch [OPTIONS] <PATH>"),
            (&["umount"], "<MOUNTPOINT> is missing; as in: kvfs umount <MOUNTPOINT>"),
        ],
    );
}

#[test]
fn help_and_version_are_words_too_and_options_may_stand_before_a_command() {
    let home = TempDir::new().unwrap();
    let shown = |args: &[&str]| {
        let out = run(&home, &[], args);
        assert!(out.status.success() && out.stderr.is_empty(), "{args:?}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    assert_eq!(shown(&["help"]), shown(&["--help"]));
    assert_eq!(shown(&["help", "status"]), shown(&["status", "--help"]));
    assert_eq!(shown(&["version"]), shown(&["--version"]));
    assert!(shown(&["--json", "status"]).starts_with('['));
    assert_eq!(names(home.path()), [""; 0]);
}

#[test]
fn the_help_fits_a_page_in_groups_and_the_readme_has_the_same_options() {
    let home = TempDir::new().unwrap();
    let help = String::from_utf8(run(&home, &[], &["-h"]).stdout).unwrap();
    assert!(help.lines().count() <= 60, "{help}");
    assert!(help.lines().all(|line| line.len() <= 100), "{help}");
    let groups: Vec<&str> =
        help.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')).collect();
    assert_eq!(
        groups,
        [
            "Commands:",
            "Options:",
            "What is shown:",
            "Who may use it:",
            "The store and what is remembered of it:",
            "The mount:",
            "Stores:"
        ]
    );
    let readme = include_str!("../../README.md");
    let table = readme.split("\n## Options\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let mut documented = BTreeSet::from(["--help", "--version"]);
    for row in rows {
        let cell = row.split(" | ").next().unwrap();
        documented.extend(cell.split(['`', ' ', '=']).filter(|word| word.starts_with("--")));
    }
    let flags = help.lines().filter(|line| line.starts_with("  ") && !line.starts_with("       "));
    let told: BTreeSet<&str> =
        flags.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--"))).collect();
    assert_eq!(told, documented);
}

#[test]
fn a_wrong_store_gets_the_line_to_type() {
    let home = TempDir::new().unwrap();
    fs::write(home.path().join("kv.db"), "").unwrap();
    refused(
        2,
        &home,
        &[
            (&["sqllite:x"], "\"sqllite:x\" is not a store; the nearest is sqlite:x"),
            (&["sqllite:x", "/mnt"], "\"sqllite:x\" is not a store; the nearest is sqlite:x"),
            (&["memory:x", "/mnt"], "\"memory:x\": nothing follows memory: in this store's name"),
            (
                &["memory:"],
                "memory: is a store; name the directory to mount it on, too: kvfs memory: /mnt/kv",
            ),
            (&["/mnt/kv", "memory:"], "the store comes before the directory: kvfs memory: /mnt/kv"),
            (
                &["HOME/kv.db"],
                "HOME/kv.db is a file; a database is mounted so: kvfs sqlite:HOME/kv.db /mnt/kv",
            ),
            (&["kv.db", "/mnt"], "\"kv.db\" is not a store; a database is named so: sqlite:kv.db"),
            (
                &["/no/kv.db", "/mnt"],
                "\"/no/kv.db\" is not a store; a database is named so: sqlite:/no/kv.db",
            ),
            (
                &["memory:", "memory:"],
                "memory: is a store, too; name the directory to mount on: kvfs memory: /mnt/kv",
            ),
            (
                &["sqlite:", "/mnt"],
                "sqlite: needs the path of a database file, as in sqlite:/var/lib/kvfs/kv.db",
            ),
            (
                &["sqlite:~/a.db", "/mnt"],
                "sqlite:~/a.db: the shell does not replace this ~; write sqlite:HOME/a.db (or sqlite:./~/a.db, if it is \
                 called so)",
            ),
            (
                &["etcd", "x"],
                "etcd: needs the address of a cluster, as in etcd:127.0.0.1:2379/app; or set ETCDCTL_ENDPOINTS",
            ),
            (
                &["http://h:4200/api", "/mnt"],
                "\"http://h:4200/api\" is the address of a server; say of what kind it is: prefect:http://h:4200/api, \
                 prefect-cloud:http://h:4200/api or etcd:HOST:PORT",
            ),
            (
                &["redis:h", "/mnt"],
                "\"redis:h\" is not a store (stores: sqlite:PATH, memory:, etcd:HOST:PORT[/PREFIX], prefect[:URL], \
                 prefect-cloud[:URL])",
            ),
            (
                &["--store", "sqllite:x", "/mnt"],
                "--store: \"sqllite:x\" is not a store; the nearest is sqlite:x",
            ),
            (&["copy", "sqllite:x", "memory:"], "\"sqllite:x\" is not a store; the nearest is sqlite:x"),
            (&["serve", "memry:"], "\"memry:\" is not a store; the nearest is memory:"),
        ],
    );
}

#[test]
fn a_wrong_value_says_what_is_taken() {
    refused(
        2,
        &TempDir::new().unwrap(),
        &[
            (&["--timeout", "0", "/x"], "--timeout 0: a time over 0 is needed, as in 5s"),
            (
                &["copy", "memory:", "memory:", "--timeout", "0"],
                "--timeout 0: a time over 0 is needed, as in 5s",
            ),
            (
                &["--uid", "nosuchuser", "/x"],
                "--uid nosuchuser: there is no user of this name; `id -u NAME` tells the number",
            ),
            (
                &["--cache-entries", "0", "/x"],
                "--cache-entries 0: a whole number over 0 is needed, as in 100000",
            ),
            (
                &["--cache-size", "big", "/x"],
                "--cache-size big: a size is a number with K, M or G, as in 64M",
            ),
            (&["--umask", "9", "/x"], "--umask 9: a umask is an octal number up to 777, as in 027"),
        ],
    );
}

#[test]
fn a_database_that_cannot_be_there_is_named_before_anything_is_made() {
    let home = TempDir::new().unwrap();
    fs::create_dir(home.path().join("dir")).unwrap();
    refused(
        4,
        &home,
        &[
            (
                &["sqlite:HOME/dir", "HOME/m"],
                "HOME/dir is a directory; name a file in it: sqlite:HOME/dir/kv.db",
            ),
            (
                &["sqlite:HOME/no/kv.db", "HOME/m"],
                "there is no directory HOME/no; correct the path, or make it: mkdir -p HOME/no",
            ),
            (
                &["copy", "sqlite:none.db", "sqlite:new.db"],
                "there is no database HOME/none.db; correct the path",
            ),
            (
                &["copy", "default", "sqlite:new.db"],
                "there is no database HOME/data/kvfs/kv.db; correct the path",
            ),
        ],
    );
}

#[test]
fn a_database_that_may_not_be_read_is_a_matter_of_permission() {
    if !Command::new("setpriv").args(["--reuid=65534", "true"]).status().is_ok_and(|status| status.success())
    {
        eprintln!("skipped: not root");
        return;
    }
    let home = TempDir::new().unwrap();
    let (file, locked) = (home.path().join("kv.db"), home.path().join("locked"));
    fs::write(&file, "").unwrap();
    fs::create_dir(&locked).unwrap();
    for (path, mode) in [(home.path(), 0o755), (&file, 0o600), (&locked, 0o700)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    // The built binary may lie where others cannot go.
    let kvfs = home.path().join("kvfs");
    fs::copy(KVFS, &kvfs).unwrap();
    let says = |path: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&kvfs).arg("copy");
        command.arg(format!("sqlite:{}", path.display())).arg("memory:").current_dir("/");
        let out = command.env("HOME", home.path()).output().unwrap();
        assert_eq!(out.status.code(), Some(4), "{out:?}");
        String::from_utf8(out.stderr).unwrap()
    };
    let shown = file.display();
    assert_eq!(
        says(&file),
        format!("kvfs: {shown}: permission denied: it belongs to user 0, and user 65534 may not read it\n")
    );
    let inside = locked.join("kv.db");
    let shown = inside.display();
    assert_eq!(
        says(&inside),
        format!("kvfs: {shown}: permission denied: user 65534 may not enter a directory of the path\n")
    );
}

#[test]
fn variables_are_read_as_people_write_them() {
    let home = TempDir::new().unwrap();
    // The store is looked at later than the environment.
    let says = |environment: &[(&str, &str)]| {
        let text = String::from_utf8(run(&home, environment, &["redis:h", "/x"]).stderr).unwrap();
        text.lines().next().unwrap().to_owned()
    };
    for value in ["1", "0", "yes", "no", "true", "false", "on", "off", "Yes", "TRUE", ""] {
        assert!(says(&[("KVFS_READ_ONLY", value)]).contains("not a store"), "{value}");
    }
    for (name, value) in
        [("KVFS_LOG_LEVEL", "WARN"), ("KVFS_LOG_LEVEL", ""), ("KVFS_MAX_AGE", ""), ("KVFS_UID", "root")]
    {
        assert!(says(&[(name, value)]).contains("not a store"), "{name}={value}");
    }
    for (name, value, line) in [
        ("KVFS_READ_ONLY", "maybe", "KVFS_READ_ONLY=maybe: say 1, yes, true or on; or 0, no, false or off"),
        ("KVFS_MAX_AGE", "soon", "KVFS_MAX_AGE=soon: a time is a number with ms, s, m, h or d, as in 5s"),
        ("KVFS_VALIDATE", "xml", "KVFS_VALIDATE=xml: it is one of json, none"),
        (
            "KVFS_READONLY",
            "1",
            "the environment has what is no setting: KVFS_READONLY (the nearest is KVFS_READ_ONLY)",
        ),
    ] {
        assert_eq!(says(&[(name, value)]), format!("kvfs: {line}"));
    }
    // Containers get such for a service of that name, and `kvfs watch --exec` sets the others.
    let harmless = [("KVFS_SERVICE_HOST", "10.0.0.1"), ("KVFS_PORT_4200_TCP", "x"), ("KVFS_EVENT", "set")];
    assert!(says(&harmless).contains("not a store"));
    // Those of a mount are nothing to other commands.
    let out = run(&home, &[("KVFS_MAX_AGE", "soon"), ("KVFS_READ_ONLY", "maybe")], &["status", "--json"]);
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    let out = run(&home, &[("KVFS_STORE", "sqllite:x")], &["/x"]);
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!(text, "kvfs: KVFS_STORE: \"sqllite:x\" is not a store; the nearest is sqlite:x\n");
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure() {
    let home = TempDir::new().unwrap();
    // The reader has gone before the first word.
    let script = "{ read _ < fifo; \"$KVFS\" status; echo $? >&2; } | echo > fifo";
    assert!(Command::new("mkfifo").arg(home.path().join("fifo")).status().unwrap().success());
    let mut command = Command::new("bash");
    command.args(["-c", script]).env("KVFS", KVFS).current_dir(home.path());
    let out = command.output().unwrap();
    assert_eq!(String::from_utf8(out.stderr).unwrap(), "0\n");
}
