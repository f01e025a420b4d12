//! A server and what is known of it.

use parking_lot::Mutex;

use super::LIMITS;
use super::api::Api;
use super::own::Own;
use crate::store::seen::Seen;
use crate::store::{Change, Entry, Key, Result, Revision};

pub(super) struct View {
    pub(super) api: Api,
    pub(super) seen: Mutex<Seen>,
    pub(super) own: Mutex<Own>,
}

impl View {
    /// What is there now, asked of the server, as a change.
    pub(super) async fn look(&self, key: &Key) -> Result<Change> {
        let asked = self.seen.lock().ask();
        let found = self.fetch(key).await?;
        Ok(match found {
            Some(entry) => Change::Set(key.clone(), entry.meta),
            None => Change::Deleted(key.clone(), Revision(asked)),
        })
    }

    /// What is there now, asked of the server; a text that cannot be a key is not asked for.
    pub(super) async fn fetch(&self, key: &Key) -> Result<Option<Entry>> {
        if LIMITS.check_key(key).is_err() {
            return Ok(None);
        }
        let asked = self.seen.lock().ask();
        let row = self.api.get(key).await?.and_then(|variable| Some(variable.row()?.1));
        Ok(self.seen.lock().told(key, row, asked))
    }
}
