//! The events of a server as a feed of changes.
//!
//! An event says that a variable is about to change: it is sent before the change is committed, and not at all by a
//! server that is set up so. So the feed counts from the first event on, and each one is followed by a look at the
//! variable, until it is as the event said or somebody else has changed it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::settings::Login;
use super::view::View;
use crate::store::http::Socket;
use crate::store::{Change, Error, Key, Result, json as json_text};

/// The first pause before the socket is opened again; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_mins(1);
/// How often the socket is asked whether it lives.
const PING: Duration = Duration::from_secs(10);
/// The first pause before another look at a variable that is not yet as its event said; the next are twice as long.
const LOOK: Duration = Duration::from_millis(20);
/// How many looks are taken: for 1.3 s, after which the change has failed or been replaced.
const LOOKS: u32 = 7;
/// More events than this at once are not looked at one by one; the server drops what it cannot send in time.
const FLOOD: usize = 64;

/// Follows the events of a server until nobody listens any more.
pub(super) struct Follower {
    view: Arc<View>,
    feed: UnboundedSender<Change>,
    /// Variables of which events told, and what they told.
    awaited: HashMap<Key, Awaited>,
    /// The end of a flood: when everything counts as changed once more.
    flood: Option<Instant>,
}

struct Awaited {
    /// `None`: that it is gone.
    value: Option<Value>,
    looks: u32,
    next: Instant,
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
    #[serde(default)]
    value: Value,
}

impl Follower {
    pub(super) fn new(view: Arc<View>, feed: UnboundedSender<Change>) -> Self {
        Self { view, feed, awaited: HashMap::new(), flood: None }
    }

    pub(super) async fn run(mut self) {
        // Until the first event nothing is promised.
        self.tell(Change::Paused);
        let feed = self.feed.clone();
        let mut pause = FIRST_PAUSE;
        loop {
            let mut proven = false;
            let ended = tokio::select! {
                () = feed.closed() => return,
                ended = self.follow(&mut proven) => ended,
            };
            if proven {
                self.tell(Change::Paused);
                pause = FIRST_PAUSE;
            }
            if let Err(error) = ended {
                tracing::info!(
                    "no events from the server: {error}; answers are asked for again when they are old"
                );
            }
            tokio::select! { () = feed.closed() => return, () = tokio::time::sleep(pause) => {} }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Follows one socket to its end; `proven` once it has brought an event.
    async fn follow(&mut self, proven: &mut bool) -> Result<()> {
        let mut socket = open(&self.view).await?;
        let (mut heard, mut ping) = (Instant::now(), Instant::now() + PING);
        loop {
            let due = self.due();
            tokio::select! {
                message = socket.receive() => {
                    heard = Instant::now();
                    let Some(news) = message?.and_then(|text| serde_json::from_str::<Message>(&text).ok()) else {
                        continue;
                    };
                    if !std::mem::replace(proven, true) {
                        self.tell(Change::Everything);
                    }
                    self.expect(news.event);
                }
                () = tokio::time::sleep_until(due.unwrap_or(ping)), if due.is_some() => self.look().await,
                () = tokio::time::sleep_until(ping) => {
                    if heard.elapsed() > PING * 3 {
                        return Err(Error::Unreachable("the event socket is silent".into()));
                    }
                    socket.ping().await?;
                    ping = Instant::now() + PING;
                }
            }
        }
    }

    fn tell(&self, change: Change) {
        // Nobody listens any more: the loop ends.
        _ = self.feed.send(change);
    }

    fn due(&self) -> Option<Instant> {
        self.awaited.values().map(|awaited| awaited.next).chain(self.flood).min()
    }

    /// Takes in what an event says.
    fn expect(&mut self, event: Event) {
        let deleted = match event.what.as_str() {
            "prefect.variable.created" | "prefect.variable.updated" => false,
            "prefect.variable.deleted" => true,
            _ => return,
        };
        let id = event
            .resource
            .get("prefect.resource.id")
            .and_then(|id| id.as_str()?.strip_prefix("prefect.variable."));
        let key = Key::from(event.payload.name);
        // A variable that was renamed is known by its id; its old name is gone.
        let known = id.and_then(|id| self.view.seen.lock().key_of(id)).filter(|known| *known != key);
        let now = Instant::now();
        let mut await_key = |key, value| self.awaited.insert(key, Awaited { value, looks: 0, next: now });
        if let Some(old) = known.filter(|_| !deleted) {
            await_key(old, None);
        }
        await_key(key, Some(event.payload.value).filter(|_| !deleted));
        if self.awaited.len() > FLOOD {
            self.awaited.clear();
            // What is asked now may be from before the commit.
            self.flood = Some(now + LOOK * 2_u32.pow(LOOKS));
            self.tell(Change::Everything);
        }
    }

    /// Looks at the variables whose time has come.
    async fn look(&mut self) {
        let now = Instant::now();
        if self.flood.is_some_and(|end| end <= now) {
            self.flood = None;
            self.tell(Change::Everything);
        }
        let due: Vec<Key> = self
            .awaited
            .iter()
            .filter(|(_, awaited)| awaited.next <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            let arrived = self.look_at(&key).await;
            let Some(awaited) = self.awaited.get_mut(&key) else { continue };
            awaited.looks += 1;
            awaited.next = Instant::now() + LOOK * 2_u32.pow(awaited.looks);
            if arrived || awaited.looks >= LOOKS {
                self.awaited.remove(&key);
            }
        }
    }

    /// Tells what is there now; true if it is what the event said.
    async fn look_at(&self, key: &Key) -> bool {
        let wanted = self.awaited.get(key).and_then(|awaited| awaited.value.clone());
        let own = self.view.seen.lock().current(key);
        let as_told = |text: &[u8]| wanted.as_ref().is_some_and(|value| json_text::stands_for(text, value));
        if let Some(own) = own.filter(|own| as_told(&own.text)) {
            self.tell(Change::Set(key.clone(), own.meta));
            return true;
        }
        match self.view.fetch(key).await {
            Ok(Some(entry)) => {
                let arrived = as_told(&entry.text);
                self.tell(Change::Set(key.clone(), entry.meta));
                arrived
            }
            Ok(None) => {
                let revision = self.view.seen.lock().absent();
                self.tell(Change::Deleted(key.clone(), revision));
                wanted.is_none()
            }
            Err(error) => {
                tracing::debug!("{key} is said to have changed, and cannot be read: {error}");
                false
            }
        }
    }
}

/// A socket on which the server sends the events of variables from now on.
async fn open(view: &View) -> Result<Socket> {
    let mut socket = view.api.events().await?;
    let token = match view.api.login() {
        Some(Login::Key(token) | Login::Basic(token)) => Value::from(token.as_str()),
        None => Value::Null,
    };
    socket.send(json!({"type": "auth", "token": token}).to_string()).await?;
    let answer = socket.receive().await?.unwrap_or_default();
    if !answer.contains("auth_success") {
        return Err(Error::Denied("the event socket refuses the login".into()));
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
