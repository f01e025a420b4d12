//! Wrong usages, each with the one line that it gets. Nothing of it mounts, makes a directory or opens a store.

use std::fs;
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use crate::common::Mount;

/// Runs kvfs in `home`.
pub(super) fn run(home: &TempDir, environment: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Mount::command(home);
    command.envs(environment.iter().copied()).args(args).current_dir(home.path()).output().unwrap()
}

/// Asserts that each of `usages` gets its line and exit code 2, and leaves `home` as it was.
pub(super) fn refused(home: &TempDir, usages: &[(&[&str], &str)]) {
    let shown = |text: &str| text.replace("HOME", home.path().to_str().unwrap());
    let before = names(home.path());
    for (args, says) in usages {
        let args: Vec<String> = args.iter().map(|arg| shown(arg)).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let out = run(home, &[], &args);
        let line = String::from_utf8(out.stderr).unwrap();
        assert_eq!(line, format!("kvfs: {}\n", shown(says)), "{args:?}");
        assert_eq!((out.status.code(), out.stdout.len()), (Some(2), 0), "{args:?}");
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
        &TempDir::new().unwrap(),
        &[
            (&["--read-onyl", "/x"], "there is no option --read-onyl; the nearest is --read-only"),
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
            (&["watch"], "<MOUNTPOINT> is missing; as in: kvfs watch [OPTIONS] <MOUNTPOINT>"),
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
