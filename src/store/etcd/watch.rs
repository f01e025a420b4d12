//! The watch of a cluster as a feed of changes.
//!
//! A member that hangs, or that is cut off from the others, keeps its watch open and silent. So while nothing is told the
//! cluster is asked for its revision every [`CHECK`]: what is cached is never older than that and the time of one call.
//! Where the cluster is beyond what the watch has told, as it is too when keys outside the prefix were changed, the watch
//! is opened again from there on, which misses nothing.
//!
//! Where the watch breaks the cluster may have been restored from a backup before it is reached again, and have come past all
//! revisions that were told. So it is asked for what it was then ([`Witness`]), and the watch begins again at the last change
//! that was told: it must tell of none before the newest revision that was told.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::api::{Outcome, Stream};
use super::clock::Clock;
use super::failure::Failure;
use super::members::Member;
use super::view::{View, meta, note};
use super::wire::{Event, Header, Txn, Watched};
use super::witness::{Seen, Witness};
use crate::store::{Change, Error, Revision};

/// How long a watch may be silent before the cluster is asked what the watch should have told.
const CHECK: Duration = Duration::from_secs(3);
/// How long a watch that is behind may take to tell, before it is opened again.
const GRACE: Duration = Duration::from_millis(500);
/// A watch from an older revision on, at a member that has a newer one, has told all up to there once it is silent for so
/// long before and after an answer of that member: one that does not hang looks after such watches ten times a second.
const QUIET: Duration = Duration::from_millis(250);
/// The first pause before the watch is opened again; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Follows a cluster until nobody listens any more, or the store is dropped.
pub(super) struct Follower {
    view: Arc<View>,
    feed: UnboundedSender<Change>,
    /// Up to where everything was told, for certain: from there on a watch is opened again.
    told: Option<Header>,
    /// What proves, when the watch has broken, that the cluster is still the one that told it.
    witness: Witness,
    /// Whether the watch has broken: any cluster may be there since then.
    broken: bool,
    /// Whether the feed has said that changes are not told.
    paused: bool,
    pause: Duration,
}

/// An open watch.
struct Session {
    stream: Stream,
    stage: Stage,
    /// When the stage is over, if nothing is told until then.
    due: Instant,
    /// Up to where everything counts as told.
    shown: u64,
}

/// What the cluster had reached before it was asked, and its answer.
type Asked = Pin<Box<dyn Future<Output = Outcome<(Option<Header>, Header)>> + Send>>;

enum Stage {
    /// Opened lately: what happened before, up to this revision, is yet to be told.
    Catching(u64),
    /// As before; the member is being asked whether it hangs.
    Proving(u64, Asked),
    /// As before; it does not.
    Proven(u64),
    Idle,
    /// The cluster is being asked for its revision.
    Asking(Asked),
    /// The cluster has this revision, which the watch has not shown.
    Behind(u64),
}

impl Follower {
    pub(super) fn new(view: Arc<View>, feed: UnboundedSender<Change>) -> Self {
        let (witness, pause) = (Witness::default(), FIRST_PAUSE);
        Self { view, feed, told: None, witness, broken: false, paused: true, pause }
    }

    pub(super) async fn run(mut self, mut open: tokio::sync::watch::Receiver<()>) {
        self.tell(Change::Paused);
        let feed = self.feed.clone();
        tokio::select! {
            () = feed.closed() => {}
            // An error: the store is gone.
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
                self.told = None;
                continue;
            }
            if !std::mem::replace(&mut self.paused, true) {
                self.tell(Change::Paused);
                let error = Error::from(failure);
                tracing::info!("the watch of the cluster ended: {error}; answers age until it is open again");
            }
            tokio::time::sleep(self.pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            self.pause = (self.pause * 2).min(LAST_PAUSE);
        }
    }

    fn tell(&self, change: Change) {
        // Nobody listens any more: the loop ends.
        _ = self.feed.send(change);
    }

    /// From now on changes are told.
    fn resume(&mut self, change: Change) {
        self.paused = false;
        self.pause = FIRST_PAUSE;
        self.tell(change);
    }

