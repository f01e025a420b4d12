//! Where a crowd meets: a store, its mount, and the way to the key.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::document::{SHORTEST, document};
use crate::common::etcd::Shared;
use crate::common::inside::{Inside, run};
use crate::common::{Mount, prefect, unmount};

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
            Way::Above => Mounted::Inside(Inside::start(home, &store, &[])),
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
