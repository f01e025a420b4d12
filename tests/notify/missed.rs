//! What others change while the mount cannot hear of it.

use std::fs;

use super::common::{Mount, can_mount, wait_for};
use super::etcd::Cluster;
use super::pipe::Pipe;
use super::{PATIENCE, Watch, herald, text};

#[test]
fn what_changed_while_changes_were_missed_is_told_afterwards() {
    let Some(cluster) = can_mount().then(|| Cluster::start(1, &[])).flatten() else { return };
    let pipe = Pipe::before(&cluster.members[0].address);
    for key in ["a", "b", "c"] {
        cluster.put(format!("app/{key}"), "1");
    }
    let store = format!("etcd:{}/app", pipe.address);
    // Nothing is seen by asking again, or told by looking again.
    let options = ["--notify", "--max-age", "1h"];
    let mount = Mount::start_in(tempfile::TempDir::new().unwrap(), &store, &options);
    wait_for(PATIENCE, || herald(&mount).is_some() && mount.status()["freshness"] == "pushed");
    assert_eq!(mount.names(), ["a", "b", "c"]);
    let directory = Watch::new(&mount.dir, &[]);
    let [a, c] = ["a", "c"].map(|name| Watch::new(&mount.path(name), &[]));
    pipe.cut();
    wait_for(PATIENCE, || mount.status()["freshness"] != "pushed");
    cluster.put("app/a", "[2]");
    cluster.members[0].delete("app/b");
    cluster.members[0].compact(cluster.put("app/d/e", "1"));
    pipe.mend();
    for event in ["MOVED_TO a", "DELETE b", "CREATE,ISDIR d"] {
        directory.wait(event);
    }
    a.wait("DELETE_SELF");
    assert_eq!(text(mount.path("a")), "[2]");
    assert_eq!(mount.names(), ["a", "c", "d"]);
    let told = directory.take();
    assert!(
        c.take().is_empty() && !told.iter().any(|event| event.ends_with(" c")),
        "c did not change: {told:?}"
    );
    // Who watched a file from before goes on with it.
    cluster.put("app/c", "[3]");
    c.wait("DELETE_SELF");
    directory.wait("MOVED_TO c");
    assert_eq!(fs::read_to_string(mount.path("c")).unwrap(), "[3]");
}
