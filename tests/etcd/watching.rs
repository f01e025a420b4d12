//! The feed when the watch behind it breaks, hangs or falls behind: nothing is missed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kvfs::store::{Change, Expect, Feed, Store};

use super::common::Raise;
use super::pipe::Pipe;
use super::server::{Cluster, Member, Shared, base64};
use super::suite::block_on;
use super::{PATIENCE, store_within};

const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn next(feed: &mut Feed) -> Change {
    feed.recv().await.unwrap()
}

/// The next change of a key in the feed.
pub(super) async fn key(feed: &mut Feed) -> (String, u64) {
    loop {
        match next(feed).await {
            Change::Set(key, meta) => return (key.as_str().to_owned(), meta.revision.0),
            Change::Deleted(key, revision) => return (format!("-{}", key.as_str()), revision.0),
            Change::Prefix(..) | Change::Everything | Change::Paused | Change::Resumed => {}
        }
    }
}

/// A store of these addresses that waits for its feed to begin; both live as long as one another.
pub(super) async fn follow(addresses: &[String], prefix: &str) -> (std::sync::Arc<dyn Store>, Feed) {
    let store = store_within(&format!("etcd:{}/{prefix}", addresses.join(",")), TIMEOUT);
    let mut feed = store.changes().unwrap();
    assert_eq!(next(&mut feed).await, Change::Paused);
    assert_eq!(next(&mut feed).await, Change::Everything);
    (store, feed)
}

#[test]
fn a_watch_that_was_cut_goes_on_where_it_was() {
    let Some(cluster) = Shared::one() else { return };
    let pipe = Pipe::before(&cluster.members[0].address);
    let prefix = cluster.prefix();
    block_on(async {
        let (_store, mut feed) = follow(std::slice::from_ref(&pipe.address), &prefix).await;
        for round in 0..5 {
            let before = cluster.put(format!("{prefix}a"), "1");
            assert_eq!(key(&mut feed).await, ("a".into(), before));
            pipe.cut();
            assert_eq!(next(&mut feed).await, Change::Paused);
            let mut missed = Vec::new();
            // At the last time only what is no business of this store.
            for number in 0..if round == 4 { 0 } else { 20 * round } {
                missed.push((format!("{number}"), cluster.put(format!("{prefix}{number}"), "1")));
            }
            cluster.put("elsewhere", "1");
            pipe.mend();
            for told in missed {
                assert_eq!(key(&mut feed).await, told);
            }
            assert_eq!(next(&mut feed).await, Change::Resumed);
        }
    });
}

#[test]
fn a_member_that_hangs_once_the_watch_is_open_has_not_told_what_was_missed() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let pipes = [(); 2].map(|()| Pipe::before(&cluster.members[0].address));
    block_on(async {
        let (_store, mut feed) = follow(&pipes.each_ref().map(|pipe| pipe.address.clone()), "app").await;
        let before = cluster.put("app/before", "1");
        assert_eq!(key(&mut feed).await, ("before".into(), before));
        pipes.iter().for_each(Pipe::cut);
        assert_eq!(next(&mut feed).await, Change::Paused);
        let missed = cluster.put("app/a", "1");
        pipes[0].hold_after("\"created\":true");
        pipes[0].mend();
        while !pipes[0].is_held() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        pipes[1].mend();
        match next(&mut feed).await {
            Change::Set(_, meta) => assert_eq!(meta.revision.0, missed),
            change => panic!("{change:?}"),
        }
        assert_eq!(next(&mut feed).await, Change::Resumed);
    });
}

#[test]
fn keys_that_are_no_text_and_those_of_others_are_not_told() {
    let Some(cluster) = Shared::one() else { return };
    let prefix = cluster.prefix();
    block_on(async {
        let (_store, mut feed) = follow(&cluster.addresses(), &prefix).await;
        cluster.put([prefix.as_bytes(), b"\xff"].concat(), "1");
        cluster.put(prefix.trim_end_matches('/'), "before");
        cluster.put(format!("{}0", prefix.trim_end_matches('/')), "beyond");
        let made = cluster.put(format!("{prefix}k"), "2");
        let Change::Set(key, meta) = next(&mut feed).await else { panic!() };
        assert_eq!((key.as_str(), meta.revision.0, meta.size), ("k", made, 1));
    });
}

#[test]
fn a_compaction_meanwhile_makes_everything_old() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let pipe = Pipe::before(&cluster.members[0].address);
    block_on(async {
        let (_store, mut feed) = follow(std::slice::from_ref(&pipe.address), "app").await;
        let first = cluster.put("app/a", "1");
        assert_eq!(key(&mut feed).await, ("a".into(), first));
        pipe.cut();
        assert_eq!(next(&mut feed).await, Change::Paused);
        cluster.put("app/a", "2");
        let last = cluster.put("app/b", "2");
        cluster.members[0].compact(last);
        pipe.mend();
        assert_eq!(next(&mut feed).await, Change::Everything);
        let after = cluster.put("app/c", "3");
        assert_eq!(key(&mut feed).await, ("c".into(), after));
    });
}

