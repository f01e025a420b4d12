//! The events of a server as a feed of changes.
//!
//! The server sends an event before it commits the change, and may be configured to send none. So the feed is reliable from the
//! first event on, and each event starts a poll of its variable, until it has the value of the event or another client has
//! changed it. Events of this process's own changes are skipped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api::Variable;
use super::burst::{Burst, FLOOD};
use super::settings::Login;
use super::view::View;
use crate::logging::LIFE;
use crate::store::http::Socket;
use crate::store::{Change, Entry, Error, FeedSender, Key, Result, json as json_text};

/// The first pause before the socket is opened again; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_mins(1);
/// How long the opening of the socket may take.
const OPENING: Duration = Duration::from_secs(10);
/// Interval of pings; the socket counts as dead when it was silent three times as long.
const PING: Duration = Duration::from_secs(5);
/// The first pause before a variable that does not have the value of its event yet is polled again; each next one is twice as
/// long.
const LOOK: Duration = Duration::from_millis(20);
/// How many polls of a variable, within 40 s: after that the change has failed or been replaced.
const LOOKS: u32 = 11;
/// How many failed polls of a variable end the feed, because its value is not known.
const FAILURES: u32 = 6;
/// Timeout of one poll; the socket is not read meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long after its event a change may be committed.
const EBB: Duration = Duration::from_millis(2500);
/// How often the variables are counted, to notice a missed event.
const CENSUS: Duration = Duration::from_mins(1);

/// Follows the events of a server until the receiver of the feed is dropped.
pub(super) struct Follower {
    view: Arc<View>,
    feed: FeedSender,
    /// Variables with a recent event, which are polled until they have its value.
    awaited: HashMap<Key, Awaited>,
    burst: Burst,
    flood: Option<Flood>,
    /// How many variables there should be, by the last count and the events since.
    expected: Option<usize>,
    /// Whether the log has told that there are no events.
    lost: bool,
}

/// A burst of events, some of which are not followed one by one or may be missing.
struct Flood {
    /// When [`Change::Everything`] is sent again.
    end: Instant,
    /// Whether more events came after `end` was set.
    more: bool,
    /// Whether [`Change::Everything`] was sent because some events were not followed.
    announced: bool,
}

struct Awaited {
    /// The value in the event; `None` for a deletion.
    value: Option<Value>,
    /// Until when the change of an earlier event may still be committed after this one.
    contested: Option<Instant>,
    looks: u32,
    failures: u32,
    next: Instant,
}

impl Awaited {
    fn is_contested(&self) -> bool {
        self.contested.is_some_and(|until| until > Instant::now())
    }
}

/// The part of a message that matters.
#[derive(Deserialize)]
struct Message {
    event: Event,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "event")]
    what: String,
    resource: HashMap<String, Value>,
    payload: Payload,
}

#[derive(Deserialize)]
struct Payload {
    name: String,
    value: Option<Box<RawValue>>,
}

impl Follower {
    pub(super) fn new(view: Arc<View>, feed: FeedSender) -> Self {
        let burst = Burst::new(Instant::now());
        Self { view, feed, awaited: HashMap::new(), burst, flood: None, expected: None, lost: false }
    }

