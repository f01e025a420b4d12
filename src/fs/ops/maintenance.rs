//! Background work: expiry of backups, promotion of temporary files.

use std::sync::Arc;
use std::time::Duration;

use crate::fs::core::Fs;
use crate::fs::state::backups::DeferredRename;
use crate::fs::state::drafts::Publish;
use crate::fs::types::{DraftId, Ino};

/// How often backups and temporary files are looked after.
const TEND: Duration = Duration::from_millis(250);

/// A temporary file that holds a document and is left alone for this long becomes a key.
const PROMOTION: Duration = Duration::from_secs(2);

/// Renames to a backup name without a successor, and temporary files that became documents.
type Due = (Vec<(String, DeferredRename)>, Vec<(Ino, DraftId)>);

impl Fs {
    /// Looks after backups and temporary files for ever.
    pub async fn tend(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TEND).await;
            let (over, grown) = self.due();
            for (name, deferred) in over {
                if let Err(error) = self.carry_out_in_time(&name, &deferred).await {
                    let reason =
                        format!("the store has not renamed it to {:?} yet: {error}", deferred.backup);
                    self.note_late(&name, &reason);
                }
            }
            for (ino, id) in grown {
                if let Err(error) = self.deadline().scope(self.publish(ino, id, 0)).await {
                    tracing::warn!("{:?} could not become a key: {error}", self.name_of(ino));
                }
            }
            self.put_back_due().await;
            let fs = self.clone();
            _ = tokio::task::spawn_blocking(move || fs.rejected.tend()).await;
        }
    }

    /// What has come of age.
    fn due(&self) -> Due {
        let state = self.state.lock();
        let grown = state.drafts().filter(|(_, draft)| {
            draft.purpose == Publish::OnRename
                && draft.handles == 0
                && draft.refused.is_none()
                && !draft.orphan
                && draft.bytes.idle() > PROMOTION
                && !draft.bytes.is_empty()
                && draft.check(&self.cache.limits(), self.settings.validate).is_ok()
        });
        let grown = grown.map(|(id, draft)| (draft.ino, id)).collect();
        (state.due_renames(), grown)
    }
}
