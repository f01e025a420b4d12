//! Requests to a cluster through its JSON gateway: which member is asked, how long, and what may be asked again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::members::{Member, Members};
use super::refusal::{Failure, Refusal, Verdict};
use super::settings::Settings;
use super::wire::Watched;
use crate::store::Error;
use crate::store::http::{Http, LISTING_LIMIT, Lines, Method, RequestBuilder, StatusCode, Tls, Unanswered};

/// The first pause before all members are asked again; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

pub(super) type Outcome<T> = Result<T, Failure>;

/// What may be done with a request of which the answer is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It may be asked again.
    Read,
    /// It may have been carried out: only the store knows.
    Write,
}

pub(super) struct Api {
    http: Http,
    members: Members,
    login: Option<(String, String)>,
    /// Empty where the cluster has no use for a login.
    token: Mutex<Option<Arc<str>>>,
    /// Held while a token is fetched, so that many callers fetch one.
    renewing: tokio::sync::Mutex<()>,
    /// How long a call may take with all its requests.
    patience: Duration,
}

/// Why one member did not answer.
enum Trouble {
    Final(Failure),
    /// The next member may; this one too, in a moment.
    NotDone(Error),
    /// Nobody is there.
    Absent(Error),
    Unknown(Error),
    Login,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

/// A line of a stream.
#[derive(Deserialize)]
struct Line {
    result: Option<Watched>,
    error: Option<Refusal>,
}

impl Api {
    pub(super) fn new(settings: &Settings, timeout: Duration) -> Result<Self, String> {
        let address = &settings.address;
        let count = u32::try_from(address.members.len()).unwrap_or(u32::MAX);
        let tls = Tls {
            on: address.tls,
            certificates: settings.authority.as_deref().filter(|_| address.tls),
            only: true,
            identity: settings.identity.as_ref().filter(|_| address.tls).map(|(one, key)| (&**one, &**key)),
        };
        let scheme = if address.tls { "https" } else { "http" };
        Ok(Self {
            http: Http::with(&tls, timeout * 2 / (count.saturating_add(2)), timeout)?,
            members: Members::new(scheme, &address.members),
            login: settings.login.clone(),
            token: Mutex::default(),
            renewing: tokio::sync::Mutex::default(),
            patience: timeout * 9 / 10,
        })
    }

    /// The answer to a question, of whichever member gives it first.
    pub(super) async fn read<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Outcome<T> {
        self.call(Kind::Read, path, &body.to_string()).await
    }

    /// The answer to a question, of this member.
    pub(super) async fn read_at<T: DeserializeOwned>(
        &self,
        member: Member,
        path: &str,
        body: &Value,
    ) -> Outcome<T> {
        let body = body.to_string();
        let within = self.patience / 2;
        let mut answer = self.once(member, Kind::Read, path, &body, within).await;
        if let Err(Trouble::Login) = answer {
            let old = self.token.lock().clone();
            self.renew_token(old).await?;
            answer = self.once(member, Kind::Read, path, &body, within).await;
        }
        parse(&answer.map_err(|trouble| self.told(trouble))?)
    }

    /// Has a change carried out, once at most. If that is not known, the error says that it may have been.
    pub(super) async fn write<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Outcome<T> {
        self.call(Kind::Write, path, &body.to_string()).await
    }

    async fn call<T: DeserializeOwned>(&self, kind: Kind, path: &str, body: &str) -> Outcome<T> {
        if self.login.is_some() && self.token.lock().is_none() {
            self.renew_token(None).await?;
        }
        let (start, mut pause) = (Instant::now(), Duration::ZERO);
        loop {
            match self.rounds(kind, path, body).await {
                // Also a new token may be over by the time it is used: if it is good for a second, and the machine is busy.
                Err((Trouble::Login, used)) if start.elapsed() < self.patience => {
                    tokio::time::sleep(pause.min(self.patience.saturating_sub(start.elapsed()))).await;
                    pause = (pause * 2).max(FIRST_PAUSE);
                    self.renew_token(used).await?;
                }
                answer => {
                    let text = answer.map_err(|(trouble, _)| self.told(trouble))?;
                    return parse(&text);
                }
            }
        }
    }

