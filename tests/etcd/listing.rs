//! Listings of many keys, and what others keep in a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvfs::store::{Error, Expect, Rename, Revision};
use serde_json::json;

use super::common::Raise;
use super::server::{Cluster, Shared, base64};
use super::store;
use super::suite::{Bench, block_on};

/// Sets many keys by few requests; `count` in each.
fn fill(cluster: &Cluster, prefix: &str, numbers: std::ops::Range<usize>, value: &dyn Fn(usize) -> Vec<u8>) {
    let numbers: Vec<usize> = numbers.collect();
    for part in numbers.chunks(100) {
        let put = |number: &usize| {
            let key = base64(format!("{prefix}{number:05}"));
            json!({"request_put": {"key": key, "value": base64(value(*number))}})
        };
        let puts: Vec<_> = part.iter().map(put).collect();
        let (status, answer) = cluster.members[0].ask("kv/txn", &json!({"success": puts}));
        assert_eq!(status, 200, "{answer}");
    }
}

#[test]
fn five_thousand_keys_of_ten_kilobytes_are_listed_whole() {
    let Some(cluster) = Shared::one() else { return };
    let value = |number: usize| json!(format!("{number:0>9990}")).to_string().into_bytes();
    fill(&cluster, &cluster.prefix(), 0..5_000, &value);
    let at = store(&cluster.argument());
    block_on(async {
        let (listing, texts) = at.list_entries().await.unwrap();
        assert_eq!(listing.len(), 5_000);
        assert!(listing.iter().enumerate().all(|(number, (key, _))| key.as_str() == format!("{number:05}")));
        assert!(texts.len() == 5_000 && texts[4_321][..] == value(4_321)[..]);
    });
}

#[test]
fn values_too_large_to_be_held_together_are_left_to_be_asked_for() {
    let Some(cluster) = Shared::one() else { return };
    for number in 0..70 {
        let key = format!("{}{number:03}", cluster.prefix());
        cluster.put(key, vec![b'1'; 1_000_000]);
    }
    let at = Bench(store(&cluster.argument()));
    block_on(async {
        let (listing, texts) = at.0.list_entries().await.unwrap();
        assert_eq!((listing.len(), texts.len()), (70, 67));
        assert!(listing.iter().all(|(_, meta)| meta.size == 1_000_000));
        assert_eq!(at.text("069").await.len(), 1_000_000);
        for number in 0..70 {
            at.delete(&format!("{number:03}")).await.unwrap();
        }
    });
}

#[test]
fn a_listing_is_of_one_revision_while_keys_change() {
    let Some(cluster) = Shared::one() else { return };
    fill(&cluster, &cluster.prefix(), 0..2_500, &|_| b"0".to_vec());
    let at = Bench(store(&cluster.argument()));
    let (writer, over) = (at.clone(), Arc::new(AtomicBool::new(false)));
    block_on(async {
        let end = over.clone();
        // The first key is always as new as the last one, or one ahead.
        let writing = tokio::spawn(async move {
            let mut round = 0;
            while !end.load(Ordering::Acquire) {
                round += 1;
                for key in ["00000", "02499"] {
                    writer.set(key, round.to_string()).await;
                }
            }
        });
        for _ in 0..20 {
            let (listing, texts) = at.0.list_entries().await.unwrap();
            let number =
                |index: usize| -> usize { std::str::from_utf8(&texts[index]).unwrap().parse().unwrap() };
            assert!((0..=1).contains(&(number(0) - number(2_499))), "{} {}", number(0), number(2_499));
            assert_eq!(listing.len(), 2_500);
        }
        over.store(true, Ordering::Release);
        writing.await.unwrap();
    });
}

#[test]
fn a_listing_begins_anew_when_its_revision_is_compacted() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    fill(&cluster, "app/", 0..3_000, &|_| vec![b'1'; 5_000]);
    let at = store(&format!("etcd:{}/app", cluster.members[0].address));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Sooner or later there is time for a whole one.
            let mut pause = Duration::from_millis(10);
            while !over.load(Ordering::Acquire) {
                let revision = cluster.put("elsewhere", "1");
                cluster.members[0].compact(revision);
                std::thread::sleep(pause);
                pause *= 2;
            }
        });
        let _end = Raise(&over);
        let listed = block_on(async {
            loop {
                match at.list_keys().await {
                    Ok(listing) => break listing.len(),
                    // Compacted three times in a row.
                    Err(error) => assert!(error.to_string().contains("compacted"), "{error}"),
                }
            }
        });
        assert_eq!(listed, 3_000);
    });
}

