//! The HTTP client that stores share: retries, TLS, limits of answers, and the errors that they have in common.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use reqwest::header::RETRY_AFTER;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Identity, Response};
pub(super) use reqwest::{Method, RequestBuilder, StatusCode};
use reqwest_websocket::{Message, Upgrade, WebSocket};

use super::distrust::{WITHOUT_TLS, distrust, is_closed};
use super::{Deadline, Error, Result};

/// Largest answer about one key that is read, in bytes.
pub(super) const ENTRY_LIMIT: usize = 2 << 20;
/// Largest answer with all keys and values that is read, in bytes.
pub(super) const LISTING_LIMIT: usize = 64 << 20;
/// How long an answer without end may take.
const ENDLESS: Duration = Duration::from_hours(24 * 365);
/// Longest first pause before a request is repeated; each next one may be twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// A client that follows no redirect, because a token must not go to another host, and that uses no proxy or netrc
/// of the environment.
#[derive(Clone)]
pub(super) struct Http {
    client: Client,
    /// Uses a connection for one request: the server may close an idle one at any moment.
    fresh: Client,
    tls: bool,
    timeout: Duration,
}

/// An answer that was read to its end.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    /// Whether an earlier attempt may have been carried out.
    pub(super) repeated: bool,
}

/// How a client talks to servers with TLS, or without.
#[derive(Default)]
pub(super) struct Tls<'a> {
    /// Whether TLS is used.
    pub(super) on: bool,
    /// A file of certificates to trust, in PEM.
    pub(super) certificates: Option<&'a Path>,
    /// Trust these alone, not those that the machine trusts.
    pub(super) only: bool,
    /// Files of the certificate, and of its key, that prove who the client is, in PEM.
    pub(super) identity: Option<(&'a Path, &'a Path)>,
}

impl Http {
    /// A client for the server at `url`, whose requests, repeated ones included, end within `timeout`. Trusts the
    /// `certificates` in PEM too, beside those that the machine trusts.
    pub(super) fn new(
        url: &str,
        certificates: Option<&Path>,
        timeout: Duration,
    ) -> std::result::Result<Self, String> {
        let on = url.starts_with("https:");
        Self::with(&Tls { on, certificates, ..Tls::default() }, timeout * 2 / 5, timeout)
    }

    /// As [`Http::new`], with a timeout of its own for connecting.
    pub(super) fn with(
        tls: &Tls<'_>,
        connecting: Duration,
        timeout: Duration,
    ) -> std::result::Result<Self, String> {
        let trusted = tls.certificates.map(trusted).transpose()?;
        let identity = tls.identity.map(|(certificate, key)| identity(certificate, key)).transpose()?;
        let client = |kept: usize| {
            let mut builder = Client::builder();
            builder = match &trusted {
                // Without TLS the machine needs no certificate authorities.
                _ if !tls.on => builder.tls_certs_only([]),
                Some(trusted) if tls.only => builder.tls_certs_only(trusted.clone()),
                Some(trusted) => builder.tls_certs_merge(trusted.clone()),
                None => builder,
            };
            if let Some(identity) = &identity {
                builder = builder.identity(identity.clone());
            }
            let client = builder
                .redirect(Policy::none())
                .no_proxy()
                .timeout(timeout)
                .connect_timeout(connecting)
                .pool_max_idle_per_host(kept)
                .user_agent(concat!("kvfs/", env!("CARGO_PKG_VERSION")))
                .build();
            client.map_err(|error| unusable(&error))
        };
        Ok(Self { client: client(8)?, fresh: client(0)?, tls: tls.on, timeout })
    }

    /// Makes requests for [`Http::send`].
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Makes requests for [`Http::send_once`].
    pub(super) fn fresh(&self) -> &Client {
        &self.fresh
    }

    /// Sends an idempotent `request`, with retries. Answers with the status 429 or 503 come back as [`Error::Busy`], refusals of
    /// the credentials as [`Error::Denied`], answers of more than `limit` bytes as [`Error::Other`]: each a refusal, unless one of
    /// the attempts may have been carried out.
    pub(super) async fn send(&self, request: RequestBuilder, limit: usize) -> Result<Answer> {
        self.attempt(request, limit, false).await
    }

    /// As [`Http::send`], for a request that is not idempotent: it is retried only after the server has refused it.
    pub(super) async fn send_once(&self, request: RequestBuilder, limit: usize) -> Result<Answer> {
        self.attempt(request, limit, true).await
    }

