//! Appends that others have overtaken: what was only appended to a value is appended to the newest one.

use crate::fs::core::Fs;
use crate::fs::ops::publish::Unpublished;
use crate::fs::rules::document::Validate;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::drafts::{Draft, check_value};
use crate::fs::state::tables::State;
use crate::fs::types::DraftId;
use crate::store::{Expect, Text};

impl Fs {
    /// Others have changed the key since the draft began. Whether that was only appended to, and the key has a value, to which
    /// this goes then.
    pub(super) async fn append_to_newest(&self, id: DraftId, draft: &mut Unpublished) -> FsResult<bool> {
        if !self.state.lock().draft(id).is_some_and(|draft| self.is_appended(draft)) {
            return Ok(false);
        }
        let Some(newest) = self.cache.ask_store(&draft.key).await? else { return Ok(false) };
        let state = self.state.lock();
        let Some(written) = state.draft(id).filter(|written| self.is_appended(written)) else {
            return Ok(false);
        };
        let text = [&newest.text, written.bytes.appended().unwrap_or_default()].concat();
        match check_value(&text, &self.cache.limits(), self.settings.validate) {
            // The document that others have set leaves no place for it.
            Err(FsError::Invalid(_)) => return Ok(false),
            checked => checked?,
        }
        (draft.text, draft.moment) = (Text::from(text), written.bytes.moment());
        (draft.expect, draft.is_merged) = (Expect::At(newest.meta.revision), true);
        draft.replaced = Some(newest.text);
        Ok(true)
    }

    fn is_appended(&self, draft: &Draft) -> bool {
        let is_appended = draft.bytes.appended().is_some_and(|appended| !appended.is_empty());
        let must_be_new = draft.exclusive && draft.published.is_none();
        is_appended && !must_be_new && !self.is_blank_since(draft)
    }

    /// Whether what is to be published is white space after a published document.
    pub(super) fn is_blank_since(&self, draft: &Draft) -> bool {
        self.settings.validate == Validate::Json && draft.bytes.is_blank_since()
    }

    /// The draft is white space after a document that it published, and another version has taken the place of that: nothing is
    /// left to publish.
    pub(super) fn is_superseded(&self, state: &mut State, id: DraftId) -> bool {
        let draft = state.draft_mut(id).filter(|draft| self.is_blank_since(draft));
        draft.map(Draft::drop_blank).is_some()
    }
}
