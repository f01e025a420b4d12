//! Logins and certificates that are replaced while a store is open, as they are before they are over.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use kvfs::store::{Change, Error, EtcdSettings, EtcdStore, Expect, Feed, Location};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::PATIENCE;
use super::auth::{PASSWORD, at, secured};
use super::common::http::exchange;
use super::server::{Cluster, Member};
use super::suite::{Bench, block_on};
use super::tls::{Authority, cluster};

/// A way to `behind` that closes the connection in place of a refusal, as the gateway of some versions of etcd does. The thread
/// that listens lives as long as the tests.
fn closing(behind: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, behind) = (listener.local_addr().unwrap().to_string(), behind.to_owned());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let Ok(server) = TcpStream::connect(&behind) else { continue };
            let ends = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || pass(ends.0, ends.1));
            std::thread::spawn(move || pass(server, client));
        }
    });
    address
}

/// Passes bytes on until either end is gone, or the answer is a refusal.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut piece = [0; 1 << 12];
    while let Ok(size @ 1..) = from.read(&mut piece) {
        if piece.starts_with(b"HTTP/1.1 4") || to.write_all(&piece[..size]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        // The other one may have gone first.
        let _ = end.shutdown(Shutdown::Both);
    }
}

/// Waits until the feed tells of a set. Where it had to begin anew it tells of none before.
async fn followed(app: &Bench, feed: &mut Feed) {
    // A change may be lost with a token that is void.
    let set = async || drop(app.try_set("last", "1", Expect::Anything).await);
    set().await;
    loop {
        match feed.recv().await.unwrap() {
            Change::Set(key, _) if key.as_str() == "last" => return,
            Change::Everything | Change::Resumed => set().await,
            _ => {}
        }
    }
}

#[test]
fn a_token_that_is_refused_without_a_word_is_replaced() {
    let Some(cluster) = secured(&[]) else { return };
    let (member, address) = (&cluster.members[0], closing(&cluster.members[0].address));
    let forget = || {
        member.kill();
        member.start();
    };
    block_on(async {
        let app = at(&address, "app", PASSWORD);
        app.set("k", "1").await;
        forget();
        assert_eq!(app.text("k").await, b"1");
        forget();
        // Whether it was carried out nobody can tell: it is not sent again, but the next one is not refused. Where the store
        // has to read first, that gets the new token.
        let unknown = app.try_set("k", "2", Expect::Anything).await;
        let is_unknown = |error: &Error| error.to_string().contains("only the cluster knows");
        assert!(unknown.as_ref().err().is_none_or(is_unknown), "{unknown:?}");
        app.set("k", "3").await;
        let mut feed = app.0.changes().unwrap();
        while feed.recv().await != Some(Change::Everything) {}
        forget();
        followed(&app, &mut feed).await;
    });
}

#[test]
fn where_refusals_come_without_a_word_they_are_named_as_what_may_be_the_reason() {
    let Some(cluster) = secured(&[]) else { return };
    let address = closing(&cluster.members[0].address);
    block_on(async {
        for refused in [at(&address, "other", PASSWORD), at(&address, "app", "wrong-password")] {
            let Err(Error::Other(why)) = refused.get("k").await else { panic!() };
            assert!(why.contains("is the login right"), "{why}");
        }
    });
}

