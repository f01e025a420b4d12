//! A cluster that was restored from a backup, and was used until it is past every revision that was known: what was lost is
//! not shown, and what was made in its place is.

use std::fs;
use std::sync::Arc;

use kvfs::store::{Change, Expect, Feed, Store};
use tempfile::TempDir;

use super::PATIENCE;
use super::common::{Mount, can_mount, errno, wait_for};
use super::pipe::Pipe;
use super::server::{Cluster, Member};
use super::suite::block_on;
use super::watching::{follow, key, next};

/// Waits until the feed has told of the key at this revision.
async fn told(feed: &mut Feed, name: &str, revision: u64) {
    while key(feed).await != (name.to_owned(), revision) {}
}

/// A store whose feed has told of all that is in the backup, and goes on since.
async fn backed_up(member: &Member, pipe: &Pipe) -> (Arc<dyn Store>, Feed) {
    let (store, mut feed) = follow(std::slice::from_ref(&pipe.address), "app").await;
    let kept = member.put("app/k", "1");
    told(&mut feed, "k", kept).await;
    member.back_up();
    while next(&mut feed).await != Change::Resumed {}
    (store, feed)
}

/// Cuts the way, restores the member, has `anew` done, and then something else until the cluster is past `last`.
fn restored(member: &Member, pipe: &Pipe, last: u64, anew: impl FnOnce()) {
    pipe.cut();
    member.restore();
    anew();
    while member.put("elsewhere", "1") <= last {}
    pipe.mend();
}

async fn everything(feed: &mut Feed) {
    loop {
        match next(feed).await {
            Change::Everything => return,
            Change::Resumed => panic!("taken for the same cluster"),
            _ => {}
        }
    }
}

#[test]
fn one_key_at_the_same_revisions_with_other_values_is_another_past() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let (member, pipe) = (&cluster.members[0], Pipe::before(&cluster.members[0].address));
    member.put("app/k", "1");
    member.back_up();
    block_on(async {
        let (store, mut feed) = follow(std::slice::from_ref(&pipe.address), "app").await;
        member.put("app/k", "lost");
        let last = member.put("app/k", "lost too");
        told(&mut feed, "k", last).await;
        assert_eq!(store.get_key_value(&"k".into()).await.unwrap().text[..], *b"lost too");
        restored(member, &pipe, last, || {
            member.put("app/k", "new");
            assert_eq!(member.put("app/k", "new too"), last);
        });
        everything(&mut feed).await;
        assert_eq!(store.get_key_value(&"k".into()).await.unwrap().text[..], *b"new too");
        let after = member.put("app/k", "4");
        told(&mut feed, "k", after).await;
    });
}

#[test]
fn a_value_that_is_set_over_and_over_hides_no_other_that_was_lost() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let (member, pipe) = (&cluster.members[0], Pipe::before(&cluster.members[0].address));
    member.put("app/beat", "alive");
    member.put("app/k", "1");
    member.put("app/other", "1");
    member.back_up();
    block_on(async {
        let (_store, mut feed) = follow(std::slice::from_ref(&pipe.address), "app").await;
        member.put("app/k", "lost");
        let last = member.put("app/beat", "alive");
        told(&mut feed, "beat", last).await;
        restored(member, &pipe, last, || {
            member.put("app/other", "new");
            assert_eq!(member.put("app/beat", "alive"), last);
        });
        everything(&mut feed).await;
    });
}

#[test]
fn a_key_that_was_made_again_after_its_removal_was_lost_is_noticed() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let (member, pipe) = (&cluster.members[0], Pipe::before(&cluster.members[0].address));
    member.put("app/k", "1");
    member.back_up();
    block_on(async {
        let (_store, mut feed) = follow(std::slice::from_ref(&pipe.address), "app").await;
        let last = member.put("app/k", "2") + 1;
        member.delete("app/k");
        told(&mut feed, "-k", last).await;
        restored(member, &pipe, last, || {});
        everything(&mut feed).await;
    });
}