    /// Follows one watch to its end; without an error if another member is to be watched at once.
    async fn session(&mut self, member: Member) -> Outcome<()> {
        // This member has reached it, too: what the watch tells from an earlier one on is complete up to there.
        let (then, now) = self.ask(Some(member)).await?;
        let another = then.is_some_and(|then| is_another(then, now));
        match if another { Some(false) } else { self.prove(member).await? } {
            Some(true) => {}
            Some(false) => self.forget(now),
            None => self.told = None,
        }
        note(now);
        let told = self.told.unwrap_or(now);
        // The witness has seen where it begins.
        let since = self.told.filter(|_| self.broken).and_then(|told| self.witness.since(told.revision));
        let mut session = self.open(member, since.unwrap_or(told.revision), now.revision).await?;
        if self.told.is_none() {
            self.witness.clear();
            self.resume(Change::Everything);
        }
        self.told = Some(Header { term: now.term, ..told });
        self.broken = false;
        loop {
            if session.is_complete() && self.paused {
                self.resume(Change::Resumed);
            }
            let Session { stream, stage, due, .. } = &mut session;
            tokio::select! {
                biased;
                message = stream.next() => {
                    let shown = self.take_in(message?)?;
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
                        // Silent for so long: whatever the member had to tell of what happened before it has told.
                        self.settle(session.shown);
                        session.stage = Stage::Asking(self.ask(None));
                    }
                    Stage::Behind(_) => return Ok(()),
                    Stage::Asking(_) | Stage::Proving(..) => {}
                },
            }
        }
    }

    /// Whether this member has the history that the watch has told, if it may be another; `None` if nobody can tell.
    async fn prove(&self, member: Member) -> Outcome<Option<bool>> {
        let Some(told) = self.told.filter(|_| self.broken) else { return Ok(Some(true)) };
        let proof = self.witness.proof(&self.view.shown.lock(), told.revision);
        let Some(proof) = proof else { return Ok(None) };
        match self.view.api.read_at::<Txn>(member, "kv/txn", &proof.question()).await {
            Ok(txn) => Ok(Some(proof.holds(txn.found()))),
            Err(Failure::Compacted | Failure::TooBig | Failure::TooManyOps) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// What was told is not the past of the cluster that is there now.
    fn forget(&mut self, now: Header) {
        Clock::of(now.cluster).lock().restart();
        self.told = None;
    }

    /// Asks the cluster, or this member, for its revision.
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

    /// Opens a watch of what happened after the revision `since`, at a member that has reached `now`.
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

    /// Tells what a message tells; the revision up to which everything was told then.
    fn take_in(&mut self, message: Watched) -> Outcome<Option<u64>> {
        if message.canceled {
            return Err(refused(&message));
        }
        let Some(last) = message.events.last().map(|event| event.kv.changed) else { return Ok(None) };
        let told = self.told.map_or(0, |told| told.revision);
        if message.events.iter().any(|event| event.kv.changed <= told) {
            self.forget(message.header);
            return Err(Error::Unreachable("the cluster has another past".into()).into());
        }
        note(Header { revision: last, ..message.header });
        for event in message.events {
            self.witness.note(seen(&event));
            if let Some(change) = self.change(message.header.cluster, &event) {
                self.tell(change);
            }
        }
        let whole = if message.fragment { last.saturating_sub(1) } else { last };
        self.settle(whole);
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

    /// What the cluster has reached, as the watch or any answer in this process has said: what it is asked from now on, it
    /// answers from there on, unless it is another one.
    fn reached(&self) -> Option<Header> {
        let told = self.told?;
        Some(Header { revision: told.revision.max(Clock::of(told.cluster).lock().newest()), ..told })
    }

    /// Everything up to this revision was told, for certain.
    fn settle(&mut self, revision: u64) {
        if let Some(told) = &mut self.told {
            told.revision = told.revision.max(revision);
        }
    }
}

impl Stage {
    /// Whether an answer is waited for.
    fn asks(&self) -> bool {
        matches!(self, Self::Asking(_) | Self::Proving(..))
    }
}

impl Session {
    /// Whether all that happened before it was opened has been told.
    fn is_complete(&self) -> bool {
        !matches!(self.stage, Stage::Catching(_) | Stage::Proving(..) | Stage::Proven(_))
    }

    fn idle(&mut self) {
        self.stage = Stage::Idle;
        self.due = Instant::now() + CHECK;
    }

    /// A message came, and told everything up to this revision.
    fn heard(&mut self, shown: Option<u64>) {
        self.shown = self.shown.max(shown.unwrap_or(0));
        match self.stage {
            Stage::Catching(target) | Stage::Proven(target) if self.shown < target => {
                self.due = Instant::now() + QUIET;
            }
            Stage::Behind(target) | Stage::Proving(target, _) if self.shown < target => {}
            // Whatever the answer is going to be: the watch lives.
            Stage::Asking(_) => {}
            _ => self.idle(),
        }
    }

    /// The cluster has this revision.
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

/// Whether what was true once is not the past of what is now: another cluster, or one restored from a backup.
fn is_another(then: Header, now: Header) -> bool {
    then.cluster != now.cluster || then.revision > now.revision || then.term > now.term
}

/// The answer that is waited for, if one is.
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

/// Why there is no watch any more.
fn refused(message: &Watched) -> Failure {
    if message.compact_revision > 0 {
        return Failure::Compacted;
    }
    Error::Unreachable(format!("the watch was ended: {}", message.cancel_reason)).into()
}
