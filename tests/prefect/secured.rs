//! A server with a password and CSRF tokens that shows fewer variables at once than others do.

use std::fs;

use tempfile::TempDir;

use super::PATIENCE;
use super::common::{Mount, can_mount, wait_for};
use super::server::{PATIENT, Process};

pub(super) const SETTINGS: &[(&str, &str)] = &[
    ("PREFECT_SERVER_API_AUTH_STRING", "admin:secret-password"),
    ("PREFECT_SERVER_CSRF_PROTECTION_ENABLED", "true"),
    ("PREFECT_SERVER_API_DEFAULT_LIMIT", "50"),
];

/// A home whose active profile has this login for the server at `address`.
fn home(address: &str, login: &str) -> TempDir {
    let home = TempDir::new().unwrap();
    fs::create_dir(home.path().join(".prefect")).unwrap();
    let profile = format!(
        "active = \"a\"\n[profiles.a]\nPREFECT_API_URL = \"http://{address}/api\"\n\
         PREFECT_API_AUTH_STRING = \"{login}\"\n"
    );
    fs::write(home.path().join(".prefect/profiles.toml"), profile).unwrap();
    home
}

#[test]
fn a_server_that_wants_a_login_and_tokens_is_mounted_by_who_has_them() {
    let Some(server) = can_mount().then(|| Process::with(SETTINGS)).flatten() else { return };
    let refused = home(&server.address, "admin:wrong-password");
    let out = Mount::command(&refused).args(["prefect", "mnt"]).current_dir(refused.path()).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(4) && said.contains("profiles.toml"), "{said}");
    assert!(said.lines().count() == 1 && !said.contains("password"), "{said}");
    let mount =
        |args: &[&str]| Mount::start_in(home(&server.address, "admin:secret-password"), "prefect", args);
    let one = mount(&PATIENT);
    for number in 0..120 {
        fs::write(one.path(format!("k{number}")), number.to_string()).unwrap();
    }
    // Others' changes reach it by events only.
    let other = mount(&[&PATIENT[..], &["--max-age", "1h"]].concat());
    assert_eq!(fs::read_dir(&other.dir).unwrap().count(), 120);
    assert_eq!(fs::read_to_string(other.path("k77")).unwrap(), "77\n");
    wait_for(PATIENCE, || {
        fs::write(one.path("k0"), "\"again\"").unwrap();
        other.status()["freshness"] == "pushed"
    });
    fs::write(one.path("k77"), "\"new\"").unwrap();
    wait_for(PATIENCE, || fs::read_to_string(other.path("k77")).is_ok_and(|text| text == "\"new\"\n"));
    fs::rename(one.path("k1"), one.path("moved")).unwrap();
    fs::remove_file(one.path("k2")).unwrap();
    wait_for(PATIENCE, || fs::read_dir(&other.dir).unwrap().count() == 119 && other.path("moved").exists());
    for mount in [one, other] {
        let log = fs::read_to_string(mount.home.path().join("state/kvfs/kvfs.log")).unwrap_or_default();
        let shown = fs::read_to_string("/proc/self/mountinfo").unwrap() + &log + &mount.status().to_string();
        assert!(!shown.contains("secret-password"), "{shown}");
    }
}