    pub(super) async fn run(mut self) {
        let feed = self.feed.clone();
        let mut pause = FIRST_PAUSE;
        loop {
            let mut proven = false;
            let ended = tokio::select! {
                () = feed.closed() => return,
                ended = self.follow(&mut proven) => ended,
            };
            self.awaited.clear();
            self.view.own.lock().follow(false);
            (self.flood, self.expected) = (None, None);
            if proven {
                self.send(Change::Paused);
                pause = FIRST_PAUSE;
            }
            if let Err(error) = ended {
                if proven {
                    self.lost = true;
                    tracing::warn!(
                        "no events from the server: {error}; answers are asked for again when they are old"
                    );
                } else {
                    tracing::info!("no events from the server: {error}");
                }
            }
            tokio::select! { () = feed.closed() => return, () = tokio::time::sleep(pause) => {} }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Follows one socket to its end; sets `proven` at the first event.
    async fn follow(&mut self, proven: &mut bool) -> Result<()> {
        let late = |_| Error::TimedOut(OPENING.as_millis());
        let mut socket = tokio::time::timeout(OPENING, open(&self.view)).await.map_err(late)??;
        let (mut heard, mut ping, mut census) = (Instant::now(), Instant::now() + PING, Instant::now());
        loop {
            let due = self.due();
            tokio::select! {
                biased;
                message = socket.receive() => {
                    heard = Instant::now();
                    let Some(news) = message?.and_then(|text| serde_json::from_str::<Message>(&text).ok()) else {
                        continue;
                    };
                    if !std::mem::replace(proven, true) {
                        self.view.own.lock().follow(true);
                        self.send(Change::Everything);
                        if std::mem::take(&mut self.lost) {
                            tracing::info!(target: LIFE, "the server tells of changes again");
                        }
                    }
                    self.expect(news.event);
                }
                () = tokio::time::sleep_until(due.unwrap_or(ping)), if due.is_some() => self.look().await?,
                () = tokio::time::sleep_until(ping) => {
                    if heard.elapsed() > PING * 3 {
                        return Err(Error::Unreachable("the event socket is silent".into()));
                    }
                    socket.ping().await?;
                    ping = Instant::now() + PING;
                }
                () = tokio::time::sleep_until(census), if *proven => {
                    self.count().await?;
                    census = Instant::now() + CENSUS;
                }
            }
        }
    }

    fn send(&self, change: Change) {
        self.feed.send(change);
    }

    fn due(&self) -> Option<Instant> {
        let flood = self.flood.as_ref().map(|flood| flood.end);
        self.awaited.values().map(|awaited| awaited.next).chain(flood).min()
    }

    /// Handles an event.
    fn expect(&mut self, event: Event) {
        let deleted = match event.what.as_str() {
            "prefect.variable.created" => {
                self.expected = self.expected.map(|count| count + 1);
                false
            }
            "prefect.variable.updated" => false,
            "prefect.variable.deleted" => {
                self.expected = self.expected.map(|count| count.saturating_sub(1));
                true
            }
            _ => return,
        };
        let key = Key::from(event.payload.name);
        let value = event.payload.value.map_or(Value::Null, |value| json_text::lenient(&value));
        let value = Some(value).filter(|_| !deleted);
        let (now, own) = (Instant::now(), self.is_own(&key, value.as_ref()));
        let followed = self.burst.count(now, own);
        if self.burst.all > FLOOD || !followed {
            self.flood(now, followed);
        }
        if own || !followed {
            return;
        }
        let id = event.resource.get("prefect.resource.id");
        let id = id.and_then(|id| id.as_str()?.strip_prefix("prefect.variable."));
        if let Some(id) = id.filter(|_| !deleted) {
            self.expect_no_other(id, &key);
        }
        self.wait_for(key, value);
    }

    /// Whether an event is of a change made here, and the cached state is the same or newer.
    fn is_own(&self, key: &Key, value: Option<&Value>) -> bool {
        let Some(overtaken) = self.view.own.lock().take(key, value) else { return false };
        // While a change of another client is polled for, the order of the two is not known.
        if self.awaited.contains_key(key) {
            return false;
        }
        let known = self.view.revisions.lock().current(key);
        let is_as_in_event =
            |known: &Entry| value.is_some_and(|value| json_text::stands_for(&known.text, value));
        overtaken || known.as_ref().map_or(value.is_none(), is_as_in_event)
    }

    /// Has [`Change::Everything`] sent when the burst is over: some events are not `followed`, or may be missing.
    fn flood(&mut self, now: Instant, followed: bool) {
        let flood = self.flood.get_or_insert(Flood { end: now + EBB, more: false, announced: false });
        flood.more |= now + EBB > flood.end;
        if !followed && !std::mem::replace(&mut flood.announced, true) {
            self.awaited.clear();
            self.send(Change::Everything);
        }
    }

    /// Polls the former name of a variable with this id: it was renamed.
    fn expect_no_other(&mut self, id: &str, key: &Key) {
        let other = self.view.revisions.lock().key_of(id, key);
        if let Some(other) = other {
            self.wait_for(other, None);
        }
    }

    fn wait_for(&mut self, key: Key, value: Option<Value>) {
        let next = Instant::now();
        let other = |earlier: &Awaited| earlier.value != value || earlier.is_contested();
        let contested = self.awaited.get(&key).is_some_and(other).then(|| next + EBB);
        self.awaited.insert(key, Awaited { value, contested, looks: 0, failures: 0, next });
    }

    /// Polls the variable that is due first, or ends a burst. Fails if the value cannot be read.
    async fn look(&mut self) -> Result<()> {
        let now = Instant::now();
        if let Some(flood) = self.flood.take_if(|flood| flood.end <= now) {
            // Answers to requests before this may predate the commit.
            self.flood = flood.more.then_some(Flood { end: now + EBB, more: false, ..flood });
            self.send(Change::Everything);
            return Ok(());
        }
        let first = self.awaited.iter().min_by_key(|(_, awaited)| awaited.next).map(|(key, _)| key.clone());
        let Some(key) = first else { return Ok(()) };
        let late = |_| Error::TimedOut(PATIENCE.as_millis());
        let result = tokio::time::timeout(PATIENCE, self.look_at(&key)).await.map_err(late).flatten();
        let Some(awaited) = self.awaited.get_mut(&key) else { return Ok(()) };
        awaited.next = Instant::now() + LOOK * 2_u32.pow(awaited.looks);
        awaited.looks += 1;
        match result {
            Ok(true) => drop(self.awaited.remove(&key)),
            Ok(false) if awaited.looks >= LOOKS => drop(self.awaited.remove(&key)),
            Ok(false) => {}
            Err(error) => {
                awaited.failures += 1;
                if awaited.failures >= FAILURES {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Fetches the variable and sends it to the feed; true if it has the value of the event.
    async fn look_at(&mut self, key: &Key) -> Result<bool> {
        let awaited = self.awaited.get(key);
        let contested = awaited.is_some_and(Awaited::is_contested);
        let wanted = awaited.and_then(|awaited| awaited.value.clone());
        let is_as_in_event =
            |text: &[u8]| wanted.as_ref().is_some_and(|value| json_text::stands_for(text, value));
        let own = self.view.revisions.lock().current(key);
        let known = own
            .filter(|own| !contested && is_as_in_event(&own.text))
            .map(|own| Change::Set(key.clone(), own.meta));
        let there = match known {
            Some(known) => known,
            None => self.view.look(key).await?,
        };
        // A change of ours in flight will get a newer revision when its answer comes.
        let (changing, text) = {
            let revisions = self.view.revisions.lock();
            (revisions.is_changing(key), revisions.current(key).map(|entry| entry.text))
        };
        if let Change::Set(_, meta) = &there {
            self.expect_no_other(&meta.id, key);
        }
        self.send(there);
        Ok(!changing && !contested && text.map_or(wanted.is_none(), |text| is_as_in_event(&text)))
    }

    /// Checks whether an event was missed, by the number of variables and the newest one.
    async fn count(&mut self) -> Result<()> {
        let count = self.view.api.count().await?;
        let newest = self.view.api.newest().await?.and_then(Variable::row);
        let stale = newest.is_some_and(|(key, row)| {
            let known = self.view.revisions.lock().current(&key);
            !self.awaited.contains_key(&key)
                && known.is_some_and(|known| !json_text::stands_for(&known.text, &row.value.read()))
        });
        if stale || self.expected.is_some_and(|expected| expected != count) {
            self.send(Change::Everything);
        }
        self.expected = Some(count);
        Ok(())
    }
}

/// Opens a socket on which the server sends the events of variables from now on.
async fn open(view: &View) -> Result<Socket> {
    let mut socket = view.api.events().await?;
    let login = view.api.login.get();
    if let Err(error) = greet(&mut socket, login.as_ref()).await {
        if !view.api.login.renew(&login).await {
            return Err(error);
        }
        socket = view.api.events().await?;
        greet(&mut socket, view.api.login.get().as_ref()).await?;
    }
    let far = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 365 * 10);
    let since = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(1);
    let filter = json!({
        "event": {"prefix": ["prefect.variable."]},
        "occurred": {"since": since.to_string(), "until": far.to_string()},
    });
    socket.send(json!({"type": "filter", "backfill": false, "filter": filter}).to_string()).await?;
    Ok(socket)
}

/// Sends the login, and waits until the server has accepted it.
async fn greet(socket: &mut Socket, login: Option<&Login>) -> Result<()> {
    let token = match login {
        Some(Login::Key(token) | Login::Basic(token)) => Value::from(token.as_str()),
        None => Value::Null,
    };
    socket.send(json!({"type": "auth", "token": token}).to_string()).await?;
    let answer = socket.receive().await?.unwrap_or_default();
    if answer.contains("auth_success") {
        return Ok(());
    }
    Err(Error::Denied("the event socket refuses the login".into()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::api::Api;
    use super::super::settings::Settings;
    use super::*;
    use crate::store::{Feed, Text, feed};

    /// A follower of a server that does not exist, and its feed.
    fn follower() -> (Follower, Feed) {
        let url = "http://127.0.0.1:9/api".into();
        let settings = Settings { url, ..Settings::default() };
        let api = Api::new(&settings, PATIENCE).unwrap();
        let view = View { api, revisions: parking_lot::Mutex::default(), own: parking_lot::Mutex::default() };
        view.own.lock().follow(true);
        let (feed, changes) = feed::channel();
        (Follower::new(Arc::new(view), feed), changes)
    }

    fn event(key: &str, value: &Value) -> Event {
        let message = json!({"event": {
            "event": "prefect.variable.updated",
            "resource": {"prefect.resource.id": format!("prefect.variable.id-{key}")},
            "payload": {"name": key, "value": value},
        }});
        serde_json::from_str::<Message>(&message.to_string()).unwrap().event
    }

    impl Follower {
        /// A set is made here, as the store makes it.
        fn set(&self, key: &Key, text: &str) {
            let text = Text::from(text.as_bytes());
            self.view.own.lock().begin(key, Some(&text));
            self.view.revisions.lock().set(key, format!("id-{}", key.as_str()).into(), text);
            self.view.own.lock().end(key, true);
        }
    }

    #[tokio::test]
    async fn what_was_set_here_hides_nothing_that_another_event_told_of_just_before() {
        let (mut follower, _changes) = follower();
        let key = Key::from("k");
        follower.set(&key, "1");
        follower.expect(event("k", &json!(1)));
        assert!(follower.awaited.is_empty(), "it costs no look");
        // Its commit may come after that of the next event.
        follower.set(&key, "1");
        follower.expect(event("k", &json!(2)));
        follower.expect(event("k", &json!(1)));
        // The server is asked, of which there is none.
        follower.look_at(&key).await.unwrap_err();
    }

    #[tokio::test]
    async fn after_any_number_of_own_changes_the_next_one_of_others_is_looked_at_at_once() {
        let (mut follower, mut changes) = follower();
        let key = |number: u32| Key::from(format!("k{}", number % 9));
        for number in 0..450 {
            follower.set(&key(number), &number.to_string());
        }
        for number in 0..450 {
            follower.expect(event(key(number).as_str(), &json!(number)));
        }
        assert!(follower.awaited.is_empty());
        assert_eq!(changes.take_waiting(), []);
        follower.expect(event("others", &json!(1)));
        assert!(follower.awaited.contains_key(&Key::from("others")));
        // Also one that sets again what was set here and overtaken since.
        follower.expect(event("k1", &json!(1)));
        assert!(follower.awaited.contains_key(&Key::from("k1")));
    }

    #[tokio::test]
    async fn a_flood_of_others_changes_is_not_followed_one_by_one() {
        let (mut follower, mut changes) = follower();
        for number in 0..5_000 {
            follower.expect(event(&format!("k{number}"), &json!(number)));
        }
        assert_eq!(changes.take_waiting(), [Change::Everything]);
        assert!(follower.flood.is_some());
    }
}
