//! A server and the cached state of its variables.

use parking_lot::Mutex;

use super::LIMITS;
use super::api::Api;
use super::own::Own;
use crate::store::synthetic_revisions::SyntheticRevisions;
use crate::store::{Change, Entry, Key, Result, Revision};

pub(super) struct View {
    pub(super) api: Api,
    pub(super) revisions: Mutex<SyntheticRevisions>,
    pub(super) own: Mutex<Own>,
}

impl View {
    /// Fetches the variable, as a change for the feed.
    pub(super) async fn look(&self, key: &Key) -> Result<Change> {
        let asked = self.revisions.lock().begin_request();
        let found = self.fetch(key).await?;
        Ok(match found {
            Some(entry) => Change::Set(key.clone(), entry.meta),
            None => Change::Deleted(key.clone(), Revision(asked)),
        })
    }

    /// Fetches the variable; `None` without a request for a text that cannot be a key.
    pub(super) async fn fetch(&self, key: &Key) -> Result<Option<Entry>> {
        if LIMITS.check_key(key).is_err() {
            return Ok(None);
        }
        let asked = self.revisions.lock().begin_request();
        let row = self.api.get(key).await?.and_then(|variable| Some(variable.row()?.1));
        Ok(self.revisions.lock().observe(key, row, asked))
    }
}
