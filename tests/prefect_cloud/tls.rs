//! A server behind a real TLS terminator, with certificates of an authority of our own.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::common::port::Port;
use super::common::proxy::reset_on_close;
use super::common::{Mount, can_mount, errno, wait_for};
use super::server::{KEY, Server, both};

const PATIENCE: Duration = crate::common::PATIENCE;

/// An authority, and what it signs.
struct Authority {
    dir: TempDir,
}

impl Authority {
    fn new() -> Self {
        let authority = Self { dir: TempDir::new().unwrap() };
        authority
            .openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca");
        authority
    }

    fn openssl(&self, args: &str) {
        let out =
            Command::new("openssl").args(args.split(' ')).current_dir(self.dir.path()).output().unwrap();
        assert!(out.status.success(), "openssl {args}: {}", both(&out));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate for `host` that ends in `days`, with its key in the same file.
    fn certify(&self, host: &str, days: i32) -> PathBuf {
        let name = format!("{host}{days}");
        let extensions = format!("basicConstraints=CA:FALSE\nsubjectAltName=DNS:{host}\n");
        fs::write(self.path(&format!("{name}.ext")), extensions).unwrap();
        self.openssl(&format!(
            "req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={host}"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile {name}.ext \
             -out {name}.pem"
        ));
        let text = |kind: &str| fs::read_to_string(self.path(&format!("{name}.{kind}"))).unwrap();
        let both = self.path(&format!("{name}.both"));
        fs::write(&both, text("key") + &text("pem")).unwrap();
        both
    }
}

/// A stunnel in front of a server; ended when dropped.
struct Terminator {
    child: Child,
    port: Port,
    settings: PathBuf,
}

impl Terminator {
    fn start(server: &Server, certificate: &Path) -> Self {
        let port = Port::reserve();
        let settings = certificate.with_extension("conf");
        let text = format!(
            "foreground = yes\npid =\n[kv]\naccept = {}\nconnect = {}\ncert = {}\n",
            port.address(),
            server.address,
            certificate.display()
        );
        fs::write(&settings, text).unwrap();
        let child = Self::run(&settings, &port);
        Self { child, port, settings }
    }

    fn run(settings: &Path, port: &Port) -> Child {
        let log = settings.with_extension("log");
        let mut child = Command::new("stunnel")
            .arg(settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .expect("stunnel is missing: run scripts/setup");
        wait_for(PATIENCE, || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "stunnel: {}", fs::read_to_string(&log).unwrap());
            TcpStream::connect(port.address()).is_ok()
        });
        child
    }

