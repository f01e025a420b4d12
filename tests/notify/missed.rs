//! What others change while the mount cannot hear of it.

use std::fs;
use std::time::Duration;

use super::common::{Mount, can_mount, wait_for};
use super::etcd::Cluster;
use super::pipe::Pipe;
use super::{PATIENCE, Watch, relay, text};

/// A mount of a cluster with these keys, by a way that can be cut.
fn mounted(keys: &[&str], options: &[&str]) -> Option<(Mount, Pipe, Cluster)> {
    let cluster = can_mount().then(|| Cluster::start(1, &[])).flatten()?;
    let pipe = Pipe::before(&cluster.members[0].address);
    for key in keys {
        cluster.put(format!("app/{key}"), "1");
    }
    let store = format!("etcd:{}/app", pipe.address);
    let options = [&["--notify"], options].concat();
    let mount = Mount::start_in(tempfile::TempDir::new().unwrap(), &store, &options);
    wait_for(PATIENCE, || relay(&mount).is_some() && mount.status()["keys"] == keys.len());
    pushed(&mount);
    Some((mount, pipe, cluster))
}

fn pushed(mount: &Mount) {
    wait_for(PATIENCE, || mount.status()["freshness"] == "pushed");
}

/// Does something while the way to the cluster is cut.
fn unheard(mount: &Mount, pipe: &Pipe, change: impl FnOnce()) {
    pipe.cut();
    wait_for(PATIENCE, || mount.status()["freshness"] != "pushed");
    change();
    pipe.mend();
}

#[test]
fn what_changed_while_changes_were_missed_is_told_afterwards() {
    // Nothing is seen by asking again, or told by looking again.
    let Some((mount, pipe, cluster)) = mounted(&["a", "b", "c"], &["--max-age", "1h"]) else { return };
    assert_eq!(mount.names(), ["a", "b", "c"]);
    let directory = Watch::new(&mount.dir, &[]);
    let [a, c] = ["a", "c"].map(|name| Watch::new(&mount.path(name), &[]));
    unheard(&mount, &pipe, || {
        cluster.put("app/a", "[2]");
        cluster.members[0].delete("app/b");
        cluster.members[0].compact(cluster.put("app/d/e", "1"));
    });
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

#[test]
fn what_was_told_is_not_told_again_and_who_watches_a_file_is_told_of_it_in_the_end() {
    let Some((mount, pipe, cluster)) = mounted(&["a", "b"], &[]) else { return };
    let directory = Watch::new(&mount.dir, &[]);
    // Longer than answers are good, and nothing is missed.
    unheard(&mount, &pipe, || std::thread::sleep(Duration::from_millis(1_500)));
    pushed(&mount);
    cluster.put("app/b", "[2]");
    directory.wait("CLOSE_WRITE,CLOSE b");
    assert_eq!(text(mount.path("a")), "1");
    let a = Watch::new(&mount.path("a"), &[]);
    for new in ["c", "d"] {
        directory.take();
        unheard(&mount, &pipe, || {
            cluster.put(format!("app/{new}"), "1");
            cluster.members[0].compact(cluster.put("elsewhere", "1"));
        });
        directory.wait(&format!("CREATE {new}"));
        let told = directory.take();
        assert!(!told.iter().any(|event| event.ends_with(" b")), "{told:?}");
        // Looking at it does not make who watched it before hear less.
        assert_eq!(text(mount.path("a")), "1");
    }
    fs::write(mount.path("a"), "[2]").unwrap();
    cluster.put("app/a", "[3]");
    a.wait("DELETE_SELF");
    assert_eq!(text(mount.path("a")), "[3]");
}
