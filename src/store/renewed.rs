//! Logins that others replace, while a store is open, in the files that they were read from.

use std::sync::Arc;

use parking_lot::Mutex;

/// Reads a login again from its source; the error says why it cannot.
pub(super) type Read<T> = dyn Fn() -> Result<T, String> + Send + Sync;

/// A login, and how it is read again.
pub(super) struct Renewed<T> {
    used: Mutex<T>,
    /// `None` for a source that cannot change, as an environment cannot.
    read: Option<Arc<Read<T>>>,
    /// Held while it is read, so that many callers read it once; the last reason why it could not be.
    reading: tokio::sync::Mutex<String>,
}

impl<T: Clone + PartialEq + Send + 'static> Renewed<T> {
    pub(super) fn new(found: T, read: Option<Arc<Read<T>>>) -> Self {
        Self { used: Mutex::new(found), read, reading: tokio::sync::Mutex::default() }
    }

    pub(super) fn get(&self) -> T {
        self.used.lock().clone()
    }

    /// Reads it again, unless another caller has done so since `used` was used. Returns whether it has changed, so that a retry
    /// makes sense.
    pub(super) async fn renew(&self, used: &T) -> bool {
        let Some(read) = self.read.clone() else { return false };
        let mut reason = self.reading.lock().await;
        if *self.used.lock() != *used {
            return true;
        }
        let read = tokio::task::spawn_blocking(move || read()).await;
        match read.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(new) => {
                reason.clear();
                let changed = new != *used;
                *self.used.lock() = new;
                changed
            }
            Err(why) => {
                if *reason != why {
                    tracing::warn!("the login is not read again: {why}");
                    *reason = why;
                }
                false
            }
        }
    }

    /// Reads it again, although it is not refused.
    pub(super) async fn read_again(&self) {
        let used = self.get();
        self.renew(&used).await;
    }
}
