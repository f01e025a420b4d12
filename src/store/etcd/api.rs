//! Requests to a cluster through its JSON gateway: the member that gets each, its deadline, and whether it is sent again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::api_error::{self, ApiError};
use super::credentials::Credentials;
use super::failure::Failure;
use super::member_error::{Kind, MemberError, unsure};
use super::members::{Member, Members};
use super::probe;
use super::settings::Settings;
use super::wire::Watched;
use crate::store::http::{Http, LISTING_LIMIT, Lines, Method, RequestBuilder, StatusCode, Unanswered};
use crate::store::{Deadline, Error};

/// The first pause before all members are asked again; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

pub(super) type Outcome<T> = Result<T, Failure>;

pub(super) struct Api {
    credentials: Credentials,
    members: Members,
    /// Empty for a cluster without authentication.
    token: Mutex<Option<Arc<str>>>,
    /// Held while a token is fetched, so that many callers fetch one.
    renewing: tokio::sync::Mutex<()>,
    timeout: Duration,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

/// A line of a stream.
#[derive(Deserialize)]
struct Line {
    result: Option<Watched>,
    error: Option<ApiError>,
}

impl Api {
    pub(super) fn new(settings: &Settings, timeout: Duration) -> Result<Self, String> {
        let address = &settings.address;
        let scheme = if address.tls { "https" } else { "http" };
        Ok(Self {
            credentials: Credentials::new(settings, timeout)?,
            members: Members::new(scheme, &address.members),
            token: Mutex::default(),
            renewing: tokio::sync::Mutex::default(),
            timeout,
        })
    }

    /// How long a call that begins now may take with all its requests.
    fn patience(&self) -> Duration {
        Deadline::left(self.timeout) * 9 / 10
    }

    /// The answer of the first member that gives one.
    pub(super) async fn read<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Outcome<T> {
        self.call(Kind::Read, path, &body.to_string()).await
    }

    /// The answer of this member.
    pub(super) async fn read_at<T: DeserializeOwned>(
        &self,
        member: Member,
        path: &str,
        body: &Value,
    ) -> Outcome<T> {
        let body = body.to_string();
        let within = self.patience() / 2;
        let used = self.token.lock().clone();
        let mut answer = self.once(member, Kind::Read, path, &body, within).await;
        let refused = match answer {
            Err(MemberError::BadToken) => true,
            Err(MemberError::Closed(_)) => self.has_login(),
            _ => false,
        };
        if refused {
            self.renew_token(used).await?;
            answer = self.once(member, Kind::Read, path, &body, within).await;
        }
        parse(&answer.map_err(|error| self.failure(error))?)
    }

    /// Sends a change once. If the answer is lost the error says that the change may have been made.
    pub(super) async fn write<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Outcome<T> {
        self.call(Kind::Write, path, &body.to_string()).await
    }

    async fn call<T: DeserializeOwned>(&self, kind: Kind, path: &str, body: &str) -> Outcome<T> {
        if self.has_login() && self.token.lock().is_none() {
            self.renew_token(None).await?;
        }
        let (start, patience) = (Instant::now(), self.patience());
        let (mut pause, mut closed) = (Duration::ZERO, false);
        loop {
            match self.rounds(kind, path, body).await {
                Err((MemberError::Closed(error), used)) if kind == Kind::Write => {
                    // The change may have been made; the next call gets another token.
                    self.drop_token(used.as_ref());
                    return Err(unsure(error, start).into());
                }
                Err((MemberError::Closed(_), used))
                    if self.has_login() && !std::mem::replace(&mut closed, true) =>
                {
                    self.renew_token(used).await?;
                }
                // A token with a short TTL may expire before it is used, on a busy machine.
                Err((MemberError::BadToken, used)) if start.elapsed() < patience => {
                    tokio::time::sleep(pause.min(patience.saturating_sub(start.elapsed()))).await;
                    pause = (pause * 2).max(FIRST_PAUSE);
                    self.renew_token(used).await?;
                }
                answer => {
                    let text = answer.map_err(|(error, _)| self.failure(error))?;
                    return parse(&text);
                }
            }
        }
    }

