//! The Variables API of Prefect 3, request by request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::settings::{Login, Settings};
use super::{LIMITS, SIZE_LIMIT};
use crate::store::http::{
    Answer, ENTRY_LIMIT, Http, LISTING_LIMIT, Method, RequestBuilder, Socket, StatusCode,
};
use crate::store::json::Unread;
use crate::store::renewed::{Read, Renewed};
use crate::store::synthetic_revisions::Row;
use crate::store::trusted_http::TrustedHttp;
use crate::store::{Error, Key, Result};

/// Rows in a page: the server's own limit, unless it is configured lower.
const PAGE: usize = 200;
/// Rows that pages overlap, so that rows which move while pages are read are not missed.
const OVERLAP: usize = 10;
/// Added to the message where no API of Prefect 3 answers: other web servers do not know its paths (404) or methods (405, 501).
const ANOTHER: &str = "; what answers there is no API of Prefect 3, whose address ends in /api, as in prefect:http://127.0.0.1:4200/api";

pub(super) struct Api {
    http: TrustedHttp,
    settings: Settings,
    pub(super) login: Renewed<Option<Login>>,
    /// The client id for the server's CSRF protection.
    client: String,
    csrf: Mutex<Option<String>>,
    /// Held while a token is fetched: each new token invalidates the one before.
    renewing: tokio::sync::Mutex<()>,
}

/// A variable as the API shows it.
#[derive(Deserialize)]
pub(super) struct Variable {
    pub(super) id: String,
    name: String,
    value: Box<RawValue>,
    #[serde(default)]
    pub(super) tags: Vec<String>,
    created: Option<String>,
    updated: Option<String>,
}

impl Variable {
    /// The key and its row; `None` for a name that breaks the server's own rule, which no request can have.
    pub(super) fn row(self) -> Option<(Key, Row)> {
        let key = Key::from(self.name);
        if LIMITS.check_key(&key).is_err() {
            tracing::warn!("the variable {key}, whose name no request can have, is left out");
            return None;
        }
        let time = |text: Option<String>| text?.parse::<Timestamp>().ok().map(SystemTime::from);
        let (created, updated) = (time(self.created), time(self.updated));
        Some((key, Row { id: self.id.into(), value: Unread::of(&self.value), created, updated }))
    }
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

/// The error of a listing, with what may be behind it: another client than kvfs may have set a value that the server cannot show.
fn unlisted(error: Error) -> Error {
    match error {
        Error::Other(why) if why.starts_with("HTTP 500") => Error::Other(format!(
            "{why}; a server on PostgreSQL answers so to all listings while a variable has a number over 64 bits, such as 1e22: \
             set that one anew (PATCH /variables/name/NAME)"
        )),
        error => error,
    }
}

impl Api {
    pub(super) fn new(settings: &Settings, timeout: Duration) -> std::result::Result<Self, String> {
        let read = settings.login.clone().zip(settings.login_source.clone()).map(|(login, source)| {
            Arc::new(move || login.replaced(&source).map(Some)) as Arc<Read<Option<Login>>>
        });
        Ok(Self {
            http: TrustedHttp::new({
                let (url, certificates) = (settings.url.clone(), settings.certificates.clone());
                move || Http::new(&url, certificates.as_deref(), timeout)
            })?,
            settings: settings.clone(),
            login: Renewed::new(settings.login.clone(), read),
            client: Uuid::new_v4().to_string(),
            csrf: Mutex::default(),
            renewing: tokio::sync::Mutex::default(),
        })
    }

    fn request(&self, method: Method, path: &str, body: Option<&str>) -> RequestBuilder {
        self.equip(self.http.get().client().request(method, format!("{}{path}", self.settings.url)), body)
    }