#[test]
fn another_cluster_in_its_place_makes_everything_old() {
    let Some((one, other)) = Cluster::start(1, &[]).zip(Cluster::start(1, &[])) else { return };
    let pipe = Pipe::before(&one.members[0].address);
    block_on(async {
        let (_store, mut feed) = follow(std::slice::from_ref(&pipe.address), "app").await;
        for number in 0..10 {
            other.put(format!("app/{number}"), "1");
        }
        pipe.cut();
        assert_eq!(next(&mut feed).await, Change::Paused);
        pipe.lead_to(&other.members[0].address);
        pipe.mend();
        assert_eq!(next(&mut feed).await, Change::Everything);
        let after = other.put("app/c", "3");
        assert_eq!(key(&mut feed).await, ("c".into(), after));
    });
}

#[test]
fn a_cluster_restored_from_a_backup_makes_everything_old() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let member = &cluster.members[0];
    block_on(async {
        let (store, mut feed) = follow(&cluster.addresses(), "app").await;
        let first = member.put("app/a", "1");
        assert_eq!(key(&mut feed).await, ("a".into(), first));
        member.back_up();
        // Known from the watch, or, where that is not open again yet, from the answer alone.
        let undone =
            store.set_key_value(&"a".into(), b"\"undone\"".as_slice().into(), Expect::Anything).await;
        member.restore();
        while next(&mut feed).await != Change::Everything {}
        let again = member.put("app/a", "2");
        assert_eq!(again, undone.unwrap().revision.0);
        assert_eq!(key(&mut feed).await, ("a".into(), again));
        assert_eq!(store.get_key_value(&"a".into()).await.unwrap().text[..], *b"2");
    });
}

#[test]
fn ten_thousand_changes_are_told_in_order() {
    let Some(cluster) = Shared::one() else { return };
    let prefix = cluster.prefix();
    block_on(async {
        let (store, mut feed) = follow(&cluster.addresses(), &prefix).await;
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..10 {
            let store = store.clone();
            writers.spawn(async move {
                let mut made = Vec::new();
                for number in 0..1_000 {
                    let key = format!("{}", (writer * 7 + number) % 97);
                    let text = std::sync::Arc::from(vec![b'1'; number % 50 + 1]);
                    let meta = store.set_key_value(&key.as_str().into(), text, Expect::Anything).await;
                    made.push((meta.unwrap().revision.0, key));
                }
                made
            });
        }
        let made: BTreeMap<u64, String> = writers.join_all().await.into_iter().flatten().collect();
        assert_eq!(made.len(), 10_000);
        for (revision, name) in made {
            assert_eq!(key(&mut feed).await, (name, revision));
        }
    });
}

#[test]
fn large_values_and_transactions_of_many_keys_are_told_whole() {
    let Some(cluster) = Shared::one() else { return };
    let pipe = Pipe::before(&cluster.members[0].address);
    let prefix = cluster.prefix();
    block_on(async {
        let (_store, mut feed) = follow(std::slice::from_ref(&pipe.address), &prefix).await;
        let before = cluster.put(format!("{prefix}before"), "1");
        assert_eq!(key(&mut feed).await, ("before".into(), before));
        pipe.cut();
        // More than a message holds: it comes in fragments.
        let mut awaited = Vec::new();
        for number in 0..12 {
            awaited
                .push((format!("{number}"), cluster.put(format!("{prefix}{number}"), vec![b'1'; 1_000_000])));
        }
        let puts: Vec<_> = (0..100)
            .map(|number| {
                let key = base64(format!("{prefix}txn{number:02}"));
                serde_json::json!({"request_put": {"key": key, "value": base64("1")}})
            })
            .collect();
        let (status, answer) = cluster.members[0].ask("kv/txn", &serde_json::json!({"success": puts}));
        assert_eq!(status, 200, "{answer}");
        let revision: u64 = answer["header"]["revision"].as_str().unwrap().parse().unwrap();
        awaited.extend((0..100).map(|number| (format!("txn{number:02}"), revision)));
        pipe.mend();
        let mut told = Vec::new();
        while told.len() < awaited.len() {
            told.push(key(&mut feed).await);
        }
        told.sort_by(|one, other| (one.1, &one.0).cmp(&(other.1, &other.0)));
        awaited.sort_by(|one, other| (one.1, &one.0).cmp(&(other.1, &other.0)));
        assert_eq!(told, awaited);
    });
}