    /// Sends `request` once, with the timeout `within`, and returns the answer whatever its status is.
    pub(super) async fn ask(
        &self,
        request: RequestBuilder,
        limit: usize,
        within: Duration,
    ) -> std::result::Result<Answer, Unanswered> {
        let start = Instant::now();
        let unanswered = |error: reqwest::Error| {
            let timed_out = error.is_timeout();
            match self.failed(error).error {
                error @ (Error::Unreachable(_) | Error::Untrusted(_)) => Unanswered::NotSent(error),
                _ if timed_out => Unanswered::Lost(Error::TimedOut(start.elapsed().as_millis())),
                error => Unanswered::Lost(error),
            }
        };
        let mut response = request.timeout(within).send().await.map_err(unanswered)?;
        let (status, mut body) = (response.status(), Vec::new());
        while let Some(piece) = response.chunk().await.map_err(unanswered)? {
            if body.len() + piece.len() > limit {
                return Err(Unanswered::TooLong);
            }
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status, body, repeated: false })
    }

    /// Sends `request`, whose answer is an endless stream of lines, of `limit` bytes at most.
    pub(super) async fn lines(&self, request: RequestBuilder, limit: usize) -> Result<Lines> {
        let response = request.timeout(ENDLESS).send().await.map_err(|error| self.failed(error).error)?;
        Ok(Lines { response, read: Vec::new(), searched: 0, limit })
    }

    /// Opens a WebSocket that speaks `protocol`.
    pub(super) async fn socket(&self, url: &str, protocol: &str) -> Result<Socket> {
        let opened = self.fresh.get(url).upgrade().protocols([protocol]).send().await;
        let socket = opened.map_err(broken)?.into_websocket().await.map_err(broken)?;
        Ok(Socket { socket, timeout: self.timeout })
    }

    async fn attempt(&self, request: RequestBuilder, limit: usize, mut broken: bool) -> Result<Answer> {
        let (start, patience) = (Instant::now(), Deadline::patience(self.timeout));
        let mut pause = FIRST_PAUSE;
        let mut repeated = false;
        let last = |error: Error, unsure: bool| if unsure { error.unsure() } else { error };
        loop {
            let copy = request.try_clone().ok_or_else(|| Error::Other("the request is a stream".into()))?;
            let failed = match self.once(copy, limit).await {
                Ok(answer) => return Ok(Answer { repeated, ..answer }),
                Err(failed) => failed,
            };
            let wait = match failed.retry {
                Retry::After(wanted) => wanted.max(pause.mul_f64(0.5 + fastrand::f64() / 2.0)),
                Retry::Once if !broken => Duration::ZERO,
                Retry::Once | Retry::Never => return Err(last(failed.error, repeated)),
            };
            if start.elapsed().saturating_add(wait) > patience {
                return Err(last(failed.error, repeated));
            }
            broken |= matches!(failed.retry, Retry::Once);
            repeated |= failed.error.may_have_changed();
            pause *= 2;
            tokio::time::sleep(wait).await;
        }
    }

    /// The answer to one request.
    async fn once(&self, request: RequestBuilder, limit: usize) -> std::result::Result<Answer, SendError> {
        let response = request.send().await.map_err(|error| self.failed(error))?;
        let status = response.status();
        let why = format!("HTTP {status}");
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let said = self.read(response, limit).await.map(|body| excerpt(&body)).unwrap_or_default();
                Err(SendError::last(Error::Denied(format!("{why}{said}"))))
            }
            StatusCode::TOO_MANY_REQUESTS => Err(SendError::busy(Error::Busy(why), &response)),
            // A proxy may answer so although the server behind it has carried the request out.
            StatusCode::SERVICE_UNAVAILABLE => Err(SendError::busy(Error::Busy(why).unsure(), &response)),
            _ if status.is_redirection() => {
                let why = format!("{why}: the address leads elsewhere; use the one it leads to");
                Err(SendError::last(Error::Other(why)))
            }
            _ if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED => {
                Err(SendError::last(Error::Other(why)))
            }
            _ => Ok(Answer { status, body: self.read(response, limit).await?, repeated: false }),
        }
    }

    async fn read(&self, mut response: Response, limit: usize) -> std::result::Result<Vec<u8>, SendError> {
        let too_long = || SendError::last(Error::Other(format!("the answer is over {} MiB", limit >> 20)));
        if response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(too_long());
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.failed(error))? {
            if body.len() + piece.len() > limit {
                return Err(too_long());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// Strips the address, which the message of the store names.
    fn failed(&self, error: reqwest::Error) -> SendError {
        let error = error.without_url();
        let why = cause(&error);
        if error.is_connect() {
            return SendError::last(self.unconnected(why));
        }
        if error.is_timeout() {
            return SendError::last(Error::TimedOut(self.timeout.as_millis()));
        }
        // The server may close an idle connection just when it is used again.
        SendError { error: Error::Other(format!("the connection broke: {why}")), retry: Retry::Once }
    }

    /// The error of a server to which there is no connection.
    fn unconnected(&self, why: String) -> Error {
        match distrust(&why) {
            Some(why) => Error::Untrusted(why),
            // The answer of a server without TLS may be lost in the close that follows it.
            None if self.tls && is_closed(&why) => Error::Unreachable(format!(
                "the connection was closed in the TLS handshake ({why}); for a server without TLS, {WITHOUT_TLS}"
            )),
            None => Error::Unreachable(why),
        }
    }
}

/// Why [`Http::ask`] has no answer.
pub(super) enum Unanswered {
    /// The server was not reached.
    NotSent(Error),
    /// The request was sent, and may have been carried out.
    Lost(Error),
    /// The answer is over the limit.
    TooLong,
}

/// An endless answer, line by line.
pub(super) struct Lines {
    response: Response,
    read: Vec<u8>,
    /// So many bytes of `read` have no newline.
    searched: usize,
    limit: usize,
}

impl Lines {
    /// The next line that is not empty; the last one may lack its newline. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.read[self.searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(self.searched + end + 1);
                let line = std::mem::replace(&mut self.read, rest);
                self.searched = 0;
                if line.len() > 1 {
                    return Ok(Some(line));
                }
                continue;
            }
            self.searched = self.read.len();
            if self.searched > self.limit {
                return Err(Error::Other(format!("a line of the answer is over {} MiB", self.limit >> 20)));
            }
            match self.response.chunk().await {
                Ok(Some(piece)) => self.read.extend_from_slice(&piece),
                Ok(None) if self.read.is_empty() => return Ok(None),
                Ok(None) => {
                    self.searched = 0;
                    return Ok(Some(std::mem::take(&mut self.read)));
                }
                Err(error) => return Err(Error::Unreachable(cause(&error.without_url()))),
            }
        }
    }
}

