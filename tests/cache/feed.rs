//! What the cache tells of its store: what changed, what was before, and whose it is.

use std::sync::Arc;

use kvfs::cache::{Cache, Feed, KeyChanges, News, Origin};
use kvfs::store::{Change, Expect, FeedSender, Key, Location, MemoryStore, Meta, Store, feed, open};

use super::{Bench, block_on, roomy};

/// A store with a feed: where it tells, and what the cache tells then.
fn followed(told: &[Change]) -> (Bench, FeedSender, Feed) {
    let at = Bench::new(roomy());
    let (sender, changes) = feed::channel();
    *at.double.feed.lock() = Some(changes);
    for change in told {
        sender.send(change.clone());
    }
    let feed = at.cache.follow();
    (at, sender, feed)
}

fn set(key: &str, meta: &Meta) -> Change {
    Change::Set(key.into(), meta.clone())
}

async fn changes(feed: &mut Feed) -> KeyChanges {
    match feed.next().await {
        News::Changes(changes) => changes,
        news => panic!("{news:?}"),
    }
}

/// The keys that changed, whose that was, and whether they were there before.
fn shown(news: &KeyChanges) -> Vec<(&str, Origin, Option<bool>)> {
    let shown =
        news.changes.iter().map(|told| (told.change.key().unwrap().as_str(), told.origin, told.was_there));
    shown.collect()
}

#[test]
fn answers_are_good_for_ever_once_the_store_tells_of_changes() {
    block_on(async {
        let (at, sender, mut feed) = followed(&[Change::Paused]);
        assert!(!at.cache.is_pushed());
        sender.send(Change::Everything);
        assert!(matches!(feed.next().await, News::Paused(None)));
        assert!(matches!(feed.next().await, News::Missed(None)) && at.cache.is_pushed());
        assert!(followed(&[]).0.cache.is_pushed());
        drop(sender);
        assert!(matches!(feed.next().await, News::Paused(_)) && !at.cache.is_pushed());
    });
}

#[test]
fn a_store_that_does_not_tell_of_changes_yet_says_so_at_once() {
    block_on(async {
        for address in ["etcd:127.0.0.1:9", "prefect:http://127.0.0.1:9/api"] {
            let (store, _) =
                open(&Location::parse(Some(address), "/".as_ref()).unwrap(), super::PATIENCE).unwrap();
            assert_eq!(store.changes().unwrap().take_waiting(), [Change::Paused], "{address}");
        }
    });
}

#[test]
fn a_burst_that_nobody_takes_in_is_missed() {
    block_on(async {
        let store = MemoryStore::new();
        let elsewhere = store.second_client();
        let cache = Arc::new(Cache::new(Arc::new(store), roomy()));
        let mut feed = cache.follow();
        let set = async |key: &str| {
            elsewhere.set_key_value(&key.into(), Arc::from(&b"1"[..]), Expect::Anything).await
        };
        for _ in 0..100_000 {
            set("k").await.unwrap();
        }
        set("last").await.unwrap();
        assert!(matches!(feed.next().await, News::Missed(_)));
        let mut told = 0;
        while let News::Changes(news) = feed.next().await {
            told += news.changes.len();
            if news.changes.iter().any(|told| told.change.key() == Some(&"last".into())) {
                break;
            }
        }
        assert!((1..1 << 16).contains(&told));
    });
}

#[test]
fn a_change_comes_with_what_was_known_before() {
    block_on(async {
        let (at, sender, mut feed) = followed(&[]);
        let old = at.set_elsewhere("k", "1").await;
        at.listed().await;
        let (new, other) = (at.set_elsewhere("k", "2").await, at.set_elsewhere("l", "1").await);
        assert_eq!(at.text("k").await.unwrap(), "2");
        let gone = at.delete_elsewhere("l").await;
        let told = [set("k", &old), set("l", &other), Change::Deleted("l".into(), gone), set("l", &other)];
        for change in told {
            sender.send(change);
        }
        let news = changes(&mut feed).await;
        let expected = [
            ("k", Origin::Known, Some(true)),
            ("l", Origin::Elsewhere, Some(false)),
            ("l", Origin::Elsewhere, Some(true)),
            ("l", Origin::Past, Some(false)),
        ];
        assert_eq!(shown(&news), expected);
        let revision =
            |keys: &Option<kvfs::cache::Keys>| keys.as_ref().unwrap().meta(&"k".into()).unwrap().revision;
        assert_eq!((revision(&news.before), revision(&news.after)), (old.revision, old.revision));
        sender.send(set("k", &new));
        assert_eq!(revision(&changes(&mut feed).await.after), new.revision);
    });
}

#[test]
fn what_concerns_a_key_that_is_being_changed_comes_when_it_is_certain_whose_it_is() {
    block_on(async {
        let (at, sender, mut feed) = followed(&[]);
        let holds = [(); 2].map(|()| at.cache.hold(vec![Key::from("k")]));
        let before = at.set_elsewhere("k", "1").await;
        let own = at.set("k", "2").await.unwrap();
        let after = at.set_elsewhere("k", "3").await;
        for change in [set("k", &before), set("k", &own), set("k", &after), set("l", &before)] {
            sender.send(change);
        }
        assert_eq!(shown(&changes(&mut feed).await), [("l", Origin::Elsewhere, None)]);
        for hold in holds {
            sender.send(set("m", &before));
            assert_eq!(shown(&changes(&mut feed).await), [("m", Origin::Elsewhere, None)]);
            drop(hold);
        }
        sender.send(set("n", &before));
        let news = changes(&mut feed).await;
        let origins: Vec<_> = shown(&news).into_iter().map(|(key, origin, _)| (key, origin)).collect();
        assert_eq!(origins, [("k", Origin::Own), ("k", Origin::Own), ("k", Origin::Elsewhere)]);
        assert_eq!(shown(&changes(&mut feed).await)[0].0, "n");
    });
}

#[test]
fn what_is_changed_while_changes_are_missed_is_uncertain() {
    block_on(async {
        let (at, sender, mut feed) = followed(&[]);
        let hold = at.cache.hold(vec![Key::from("k"), Key::from("l")]);
        at.set("k", "1").await.unwrap();
        sender.send(Change::Everything);
        assert!(matches!(feed.next().await, News::Missed(_)));
        drop(hold);
        let news = changes(&mut feed).await;
        assert_eq!((shown(&news), &news.uncertain), (Vec::new(), &vec!["k".into(), "l".into()]));
    });
}

#[test]
fn a_key_that_others_keep_changing_while_it_is_changed_here_fills_no_memory() {
    block_on(async {
        let (at, sender, mut feed) = followed(&[]);
        let hold = at.cache.hold(vec![Key::from("k")]);
        let mut last = at.set_elsewhere("k", "0").await;
        for round in 0..100 {
            last = at.set_elsewhere("k", &round.to_string()).await;
            sender.send(set("k", &last));
        }
        sender.send(Change::Resumed);
        assert!(matches!(feed.next().await, News::Resumed));
        drop(hold);
        let news = changes(&mut feed).await;
        assert_eq!(news.changes.last().map(|told| &told.change), Some(&set("k", &last)));
        assert!(news.changes.len() < 20);
    });
}
