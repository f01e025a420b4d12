//! Changes of one mount, as another mount shows them.

use std::fs;

use super::common::{errno, wait_for};
use super::{Fleet, PATIENCE, save};

#[test]
fn each_mount_shows_what_the_other_one_does() {
    let Some(fleet) = Fleet::start(1, 2, &[]) else { return };
    let [one, other] = &fleet.mounts[..] else { unreachable!() };
    fs::create_dir_all(one.path("db/main")).unwrap();
    assert_eq!(errno(fs::metadata(other.path("db"))), libc::ENOENT);
    for round in 0..20 {
        let text = format!("{round}\n");
        save(&one.path("db/main/port"), &text).unwrap();
        wait_for(PATIENCE, || fs::read_to_string(other.path("db/main/port")).is_ok_and(|seen| seen == text));
    }
    fs::rename(one.path("db"), one.path("database")).unwrap();
    wait_for(PATIENCE, || other.path("database/main/port").exists() && !other.path("db").exists());
    fs::remove_file(other.path("database/main/port")).unwrap();
    wait_for(PATIENCE, || !one.path("database/main/port").exists());
    assert_eq!(fleet.cluster.members[0].get("app/database/main/port"), None);
}

#[test]
fn a_value_that_is_known_is_read_without_asking_the_cluster() {
    let Some(fleet) = Fleet::start(1, 2, &[]) else { return };
    let [one, other] = &fleet.mounts[..] else { unreachable!() };
    save(&one.path("k"), "1\n").unwrap();
    wait_for(PATIENCE, || fs::read_to_string(other.path("k")).is_ok_and(|text| text == "1\n"));
    let calls = || ["get_key_value", "list_keys"].map(|call| other.calls(call));
    let messages = || ["OPEN", "LOOKUP", "READ"].map(|message| other.messages(message));
    // The watch's event of the new key, and the invalidation for it, may still be in flight.
    wait_for(PATIENCE, || {
        let (asked, before) = (calls(), messages());
        for _ in 0..100 {
            assert_eq!(fs::read_to_string(other.path("k")).unwrap(), "1\n");
        }
        let [opens, lookups, reads] = messages();
        (calls(), [opens, lookups, reads]) == (asked, [before[0] + 100, before[1], before[2]])
    });
    let before = calls();
    // Nor is the next value asked for, which came with the news of it.
    save(&one.path("k"), "2\n").unwrap();
    wait_for(PATIENCE, || fs::read_to_string(other.path("k")).unwrap() == "2\n");
    assert_eq!(calls(), before);
}

