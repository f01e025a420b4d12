//! The body of a request. A client that sends all of it before it reads the answer finds none if the server closes the
//! connection meanwhile: what is left of a request that is refused is read, and dropped.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;

/// Largest request. A value has at most 10,000 characters, twelve times that if all are escaped twice; the rest is for
/// long keys.
const LIMIT: usize = 1 << 20;
/// How much is read of a request that is refused.
const REFUSED_LIMIT: usize = 64 << 20;
/// How long a body may take to arrive, and then what is left of one that is refused.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a body could not be read.
pub(super) enum Unread {
    TooLarge,
    Broken,
    Late,
}

/// A body that has not been read to its end.
pub(super) struct RequestBody {
    stream: BodyDataStream,
    /// The client sends it once it is asked to.
    held_back: bool,
}

impl RequestBody {
    pub(super) fn new(headers: &HeaderMap, body: Body) -> Self {
        Self { stream: body.into_data_stream(), held_back: headers.contains_key(header::EXPECT) }
    }

    /// All of it.
    pub(super) async fn read(&mut self) -> Result<Vec<u8>, Unread> {
        if self.stream.size_hint().lower() > LIMIT as u64 {
            return Err(Unread::TooLarge);
        }
        self.held_back = false;
        let mut bytes = Vec::new();
        let read = async {
            while let Some(part) = self.stream.next().await {
                let part = part.map_err(|_| Unread::Broken)?;
                if bytes.len() + part.len() > LIMIT {
                    return Err(Unread::TooLarge);
                }
                bytes.extend_from_slice(&part);
            }
            Ok(())
        };
        tokio::time::timeout(TIMEOUT, read).await.map_err(|_| Unread::Late)??;
        Ok(bytes)
    }

    /// Drops what is left of it as it arrives, while the answer is sent.
    pub(super) fn discard(mut self) {
        if self.held_back || self.stream.is_end_stream() {
            return;
        }
        tokio::spawn(tokio::time::timeout(TIMEOUT, async move {
            let mut left = REFUSED_LIMIT;
            while let Some(Ok(part)) = self.stream.next().await
                && let Some(rest) = left.checked_sub(Bytes::len(&part))
            {
                left = rest;
            }
        }));
    }
}
