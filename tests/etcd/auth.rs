//! Clusters that want a login.

use std::fs;
use std::time::Duration;

use kvfs::store::{Change, Error, EtcdSettings, EtcdStore, Expect, Location};
use serde_json::json;
use tempfile::TempDir;

use super::common::serve::both;
use super::common::{Mount, can_mount, wait_for};
use super::pipe::Pipe;
use super::server::{Cluster, base64};
use super::suite::{Bench, block_on};
use super::{PATIENCE, tls::Authority};

pub(super) const PASSWORD: &str = "secret-password";

/// A cluster in which the user `app` may use the keys below `app/`.
pub(super) fn secured(args: &[&str]) -> Option<Cluster> {
    let cluster = Cluster::start(1, args)?;
    let range = json!({"permType": "READWRITE", "key": base64("app/"), "range_end": base64("app0")});
    for (path, body) in [
        ("user/add", json!({"name": "root", "password": "root-password"})),
        ("user/add", json!({"name": "app", "password": PASSWORD})),
        ("role/add", json!({"name": "root"})),
        ("role/add", json!({"name": "app"})),
        ("role/grant", json!({"name": "app", "perm": range})),
        ("user/grant", json!({"user": "root", "role": "root"})),
        ("user/grant", json!({"user": "app", "role": "app"})),
        ("enable", json!({})),
    ] {
        let (status, answer) = cluster.members[0].ask(&format!("auth/{path}"), &body);
        assert_eq!(status, 200, "{path}: {answer}");
    }
    Some(cluster)
}

pub(super) fn at(address: &str, prefix: &str, password: &str) -> Bench {
    let argument = format!("etcd:{address}/{prefix}");
    let Ok(Location::Etcd(address)) = Location::parse(Some(&argument), std::path::Path::new("/")) else {
        panic!()
    };
    let login = Some(("app".to_owned(), password.to_owned()));
    Bench(std::sync::Arc::new(
        EtcdStore::open(&EtcdSettings { login, ..EtcdSettings::plain(address) }, PATIENCE).unwrap(),
    ))
}

#[test]
fn who_has_the_password_has_the_keys_of_the_role() {
    let Some(cluster) = secured(&[]) else { return };
    let member = &*cluster.members[0].address;
    block_on(async {
        let app = at(member, "app", PASSWORD);
        let mut feed = app.0.changes().unwrap();
        assert_eq!(feed.recv().await, Some(Change::Paused));
        assert_eq!(feed.recv().await, Some(Change::Everything));
        let sets = (0..20).map(|number| {
            let app = app.clone();
            tokio::spawn(async move { app.set(&number.to_string(), "1").await })
        });
        for set in sets.collect::<Vec<_>>() {
            set.await.unwrap();
        }
        assert_eq!(app.keys().await.len(), 20);
        assert!(matches!(feed.recv().await, Some(Change::Set(..))));
        app.rename("0", "k").await.unwrap();
        app.delete("k").await.unwrap();
        for refused in [at(member, "other", PASSWORD), at(member, "app", "wrong-password")] {
            let results = [
                refused.get("k").await.map(drop),
                refused.try_set("k", "1", Expect::Anything).await.map(drop),
            ];
            for result in results {
                let Err(Error::Denied(why)) = result else { panic!("{result:?}") };
                assert!(why.contains("ETCDCTL_USER") && !why.contains("password\""), "{why}");
            }
            assert!(refused.0.list_keys().await.is_err());
        }
    });
}

/// A token that holds no longer is replaced, and the watch goes on.
async fn renewed(app: &Bench, void: impl AsyncFn()) {
    let mut feed = app.0.changes().unwrap();
    while feed.recv().await != Some(Change::Everything) {}
    app.set("k", "1").await;
    void().await;
    let reads = (0..10).map(|_| {
        let app = app.clone();
        tokio::spawn(async move { app.text("k").await })
    });
    for read in reads.collect::<Vec<_>>() {
        assert_eq!(read.await.unwrap(), b"1");
    }
    void().await;
    app.set("k", "2").await;
    let last = app.set("last", "3").await;
    while feed.recv().await != Some(Change::Set("last".into(), last.clone())) {}
}

#[test]
fn a_member_that_forgot_the_tokens_gives_another() {
    let Some(cluster) = secured(&[]) else { return };
    block_on(renewed(&at(&cluster.members[0].address, "app", PASSWORD), async || {
        cluster.members[0].kill();
        cluster.members[0].start();
    }));
}

