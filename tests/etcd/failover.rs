//! Members that are killed, hang, or lose the others.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use kvfs::store::{Error, Expect};

use super::server::{Cluster, Member};
use super::suite::{Bench, block_on};
use super::{PATIENCE, store_within};

/// As a mount has it.
const TIMEOUT: Duration = Duration::from_secs(5);

fn at(addresses: &[String], timeout: Duration) -> Bench {
    Bench(store_within(&format!("etcd:{}/app", addresses.join(",")), timeout))
}

/// Sets until it works; what may have been carried out is done again.
async fn set(at: &Bench, key: &str, text: &str) {
    let start = Instant::now();
    while let Err(error) = at.try_set(key, text, Expect::Anything).await {
        assert!(matches!(error, Error::TimedOut(_) | Error::Other(_) | Error::Unreachable(_)), "{error:?}");
        assert!(start.elapsed() < PATIENCE, "{error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn of_three_members_any_one_may_be_killed() {
    let Some(cluster) = Cluster::start(3, &[]) else { return };
    let at = at(&cluster.addresses(), TIMEOUT);
    block_on(async {
        at.set("k", "0").await;
        for (round, member) in cluster.members.iter().enumerate() {
            member.kill();
            assert!(at.text("k").await == round.to_string().as_bytes());
            set(&at, "k", &(round + 1).to_string()).await;
            assert_eq!(at.text("k").await, (round + 1).to_string().as_bytes());
            member.start();
        }
        assert_eq!(at.keys().await, ["k"]);
    });
}

#[test]
fn a_leader_that_is_killed_or_hangs_is_replaced() {
    let Some(cluster) = Cluster::start(3, &[]) else { return };
    // An election takes a second or two, and longer on a busy machine.
    let timeout = 4 * TIMEOUT;
    let at = at(&cluster.addresses(), timeout);
    block_on(async {
        for (round, hangs) in [false, true].into_iter().enumerate() {
            let leader: &Member = &cluster.members[cluster.leader()];
            at.set("k", round.to_string()).await;
            if hangs {
                leader.stop();
            } else {
                leader.kill();
            }
            assert_eq!(at.text("k").await, round.to_string().as_bytes());
            set(&at, "k", "again").await;
            assert_eq!(at.text("k").await, b"again");
            if hangs {
                leader.go_on();
            } else {
                leader.start();
            }
        }
    });
}

#[test]
fn addresses_where_nobody_is_or_nobody_answers_are_passed_over() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let live = cluster.members[0].address.clone();
    block_on(async {
        let closed = at(&[closed.to_string(), live.clone()], TIMEOUT);
        closed.set("k", "1").await;
        assert_eq!(closed.text("k").await, b"1");
        let silent = at(&[silent.local_addr().unwrap().to_string(), live], TIMEOUT);
        assert_eq!(silent.text("k").await, b"1");
        // That member is asked last from now on, so a change goes to one that answers.
        silent.set("k", "2").await;
        assert_eq!(silent.text("k").await, b"2");
    });
}

#[test]
fn a_change_that_is_not_answered_may_have_been_made() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let at = at(&cluster.addresses(), Duration::from_secs(1));
    block_on(async {
        at.set("k", "1").await;
        cluster.members[0].stop();
        let result = at.try_set("k", "2", Expect::Anything).await;
        assert!(matches!(result, Err(Error::TimedOut(_))), "{result:?}");
        assert!(result.unwrap_err().may_have_changed());
        cluster.members[0].go_on();
        let text = at.text("k").await;
        assert!(text == b"1" || text == b"2");
        cluster.members[0].kill();
        let refused = at.try_set("k", "3", Expect::Anything).await;
        assert!(matches!(refused, Err(Error::Unreachable(_))), "{refused:?}");
    });
}

#[test]
fn without_a_majority_calls_fail_in_time_and_recover_by_themselves() {
    let Some(cluster) = Cluster::start(3, &[]) else { return };
    let at = at(&cluster.addresses(), TIMEOUT);
    block_on(async {
        at.set("k", "1").await;
        let leader = cluster.leader();
        let others: Vec<&Member> = cluster
            .members
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != leader)
            .map(|(_, one)| one)
            .collect();
        for member in &others {
            member.kill();
        }
        for _ in 0..2 {
            let read = at.get("k").await;
            assert!(matches!(read, Err(Error::TimedOut(_) | Error::Unreachable(_))), "{read:?}");
            let write = at.try_set("k", "2", Expect::Anything).await;
            assert!(matches!(write, Err(Error::TimedOut(_) | Error::Unreachable(_))), "{write:?}");
        }
        others[0].start();
        set(&at, "k", "3").await;
        assert_eq!(at.text("k").await, b"3");
    });
}
