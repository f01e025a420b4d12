//! How the store behind is.

use tokio::time::Instant;

use super::Cache;
use crate::store::{Down, Error, Key, Result, Space};

impl Cache {
    /// Why a set would fail at once, if that is known.
    pub fn outage(&self) -> Option<Error> {
        self.store.outage()
    }

    /// The space of the store behind, where that is known.
    pub fn space(&self) -> Option<Space> {
        self.store.space()
    }

    /// Whether the store answers: asks it, whatever is remembered.
    pub async fn check(&self) -> Result<()> {
        match self.store.get_key_value(&Key::from("kvfs")).await {
            Ok(_) | Err(Error::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Since when the store does not answer, if that is known.
    pub fn down(&self) -> Option<Down> {
        self.store.down()
    }

    /// When the store last answered, if that is known.
    pub fn answered(&self) -> Option<Instant> {
        self.store.answered()
    }

    /// Since when the store refuses changes as busy, if that is known.
    pub fn busy(&self) -> Option<Down> {
        self.store.busy()
    }

    /// Since when the store does not push changes any more, and what is remembered ages.
    pub fn paused_since(&self) -> Option<Instant> {
        *self.paused_since.lock()
    }
}
