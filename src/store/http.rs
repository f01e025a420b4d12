//! The HTTP client that stores share: what every request needs, and the errors that every answer may be.

use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode};

use super::{Error, Result};

/// Largest answer read; a listing of all values is the largest there is.
const ANSWER_LIMIT: usize = 64 << 20;
/// Longest first pause before a request is repeated; each next one may be twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// A client that follows no redirect, because a token must not go to another host, and that uses no proxy or netrc
/// of the environment.
#[derive(Clone)]
pub(super) struct Http {
    client: Client,
    timeout: Duration,
}

/// An answer that was read to its end.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

impl Http {
    /// A client for the server at `url`, whose requests, repeated ones included, end within `timeout`.
    pub(super) fn new(url: &str, timeout: Duration) -> std::result::Result<Self, String> {
        let mut builder = Client::builder();
        if !url.starts_with("https:") {
            // Without TLS there need be no authorities on the machine.
            builder = builder.tls_certs_only([]);
        }
        let client = builder
            .redirect(Policy::none())
            .no_proxy()
            .timeout(timeout)
            .connect_timeout(timeout * 2 / 5)
            .user_agent(concat!("kvfs/", env!("CARGO_PKG_VERSION")))
            .build();
        let client = client.map_err(|error| {
            let why = cause(&error);
            if why.contains("No CA certificates") {
                return "no certificate authorities are known here; install ca-certificates, or name a file in \
                        SSL_CERT_FILE"
                    .to_owned();
            }
            format!("cannot set up HTTP: {why}")
        })?;
        Ok(Self { client, timeout })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Sends `request`, again where that may help; only for what may be carried out twice. Answers with the status 429
    /// or 503 come back as [`Error::Busy`], refusals of the credentials as [`Error::Denied`].
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Answer> {
        let (start, patience) = (Instant::now(), self.timeout * 3 / 4);
        let mut pause = FIRST_PAUSE;
        let mut broken = false;
        loop {
            let copy = request.try_clone().ok_or_else(|| Error::Other("the request is a stream".into()))?;
            let trouble = match self.once(copy).await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => trouble,
            };
            let wait = match trouble.again {
                Again::Later(wanted) => wanted.max(pause.mul_f64(0.5 + fastrand::f64() / 2.0)),
                Again::Once if !broken => Duration::ZERO,
                Again::Once | Again::Never => return Err(trouble.error),
            };
            if start.elapsed().saturating_add(wait) > patience {
                return Err(trouble.error);
            }
            broken |= matches!(trouble.again, Again::Once);
            pause *= 2;
            tokio::time::sleep(wait).await;
        }
    }

    /// The answer to one request.
    async fn once(&self, request: RequestBuilder) -> std::result::Result<Answer, Trouble> {
        let response = request.send().await.map_err(|error| self.failed(error))?;
        let status = response.status();
        let why = format!("HTTP {status}");
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Trouble::last(Error::Denied(why))),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Err(Trouble { error: Error::Busy(why), again: Again::Later(retry_after(response.headers())) })
            }
            _ if status.is_redirection() => {
                let why = format!("{why}: the address leads elsewhere; use the one it leads to");
                Err(Trouble::last(Error::Other(why)))
            }
            _ if status.is_server_error() => Err(Trouble::last(Error::Other(why))),
            _ => Ok(Answer { status, body: self.read(response).await? }),
        }
    }

    async fn read(&self, mut response: Response) -> std::result::Result<Vec<u8>, Trouble> {
        let too_long =
            || Trouble::last(Error::Other(format!("the answer is over {} MiB", ANSWER_LIMIT >> 20)));
        if response.content_length().is_some_and(|length| length > ANSWER_LIMIT as u64) {
            return Err(too_long());
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.failed(error))? {
            if body.len() + piece.len() > ANSWER_LIMIT {
                return Err(too_long());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// Without the address, which the message of the store names.
    fn failed(&self, error: reqwest::Error) -> Trouble {
        let error = error.without_url();
        let why = cause(&error);
        if error.is_connect() {
            return Trouble::last(distrust(&why).map_or(Error::Unreachable(why), Error::Untrusted));
        }
        if error.is_timeout() {
            return Trouble::last(Error::TimedOut(self.timeout.as_millis()));
        }
        // A server may close a kept connection just when it is used again.
        Trouble { error: Error::Other(format!("the connection broke: {why}")), again: Again::Once }
    }
}

/// The last of the reasons behind `error`.
fn cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Why TLS came to nothing, in words for a person, if that is what rustls says.
fn distrust(why: &str) -> Option<String> {
    if why.contains("InvalidContentType") {
        return Some("it does not speak TLS; for a server without, the address begins with http://".into());
    }
    let why = why.strip_prefix("invalid peer certificate: ")?;
    Some(if why.contains("UnknownIssuer") || why.contains("BadSignature") {
        "its certificate is from an authority that is not known here; name the file of the authority's certificate in \
         SSL_CERT_FILE"
            .into()
    } else if why.contains("xpired") {
        format!("its certificate has expired ({why})")
    } else if why.contains("ValidYet") || why.contains("valid yet") {
        format!("its certificate is not valid yet, or the clock is wrong ({why})")
    } else if why.contains("ValidForName") || why.contains("not valid for name") {
        format!("its certificate is for another host ({why})")
    } else {
        format!("its certificate does not hold ({why})")
    })
}

/// Why there is no answer, and whether another request may bring one.
struct Trouble {
    error: Error,
    again: Again,
}

enum Again {
    Never,
    Once,
    /// Not before this time has passed.
    Later(Duration),
}

impl Trouble {
    fn last(error: Error) -> Self {
        Self { error, again: Again::Never }
    }
}

/// How long the server wants the next request to wait; zero unless it says so in seconds.
fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}
