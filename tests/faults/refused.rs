//! A set that was refused, and one that may have been carried out, told apart by what the server said each time.

use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use kvfs::store::{
    Error, EtcdSettings, EtcdStore, Expect, Key, Location, PrefectCloudSettings, PrefectCloudStore,
    PrefectSettings, PrefectStore, Store,
};

use super::common::{can_mount, wait_for};
use super::proxy::{Fault, read_request, response};
use super::{Bench, Operation, PATIENCE};

const BUSY: &str = "429 Too Many Requests";
const UNAVAILABLE: &str = "503 Service Unavailable";
const DENIED: &str = "401 Unauthorized";
/// The connection ends without an answer.
const BREAKS: &str = "";

/// A server that gives these answers, the last of them for ever; its address.
fn server(answers: &[&'static str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut answers: Vec<&'static str> = answers.to_vec();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // A client may end a connection that it does not need.
            if !matches!(read_request(&mut stream), Ok(Some(_))) {
                continue;
            }
            let status = if answers.len() > 1 { answers.remove(0) } else { answers[0] };
            if status != BREAKS {
                _ = stream.write_all(&response(status, "", ""));
            }
        }
    });
    address
}

/// The result of a set.
fn set(store: &dyn Store) -> Error {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = Key::from("k");
    let set = store.set_key_value(&key, Arc::from(&b"1"[..]), Expect::Anything);
    runtime.block_on(set).unwrap_err()
}

const TIMEOUT: Duration = Duration::from_secs(1);

fn prefect_cloud(address: &str) -> Error {
    let settings =
        PrefectCloudSettings { url: format!("http://{address}"), ..PrefectCloudSettings::default() };
    set(&PrefectCloudStore::open(&settings, TIMEOUT).unwrap())
}

fn prefect(address: &str) -> Error {
    let settings = PrefectSettings { url: format!("http://{address}/api"), ..PrefectSettings::default() };
    set(&PrefectStore::open(&settings, TIMEOUT).unwrap())
}

fn etcd(address: &str) -> Error {
    let location = Location::parse(Some(&format!("etcd:{address}")), std::path::Path::new("/"));
    let Ok(Location::Etcd(address)) = location else { panic!("{location:?}") };
    set(&EtcdStore::open(&EtcdSettings::plain(address), TIMEOUT).unwrap())
}

#[test]
fn a_refused_set_is_told_from_one_that_may_have_been_carried_out() {
    for store in [prefect_cloud, prefect] {
        for (answers, may_have_changed) in [
            (&[BUSY][..], false),
            (&[DENIED], false),
            (&[BUSY, DENIED], false),
            (&[UNAVAILABLE], true),
            (&[UNAVAILABLE, BUSY], true),
            (&[UNAVAILABLE, DENIED], true),
            (&[BREAKS, BUSY], true),
            (&[BUSY, UNAVAILABLE, BUSY], true),
        ] {
            let error = store(&server(answers));
            assert_eq!(error.may_have_changed(), may_have_changed, "{answers:?}: {error:?}");
            assert!(matches!(error.reason(), Error::Busy(_) | Error::Denied(_)), "{answers:?}: {error:?}");
        }
    }
    for (answers, may_have_changed) in [(&[BUSY][..], false), (&[UNAVAILABLE], true), (&[BREAKS], true)] {
        let error = etcd(&server(answers));
        assert_eq!(error.may_have_changed(), may_have_changed, "{answers:?}: {error:?}");
    }
}

#[test]
fn a_refused_set_leaves_the_file_readable_and_an_uncertain_one_does_not_show_the_old_value() {
    if !can_mount() {
        return;
    }
    let bench = Bench::prefect_cloud("1s");
    assert_eq!(bench.text("k").as_deref(), Some("1\n"));
    for operation in [Operation::Set, Operation::Delete] {
        bench.fail(&Fault::Answer(response(BUSY, "", "")));
        assert_eq!(bench.errno(operation), libc::EBUSY, "{operation:?}");
        assert_eq!(bench.text("k").as_deref(), Some("1\n"), "{operation:?}");
        bench.heals();
    }
    bench.fail(&Fault::LoseAnswer("mutation"));
    assert_eq!(bench.errno(Operation::Set), libc::ETIMEDOUT);
    bench.proxy.set(&Fault::Answer(response(BUSY, "", "")));
    assert_eq!(bench.text("k"), None);
    bench.proxy.set(&Fault::None);
    // As it was written, or as the server shows it.
    wait_for(PATIENCE, || bench.text("k").is_some_and(|text| text.trim_end() == "2"));
}
