//! The load of a mount on the server, many writers, and a server that stops and starts again.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::scope;
use std::time::Instant;

use serde_json::{Value, json};

use super::PATIENCE;
use super::common::{Mount, Raise, can_mount, close, wait_for};
use super::proxy::Proxy;
use super::server::{PATIENT, Process, Server};

#[test]
fn a_thousand_variables_are_listed_and_read_in_six_requests_and_a_set_is_one() {
    let Some(server) = can_mount().then(Server::fresh).flatten() else { return };
    for number in 0..1_000 {
        server.create(&json!({"name": format!("key{number}"), "value": {"number": number}}));
    }
    let proxy = Proxy::before(&server.address);
    let mounted = || Mount::prefect(&proxy.address, &[&PATIENT[..], &["--max-age", "10m"]].concat());
    let read_all = |mount: &Mount| {
        let listed = mount.sh("ls -l | wc -l; cat * | wc -l");
        assert_eq!(String::from_utf8(listed.stdout).unwrap(), "1001\n3000\n");
    };
    let costs = |what: &dyn Fn()| {
        let before = proxy.requests();
        what();
        proxy.requests() - before
    };
    let cost = |mount: &Mount| costs(&|| read_all(mount));
    // A busy server tells late of the variables that were just made, and each time is looked at.
    let start = Instant::now();
    let mount = loop {
        let mount = mounted();
        if cost(&mount) <= 6 && cost(&mount) == 0 {
            break mount;
        }
        assert!(start.elapsed() < PATIENCE, "six requests are enough at first, and none are needed then");
    };
    let overwrite = || fs::write(mount.path("key7"), "\"new\"\n").unwrap();
    assert_eq!(costs(&overwrite), 1, "an overwrite");
    assert_eq!(fs::read_to_string(mount.path("key7")).unwrap(), "\"new\"\n");
    let create = costs(&|| fs::write(mount.path("new"), "1\n").unwrap());
    assert!(create <= 2, "a new variable: {create}");
    let rename = costs(&|| fs::rename(mount.path("new"), mount.path("newer")).unwrap());
    assert!(rename <= 3, "a rename: {rename}");
    assert_eq!(costs(&|| fs::remove_file(mount.path("key8")).unwrap()), 1, "a delete");
    assert_eq!((server.get("key7").unwrap()["value"].clone(), server.get("key8")), (json!("new"), None));
}

/// How many keys each of the writers sets, twice. `KVFS_PREFECT_LOAD` asks for more than CI has time for.
fn keys() -> u64 {
    std::env::var("KVFS_PREFECT_LOAD").map_or(10, |keys| keys.parse().unwrap())
}

#[test]
fn eight_processes_write_and_every_value_is_right() {
    const WRITERS: u64 = 8;
    let Some(server) = can_mount().then(Server::fresh).flatten() else { return };
    let mount = Mount::prefect(&server.address, &PATIENT);
    let keys = keys();
    let start = Instant::now();
    let write = |writer: u64| {
        let script = format!(
            "for value in 1 2; do for key in $(seq {keys}); do
                 echo \"[{writer}, $key, $value]\" > w{writer}-$key || exit 1
             done; done"
        );
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(script).current_dir(&mount.dir).stderr(Stdio::piped()).spawn().unwrap()
    };
    let writers: Vec<Child> = (0..WRITERS).map(write).collect();
    for writer in writers {
        let out = writer.wait_with_output().unwrap();
        assert_eq!((out.status.code(), String::from_utf8_lossy(&out.stderr).as_ref()), (Some(0), ""));
        assert_eq!(out.status.signal(), None);
    }
    eprintln!("{} values in {:?}", WRITERS * keys * 2, start.elapsed());
    let value = |writer: u64, key: u64| (format!("w{writer}-{key}"), json!([writer, key, 2]));
    let expected: BTreeMap<String, Value> =
        (0..WRITERS).flat_map(|writer| (1..=keys).map(move |key| value(writer, key))).collect();
    assert_eq!(server.all(), expected);
    assert_eq!(mount.rejected(), Vec::<std::path::PathBuf>::new());
}

/// Sets `path` and gives the errno of whatever failed.
fn set(path: &Path, number: u64) -> Result<(), i32> {
    let errno = |error: std::io::Error| error.raw_os_error().unwrap();
    let mut file = fs::File::create(path).map_err(errno)?;
    write!(file, "[{number}]").map_err(errno)?;
    match close(file) {
        0 => Ok(()),
        errno => Err(errno),
    }
}

#[test]
fn a_restart_of_the_server_is_survived_under_load() {
    let Some(mut server) = can_mount().then(|| Process::with(&[])).flatten() else { return };
    server.create(&json!({"name": "read", "value": "as it was"}));
    let mount = Mount::prefect(&server.address, &["--max-age", "50ms", "--timeout", "5s"]);
    let (over, reads, writes, failures) =
        (AtomicBool::default(), AtomicU64::default(), AtomicU64::default(), AtomicU64::default());
    let more = |count: &AtomicU64| {
        let before = count.load(Ordering::SeqCst);
        wait_for(PATIENCE, || count.load(Ordering::SeqCst) > before + 10);
    };
    scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                assert_eq!(fs::read_to_string(mount.path("read")).unwrap(), "\"as it was\"\n");
                // A set without an answer leaves a value that nobody may be shown: that is an error, not an absence.
                let absent = fs::metadata(mount.path("written")).err().and_then(|error| error.raw_os_error());
                assert!(absent != Some(libc::ENOENT) || writes.load(Ordering::SeqCst) == 0);
                reads.fetch_add(1, Ordering::SeqCst);
            }
        });
        scope.spawn(|| {
            for number in 0.. {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                match set(&mount.path("written"), number) {
                    Ok(()) => writes.fetch_add(1, Ordering::SeqCst),
                    Err(libc::EHOSTUNREACH | libc::ETIMEDOUT) => failures.fetch_add(1, Ordering::SeqCst),
                    Err(errno) => panic!("{errno}: {}", mount.last_error()),
                };
            }
        });
        let _raised_by_a_panic_too = Raise(&over);
        more(&reads);
        more(&writes);
        server.stop();
        more(&failures);
        more(&reads);
        server.start();
        more(&writes);
        more(&reads);
    });
    assert_eq!(set(&mount.path("written"), u64::MAX), Ok(()));
    assert_eq!(server.get("written").unwrap()["value"], json!([u64::MAX]));
}
