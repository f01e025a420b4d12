//! Where a crowd meets: a store, its mount, and the way to the key.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tempfile::TempDir;

use super::document::{SHORTEST, document};
use crate::common::etcd::Shared;
use crate::common::{Mount, PATIENCE, prefect, unmount, wait_for};

/// Which key-value store.
#[derive(Debug, Clone, Copy)]
pub(super) enum Behind {
    Memory,
    Sqlite,
    Etcd,
}

/// How the crowd comes to the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Name,
    /// By a bind mount of the key alone, as a container does that has one file of the mount.
    Bind,
    /// From a PID namespace below that of kvfs, as a container beside it does.
    Below,
    /// From above the PID namespace that kvfs is in: the kernel tells it no process, only 0.
    Above,
}

pub(super) struct Place {
    // In the order in which they end.
    bound: Option<Bound>,
    elsewhere: Option<Mount>,
    mounted: Mounted,
    pub(super) way: Way,
    _etcd: Option<Shared>,
}

enum Mounted {
    Beside(Mount),
    Inside(Inside),
}

impl Place {
    /// `None`, with a line that says why, where the machine cannot have it.
    pub(super) fn new(behind: Behind, way: Way) -> Option<Self> {
        let etcd = match behind {
            Behind::Etcd => Some(Shared::usual()?),
            _ => None,
        };
        let home = TempDir::new().unwrap();
        let store = match (behind, &etcd) {
            (Behind::Sqlite, _) => format!("sqlite:{}", home.path().join("kv.db").display()),
            (_, Some(etcd)) => etcd.argument(),
            (_, None) => "memory:".to_owned(),
        };
        let mounted = match way {
            Way::Above => Mounted::Inside(Inside::start(home, &store)),
            _ => Mounted::Beside(Mount::start_in(home, &store, &prefect::PATIENT)),
        };
        let elsewhere = match behind {
            Behind::Memory => None,
            _ => Some(Mount::start_in(TempDir::new().unwrap(), &store, &prefect::PATIENT)),
        };
        let mut place = Self { bound: None, elsewhere, mounted, way, _etcd: etcd };
        place.begin();
        if way == Way::Bind {
            place.bound = Some(Bound::new(&place.name()));
        }
        Some(place)
    }

    /// Sets the key to what it has before any write.
    pub(super) fn begin(&self) {
        fs::write(self.name(), document(0, SHORTEST)).unwrap();
    }

    /// The key by its name.
    pub(super) fn name(&self) -> PathBuf {
        match &self.mounted {
            Mounted::Beside(mount) => mount.path("k"),
            Mounted::Inside(inside) => inside.dir.join("k"),
        }
    }

    /// The key as the crowd opens it.
    pub(super) fn path(&self) -> PathBuf {
        self.bound.as_ref().map_or_else(|| self.name(), |bound| bound.place.clone())
    }

    /// The key on another mount of the store.
    pub(super) fn elsewhere(&self) -> PathBuf {
        self.elsewhere.as_ref().expect("a store that others reach").path("k")
    }
}

/// One key that is mounted elsewhere.
struct Bound {
    place: PathBuf,
    _home: TempDir,
}

impl Bound {
    fn new(key: &Path) -> Self {
        let home = TempDir::new().unwrap();
        let place = home.path().join("app.json");
        fs::write(&place, "").unwrap();
        run(Command::new("mount").arg("--bind").args([key, &place]));
        Self { place, _home: home }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        unmount(&self.place);
    }
}

/// A kvfs in a PID namespace of its own, whose mount is seen out here.
struct Inside {
    child: Child,
    dir: PathBuf,
    home: TempDir,
}

impl Inside {
    fn start(home: TempDir, store: &str) -> Self {
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

fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}