#[test]
fn what_others_keep_is_shown_as_it_is_and_what_is_no_text_is_left_out() {
    let Some(cluster) = Shared::one() else { return };
    let prefix = cluster.prefix();
    cluster.put([prefix.as_bytes(), b"\xff\xfe"].concat(), "not UTF-8");
    cluster.put([prefix.as_bytes(), b"a/b"].concat(), b"\x00 no JSON \xff");
    cluster.put([prefix.as_bytes(), b"large"].concat(), vec![b'x'; 1 << 20]);
    cluster.put(&prefix, "the prefix itself");
    cluster.put([prefix.trim_end_matches('/'), "0"].concat(), "beyond");
    cluster.put(prefix.trim_end_matches('/'), "before");
    let at = Bench(store(&cluster.argument()));
    block_on(async {
        assert_eq!(at.keys().await, ["", "a/b", "large"]);
        assert_eq!(at.text("").await, b"the prefix itself");
        assert_eq!(at.text("a/b").await, b"\x00 no JSON \xff");
        assert_eq!(at.text("large").await.len(), 1 << 20);
        let moved = at.rename("large", "moved").await.unwrap();
        assert_eq!((moved.size, at.text("moved").await.len()), (1 << 20, 1 << 20));
        let refused = at.try_set("k", vec![b'1'; 10_001], Expect::Anything).await;
        assert_eq!(refused, Err(Error::TooLarge { size: 10_001, limit: 10_000 }));
        assert_eq!(cluster.members[0].get([prefix.as_bytes(), b"\xff\xfe"].concat()).unwrap(), b"not UTF-8");
    });
}

#[test]
fn without_a_prefix_all_keys_are_shown_and_the_empty_one_cannot_be() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    cluster.put("/registry/a", "1");
    cluster.put("b", "2");
    let keys = |argument: &str| {
        let at = Bench(store(&format!("etcd:{}{argument}", cluster.members[0].address)));
        block_on(async { at.keys().await })
    };
    assert_eq!(keys(""), ["/registry/a", "b"]);
    assert_eq!(keys("/"), ["/registry/a", "b"]);
    assert_eq!(keys("//"), ["registry/a"]);
    assert_eq!(keys("//registry"), ["a"]);
    let at = Bench(store(&format!("etcd:{}", cluster.members[0].address)));
    block_on(async {
        at.set("c", "3").await;
        assert_eq!(cluster.members[0].get("c").unwrap(), b"3");
        assert!(matches!(at.try_set("", "1", Expect::Anything).await, Err(Error::Invalid(_))));
        assert!(matches!(at.rename("b", "").await, Err(Error::Invalid(_))));
        assert!(at.is_missing("").await);
        assert_eq!(at.delete("").await, Err(Error::NotFound));
        assert_eq!(at.rename("", "x").await, Err(Error::NotFound));
        assert_eq!(at.keys().await, ["/registry/a", "b", "c"]);
    });
}

#[test]
fn more_renames_than_a_transaction_has_are_refused_and_change_nothing() {
    let Some(cluster) = Shared::one() else { return };
    fill(&cluster, &format!("{}a/", cluster.prefix()), 0..65, &|_| b"1".to_vec());
    let at = Bench(store(&cluster.argument()));
    block_on(async {
        let revisions: BTreeMap<String, Revision> =
            at.list().await.into_iter().map(|(key, meta)| (key, meta.revision)).collect();
        let plan = |(key, at): (&String, &Revision)| Rename {
            from: key.as_str().into(),
            to: key.replacen('a', "b", 1).into(),
            at: *at,
        };
        let renames: Vec<Rename> = revisions.iter().map(plan).collect();
        assert_eq!(at.0.rename_keys(&renames).await, Err(Error::TooMany(64)));
        assert_eq!(at.keys().await, revisions.keys().cloned().collect::<Vec<_>>());
        assert_eq!(at.0.rename_keys(&renames[..64]).await.unwrap().len(), 64);
        assert_eq!(at.keys().await[..2], ["a/00064".to_owned(), "b/00000".to_owned()]);
    });
    let Some(small) = Cluster::start(1, &["--max-txn-ops", "10"]) else { return };
    let at = Bench(store(&format!("etcd:{}", small.members[0].address)));
    block_on(async {
        let mut renames = Vec::new();
        for number in 0..6 {
            let at = at.set(&number.to_string(), "1").await.revision;
            renames.push(Rename { from: number.to_string().into(), to: format!("to {number}").into(), at });
        }
        assert_eq!(at.0.rename_keys(&renames).await, Err(Error::TooMany(1)));
        at.0.rename_keys(&renames[..5]).await.unwrap();
        assert_eq!(at.keys().await.len(), 6);
    });
}

#[test]
fn a_cluster_that_is_full_says_so_and_still_deletes() {
    let Some(cluster) = Cluster::start(1, &["--quota-backend-bytes", "1000000"]) else { return };
    let at = Bench(store(&format!("etcd:{}", cluster.members[0].address)));
    block_on(async {
        let mut refused = Ok(());
        for number in 0..500 {
            let set = at.try_set(&format!("k{number}"), vec![b'1'; 10_000], Expect::Anything).await;
            if let Err(error) = set {
                refused = Err(error);
                break;
            }
        }
        assert!(matches!(&refused, Err(Error::Quota(why)) if why.contains("disarm")), "{refused:?}");
        assert_eq!(at.text("k0").await.len(), 10_000);
        at.delete("k0").await.unwrap();
    });
}
