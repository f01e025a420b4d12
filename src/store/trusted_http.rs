//! The HTTP client of a store whose server may come to have a certificate of another authority, while that is replaced here, too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::http::Http;

/// A server that is not trusted is asked with authorities that were read again at most so often.
const AGAIN: Duration = Duration::from_secs(1);

type Make = dyn Fn() -> Result<Http, String> + Send + Sync;

/// A client that is made anew when it does not trust the server.
pub(super) struct TrustedHttp {
    /// With the time of that.
    made: Mutex<(Http, Instant)>,
    make: Arc<Make>,
    /// Held while it is made, so that many callers make it once; when that was tried last.
    making: tokio::sync::Mutex<Option<Instant>>,
}

impl TrustedHttp {
    pub(super) fn new(
        make: impl Fn() -> Result<Http, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let first = Mutex::new((make()?, Instant::now()));
        Ok(Self { made: first, make: Arc::new(make), making: tokio::sync::Mutex::default() })
    }

    pub(super) fn get(&self) -> Http {
        self.made.lock().0.clone()
    }

    /// Makes the client anew for a call that `began` with one that does not trust the server. Returns whether a retry makes sense.
    pub(super) async fn renew(&self, began: Instant) -> bool {
        let mut tried = self.making.lock().await;
        if self.made.lock().1 > began {
            return true;
        }
        if tried.is_some_and(|tried| tried.elapsed() < AGAIN) {
            return false;
        }
        *tried = Some(Instant::now());
        let make = self.make.clone();
        let new = tokio::task::spawn_blocking(move || make()).await;
        match new.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(http) => {
                *self.made.lock() = (http, Instant::now());
                true
            }
            Err(why) => {
                tracing::warn!("the authorities are not read again: {why}");
                false
            }
        }
    }
}
