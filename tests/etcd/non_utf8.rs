//! Keys that are not UTF-8: no file shows them, the log names each once, and a rename of their directory is refused.

use std::fs;

use tempfile::TempDir;

use super::PATIENCE;
use super::common::{Mount, can_mount, errno, wait_for};
use super::server::Shared;

fn log(mount: &Mount) -> String {
    fs::read_to_string(mount.home.path().join("state/kvfs/kvfs.log")).unwrap_or_default()
}

#[test]
fn the_log_tells_of_each_once_whether_it_is_listed_or_told() {
    let Some(cluster) = can_mount().then(Shared::one).flatten() else { return };
    let put = |name: &[u8]| cluster.put([cluster.prefix().as_bytes(), name].concat(), "1");
    put(b"listed\xff");
    let mount = Mount::start_in(TempDir::new().unwrap(), &cluster.argument(), &[]);
    wait_for(PATIENCE, || mount.status()["freshness"] == "pushed");
    assert_eq!(mount.names(), [""; 0]);
    wait_for(PATIENCE, || log(&mount).contains("listed\\xff"));
    for _ in 0..3 {
        put(b"told\xff\x1b[2J");
    }
    put(b"seen");
    wait_for(PATIENCE, || mount.names() == ["seen"]);
    let said = log(&mount);
    assert_eq!((said.matches("listed").count(), said.matches("told\\xff\\x1b[2J").count()), (1, 1), "{said}");
}

#[test]
fn a_directory_is_not_renamed_without_them() {
    let Some(cluster) = can_mount().then(Shared::one).flatten() else { return };
    let non_utf8 = [cluster.prefix().as_bytes(), b"d/in/\xff"].concat();
    let mount = Mount::start_in(TempDir::new().unwrap(), &cluster.argument(), &[]);
    fs::create_dir_all(mount.path("d/in")).unwrap();
    fs::write(mount.path("d/in/k"), "1").unwrap();
    fs::write(mount.path("d/k"), "1").unwrap();
    cluster.put(&non_utf8, "1");
    for (from, to) in [("d", "e"), ("d/in", "d/out")] {
        assert_eq!(errno(fs::rename(mount.path(from), mount.path(to))), libc::EINVAL);
        assert!(
            mount.last_error().contains("would stay behind in the directory: 1;"),
            "{}",
            mount.last_error()
        );
    }
    // Where the store cannot do so at once mv(1) copies, and would leave them behind.
    for number in 0..70 {
        cluster.put(format!("{}d/in/{number}", cluster.prefix()), "1");
    }
    wait_for(PATIENCE, || mount.path("d/in/69").exists());
    assert!(!mount.sh("mv d e").status.success());
    assert_eq!(mount.text("d/in/k").as_deref(), Some("1"));
    assert!(!mount.path("e").exists());
    for number in 0..70 {
        cluster.members[0].delete(format!("{}d/in/{number}", cluster.prefix()));
    }
    cluster.members[0].delete(&non_utf8);
    wait_for(PATIENCE, || !mount.path("d/in/69").exists());
    fs::rename(mount.path("d"), mount.path("e")).unwrap();
    assert_eq!(mount.text("e/in/k").as_deref(), Some("1"));
}