    /// Adds login, CSRF token and body.
    fn equip(&self, request: RequestBuilder, body: Option<&str>) -> RequestBuilder {
        let mut request = match self.login.get() {
            Some(Login::Key(key)) => request.bearer_auth(key),
            Some(Login::Basic(text)) => match text.split_once(':') {
                Some((user, password)) => request.basic_auth(user, Some(password)),
                None => request.basic_auth(text, None::<&str>),
            },
            None => request,
        };
        if let Some(token) = &*self.csrf.lock() {
            request = request.header("prefect-csrf-token", token).header("prefect-csrf-client", &self.client);
        }
        match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_owned()),
            None => request,
        }
    }

    async fn send(&self, method: Method, path: &str, body: Option<&str>, limit: usize) -> Result<Answer> {
        let request = || self.request(method.clone(), path, body);
        self.with_login(|| async { self.http.get().send(request(), limit).await }).await
    }

    /// Calls `send`, again with a new login if the old one was refused and has been replaced, or with the authorities read again if
    /// the server is not trusted.
    async fn with_login<F: Future<Output = Result<Answer>>>(&self, send: impl Fn() -> F) -> Result<Answer> {
        let (used, began) = (self.login.get(), Instant::now());
        let answer = match self.with_token(&send).await {
            Err(Error::Denied(_)) if self.login.renew(&used).await => self.with_token(&send).await,
            Err(Error::Untrusted(_)) if self.http.renew(began).await => self.with_token(&send).await,
            answer => answer,
        };
        answer.map_err(|error| self.explain(error))
    }

    /// Calls `send`, again with a new CSRF token if the server asks for one.
    async fn with_token<F: Future<Output = Result<Answer>>>(&self, send: impl Fn() -> F) -> Result<Answer> {
        let used = self.csrf.lock().clone();
        match send().await {
            Err(Error::Denied(why)) if why.contains("CSRF") => {
                self.renew_token(used).await?;
                send().await
            }
            answer => answer,
        }
    }

    /// Fetches a token in place of the one that was `used`, unless another request has done so meanwhile.
    async fn renew_token(&self, used: Option<String>) -> Result<()> {
        let _one_at_a_time = self.renewing.lock().await;
        if *self.csrf.lock() != used {
            return Ok(());
        }
        let path = format!("/csrf-token?client={}", self.client);
        let token: Token =
            parse(&self.http.get().send(self.request(Method::GET, &path, None), ENTRY_LIMIT).await?)?;
        *self.csrf.lock() = Some(token.token);
        Ok(())
    }

    /// Adds the source of a refused login to the message.
    fn explain(&self, error: Error) -> Error {
        match error {
            Error::Denied(why) if self.settings.login.is_none() => Error::Denied(format!(
                "{why}; there is no login: set PREFECT_API_KEY (Cloud) or PREFECT_API_AUTH_STRING, or `prefect cloud login`"
            )),
            Error::Denied(why) => {
                Error::Denied(format!("{why}; the login is from {}", self.settings.login_from))
            }
            error => error,
        }
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<Variable>> {
        let answer = self.send(Method::GET, &path(key), None, ENTRY_LIMIT).await?;
        match answer.status {
            StatusCode::OK => Ok(Some(parse(&answer)?)),
            StatusCode::NOT_FOUND if absent(&answer) => Ok(None),
            _ => Err(refused(&answer)),
        }
    }

    /// Opens the socket of events, without login or filter as yet.
    pub(super) async fn events(&self) -> Result<Socket> {
        self.http.get().socket(&format!("{}/events/out", self.settings.url), "prefect").await
    }

    /// All variables, each as it was at some moment during the call.
    pub(super) async fn list(&self) -> Result<Vec<(Key, Row)>> {
        let mut found: HashMap<String, Variable> = HashMap::new();
        let (mut offset, mut full) = (0, PAGE);
        loop {
            let (page, size) = self.page(offset).await?;
            full = full.min(size);
            let count = page.len();
            // A page that begins with an unknown row may have a gap before it: deleted rows have moved the others forward.
            if offset > 0 && page.first().is_some_and(|first| !found.contains_key(&first.id)) {
                offset = offset.saturating_sub((full / 2).max(1));
                continue;
            }
            let before = found.len();
            found.extend(page.into_iter().map(|variable| (variable.id.clone(), variable)));
            if count < full || found.len() == before {
                return Ok(found.into_values().filter_map(Variable::row).collect());
            }
            offset += count - OVERLAP.min(count / 2);
        }
    }

    /// The variables from `offset` on, in the order of their names, and how many a full page has.
    async fn page(&self, offset: usize) -> Result<(Vec<Variable>, usize)> {
        let mut body = json!({"offset": offset, "limit": PAGE, "sort": "NAME_ASC"});
        let answer = self.filter(&body, LISTING_LIMIT).await.map_err(unlisted)?;
        if answer.status == StatusCode::OK {
            return Ok((parse(&answer)?, PAGE));
        }
        if answer.status != StatusCode::UNPROCESSABLE_ENTITY {
            return Err(refused(&answer));
        }
        // The server has a lower limit, and returns as many rows as that without a limit in the request.
        body["limit"].take();
        let answer = self.filter(&body, LISTING_LIMIT).await?;
        let page: Vec<Variable> = parse(&answer)?;
        let size = page.len().max(1);
        Ok((page, size))
    }

    async fn filter(&self, body: &Value, limit: usize) -> Result<Answer> {
        self.send(Method::POST, "/variables/filter", Some(&body.to_string()), limit).await
    }

    /// How many variables there are.
    pub(super) async fn count(&self) -> Result<usize> {
        let answer = self.send(Method::POST, "/variables/count", Some("{}"), ENTRY_LIMIT).await?;
        if answer.status == StatusCode::OK { parse(&answer) } else { Err(refused(&answer)) }
    }

    /// The variable that was changed last.
    pub(super) async fn newest(&self) -> Result<Option<Variable>> {
        let answer = self.filter(&json!({"limit": 1, "sort": "UPDATED_DESC"}), ENTRY_LIMIT).await?;
        if answer.status != StatusCode::OK {
            return Err(refused(&answer));
        }
        Ok(parse::<Vec<Variable>>(&answer)?.pop())
    }

    /// Changes a variable; false if there is none, [`Error::Exists`] if its new name is another one's.
    pub(super) async fn patch(&self, key: &Key, change: &str) -> Result<bool> {
        let answer = self.send(Method::PATCH, &path(key), Some(change), ENTRY_LIMIT).await?;
        match answer.status {
            StatusCode::NOT_FOUND if absent(&answer) => Ok(false),
            StatusCode::CONFLICT => Err(Error::Exists),
            status if status.is_success() => Ok(true),
            _ => Err(refused(&answer)),
        }
    }

    /// Creates a variable; [`Error::Exists`] if there is one of that name. Never sent twice: the first request may have created
    /// it.
    pub(super) async fn create(&self, variable: &str) -> Result<Variable> {
        let url = format!("{}/variables/", self.settings.url);
        let request = || self.equip(self.http.get().fresh().post(&url), Some(variable));
        let send = || async { self.http.get().send_once(request(), ENTRY_LIMIT).await };
        let answer = self.with_login(send).await?;
        match answer.status {
            StatusCode::CONFLICT => Err(Error::Exists),
            status if status.is_success() => parse(&answer),
            _ => Err(refused(&answer)),
        }
    }

    /// Deletes a variable; false if there is none.
    pub(super) async fn delete(&self, key: &Key) -> Result<bool> {
        let answer = self.send(Method::DELETE, &path(key), None, ENTRY_LIMIT).await?;
        match answer.status {
            // The first of two attempts may have deleted it.
            StatusCode::NOT_FOUND if absent(&answer) => Ok(answer.repeated),
            status if status.is_success() => Ok(true),
            _ => Err(refused(&answer)),
        }
    }
}