    /// Ends its connections, and reads its certificate again.
    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::run(&self.settings, &self.port);
    }

    fn store(&self, host: &str) -> String {
        format!("prefect-cloud:https://{host}:{}", self.port.number)
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Mounts `store` with the authorities in `trusted`; the exit code and what was said.
fn mount(store: &str, trusted: Option<&Path>) -> (Option<Mount>, Option<i32>, String) {
    let home = TempDir::new().unwrap();
    let mut command = Mount::command(&home);
    command.env("PREFECT__CLOUD__API_KEY", KEY).env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    if let Some(trusted) = trusted {
        command.env("SSL_CERT_FILE", trusted);
    }
    command.args(["-q", store]);
    let (mount, out) = Mount::made_by(command, home);
    (mount, out.status.code(), both(&out))
}

#[test]
fn a_server_whose_certificate_holds_is_mounted_end_to_end() {
    if !can_mount() {
        return;
    }
    let (server, authority) = (Server::memory(), Authority::new());
    let terminator = Terminator::start(&server, &authority.certify("localhost", 2));
    let (mount, _, said) = mount(&terminator.store("localhost"), Some(&authority.path("ca.pem")));
    assert_eq!(said, "");
    let mount = mount.unwrap();
    fs::write(mount.path("k"), "{\"over\": \"tls\"}\n").unwrap();
    assert_eq!(server.get("k"), Some(json!({"over": "tls"})));
    server.set("other", json!([1]));
    assert_eq!(fs::read_to_string(mount.path("other")).unwrap(), "[\n  1\n]\n");
}

#[test]
fn authorities_that_are_replaced_are_read_again_when_the_server_is_not_trusted() {
    if !can_mount() {
        return;
    }
    let (server, before, after) = (Server::memory(), Authority::new(), Authority::new());
    let certificate = before.certify("localhost", 2);
    let mut terminator = Terminator::start(&server, &certificate);
    let trusted = before.path("trusted.pem");
    fs::copy(before.path("ca.pem"), &trusted).unwrap();
    let (mount, _, said) = mount(&terminator.store("localhost"), Some(&trusted));
    assert_eq!(said, "");
    let mount = mount.unwrap();
    fs::write(mount.path("k"), "1\n").unwrap();
    fs::copy(after.certify("localhost", 2), &certificate).unwrap();
    terminator.restart();
    assert_eq!(errno(fs::write(mount.path("k"), "2\n")), libc::EIO);
    assert!(mount.last_error().contains("authority that is not known"), "{}", mount.last_error());
    fs::copy(after.path("ca.pem"), &trusted).unwrap();
    wait_for(PATIENCE, || fs::write(mount.path("k"), "3\n").is_ok());
    assert_eq!(server.get("k"), Some(json!(3)));
}

/// A server without TLS that closes each connection before it has read everything. The thread lives as long as the tests.
fn resetting() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            reset_on_close(&client.unwrap());
        }
    });
    address
}

#[test]
fn a_server_whose_certificate_does_not_hold_is_refused_at_mount_and_never_asked() {
    if !can_mount() {
        return;
    }
    let (server, authority) = (Server::memory(), Authority::new());
    let good = Terminator::start(&server, &authority.certify("localhost", 2));
    let other = Terminator::start(&server, &authority.certify("kv.example.com", 2));
    let old = Terminator::start(&server, &authority.certify("localhost", -1));
    let (ours, theirs) = (authority.path("ca.pem"), Authority::new());
    let plain = format!("prefect-cloud:https://{}", server.address);
    for (store, trusted, why) in [
        (good.store("localhost"), None, "authority that is not known"),
        (good.store("localhost"), Some(theirs.path("ca.pem")), "authority that is not known"),
        (good.store("127.0.0.1"), Some(ours.clone()), "is for another host"),
        (other.store("localhost"), Some(ours.clone()), "kv.example.com"),
        (old.store("localhost"), Some(ours.clone()), "has expired"),
        (plain, Some(ours.clone()), "address begins with http://"),
        (format!("prefect-cloud:https://{}", resetting()), Some(ours), "address begins with http://"),
    ] {
        let (_, code, said) = mount(&store, trusted.as_deref());
        assert!(code == Some(4) && said.contains(why), "{store}: {code:?} {said}");
        assert!(said.lines().count() == 1 && said.contains(&store) && !said.contains(KEY), "{said}");
    }
    assert!(!server.log().contains("POST"), "{}", server.log());
}

#[test]
fn a_server_without_tls_needs_no_authorities() {
    if !can_mount() {
        return;
    }
    let server = Server::memory();
    let store = format!("://{}", server.address);
    let mount = |scheme: &str| {
        let home = TempDir::new().unwrap();
        let mut command = Mount::command(&home);
        command
            .env("SSL_CERT_FILE", "/dev/null")
            .env("SSL_CERT_DIR", "/nowhere")
            .env("PREFECT__CLOUD__API_KEY", KEY);
        command.arg(format!("prefect-cloud:{scheme}{store}"));
        Mount::made_by(command, home)
    };
    let (_, out) = mount("https");
    assert!(out.status.code() == Some(4) && both(&out).contains("ca-certificates"), "{}", both(&out));
    let (mount, out) = mount("http");
    assert!(mount.is_some(), "{}", both(&out));
}
