//! Mounts and servers on one real etcd cluster: what each sees of the others, while members come and go.
#![allow(missing_docs, clippy::unwrap_used)]

mod counter;
mod history;
mod serving;
mod sharing;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use crate::common;
use crate::common::etcd as server;
use crate::common::pipe;
use crate::common::serve;
use common::{Mount, can_mount};
use server::Cluster;
use tempfile::TempDir;

/// Upper bound for whatever is waited for.
const PATIENCE: Duration = crate::common::PATIENCE;

/// A cluster of so many members, with mounts as machines of their own.
struct Fleet {
    mounts: Vec<Mount>,
    cluster: Cluster,
}

impl Fleet {
    fn start(members: usize, mounts: usize, args: &[&str]) -> Option<Self> {
        let cluster = can_mount().then(|| Cluster::start(members, &[]))??;
        let argument = format!("etcd:{}/app", cluster.addresses().join(","));
        let mounts = (0..mounts).map(|_| Self::mount(&argument, args)).collect();
        Some(Self { mounts, cluster })
    }

    fn mount(argument: &str, args: &[&str]) -> Mount {
        Mount::start_in(TempDir::new().unwrap(), argument, args)
    }
}

/// Writes a file and says what close(2) says, as `fs::write` does not.
fn save(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(text.as_bytes())?;
    match common::close(file) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// How many seconds or rounds a test takes; more where the environment says so.
fn extent(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}