/// The path of a variable: keys have only characters that need no escape in a URL.
fn path(key: &Key) -> String {
    format!("/variables/name/{}", key.as_str())
}

fn parse<T: for<'a> Deserialize<'a>>(answer: &Answer) -> Result<T> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        Error::Other(format!("the answer (HTTP {}) is not what Prefect 3 gives: {error}", answer.status))
    })
}

/// Whether a 404 is about the variable, not about a wrong address.
fn absent(answer: &Answer) -> bool {
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    body.is_some_and(|body| body["detail"].as_str().is_some_and(|detail| detail.starts_with("Variable")))
}

/// The error of a refusal. The value was checked before it was sent, so these are rules of this server alone.
fn refused(answer: &Answer) -> Error {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let detail = &body["exception_detail"][0];
    let why = [&detail["msg"], &body["detail"], &body["exception_message"]];
    let why: String =
        why.iter().find_map(|text| text.as_str()).unwrap_or("no reason given").chars().take(200).collect();
    let about = detail["loc"].to_string();
    match answer.status {
        StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge { size: SIZE_LIMIT + 1, limit: SIZE_LIMIT },
        StatusCode::UNPROCESSABLE_ENTITY if why.contains("less than 5000") => {
            Error::TooLarge { size: SIZE_LIMIT + 1, limit: SIZE_LIMIT }
        }
        StatusCode::UNPROCESSABLE_ENTITY if about.contains("\"value\"") || about.contains("\"name\"") => {
            Error::Invalid(format!("Prefect refuses it: {why}"))
        }
        status @ (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) => {
            Error::Other(format!("HTTP {status}{ANOTHER}"))
        }
        status => Error::Other(format!("HTTP {status}: {why}")),
    }
}
