//! `kvfs status` of a cluster without other requests.

use std::fs;

use super::PATIENCE;
use super::server::Cluster;
use crate::common::{Mount, can_mount, wait_for};

const TELLS: &str = " the cluster tells of changes again";

#[test]
fn a_cluster_that_is_gone_is_told_of_before_anybody_asks_for_a_key() {
    if !can_mount() {
        return;
    }
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let store = format!("etcd:{}/app", cluster.addresses().join(","));
    let mount = Mount::start_in(tempfile::TempDir::new().unwrap(), &store, &[]);
    fs::write(mount.path("db"), "1").unwrap();
    wait_for(PATIENCE, || mount.status()["freshness"] == "pushed");
    assert_eq!(mount.status()["state"], "well");
    cluster.members[0].kill();
    wait_for(PATIENCE, || mount.status()["state"] == "down");
    let seen = mount.status();
    assert!(seen["untold_s"].is_u64() && seen["down"]["since_s"].is_u64(), "{seen}");
    let log = || fs::read_to_string(mount.home.path().join("state/kvfs/kvfs.log")).unwrap();
    assert_eq!(log().matches(" the watch of the cluster ended: ").count(), 1, "{}", log());
    assert_eq!(log().matches(TELLS).count(), 0, "{}", log());
    cluster.members[0].start();
    wait_for(PATIENCE, || mount.status()["state"] == "well" && mount.status()["freshness"] == "pushed");
    let seen = mount.status();
    assert!(seen["untold_s"].is_null() && seen["down"].is_null(), "{seen}");
    assert_eq!(log().matches(TELLS).count(), 1, "{}", log());
}