    /// Asks the members one after the other, again and again while that may help. With the trouble comes the token that was
    /// used.
    async fn rounds(
        &self,
        kind: Kind,
        path: &str,
        body: &str,
    ) -> Result<Vec<u8>, (Trouble, Option<Arc<str>>)> {
        let (start, mut pause, mut broken) = (Instant::now(), FIRST_PAUSE, false);
        loop {
            let (mut last, mut again) = (None, false);
            let members = self.members.in_order();
            for (asked, member) in members.iter().enumerate() {
                let left = self.patience.saturating_sub(start.elapsed());
                if left.is_zero() {
                    break;
                }
                // A read leaves time for those that come after: a member may be there and never answer.
                let share = u32::try_from(members.len() - asked).unwrap_or(1);
                let within = if kind == Kind::Read { left / share } else { left };
                let used = self.token.lock().clone();
                match self.once(*member, kind, path, body, within).await {
                    Ok(text) => return Ok(text),
                    Err(trouble @ (Trouble::Final(_) | Trouble::Login)) => return Err((trouble, used)),
                    Err(Trouble::Unknown(error)) if kind == Kind::Write => {
                        return Err((Trouble::Unknown(unsure(error, start)), used));
                    }
                    Err(trouble) => {
                        again |= match trouble {
                            Trouble::NotDone(_) => true,
                            // A kept connection may break just when it is used.
                            Trouble::Unknown(_) => !std::mem::replace(&mut broken, true),
                            _ => false,
                        };
                        last = Some(trouble);
                    }
                }
            }
            let over = self.patience.saturating_sub(start.elapsed()) < pause;
            if let Some(trouble) = last.filter(|_| over || !again) {
                return Err((trouble, None));
            }
            if over {
                return Err((Trouble::Unknown(Error::TimedOut(start.elapsed().as_millis())), None));
            }
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause *= 2;
        }
    }

    /// What one member answers to one request.
    async fn once(
        &self,
        member: Member,
        kind: Kind,
        path: &str,
        body: &str,
        within: Duration,
    ) -> Result<Vec<u8>, Trouble> {
        let start = Instant::now();
        let crowded = |_| Trouble::NotDone(Error::Busy("too many requests at once".into()));
        let _lane = tokio::time::timeout(within, self.members.lane(member)).await.map_err(crowded)?;
        let within = within.saturating_sub(start.elapsed());
        let answer = self.http.ask(self.request(member, kind, path, body), LISTING_LIMIT, within).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(Unanswered::TooLong) => return Err(Trouble::Final(Failure::TooBig)),
            Err(Unanswered::NotSent(error)) => {
                self.members.failed(member);
                return Err(Trouble::Absent(explained(error)));
            }
            Err(Unanswered::Lost(error)) => {
                self.members.failed(member);
                return Err(match explained(error) {
                    // Of the handshake: nothing was asked.
                    error @ Error::Denied(_) => Trouble::Final(error.into()),
                    error => Trouble::Unknown(error),
                });
            }
        };
        if answer.status == StatusCode::OK {
            self.members.answered(member);
            return Ok(answer.body);
        }
        match Refusal::read(answer.status.as_u16(), &answer.body).verdict() {
            Verdict::Final(Failure::Store(Error::Denied(why))) => {
                Err(Trouble::Final(self.denied(&why).into()))
            }
            Verdict::Final(failure) => Err(Trouble::Final(failure)),
            Verdict::Login => Err(Trouble::Login),
            Verdict::NotDone(error) => {
                self.members.failed(member);
                Err(Trouble::NotDone(error))
            }
            Verdict::Unknown(error) => {
                self.members.failed(member);
                Err(if kind == Kind::Read { Trouble::NotDone(error) } else { Trouble::Unknown(error) })
            }
        }
    }

    fn request(&self, member: Member, kind: Kind, path: &str, body: &str) -> RequestBuilder {
        let client = if kind == Kind::Read { self.http.client() } else { self.http.fresh() };
        let request = client.request(Method::POST, format!("{}/v3/{path}", self.members.url(member)));
        // A member that has no leader says so then, at once and while it streams.
        let request =
            request.header("Grpc-Metadata-hasleader", "true").header("Content-Type", "application/json");
        let request = match &*self.token.lock() {
            Some(token) if !token.is_empty() => request.header("Authorization", &**token),
            _ => request,
        };
        request.body(body.to_owned())
    }