#[test]
fn of_two_mounts_that_create_a_file_exclusively_one_succeeds() {
    let Some(fleet) = Fleet::start(1, 2, &[]) else { return };
    for round in 0..20 {
        let created: Vec<i32> = std::thread::scope(|scope| {
            let create = |(number, mount): (usize, &super::Mount)| {
                let path = mount.path(format!("lock-{round}"));
                scope.spawn(move || {
                    let file = match fs::File::create_new(path) {
                        Ok(file) => file,
                        Err(error) => return error.raw_os_error().unwrap(),
                    };
                    super::common::write_and_close(file, format!("{number}\n").as_bytes())
                })
            };
            let all: Vec<_> = fleet.mounts.iter().enumerate().map(create).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<usize> = (0..2).filter(|index| created[*index] == 0).collect();
        let [winner] = winners[..] else { panic!("{created:?}") };
        assert_eq!(created[1 - winner], libc::EEXIST);
        let kept = fleet.cluster.members[0].get(format!("app/lock-{round}")).unwrap();
        assert_eq!(kept, format!("{winner}\n").as_bytes());
    }
}

#[test]
fn the_loser_of_a_conflict_keeps_its_text() {
    let Some(fleet) = Fleet::start(1, 2, &[]) else { return };
    let [one, other] = &fleet.mounts[..] else { unreachable!() };
    save(&one.path("k"), "[1]\n").unwrap();
    wait_for(PATIENCE, || other.path("k").exists());
    let mut writer = fs::File::options().read(true).write(true).open(other.path("k")).unwrap();
    std::io::Write::write_all(&mut writer, b"[2]\n").unwrap();
    save(&one.path("k"), "[3]\n").unwrap();
    assert_eq!(super::common::close(writer), libc::ESTALE);
    wait_for(PATIENCE, || !other.rejected().is_empty());
    let kept =
        other.rejected().into_iter().find(|path| path.extension().is_some_and(|kind| kind == "rejected"));
    assert_eq!(fs::read(kept.as_ref().unwrap()).unwrap(), b"[2]\n");
    let (said, kept) = (other.last_error(), kept.unwrap());
    assert!(said.contains("changed by somebody else") && said.contains(kept.to_str().unwrap()), "{said}");
    wait_for(PATIENCE, || fs::read_to_string(other.path("k")).unwrap() == "[3]\n");
}

#[test]
fn a_cluster_without_a_quorum_is_read_from_memory_and_comes_back_by_itself() {
    let Some(fleet) = Fleet::start(3, 1, &["--timeout", "2s"]) else { return };
    let mount = &fleet.mounts[0];
    save(&mount.path("k"), "1\n").unwrap();
    save(&mount.path("l"), "1\n").unwrap();
    assert_eq!(fs::read_to_string(mount.path("k")).unwrap(), "1\n");
    fleet.cluster.members[0].kill();
    fleet.cluster.members[1].kill();
    // The watch ends without a leader, and then what is known is shown as old.
    wait_for(PATIENCE, || mount.status()["freshness"] == "bounded");
    for _ in 0..5 {
        assert_eq!(fs::read_to_string(mount.path("k")).unwrap(), "1\n");
        assert_eq!(fs::read_dir(&mount.dir).unwrap().count(), 2);
        let failed = errno(save(&mount.path("l"), "2\n"));
        assert!([libc::EHOSTUNREACH, libc::ETIMEDOUT].contains(&failed), "{failed}");
    }
    fleet.cluster.members[0].start();
    wait_for(PATIENCE, || save(&mount.path("k"), "3\n").is_ok());
    wait_for(PATIENCE, || mount.status()["freshness"] == "pushed");
    assert_eq!(fs::read_to_string(mount.path("k")).unwrap(), "3\n");
    let kept = fleet.cluster.members[0].get("app/k").unwrap();
    assert_eq!(kept, b"3\n");
}

#[test]
fn ten_thousand_changes_at_once_are_all_seen() {
    let Some(fleet) = Fleet::start(1, 1, &[]) else { return };
    let mount = &fleet.mounts[0];
    assert_eq!(fs::read_dir(&mount.dir).unwrap().count(), 0);
    let put = |round: usize| {
        for batch in 0..100 {
            let key = |number: usize| super::server::base64(format!("app/{}/{number}", number % 10));
            let sets: Vec<_> = (batch * 100..(batch + 1) * 100)
                .map(|number| {
                    let value = super::server::base64(format!("{round}\n"));
                    serde_json::json!({"request_put": {"key": key(number), "value": value}})
                })
                .collect();
            let (status, _) = fleet.cluster.members[0].ask("kv/txn", &serde_json::json!({"success": sets}));
            assert_eq!(status, 200);
        }
    };
    let count = || -> usize {
        (0..10).filter_map(|n| Some(fs::read_dir(mount.path(n.to_string())).ok()?.count())).sum()
    };
    put(0);
    wait_for(PATIENCE, || count() == 10_000);
    let read = |number: usize| fs::read_to_string(mount.path(format!("{}/{number}", number % 10))).unwrap();
    assert!((0..10_000).step_by(97).all(|number| read(number) == "0\n"));
    put(1);
    wait_for(PATIENCE, || read(9_999) == "1\n");
    assert!((0..10_000).step_by(7).all(|number| read(number) == "1\n"));
}