/// Tokens that are good for a second.
fn one_second(authority: &Authority) -> String {
    authority.openssl("genrsa -out jwt.key 2048");
    authority.openssl("rsa -in jwt.key -pubout -out jwt.pub");
    let path = |name: &str| authority.path(name).display().to_string();
    format!("jwt,pub-key={},priv-key={},sign-method=RS256,ttl=1s", path("jwt.pub"), path("jwt.key"))
}

#[test]
fn a_token_that_is_over_is_replaced() {
    let authority = Authority::new();
    for args in [["--auth-token", &*one_second(&authority)], ["--auth-token-ttl", "1"]] {
        let Some(cluster) = secured(&args) else { return };
        block_on(renewed(&at(&cluster.members[0].address, "app", PASSWORD), async || {
            tokio::time::sleep(Duration::from_millis(2_500)).await;
        }));
    }
}

#[test]
fn a_token_that_is_over_before_it_is_used_is_replaced_again() {
    let authority = Authority::new();
    let Some(cluster) = secured(&["--auth-token", &one_second(&authority)]) else { return };
    let pipe = Pipe::before(&cluster.members[0].address);
    let app = at(&pipe.address, "app", PASSWORD);
    block_on(async {
        pipe.hold_after("\"token\"");
        let set = tokio::spawn(async move { app.set("k", "1").await });
        for again in [true, false] {
            wait_for(PATIENCE, || pipe.is_held());
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            if again {
                pipe.hold_after("\"token\"");
            }
            pipe.mend();
        }
        set.await.unwrap();
    });
}

#[test]
fn a_login_that_nobody_asks_for_does_no_harm() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let app = at(&cluster.members[0].address, "app", PASSWORD);
    block_on(async {
        app.set("k", "1").await;
        assert_eq!(app.text("k").await, b"1");
    });
}

#[test]
fn a_mount_says_why_it_is_refused_and_shows_no_secret() {
    let Some(cluster) = can_mount().then(|| secured(&[])).flatten() else { return };
    let mount = |variables: &[(&str, &str)], prefix: &str| {
        let home = TempDir::new().unwrap();
        let store = format!("etcd:{}/{prefix}", cluster.members[0].address);
        let mut command = Mount::command(&home);
        command.envs(variables.iter().copied()).arg(store);
        Mount::made_by(command, home)
    };
    let secrets = TempDir::new().unwrap();
    let file = secrets.path().join("password");
    fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let file = file.to_str().unwrap();
    for (variables, prefix, why) in [
        (&[][..], "app", "set ETCDCTL_USER"),
        (&[("ETCDCTL_USER", "app")], "app", "ETCDCTL_PASSWORD"),
        (&[("ETCDCTL_USER", "app:wrong-password")], "app", "authentication failed"),
        (&[("ETCDCTL_USER", "app"), ("ETCDCTL_PASSWORD", PASSWORD)], "other", "permission denied"),
        (&[("ETCDCTL_USER", "app"), ("KVFS_ETCD_PASSWORD_FILE", "/nowhere")], "app", "/nowhere"),
        (&[("ETCDCTL_CERT", "c.pem")], "app", "ETCDCTL_KEY"),
    ] {
        let (_mount, out) = mount(variables, prefix);
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(4) && said.contains(why), "{variables:?}: {:?} {said}", out.status);
        assert!(said.lines().count() == 1 && !said.contains("-password"), "{said}");
    }
    let (mount, out) = mount(&[("ETCDCTL_USER", "app"), ("KVFS_ETCD_PASSWORD_FILE", file)], "app");
    let mount = mount.unwrap_or_else(|| panic!("{}", both(&out)));
    fs::write(mount.path("k"), "1").unwrap();
    wait_for(PATIENCE, || mount.status()["freshness"] == "pushed");
    let log = fs::read_to_string(mount.home.path().join("state/kvfs/kvfs.log")).unwrap_or_default();
    let line = fs::read_to_string(format!("/proc/{}/cmdline", mount.pid)).unwrap();
    let shown =
        fs::read_to_string("/proc/self/mountinfo").unwrap() + &log + &line + &mount.status().to_string();
    assert!(!shown.contains(PASSWORD), "{shown}");
}
