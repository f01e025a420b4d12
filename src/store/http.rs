//! The HTTP client that stores share: what every request needs, and the errors that every answer may be.

use std::time::{Duration, Instant};

use reqwest::header::RETRY_AFTER;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, StatusCode};

use super::{Error, Result};

/// Largest answer read; a listing of all values is the largest there is.
const ANSWER_LIMIT: usize = 64 << 20;
/// The first pause before a request is repeated; each next one is twice as long.
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
    /// A client whose requests, repeated ones included, end within `timeout`.
    pub(super) fn new(timeout: Duration) -> std::result::Result<Self, String> {
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .timeout(timeout)
            .user_agent(concat!("kvfs/", env!("CARGO_PKG_VERSION")))
            .build();
        let client = client.map_err(|error| format!("cannot set up HTTP: {error}"))?;
        Ok(Self { client, timeout })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Sends `request`, again where the server asks for patience; only for what may be repeated. Answers with the
    /// status 429 or 503 come back as [`Error::Busy`], refusals of the credentials as [`Error::Denied`].
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Answer> {
        let end = Instant::now() + self.timeout * 3 / 4;
        let mut pause = FIRST_PAUSE;
        loop {
            let again = request.try_clone().ok_or_else(|| Error::Other("the request is a stream".into()))?;
            let (result, wanted) = once(again).await;
            let wait = wanted.unwrap_or(pause);
            if !matches!(result, Err(Error::Busy(_))) || Instant::now() + wait > end {
                return result;
            }
            tokio::time::sleep(wait).await;
            pause *= 2;
        }
    }
}

/// The answer to one request, and how long the server wants the next one to wait.
async fn once(request: RequestBuilder) -> (Result<Answer>, Option<Duration>) {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return (Err(failed(error)), None),
    };
    let status = response.status();
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let wanted = seconds.map(Duration::from_secs);
    let result = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::Denied(format!("HTTP {status}"))),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Err(Error::Busy(format!("HTTP {status}")))
        }
        _ if status.is_redirection() => {
            Err(Error::Other(format!("HTTP {status}: the address leads elsewhere; use the one it leads to")))
        }
        _ if status.is_server_error() => Err(Error::Other(format!("HTTP {status}"))),
        _ => read(response).await.map(|body| Answer { status, body }),
    };
    (result, wanted)
}

async fn read(mut response: reqwest::Response) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(failed)? {
        if body.len() + piece.len() > ANSWER_LIMIT {
            return Err(Error::Other(format!("the answer is over {} MiB", ANSWER_LIMIT >> 20)));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// Without the address, which the message of the store names.
fn failed(error: reqwest::Error) -> Error {
    let error = error.without_url();
    let mut why = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        why = cause.to_string();
        source = cause.source();
    }
    if error.is_connect() {
        return Error::Unreachable(why);
    }
    if error.is_timeout() {
        return Error::Unreachable("no answer in time".into());
    }
    Error::Other(format!("the connection broke: {why}"))
}