    /// Asks the members one after the other, again and again while that may help. The error comes with the token that was
    /// used.
    async fn rounds(
        &self,
        kind: Kind,
        path: &str,
        body: &str,
    ) -> Result<Vec<u8>, (MemberError, Option<Arc<str>>)> {
        let (start, patience) = (Instant::now(), self.patience());
        let (mut pause, mut broken) = (FIRST_PAUSE, false);
        loop {
            let (mut last, mut again): (Option<(MemberError, _)>, bool) = (None, false);
            let members = self.members.in_order();
            for (asked, member) in members.iter().enumerate() {
                let left = patience.saturating_sub(start.elapsed());
                if left.is_zero() {
                    break;
                }
                // A read leaves time for those that come after: a member may be there and never answer.
                let share = u32::try_from(members.len() - asked).unwrap_or(1);
                let within = if kind == Kind::Read { left / share } else { left };
                let used = self.token.lock().clone();
                let answer = self.once(*member, kind, path, body, within).await;
                let error = match answer {
                    Ok(text) => return Ok(text),
                    Err(MemberError::Unknown(error)) if kind == Kind::Write => {
                        MemberError::Unknown(unsure(error, start))
                    }
                    Err(error) => error,
                };
                if error.is_the_last(kind) {
                    return Err((error, used));
                }
                again |= match error {
                    MemberError::NotDone(_) => true,
                    // A kept connection may break just when it is used.
                    MemberError::Unknown(_) | MemberError::Closed(_) => !std::mem::replace(&mut broken, true),
                    _ => false,
                };
                // One that says why is heard before those that do not.
                if !matches!(last, Some((MemberError::Closed(_), _)))
                    || matches!(error, MemberError::Certificates(_))
                {
                    last = Some((error, used));
                }
            }
            let over = patience.saturating_sub(start.elapsed()) < pause;
            if let Some(last) = last.filter(|_| over || !again) {
                return Err(last);
            }
            if over {
                return Err((MemberError::Unknown(Error::TimedOut(start.elapsed().as_millis())), None));
            }
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause *= 2;
        }
    }

    /// Sends one request to one member. Where certificates may have been refused, and have been replaced since, it is sent again
    /// with the new ones, if it was not carried out.
    async fn once(
        &self,
        member: Member,
        kind: Kind,
        path: &str,
        body: &str,
        within: Duration,
    ) -> Result<Vec<u8>, MemberError> {
        let start = Instant::now();
        let used = self.credentials.http();
        let answer = self.attempt(&used.http, member, kind, path, body, within).await;
        let Err(error) = &answer else { return answer };
        let replaced = error.is_distrust() && self.credentials.read_certificates(&used).await;
        if !replaced || error.is_the_last(kind) {
            return answer;
        }
        let left = within.saturating_sub(start.elapsed());
        self.attempt(&self.credentials.http().http, member, kind, path, body, left).await
    }

    async fn attempt(
        &self,
        http: &Http,
        member: Member,
        kind: Kind,
        path: &str,
        body: &str,
        within: Duration,
    ) -> Result<Vec<u8>, MemberError> {
        let start = Instant::now();
        let crowded = |_| MemberError::NotDone(Error::Busy("too many requests at once".into()));
        let _permit = tokio::time::timeout(within, self.members.permit(member)).await.map_err(crowded)?;
        let within = within.saturating_sub(start.elapsed());
        let answer = http.ask(self.request(http, member, kind, path, body), LISTING_LIMIT, within).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(Unanswered::TooLong) => return Err(MemberError::Final(Failure::TooBig)),
            Err(Unanswered::NotSent(error)) => {
                self.members.failed(member);
                return Err(MemberError::absent(error));
            }
            Err(Unanswered::Lost(error)) => {
                self.members.failed(member);
                if let Some(who) = probe::of_bytes(self.members.url(member), &error).await {
                    return Err(MemberError::Absent(Error::Other(who)));
                }
                return Err(MemberError::lost(error, self.credentials.with_tls(), self.has_login()));
            }
        };
        if answer.status == StatusCode::OK {
            self.members.answered(member);
            return Ok(answer.body);
        }
        let status = answer.status.as_u16();
        let Some(error) = ApiError::read(status, &answer.body) else {
            self.members.failed(member);
            let who = probe::of_http(http, self.members.url(member), status).await;
            return Err(MemberError::Absent(Error::Other(who)));
        };
        match error.classify() {
            MemberError::Final(Failure::Store(Error::Denied(why))) => {
                Err(MemberError::Final(self.denied(&why).into()))
            }
            error @ (MemberError::NotDone(_) | MemberError::Unknown(_)) => {
                self.members.failed(member);
                Err(match error {
                    MemberError::Unknown(error) if kind == Kind::Read => MemberError::NotDone(error),
                    error => error,
                })
            }
            error => Err(error),
        }
    }

    fn request(&self, http: &Http, member: Member, kind: Kind, path: &str, body: &str) -> RequestBuilder {
        let client = if kind == Kind::Read { http.client() } else { http.fresh() };
        let request = client.request(Method::POST, format!("{}/v3/{path}", self.members.url(member)));
        // With this header a member without a leader fails the request at once, and ends a stream.
        let request =
            request.header("Grpc-Metadata-hasleader", "true").header("Content-Type", "application/json");
        let request = match &*self.token.lock() {
            Some(token) if !token.is_empty() => request.header("Authorization", &**token),
            _ => request,
        };
        request.body(body.to_owned())
    }

