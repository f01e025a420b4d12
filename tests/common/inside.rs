//! A mount that is in another PID namespace than those who use it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command};

use tempfile::TempDir;

use super::{Mount, PATIENCE, unmount, wait_for};

/// A kvfs in a PID namespace of its own, whose mount is seen out here: the kernel tells it no process, only 0.
pub struct Inside {
    child: Child,
    pub dir: PathBuf,
    home: TempDir,
}

impl Inside {
    pub fn start(home: TempDir, store: &str, args: &[&str]) -> Self {
        let dir = home.path().join("mnt");
        fs::create_dir(&dir).unwrap();
        run(Command::new("mount").arg("--bind").args([home.path(), home.path()]));
        run(Command::new("mount").arg("--make-shared").arg(home.path()));
        let kvfs = Mount::command(&home);
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "unchanged", "--pid", "--fork", "--kill-child"]);
        command.args(["sh", "-c", "mount -t proc proc /proc && exec \"$@\"", "sh"]).arg(kvfs.get_program());
        command
            .args(["-f", store])
            .args(args)
            .arg(&dir)
            .envs(kvfs.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let outside = fs::metadata(home.path()).unwrap().dev();
        let child = command.spawn().unwrap();
        wait_for(PATIENCE, || fs::metadata(&dir).unwrap().dev() != outside);
        Self { child, dir, home }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        unmount(&self.dir);
        self.child.wait().unwrap();
        unmount(self.home.path());
    }
}

pub fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}
