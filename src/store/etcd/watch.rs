//! The watch of a cluster as a feed of changes.
//!
//! A member that hangs, or that is partitioned from the others, keeps its watch open and silent. So a silent watch is checked
//! every [`CHECK`] against the revision of the cluster: the cache is never older than that and the time of one call. If the
//! cluster is ahead of the watch, which happens also when keys outside the prefix were changed, the watch is opened again
//! from its last revision on, which misses nothing.
//!
//! After the watch breaks, the cluster may have been restored from a backup before it is reached again, and have passed all
//! revisions of the watch. So its history is proven ([`Witness`]), and the watch is opened again at its last change: it must
//! bring no change up to the newest revision that it had reached.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::api::{Outcome, Stream};
use super::clock::Clock;
use super::failure::Failure;
use super::members::Member;
use super::view::{View, meta, note};
use super::wire::{Event, Header, Txn, Watched};
use super::witness::{Seen, Witness};
use crate::logging::LIFE;
use crate::store::{Change, Error, FeedSender, Revision};

/// How long a watch may be silent before the cluster is asked for its revision.
const CHECK: Duration = Duration::from_secs(3);
/// How long a watch may lag behind the cluster before it is opened again.
const GRACE: Duration = Duration::from_millis(500);
/// A watch from an older revision on, at a member that has a newer one, is complete up to that once it is silent for so long
/// before and after an answer of that member: a member that does not hang serves such watches ten times a second.
const QUIET: Duration = Duration::from_millis(250);
/// The first pause before the watch is opened again; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Follows a cluster until the receiver of the feed or the store is dropped.
pub(super) struct Follower {
    view: Arc<View>,
    feed: FeedSender,
    /// The revision up to which the feed is complete for certain: a watch is opened again from there on.
    complete: Option<Header>,
    /// Proves after the watch has broken that the cluster still has the same history.
    witness: Witness,
    /// Whether the watch has broken: another cluster may be at the address since then.
    broken: bool,
    /// Whether [`Change::Paused`] was the last word on the feed.
    paused: bool,
    /// Whether the log has told of that.
    lost: bool,
    pause: Duration,
}

/// An open watch.
struct Session {
    stream: Stream,
    stage: Stage,
    /// When the stage is over, unless a message comes before.
    due: Instant,
    /// The revision up to which the watch is taken to be complete.
    shown: u64,
}

/// The last known header before the request, and the header of the answer.
type Asked = Pin<Box<dyn Future<Output = Outcome<(Option<Header>, Header)>> + Send>>;

enum Stage {
    /// Just opened: changes up to this revision are still to come.
    Catching(u64),
    /// As before; a request is checking that the member does not hang.
    Proving(u64, Asked),
    /// As before; the member does not hang.
    Proven(u64),
    Idle,
    /// A request for the cluster's revision is in flight.
    Asking(Asked),
    /// The cluster has this revision, which the watch has not reached.
    Behind(u64),
}

impl Follower {
    pub(super) fn new(view: Arc<View>, feed: FeedSender) -> Self {
        let (witness, pause) = (Witness::default(), FIRST_PAUSE);
        Self { view, feed, complete: None, witness, broken: false, paused: true, lost: false, pause }
    }

