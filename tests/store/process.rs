//! Running a test a second time in a process of its own: as another writer, or where mounts are private to it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const DIRECTORY: &str = "KVFS_TEST_DIRECTORY";

/// The directory given to this process by [`again`], if it is the second one.
pub(crate) fn given() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

/// The command that runs `test` of this module again, where [`given`] is `directory`.
pub(crate) fn again(test: &str, directory: &Path) -> Command {
    wrapped(&[], test, directory)
}

/// As [`again`], started by the command line `wrapper`.
pub(crate) fn wrapped(wrapper: &[&str], test: &str, directory: &Path) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut words = wrapper.iter().map(std::ffi::OsStr::new).chain([program.as_os_str()]);
    let mut command = Command::new(words.next().unwrap());
    let test = format!("store::{test}");
    command.args(words).args(["--exact", &test, "--nocapture"]).env(DIRECTORY, directory);
    command
}

/// Asserts that the second process ran its one test and that it passed.
#[track_caller]
pub(crate) fn passed(output: &Output) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && out.contains("ok. 1 passed"), "the second process:\n{out}\n{err}");
}

/// Runs `test` again as root of a mount namespace of its own, after the shell script `setup`, whose first
/// argument is `directory`. Does nothing on a machine without such namespaces.
#[track_caller]
pub(crate) fn in_private_mounts(setup: &str, test: &str, directory: &Path) {
    let ways: [&[&str]; 2] = [&["unshare", "--mount"], &["unshare", "--map-root-user", "--mount"]];
    let works = |way: &&&[&str]| {
        let trial =
            Command::new(way[0]).args(&way[1..]).args(["mount", "-t", "tmpfs", "none", "/mnt"]).output();
        trial.is_ok_and(|output| output.status.success())
    };
    let Some(way) = ways.iter().find(works) else {
        assert!(std::env::var_os("KVFS_REQUIRE_FUSE").is_none(), "mount namespaces are missing");
        eprintln!("skipped: mount namespaces are missing");
        return;
    };
    let script = format!("set -e; cd /; D=$1; shift; {setup}\nexec \"$@\"");
    let directory_text = directory.to_str().unwrap();
    let wrapper = [way, &["sh", "-c", &script, "sh", directory_text][..]].concat();
    passed(&wrapped(&wrapper, test, directory).output().unwrap());
}