    /// Fetches a token in place of the one that was `used`, unless another call has done so meanwhile.
    async fn renew_token(&self, used: Option<Arc<str>>) -> Outcome<()> {
        let Some((name, password)) = &self.login else {
            return Err(self.denied("the cluster wants a login").into());
        };
        let _one_at_a_time = self.renewing.lock().await;
        if self.token.lock().as_ref().is_some_and(|token| Some(token) != used.as_ref()) {
            return Ok(());
        }
        *self.token.lock() = None;
        let body = json!({"name": name, "password": password}).to_string();
        let token = match self.rounds(Kind::Read, "auth/authenticate", &body).await {
            Ok(text) => parse::<Token>(&text)?.token,
            // As etcdctl has it: a login that is not asked for does no harm.
            Err((Trouble::Final(Failure::Store(Error::Denied(why))), _)) if why.starts_with(NO_AUTH) => {
                String::new()
            }
            Err((trouble, _)) => return Err(self.told(trouble)),
        };
        *self.token.lock() = Some(token.into());
        Ok(())
    }

    fn told(&self, trouble: Trouble) -> Failure {
        match trouble {
            Trouble::Final(failure) => failure,
            Trouble::NotDone(error) | Trouble::Absent(error) | Trouble::Unknown(error) => error.into(),
            Trouble::Login => self.denied("the cluster wants a login").into(),
        }
    }

    /// Says where a login that was refused came from.
    fn denied(&self, why: &str) -> Error {
        Error::Denied(match self.login {
            Some(_) => format!("{why}; the login is from ETCDCTL_USER and its password"),
            None => format!("{why}; there is no login: set ETCDCTL_USER and ETCDCTL_PASSWORD"),
        })
    }

    /// The member that answered last.
    pub(super) fn likely(&self) -> Member {
        self.members.first()
    }

    /// Others are asked first from now on.
    pub(super) fn avoid(&self, member: Member) {
        self.members.failed(member);
    }

    /// Opens a watch at a member.
    pub(super) async fn watch(&self, member: Member, body: &Value) -> Outcome<Stream> {
        let request = self.request(member, Kind::Write, "watch", &body.to_string());
        let late = |_| Error::TimedOut(self.patience.as_millis());
        let opened = tokio::time::timeout(self.patience / 2, self.http.lines(request, LISTING_LIMIT));
        Ok(Stream(opened.await.map_err(late)??))
    }
}

/// What a member tells as it happens.
pub(super) struct Stream(Lines);

impl Stream {
    /// The next message. Nothing is lost if it is not waited for to the end.
    pub(super) async fn next(&mut self) -> Outcome<Watched> {
        let line = self.0.next().await?.ok_or_else(|| Error::Unreachable("the watch ended".into()))?;
        let line: Line = parse(&line)?;
        match (line.result, line.error) {
            (Some(watched), _) => Ok(watched),
            (None, error) => {
                let why = error.as_ref().map_or("no watch", Refusal::message);
                Err(Error::Unreachable(why.to_owned()).into())
            }
        }
    }
}

/// What a cluster without logins says.
const NO_AUTH: &str = "authentication is not enabled";

/// A change of which the answer is lost. Not [`Error::Unreachable`], which says that nothing was changed.
fn unsure(error: Error, start: Instant) -> Error {
    match error {
        Error::Unreachable(why) if why.contains("timed out") || why.contains("deadline") => {
            Error::TimedOut(start.elapsed().as_millis())
        }
        Error::TimedOut(_) => error,
        error => Error::Other(format!("{error}; whether the change was made, only the cluster knows")),
    }
}

/// In the words of etcd.
fn explained(error: Error) -> Error {
    match error {
        // As a member with TLS does when it is spoken to without.
        Error::Other(why) if why.contains("closed before message completed") => {
            Error::Other(format!("{why}; if the cluster speaks TLS, write etcds: in place of etcd:"))
        }
        Error::Untrusted(why) if why.contains("does not speak TLS") => Error::Untrusted(
            "it does not speak TLS; for a cluster without, write etcd: in place of etcds:".into(),
        ),
        Error::Unreachable(why) if why.contains("handshake eof") => {
            Error::Unreachable(format!("{why}; if the cluster has no TLS, write etcd: in place of etcds:"))
        }
        Error::Untrusted(why) => Error::Untrusted(why.replace("SSL_CERT_FILE", "ETCDCTL_CACERT")),
        Error::Other(why) | Error::Unreachable(why) if why.contains("received fatal alert") => {
            Error::Denied(format!(
                "the cluster wants a client certificate that it knows: set ETCDCTL_CERT and ETCDCTL_KEY ({why})"
            ))
        }
        error => error,
    }
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Outcome<T> {
    let unknown = |error| Error::Other(format!("the answer is not that of an etcd: {error}"));
    Ok(serde_json::from_slice(text).map_err(unknown)?)
}
