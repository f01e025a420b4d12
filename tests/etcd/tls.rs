//! Clusters behind TLS that want client certificates, made by an authority of our own.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::common::proxy::reset_on_close;
use super::common::{Mount, can_mount};
use super::server::Cluster;

/// An authority, and what it signs.
pub(super) struct Authority {
    dir: TempDir,
}

impl Authority {
    pub(super) fn new() -> Self {
        let authority = Self { dir: TempDir::new().unwrap() };
        authority
            .openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca");
        authority
    }

    pub(super) fn openssl(&self, args: &str) {
        let out =
            Command::new("openssl").args(args.split(' ')).current_dir(self.dir.path()).output().unwrap();
        assert!(out.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&out.stderr));
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes `NAME.pem` and `NAME.key`, for a server on this machine or a client.
    pub(super) fn certify(&self, name: &str) {
        let extensions = "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n";
        fs::write(self.path("ext"), extensions).unwrap();
        self.openssl(&format!(
            "req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out {name}.pem"
        ));
    }
}

/// A cluster that takes those clients only that `authority` knows, or whoever `trusted.pem` knows once it is started anew.
pub(super) fn cluster(authority: &Authority) -> Option<Cluster> {
    authority.certify("server");
    let path = |name: &str| authority.path(name).display().to_string();
    fs::copy(authority.path("ca.pem"), authority.path("trusted.pem")).unwrap();
    let (certificate, key, trusted) = (path("server.pem"), path("server.key"), path("trusted.pem"));
    let args = [
        "--client-cert-auth",
        "--cert-file",
        &*certificate,
        "--key-file",
        &*key,
        "--trusted-ca-file",
        &*trusted,
    ];
    Cluster::start_with("https", 1, &args)
}

/// A way to `behind` that resets a connection once the client has said who it is: as one does whose refusal is lost in the close
/// that follows it. The thread that listens lives as long as the tests.
fn resetting(behind: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, behind) = (listener.local_addr().unwrap().to_string(), behind.to_owned());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&behind).unwrap());
            std::thread::spawn(move || shake_hands(&client, &server));
        }
    });
    address
}

/// Passes on what both say until the client speaks a second time.
fn shake_hands(mut client: &TcpStream, mut server: &TcpStream) {
    std::thread::scope(|both| {
        both.spawn(|| std::io::copy(&mut &*server, &mut &*client));
        let mut piece = [0; 1 << 12];
        let size = client.read(&mut piece).unwrap();
        server.write_all(&piece[..size]).unwrap();
        let _ = client.read(&mut piece);
        reset_on_close(client);
        let _ = server.shutdown(Shutdown::Both);
    });
}

/// Mounts with these files; the exit code and what was said.
fn mount(store: &str, files: &[(&str, &Path)]) -> (Option<Mount>, Option<i32>, String) {
    let home = TempDir::new().unwrap();
    let mut command = Mount::command(&home);
    command.envs(files.iter().copied()).args(["-q", store]);
    let (mount, out) = Mount::made_by(command, home);
    (mount, out.status.code(), String::from_utf8(out.stderr).unwrap())
}

#[test]
fn a_client_with_a_certificate_is_served_and_no_other() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let Some(tls) = can_mount().then(|| cluster(&ours)).flatten() else { return };
    let Some(plain) = Cluster::start(1, &[]) else { return };
    ours.certify("client");
    theirs.certify("client");
    let address = &tls.members[0].address;
    let store = format!("etcds:{address}/app");
    let (trusted, distrusted) = (ours.path("ca.pem"), theirs.path("ca.pem"));
    let identity = |authority: &Authority| (authority.path("client.pem"), authority.path("client.key"));
    let (known, unknown) = (identity(&ours), identity(&theirs));
    let with = |trusted, identity: Option<&'_ (PathBuf, PathBuf)>| {
        let mut files: Vec<(&str, PathBuf)> = vec![("ETCDCTL_CACERT", trusted)];
        if let Some((certificate, key)) = identity {
            files.extend([("ETCDCTL_CERT", certificate.clone()), ("ETCDCTL_KEY", key.clone())]);
        }
        files
    };
    for (store, files, why) in [
        (&store, vec![], "ETCDCTL_CACERT"),
        (&store, with(distrusted, Some(&known)), "ETCDCTL_CACERT"),
        (&store, with(trusted.clone(), None), "ETCDCTL_CERT"),
        (&store, with(trusted.clone(), Some(&unknown)), "ETCDCTL_CERT"),
        (&store, with("/nowhere".into(), None), "/nowhere"),
        (&store, with(trusted.clone(), Some(&(known.0.clone(), "/nowhere".into()))), "/nowhere"),
        (&format!("etcd:{address}/app"), vec![], "write etcds: in place"),
        (&format!("etcds:{}", plain.members[0].address), with(trusted.clone(), None), "write etcd: in place"),
    ] {
        let files: Vec<(&str, &Path)> = files.iter().map(|(name, file)| (*name, file.as_path())).collect();
        let (_, code, said) = mount(store, &files);
        assert!(code == Some(4) && said.contains(why), "{files:?}: {code:?} {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let files = [("ETCDCTL_CACERT", &*trusted), ("ETCDCTL_CERT", &*known.0), ("ETCDCTL_KEY", &*known.1)];
    let (mount, _, said) = mount(&store, &files);
    assert_eq!(said, "");
    let mount = mount.unwrap();
    fs::write(mount.path("k"), "{\"over\": \"tls\"}").unwrap();
    super::common::wait_for(super::PATIENCE, || mount.status()["freshness"] == "pushed");
    assert_eq!(fs::read_to_string(mount.path("k")).unwrap(), "{\"over\": \"tls\"}");
}

#[test]
fn where_a_refused_certificate_is_lost_in_a_reset_it_is_named_as_what_may_be_the_reason() {
    let authority = Authority::new();
    let Some(cluster) = cluster(&authority) else { return };
    let address = resetting(&cluster.members[0].address);
    let home = TempDir::new().unwrap();
    let mut command = Mount::command(&home);
    command.env("ETCDCTL_CACERT", authority.path("ca.pem")).args(["-q", &format!("etcds:{address}/app")]);
    let out = command.arg(home.path().join("mnt")).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(4) && said.contains("reset by peer"), "{said}");
    assert!(said.contains("ETCDCTL_CERT") && !said.contains("write etcds:"), "{said}");
}