    fn has_login(&self) -> bool {
        self.credentials.login().is_some()
    }

    /// Has the next call log in with what the files hold now.
    pub(super) async fn renew(&self) {
        self.credentials.read_all().await;
        *self.token.lock() = None;
    }

    /// Drops the token that was `used`, unless another call has replaced it meanwhile.
    fn drop_token(&self, used: Option<&Arc<str>>) {
        let mut token = self.token.lock();
        if token.as_ref() == used {
            *token = None;
        }
    }

    /// Fetches a token in place of the one that was `used`, unless another call has done so meanwhile.
    async fn renew_token(&self, used: Option<Arc<str>>) -> Outcome<()> {
        let _one_at_a_time = self.renewing.lock().await;
        if self.token.lock().as_ref().is_some_and(|token| Some(token) != used.as_ref()) {
            return Ok(());
        }
        *self.token.lock() = None;
        let token = match self.fetch_token().await {
            Err(Failure::Store(Error::Denied(why))) if why.starts_with(WRONG) => {
                if !self.credentials.read_password().await {
                    return Err(Error::Denied(why).into());
                }
                self.fetch_token().await?
            }
            token => token?,
        };
        *self.token.lock() = Some(token.into());
        Ok(())
    }

    async fn fetch_token(&self) -> Outcome<String> {
        let Some((name, password)) = self.credentials.login() else {
            return Err(self.denied("the cluster wants a login").into());
        };
        let body = json!({"name": name, "password": password}).to_string();
        match self.rounds(Kind::Read, "auth/authenticate", &body).await {
            Ok(text) => Ok(parse::<Token>(&text)?.token),
            // As etcdctl does: a login is ignored by a cluster without authentication.
            Err((MemberError::Final(Failure::Store(Error::Denied(why))), _)) if why.starts_with(NO_AUTH) => {
                Ok(String::new())
            }
            Err((error, _)) => Err(self.failure(error)),
        }
    }

    /// The failure of a call that ended with this error of a member.
    fn failure(&self, error: MemberError) -> Failure {
        match error {
            MemberError::Final(failure) => failure,
            MemberError::NotDone(error)
            | MemberError::Absent(error)
            | MemberError::Unknown(error)
            | MemberError::Closed(error)
            | MemberError::Certificates(error) => error.into(),
            MemberError::BadToken => self.denied("the cluster wants a login").into(),
        }
    }

    /// The error of a refused login, which says where the login came from.
    fn denied(&self, why: &str) -> Error {
        Error::Denied(if why.starts_with(api_error::NAMED) {
            why.to_owned()
        } else if self.has_login() {
            format!("{why}; the login is from ETCDCTL_USER and its password")
        } else {
            format!("{why}; there is no login: set ETCDCTL_USER and ETCDCTL_PASSWORD")
        })
    }

    /// The member that answered last.
    pub(super) fn likely(&self) -> Member {
        self.members.first()
    }

    /// Has other members asked first from now on.
    pub(super) fn avoid(&self, member: Member) {
        self.members.failed(member);
    }

    /// Opens a watch at a member.
    pub(super) async fn watch(&self, member: Member, body: &Value) -> Outcome<Stream> {
        let http = self.credentials.http().http;
        let request = self.request(&http, member, Kind::Write, "watch", &body.to_string());
        let patience = self.patience();
        let late = |_| Error::TimedOut(patience.as_millis());
        let opened = tokio::time::timeout(patience / 2, http.lines(request, LISTING_LIMIT));
        Ok(Stream(opened.await.map_err(late)??))
    }
}

/// The messages of an open watch.
pub(super) struct Stream(Lines);

impl Stream {
    /// The next message. Cancel safe.
    pub(super) async fn next(&mut self) -> Outcome<Watched> {
        let line = self.0.next().await?.ok_or_else(|| Error::Unreachable("the watch ended".into()))?;
        let line: Line = parse(&line)?;
        match (line.result, line.error) {
            (Some(watched), _) => Ok(watched),
            (None, error) => {
                let why = error.as_ref().map_or("no watch", ApiError::message);
                Err(Error::Unreachable(why.to_owned()).into())
            }
        }
    }
}

/// The message of a cluster without authentication.
const NO_AUTH: &str = "authentication is not enabled";
/// The message about a password that is not, or no longer, the user's.
const WRONG: &str = "authentication failed";

fn parse<T: DeserializeOwned>(text: &[u8]) -> Outcome<T> {
    let unknown = |error| Error::Other(format!("the answer is not that of an etcd: {error}"));
    Ok(serde_json::from_slice(text).map_err(unknown)?)
}
