//! Logins that are replaced in the files in which mounts have found them.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::common::{Mount, PATIENCE, errno, wait_for};

/// A file of settings: its path in the home, which is the current directory too, and what it holds for an address and a login.
pub(crate) type Place = (&'static str, fn(&str, &str) -> String);

pub(crate) const WRONG: &str = "wrong-secret";

/// The error of a look at one more name that the server does not know.
fn look(mount: &Mount) -> i32 {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    errno(fs::metadata(mount.path(format!("none{}", NAMES.fetch_add(1, Ordering::Relaxed)))))
}

/// Mounts `store`, whose address and login are in `place`, and replaces the login by another one, at SIGHUP and where it is
/// refused; and by one that stands beside another address.
pub(crate) fn check(store: &str, args: &[&str], address: &str, login: &str, (file, text): Place) {
    let home = TempDir::new().unwrap();
    let file = home.path().join(file);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::env::set_current_dir(home.path()).unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let other = elsewhere.local_addr().unwrap().to_string();
    let write = |address: &str, login: &str| fs::write(&file, text(address, login)).unwrap();
    write(address, login);
    let mount = Mount::start_in(home, store, args);
    let told = || mount.log().lines().filter(|line| line.contains("not read again")).count();
    assert_eq!(look(&mount), libc::ENOENT);
    write(address, WRONG);
    assert_eq!(look(&mount), libc::ENOENT, "what is not refused is not read again");
    mount.hang_up();
    wait_for(PATIENCE, || look(&mount) == libc::EACCES);
    assert_eq!(told(), 0);
    write(&other, login);
    for _ in 0..3 {
        assert_eq!(look(&mount), libc::EACCES);
    }
    wait_for(PATIENCE, || told() > 0);
    assert_eq!(told(), 1, "{}", mount.log());
    write(address, login);
    assert_eq!(look(&mount), libc::ENOENT);
    write(&other, WRONG);
    mount.hang_up();
    wait_for(PATIENCE, || told() > 1);
    assert_eq!(look(&mount), libc::ENOENT);
    assert!(elsewhere.accept().is_err(), "another address was asked");
    let log = mount.log();
    assert!(log.contains(file_name(&file)) && !log.contains(login) && !log.contains(WRONG), "{log}");
}

fn file_name(file: &Path) -> &str {
    file.file_name().unwrap().to_str().unwrap()
}