#[test]
fn what_others_did_where_nothing_of_ours_was_lost_is_noticed() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let (member, pipe) = (&cluster.members[0], Pipe::before(&cluster.members[0].address));
    block_on(async {
        let (store, mut feed) = backed_up(member, &pipe).await;
        assert!(store.get_key_value(&"made".into()).await.is_err());
        let mut last = 0;
        for _ in 0..5 {
            last = member.put("elsewhere", "1");
        }
        // This process knows the revision of the cluster: from this answer, and in time from the watch itself.
        assert!(store.get_key_value(&"made".into()).await.is_err());
        restored(member, &pipe, last, || {
            assert!(member.put("app/made", "1") <= last);
        });
        loop {
            match next(&mut feed).await {
                Change::Everything => break,
                Change::Set(key, _) => {
                    assert_eq!(key.as_str(), "made");
                    break;
                }
                Change::Resumed => panic!("missed"),
                _ => {}
            }
        }
    });
}

#[test]
fn a_set_of_this_process_that_was_lost_is_noticed_though_the_watch_had_not_told_it() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let (member, pipe) = (&cluster.members[0], Pipe::before(&cluster.members[0].address));
    block_on(async {
        let (store, mut feed) = backed_up(member, &pipe).await;
        // The answer is what goes through last.
        pipe.hold_after("\"succeeded\":true");
        let set = store.set_key_value(&"own".into(), b"1".as_slice().into(), Expect::Absent).await.unwrap();
        restored(member, &pipe, set.revision.0, || {
            assert_eq!(member.put("elsewhere", "1"), set.revision.0);
        });
        everything(&mut feed).await;
    });
}

#[test]
fn where_nothing_was_told_yet_everything_is_asked_anew() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let (member, pipe) = (&cluster.members[0], Pipe::before(&cluster.members[0].address));
    member.back_up();
    let last = member.put("app/k", "lost");
    block_on(async {
        let (store, mut feed) = follow(std::slice::from_ref(&pipe.address), "app").await;
        assert_eq!(store.get_key_value(&"k".into()).await.unwrap().text[..], *b"lost");
        restored(member, &pipe, last, || {});
        everything(&mut feed).await;
    });
}

#[test]
fn a_mount_shows_what_the_restored_cluster_has() {
    let Some(cluster) = can_mount().then(|| Cluster::start(1, &[])).flatten() else { return };
    let (member, pipe) = (&cluster.members[0], Pipe::before(&cluster.members[0].address));
    member.put("app/k", "1");
    member.back_up();
    let args = ["--max-age", "1h", "--timeout", "2s"];
    let mount = Mount::start_in(TempDir::new().unwrap(), &format!("etcd:{}/app", pipe.address), &args);
    wait_for(PATIENCE, || mount.status()["freshness"] == "pushed");
    fs::write(mount.path("k"), "\"lost\"").unwrap();
    fs::write(mount.path("lost"), "1").unwrap();
    member.put("app/k", "\"lost too\"");
    let last = member.put("app/last", "1");
    wait_for(PATIENCE, || mount.text("last").is_some() && mount.text("k").unwrap() == "\"lost too\"");
    assert_eq!(mount.names(), ["k", "last", "lost"]);
    restored(member, &pipe, last, || {
        member.put("app/new", "1");
    });
    // The value is of a lower revision than the one that was lost.
    wait_for(PATIENCE, || mount.text("k").as_deref() == Some("1"));
    wait_for(PATIENCE, || mount.names() == ["k", "new"]);
    assert_eq!(errno(fs::metadata(mount.path("lost"))), libc::ENOENT);
    assert_eq!(mount.status()["freshness"], "pushed");
    fs::write(mount.path("k"), "\"after\"").unwrap();
    assert_eq!(member.get("app/k").unwrap(), b"\"after\"");
    member.put("app/k", "\"others\"");
    wait_for(PATIENCE, || mount.text("k").as_deref() == Some("\"others\""));
}