#[test]
fn where_others_change_keys_all_the_time_nothing_is_missed() {
    let Some(cluster) = Cluster::start(3, &[]) else { return };
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                cluster.put("elsewhere", "1");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let _end = Raise(&over);
        block_on(async {
            let (_store, mut feed) = follow(&cluster.addresses(), "app").await;
            // Longer than a check apart, so that the watch is opened again between them, or just then.
            for pause in [3_400, 3_480, 3_500, 3_520, 3_600] {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                let made = [cluster.put("app/a", "1"), cluster.put("app/b", "2")];
                for (name, made) in ["a", "b"].into_iter().zip(made) {
                    let Change::Set(key, meta) = next(&mut feed).await else { panic!("the feed paused") };
                    assert_eq!((key.as_str(), meta.revision.0), (name, made));
                }
            }
        });
    });
}

/// A member that keeps its connections and says nothing any more is noticed by the checks.
fn noticed(hang: impl Fn(&Member, &Pipe), heal: impl Fn(&Member, &Pipe)) {
    let Some(cluster) = Cluster::start(3, &[]) else { return };
    // Not the leader, without which nothing could be set for a while.
    let first = (cluster.leader() + 1) % 3;
    let members: Vec<&Member> = cluster.members.iter().cycle().skip(first).take(3).collect();
    let pipe = Pipe::before(&members[0].address);
    let addresses = [pipe.address.clone(), members[1].address.clone(), members[2].address.clone()];
    block_on(async {
        let (_store, mut feed) = follow(&addresses, "app").await;
        let first = members[1].put("app/k", "1");
        assert_eq!(key(&mut feed).await, ("k".into(), first));
        hang(members[0], &pipe);
        let second = members[1].put("app/k", "2");
        assert_eq!(key(&mut feed).await, ("k".into(), second));
        heal(members[0], &pipe);
        let third = members[1].put("app/k", "3");
        assert_eq!(key(&mut feed).await, ("k".into(), third));
    });
}

#[test]
fn a_way_to_a_member_that_swallows_all_is_noticed() {
    noticed(|_, pipe| pipe.hold(), |_, pipe| pipe.mend());
}

#[test]
fn a_member_that_hangs_is_noticed() {
    noticed(|member, _| member.stop(), |member, _| member.go_on());
}

#[test]
fn when_the_only_way_swallows_all_the_feed_pauses_and_then_misses_nothing() {
    let Some(cluster) = Shared::one() else { return };
    let pipe = Pipe::before(&cluster.members[0].address);
    let prefix = cluster.prefix();
    block_on(async {
        let (_store, mut feed) = follow(std::slice::from_ref(&pipe.address), &prefix).await;
        let before = cluster.put(format!("{prefix}before"), "1");
        assert_eq!(key(&mut feed).await, ("before".into(), before));
        pipe.hold();
        let made = cluster.put(format!("{prefix}k"), "1");
        assert_eq!(next(&mut feed).await, Change::Paused);
        pipe.mend();
        assert_eq!(key(&mut feed).await, ("k".into(), made));
        assert_eq!(next(&mut feed).await, Change::Resumed);
    });
}

#[test]
fn without_a_majority_the_feed_pauses_and_then_misses_nothing() {
    let Some(cluster) = Cluster::start(3, &[]) else { return };
    block_on(async {
        let (_store, mut feed) = follow(&cluster.addresses(), "app").await;
        let first = cluster.put("app/a", "1");
        assert_eq!(key(&mut feed).await, ("a".into(), first));
        let leader = cluster.leader();
        let (one, other) = (&cluster.members[(leader + 1) % 3], &cluster.members[(leader + 2) % 3]);
        one.kill();
        other.kill();
        assert_eq!(next(&mut feed).await, Change::Paused);
        one.start();
        let made = one.put("app/b", "2");
        assert_eq!(key(&mut feed).await, ("b".into(), made));
        other.start();
    });
}

#[test]
fn a_killed_leader_is_replaced_and_nothing_is_missed() {
    let Some(cluster) = Cluster::start(3, &[]) else { return };
    block_on(async {
        let (_store, mut feed) = follow(&cluster.addresses(), "app").await;
        for _ in 0..2 {
            let leader = cluster.leader();
            let other = &cluster.members[(leader + 1) % 3];
            let before = other.put("app/a", "1");
            assert_eq!(key(&mut feed).await, ("a".into(), before));
            cluster.members[leader].kill();
            // Until there is another leader a change is refused, or its answer is late.
            let start = Instant::now();
            let made = loop {
                let put = serde_json::json!({"key": base64("app/b"), "value": ""});
                let (status, answer) = other.ask("kv/put", &put);
                if status == 200 {
                    break answer["header"]["revision"].as_str().unwrap().parse::<u64>().unwrap();
                }
                assert!(start.elapsed() < PATIENCE, "{answer}");
                std::thread::sleep(Duration::from_millis(50));
            };
            while key(&mut feed).await != ("b".into(), made) {}
            cluster.members[leader].start();
        }
    });
}