    pub(super) async fn run(mut self, mut open: tokio::sync::watch::Receiver<()>) {
        let feed = self.feed.clone();
        tokio::select! {
            () = feed.closed() => {}
            // An error: the store was dropped.
            _ = open.changed() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        loop {
            let member = self.view.api.likely();
            let ended = self.session(member).await;
            self.view.api.avoid(member);
            let Err(failure) = ended else { continue };
            self.broken = true;
            if matches!(failure, Failure::Compacted) {
                self.complete = None;
                continue;
            }
            if !std::mem::replace(&mut self.paused, true) {
                self.send(Change::Paused);
                let error = Error::from(failure);
                self.lost = true;
                tracing::warn!("the watch of the cluster ended: {error}; answers age until it is open again");
            }
            tokio::time::sleep(self.pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            self.pause = (self.pause * 2).min(LAST_PAUSE);
        }
    }

    fn send(&self, change: Change) {
        self.feed.send(change);
    }

    /// Marks the feed as complete from now on.
    fn resume(&mut self, change: Change) {
        self.paused = false;
        if std::mem::take(&mut self.lost) {
            tracing::info!(target: LIFE, "the cluster tells of changes again");
        }
        self.pause = FIRST_PAUSE;
        self.send(change);
    }

    /// Follows one watch to its end; `Ok` if another member is to be watched at once.
    async fn session(&mut self, member: Member) -> Outcome<()> {
        // This member has applied `now`: a watch from an earlier revision on brings all changes up to there.
        let (then, now) = self.ask(Some(member)).await?;
        let another = then.is_some_and(|then| is_another(then, now));
        match if another { Some(false) } else { self.prove(member).await? } {
            Some(true) => {}
            Some(false) => self.forget(now),
            None => self.complete = None,
        }
        note(now);
        let complete = self.complete.unwrap_or(now);
        let since =
            self.complete.filter(|_| self.broken).and_then(|complete| self.witness.since(complete.revision));
        let mut session = self.open(member, since.unwrap_or(complete.revision), now.revision).await?;
        if self.complete.is_none() {
            self.witness.clear();
            self.resume(Change::Everything);
        }
        self.complete = Some(Header { term: now.term, ..complete });
        self.broken = false;
        loop {
            if session.is_complete() && self.paused {
                self.resume(Change::Resumed);
            }
            let Session { stream, stage, due, .. } = &mut session;
            tokio::select! {
                biased;
                message = stream.next() => {
                    let shown = self.publish(message?)?;
                    session.heard(shown);
                }
                asked = answer(stage) => {
                    let (then, now) = asked?;
                    if then.is_some_and(|then| is_another(then, now)) {
                        return Err(Error::Unreachable("the cluster is another one now".into()).into());
                    }
                    note(now);
                    session.asked(now.revision);
                }
                () = tokio::time::sleep_until(*due), if !stage.asks() => match *stage {
                    Stage::Catching(target) => session.stage = Stage::Proving(target, self.ask(Some(member))),
                    Stage::Proven(target) => {
                        session.shown = session.shown.max(target);
                        session.idle();
                    }
                    Stage::Idle => {
                        // Silent for so long: the member has sent all earlier changes.
                        self.advance(session.shown);
                        session.stage = Stage::Asking(self.ask(None));
                    }
                    Stage::Behind(_) => return Ok(()),
                    Stage::Asking(_) | Stage::Proving(..) => {}
                },
            }
        }
    }

    /// Whether this member has the history that the watch has brought; `None` if that cannot be proven.
    async fn prove(&self, member: Member) -> Outcome<Option<bool>> {
        let Some(complete) = self.complete.filter(|_| self.broken) else { return Ok(Some(true)) };
        let proof = self.witness.proof(&self.view.shown.lock(), complete.revision);
        let Some(proof) = proof else { return Ok(None) };
        match self.view.api.read_at::<Txn>(member, "kv/txn", &proof.question()).await {
            Ok(txn) => Ok(Some(proof.holds(txn.found()))),
            Err(Failure::Compacted | Failure::TooBig | Failure::TooManyOps) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Starts from nothing: the cluster has another history.
    fn forget(&mut self, now: Header) {
        Clock::of(now.cluster).lock().restart();
        self.complete = None;
    }

    /// Requests the revision of the cluster, or of this member.
    fn ask(&self, member: Option<Member>) -> Asked {
        let (view, then) = (self.view.clone(), self.reached());
        Box::pin(async move {
            let now = match member {
                Some(member) => view.now_at(member).await?,
                None => view.now().await?,
            };
            Ok((then, now))
        })
    }

    /// Opens a watch of the changes after the revision `since`, at a member that has applied `now`.
    async fn open(&self, member: Member, since: u64, now: u64) -> Outcome<Session> {
        let (key, range_end) = self.view.ends();
        let from = (since + 1).to_string();
        let create = json!({"key": key, "range_end": range_end, "start_revision": from, "fragment": true});
        let mut stream = self.view.api.watch(member, &json!({"create_request": create})).await?;
        let late = |_| Failure::Store(Error::Unreachable("the watch does not begin".into()));
        let first = tokio::time::timeout(CHECK, stream.next()).await.map_err(late)??;
        if !first.created || first.canceled {
            return Err(refused(&first));
        }
        let stage = if since < now { Stage::Catching(now) } else { Stage::Idle };
        let due = Instant::now() + if since < now { QUIET } else { CHECK };
        Ok(Session { stream, stage, due, shown: since })
    }

    /// Sends the changes of a message to the feed; returns the revision up to which it is complete then.
    fn publish(&mut self, message: Watched) -> Outcome<Option<u64>> {
        if message.canceled {
            return Err(refused(&message));
        }
        let Some(last) = message.events.last().map(|event| event.kv.changed) else { return Ok(None) };
        let complete = self.complete.map_or(0, |complete| complete.revision);
        if message.events.iter().any(|event| event.kv.changed <= complete) {
            self.forget(message.header);
            return Err(Error::Unreachable("the cluster has another past".into()).into());
        }
        note(Header { revision: last, ..message.header });
        for event in message.events {
            self.witness.note(seen(&event));
            if let Some(change) = self.change(message.header.cluster, &event) {
                self.send(change);
            }
        }
        let whole = if message.fragment { last.saturating_sub(1) } else { last };
        self.advance(whole);
        Ok(Some(whole))
    }

    /// The change of an event; `None` if its key is not UTF-8.
    fn change(&self, cluster: u64, event: &Event) -> Option<Change> {
        let pair = &event.kv;
        let Some(key) = self.view.key(&pair.key) else {
            self.view.log_skipped([pair.key.clone()]);
            return None;
        };
        let revision = Revision(pair.changed);
        if event.is_deletion() {
            return Some(Change::Deleted(key, revision));
        }
        self.view.keep_pushed(&key, revision, &pair.value.0);
        Some(Change::Set(key, meta(cluster, pair.made, pair.changed, pair.value.0.len())))
    }

    /// The newest revision of the cluster in the watch or in any answer in this process: later answers have at least this one,
    /// unless the cluster is another one.
    fn reached(&self) -> Option<Header> {
        let complete = self.complete?;
        let newest = Clock::of(complete.cluster).lock().newest();
        Some(Header { revision: complete.revision.max(newest), ..complete })
    }

    /// Marks the feed as complete up to this revision.
    fn advance(&mut self, revision: u64) {
        if let Some(complete) = &mut self.complete {
            complete.revision = complete.revision.max(revision);
        }
    }
}

impl Stage {
    /// Whether a request is in flight.
    fn asks(&self) -> bool {
        matches!(self, Self::Asking(_) | Self::Proving(..))
    }
}

impl Session {
    /// Whether all changes before it was opened have come.
    fn is_complete(&self) -> bool {
        !matches!(self.stage, Stage::Catching(_) | Stage::Proving(..) | Stage::Proven(_))
    }

    fn idle(&mut self) {
        self.stage = Stage::Idle;
        self.due = Instant::now() + CHECK;
    }

    /// Records a message that is complete up to this revision.
    fn heard(&mut self, shown: Option<u64>) {
        self.shown = self.shown.max(shown.unwrap_or(0));
        match self.stage {
            Stage::Catching(target) | Stage::Proven(target) if self.shown < target => {
                self.due = Instant::now() + QUIET;
            }
            Stage::Behind(target) | Stage::Proving(target, _) if self.shown < target => {}
            // The message shows that the watch is alive; the answer decides about the stage.
            Stage::Asking(_) => {}
            _ => self.idle(),
        }
    }

    /// Records the revision of the cluster.
    fn asked(&mut self, revision: u64) {
        if let Stage::Proving(target, _) = self.stage {
            self.stage = Stage::Proven(target);
            self.due = Instant::now() + QUIET;
        } else if revision > self.shown {
            self.stage = Stage::Behind(revision);
            self.due = Instant::now() + GRACE;
        } else {
            self.idle();
        }
    }
}

/// Whether `now` is not a successor of `then`: it is another cluster, or one restored from a backup.
fn is_another(then: Header, now: Header) -> bool {
    then.cluster != now.cluster || then.revision > now.revision || then.term > now.term
}

/// The answer to the request in flight; pending if there is none.
async fn answer(stage: &mut Stage) -> Outcome<(Option<Header>, Header)> {
    match stage {
        Stage::Asking(asked) | Stage::Proving(_, asked) => asked.await,
        _ => std::future::pending().await,
    }
}

fn seen(event: &Event) -> Seen {
    let pair = &event.kv;
    if event.is_deletion() {
        return Seen::gone(pair.key.clone(), pair.changed);
    }
    Seen::there(pair, &pair.value.0)
}

/// Why the server has cancelled the watch.
fn refused(message: &Watched) -> Failure {
    if message.compact_revision > 0 {
        return Failure::Compacted;
    }
    Error::Unreachable(format!("the watch was ended: {}", message.cancel_reason)).into()
}