/// Asks as root.
fn command(member: &Member, path: &str, body: &Value) {
    let ask = |path: &str, token: &str, body: &Value| {
        let stream = TcpStream::connect(&member.address).unwrap();
        let head = format!("POST /v3/{path} HTTP/1.1{token}");
        let (status, _, text) = exchange(stream, &head, body.to_string().as_bytes());
        assert_eq!(status, 200, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let login = ask("auth/authenticate", "", &json!({"name": "root", "password": "root-password"}));
    ask(path, &format!("\r\nAuthorization: {}", login["token"].as_str().unwrap()), body);
}

/// A cluster, and what a user sees of it whose password is in a file.
struct Filed {
    cluster: Cluster,
    app: Bench,
    file: PathBuf,
    _dir: TempDir,
}

impl Filed {
    fn start() -> Option<Self> {
        let cluster = secured(&[])?;
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, PASSWORD).unwrap();
        let argument = format!("etcd:{}/app", cluster.members[0].address);
        let Ok(Location::Etcd(address)) = Location::parse(Some(&argument), &file) else { panic!() };
        let settings = EtcdSettings {
            login: Some(("app".to_owned(), PASSWORD.to_owned())),
            password_file: Some(file.clone()),
            ..EtcdSettings::plain(address)
        };
        let app = Bench(Arc::new(EtcdStore::open(&settings, PATIENCE).unwrap()));
        Some(Self { cluster, app, file, _dir: dir })
    }
}

#[test]
fn a_password_that_was_replaced_in_its_file_is_read_again() {
    let Some(Filed { cluster, app, file, _dir }) = Filed::start() else { return };
    block_on(async {
        app.set("k", "1").await;
        let mut feed = app.0.changes().unwrap();
        while feed.recv().await != Some(Change::Everything) {}
        command(&cluster.members[0], "auth/user/changepw", &json!({"name": "app", "password": "another"}));
        // Not in the file yet.
        let refused = app.get("k").await;
        assert!(matches!(refused, Err(Error::Denied(_))), "{refused:?}");
        fs::write(&file, "another\n").unwrap();
        assert_eq!(app.text("k").await, b"1");
        followed(&app, &mut feed).await;
    });
}

#[test]
fn the_password_is_read_again_when_that_is_asked_for() {
    let Some(Filed { cluster: _cluster, app, file, _dir }) = Filed::start() else { return };
    block_on(async {
        app.set("k", "1").await;
        fs::write(&file, "another").unwrap();
        assert_eq!(app.text("k").await, b"1");
        app.0.renew_credentials().await;
        let refused = app.get("k").await;
        assert!(matches!(refused, Err(Error::Denied(_))), "{refused:?}");
        fs::write(&file, PASSWORD).unwrap();
        assert_eq!(app.text("k").await, b"1");
    });
}

/// Whether the cluster says so or its alert is lost in a reset, the reason is named.
#[track_caller]
fn certificate_refused<T: std::fmt::Debug>(result: Result<T, Error>) {
    let Err(Error::Denied(why) | Error::Other(why)) = result else { panic!("{result:?}") };
    assert!(why.contains("ETCDCTL_CERT"), "{why}");
}

#[test]
fn certificates_that_were_replaced_are_read_again() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let Some(cluster) = cluster(&ours) else { return };
    for name in ["server", "client"] {
        theirs.certify(name);
    }
    ours.certify("another");
    let (authority, one, key) = (ours.path("used.pem"), ours.path("client.pem"), ours.path("client.key"));
    let copy =
        |of: &Authority, name: &str, to: &Path| fs::write(to, fs::read(of.path(name)).unwrap()).unwrap();
    copy(&ours, "ca.pem", &authority);
    copy(&theirs, "client.pem", &one);
    copy(&theirs, "client.key", &key);
    let trust = |authorities: &[&Authority]| {
        let all = authorities.iter().map(|one| fs::read_to_string(one.path("ca.pem")).unwrap());
        fs::write(ours.path("trusted.pem"), all.collect::<String>()).unwrap();
        cluster.members[0].kill();
        cluster.members[0].start();
    };
    trust(&[&ours, &theirs]);
    let argument = format!("etcds:{}/app", cluster.members[0].address);
    let Ok(Location::Etcd(address)) = Location::parse(Some(&argument), Path::new("/")) else { panic!() };
    let settings = EtcdSettings {
        authority: Some(authority.clone()),
        identity: Some((one.clone(), key.clone())),
        ..EtcdSettings::plain(address)
    };
    let app = Bench(Arc::new(EtcdStore::open(&settings, PATIENCE).unwrap()));
    block_on(async {
        // The member listens before it serves.
        let start = Instant::now();
        while let Err(error) = app.try_set("k", "1", Expect::Anything).await {
            assert!(start.elapsed() < PATIENCE, "{error:?}");
        }
        let mut feed = app.0.changes().unwrap();
        while feed.recv().await != Some(Change::Everything) {}
        trust(&[&ours]);
        certificate_refused(app.try_set("k", "2", Expect::Anything).await);
        // One of two files: together they are none that can be used.
        copy(&ours, "another.key", &key);
        certificate_refused(app.try_set("k", "2", Expect::Anything).await);
        copy(&ours, "another.pem", &one);
        assert_eq!(app.text("k").await, b"1");
        app.set("k", "2").await;
        // The server's own is of the other authority.
        copy(&theirs, "server.pem", &ours.path("server.pem"));
        copy(&theirs, "server.key", &ours.path("server.key"));
        trust(&[&ours, &theirs]);
        let refused = app.get("k").await;
        assert!(matches!(refused, Err(Error::Untrusted(_))), "{refused:?}");
        copy(&theirs, "ca.pem", &authority);
        assert_eq!(app.text("k").await, b"2");
        followed(&app, &mut feed).await;
    });
}
