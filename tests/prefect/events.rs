//! Changes made elsewhere, as the events of the real server tell of them. The age that answers may have is an hour, so
//! nothing is seen by asking again.

use std::fs;
use std::io::Read;

use serde_json::{Value, json};

use super::common::{Mount, can_mount, errno, wait_for};
use super::pipe::Pipe;
use super::server::Server;
use super::{PATIENCE, mount};

const NEVER: [&str; 2] = ["--max-age", "1h"];

/// A mount that follows the events of a server, and has seen one.
fn following() -> Option<(Server, Mount)> {
    let server = can_mount().then(Server::fresh)??;
    let mount = mount(&server.address, &NEVER);
    proven(&server, &mount);
    Some((server, mount))
}

/// The socket may not be open yet when the first change is made.
fn proven(server: &Server, mount: &Mount) {
    let mut number = 0;
    wait_for(PATIENCE, || {
        number += 1;
        server.set("proof", &json!(number));
        mount.status()["freshness"] == "pushed"
    });
    server.delete("proof");
    wait_for(PATIENCE, || !mount.path("proof").exists());
}

#[test]
fn what_others_set_rename_and_delete_is_seen() {
    let Some((server, mount)) = following() else { return };
    assert_eq!(mount.names(), [""; 0]);
    assert_eq!(errno(fs::metadata(mount.path("k"))), libc::ENOENT);
    server.set("k", &json!([1]));
    wait_for(PATIENCE, || mount.text("k").as_deref() == Some("[\n  1\n]\n"));
    wait_for(PATIENCE, || mount.names() == ["k"]);
    let mut reader = fs::File::open(mount.path("k")).unwrap();
    server.set("k", &json!(2));
    wait_for(PATIENCE, || mount.text("k").as_deref() == Some("2\n"));
    assert_eq!(fs::metadata(mount.path("k")).unwrap().len(), 2);
    let mut old = String::new();
    reader.read_to_string(&mut old).unwrap();
    assert_eq!(old, "[\n  1\n]\n");
    server.rename("k", "moved");
    wait_for(PATIENCE, || mount.names() == ["moved"]);
    wait_for(PATIENCE, || errno(fs::metadata(mount.path("k"))) == libc::ENOENT);
    assert_eq!(mount.text("moved").as_deref(), Some("2\n"));
    server.delete("moved");
    wait_for(PATIENCE, || mount.text("moved").is_none());
    wait_for(PATIENCE, || mount.names().is_empty());
}

#[test]
fn what_is_known_is_not_asked_for_again_and_own_changes_come_back_without_harm() {
    let Some((server, mount)) = following() else { return };
    fs::write(mount.path("k"), "{ \"a\": 1.0 }").unwrap();
    assert_eq!(mount.text("k").as_deref(), Some("{ \"a\": 1.0 }"));
    // The events of other changes come after those of the own ones.
    server.set("later", &Value::Null);
    wait_for(PATIENCE, || mount.text("later").is_some());
    let before = (mount.calls("get_key_value"), mount.calls("list_keys"));
    for _ in 0..20 {
        assert_eq!(mount.text("k").as_deref(), Some("{ \"a\": 1.0 }"));
    }
    assert_eq!((mount.calls("get_key_value"), mount.calls("list_keys")), before);
}

#[test]
fn a_flood_of_changes_leaves_the_last_ones() {
    let Some((server, mount)) = following() else { return };
    for number in 0..150 {
        server.set(&format!("k{number}"), &json!(number));
    }
    wait_for(PATIENCE, || mount.names().len() == 150);
    std::thread::scope(|scope| {
        for part in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for number in (part..150).step_by(4) {
                    server.set(&format!("k{number}"), &json!(number + 1_000));
                }
            });
        }
    });
    for number in 0..150 {
        let wanted = format!("{}\n", number + 1_000);
        wait_for(PATIENCE, || mount.text(&format!("k{number}")).is_some_and(|text| text == wanted));
    }
}

#[test]
fn while_the_socket_is_cut_answers_age_and_afterwards_nothing_is_missed() {
    let Some(server) = can_mount().then(Server::fresh).flatten() else { return };
    server.set("k", &json!(1));
    let pipe = Pipe::before(&server.address);
    let mount = mount(&pipe.address, &["--max-age", "100ms", "--timeout", "1s"]);
    proven(&server, &mount);
    assert_eq!(mount.text("k").as_deref(), Some("1\n"));
    pipe.cut();
    wait_for(PATIENCE, || mount.status()["freshness"] == "bounded");
    server.set("k", &json!(2));
    server.set("new", &json!(3));
    assert_eq!(mount.text("k").as_deref(), Some("1\n"));
    pipe.mend();
    wait_for(PATIENCE, || mount.text("k").as_deref() == Some("2\n"));
    wait_for(PATIENCE, || mount.text("new").as_deref() == Some("3\n"));
    proven(&server, &mount);
    server.set("k", &json!(4));
    wait_for(PATIENCE, || mount.text("k").as_deref() == Some("4\n"));
}