/// A WebSocket of text messages.
pub(super) struct Socket {
    socket: WebSocket,
    timeout: Duration,
}

impl Socket {
    /// The next message; `None` for one that is no text, such as the answer to a ping.
    pub(super) async fn receive(&mut self) -> Result<Option<String>> {
        match self.socket.next().await {
            Some(Ok(Message::Text(text))) => Ok(Some(text)),
            Some(Ok(Message::Close { code, reason })) => {
                Err(Error::Unreachable(format!("the socket was closed: {code} {reason}")))
            }
            Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Err(broken(error)),
            None => Err(Error::Unreachable("the socket ended".into())),
        }
    }

    pub(super) async fn send(&mut self, text: String) -> Result<()> {
        self.put(Message::Text(text)).await
    }

    pub(super) async fn ping(&mut self) -> Result<()> {
        self.put(Message::Ping(Vec::new().into())).await
    }

    async fn put(&mut self, message: Message) -> Result<()> {
        let late = |_| Error::TimedOut(self.timeout.as_millis());
        tokio::time::timeout(self.timeout, self.socket.send(message)).await.map_err(late)?.map_err(broken)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "an argument of map_err")]
fn broken(error: reqwest_websocket::Error) -> Error {
    Error::Unreachable(error.to_string())
}

fn trusted(file: &Path) -> std::result::Result<Vec<Certificate>, String> {
    let shown = file.display();
    let text =
        std::fs::read(file).map_err(|error| format!("cannot read the certificates in {shown}: {error}"))?;
    let found = Certificate::from_pem_bundle(&text).map_err(|error| format!("{shown}: {}", cause(&error)))?;
    if found.is_empty() { Err(format!("{shown} holds no certificate in PEM")) } else { Ok(found) }
}

fn identity(certificate: &Path, key: &Path) -> std::result::Result<Identity, String> {
    let read =
        |file: &Path| std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()));
    let text = [read(key)?, b"\n".to_vec(), read(certificate)?].concat();
    let shown = (certificate.display(), key.display());
    let unusable =
        |error| format!("{} and {} are no certificate and key: {}", shown.0, shown.1, cause(&error));
    Identity::from_pem(&text).map_err(unusable)
}

/// Why no client can be made.
fn unusable(error: &reqwest::Error) -> String {
    let why = cause(error);
    if why.contains("No CA certificates") {
        return "no certificate authorities are known here; install ca-certificates, or name a file in SSL_CERT_FILE"
            .to_owned();
    }
    format!("cannot set up HTTP: {why}")
}

/// The last of the reasons behind `error`.
fn cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Why a request has no answer, and whether it may be sent again.
struct SendError {
    error: Error,
    retry: Retry,
}

enum Retry {
    Never,
    Once,
    /// Not before this time has passed.
    After(Duration),
}

impl SendError {
    fn last(error: Error) -> Self {
        Self { error, retry: Retry::Never }
    }

    /// It may be sent again after the seconds of `Retry-After`, at once without that.
    fn busy(error: Error, response: &Response) -> Self {
        let wanted = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let seconds = wanted.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or(0);
        Self { error, retry: Retry::After(Duration::from_secs(seconds)) }
    }
}

/// The text of an error answer, if it is meant for people.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text: String = text.trim().chars().filter(|char| !char.is_control()).take(120).collect();
    if text.is_empty() || text.starts_with('<') { String::new() } else { format!(": {text}") }
}
