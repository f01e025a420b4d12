//! Writes, sizes, modes, owners and times.

use std::sync::Arc;

use crate::fs::core::Fs;
use crate::fs::rules::document::Validate;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::drafts::Publish;
use crate::fs::state::nodes::Body;
use crate::fs::state::versions::Origin;
use crate::fs::types::{Caller, Ino};
use crate::store::{Expect, Limits, Text, counted_len};

impl Fs {
    /// truncate(2) by name. No close follows it: what it leaves is published at once, or refused.
    /// Where somebody has the inode open, it is of another one than his: the caller is sent to look for that.
    pub(crate) async fn truncate(self: &Arc<Self>, caller: Caller, ino: Ino, size: usize) -> FsResult<()> {
        let truncated = self.truncate_found(caller, ino, size).await;
        if truncated != Err(FsError::Superseded) {
            self.state.lock().end_retry(caller.thread, ino);
        }
        truncated
    }

    async fn truncate_found(self: &Arc<Self>, caller: Caller, ino: Ino, size: usize) -> FsResult<()> {
        self.carry_out_at(ino).await?;
        if let Some(shared) = self.shared_for_truncate(caller, ino).await? {
            return self.truncate_shared(caller, ino, shared, size).await;
        }
        if let Some(again) = self.state.lock().look_again_to_truncate(caller.thread, ino) {
            return Err(again);
        }
        // The name of a writer's own inode is that of the key.
        let draft = match self.state.lock().inode(ino)?.body {
            Body::Directory => return Err(FsError::IsDirectory),
            Body::Key(_) | Body::Draft(_) => None,
            Body::Local(draft) => Some(draft),
        };
        let limits = self.cache.limits();
        if let Some(id) = draft {
            let mut state = self.state.lock();
            let draft = state.draft(id).ok_or(FsError::NotFound)?;
            if draft.handles == 0 && draft.purpose == Publish::OnClose && size != draft.bytes.len() {
                resized(draft.bytes.text(), size, &limits, self.settings.validate)?;
            }
            return state.resize(id, size, &limits);
        }
        let staying = self.stay().await?;
        let (operation, name) = self.begin_at(ino).await?;
        let key = self.state.lock().inode(ino)?.key.clone();
        let entry = self.cache.get_key_value(&key).await?.value.ok_or(FsError::NotFound)?;
        if entry.text.len() == size {
            return Ok(());
        }
        let text = Text::from(resized(&entry.text, size, &limits, self.settings.validate)?);
        let meta = self.cache.set_key_value(&key, text, Expect::At(entry.meta.revision)).await?;
        let invalidations = {
            let mut state = self.state.lock();
            state.paths_mut().set_failure(&name, None);
            state.truncated(ino, &meta);
            state.follow_process(&name, caller.thread, entry.meta.revision, meta.revision);
            state.install_version(&name, &meta, Origin::Read)
        };
        drop(operation);
        drop(staying);
        // The kernel holds the lock of the inode, for which who holds the directory's may wait.
        self.invalidate_later(invalidations);
        Ok(())
    }
}

/// `text` with another size, if that is a value.
fn resized(text: &[u8], size: usize, limits: &Limits, validate: Validate) -> FsResult<Vec<u8>> {
    let too_large = |size| FsError::TooLarge { size, limit: limits.value };
    // One more for a final newline.
    if size > limits.value.saturating_add(1) {
        return Err(too_large(size));
    }
    let mut text = text.to_vec();
    text.resize(size, 0);
    let counted = counted_len(&text);
    if counted > limits.value {
        return Err(too_large(counted));
    }
    validate.check(&text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::fs::types::{Access, ROOT};
    use crate::store::Key;

    use super::*;

    #[tokio::test]
    async fn who_was_sent_to_look_again_for_a_cut_that_is_refused_is_not_sent_any_more() {
        let fs = Fs::in_memory(Duration::ZERO).0;
        let (reader, writer) = (Caller { thread: 1, uid: 0, gid: 0 }, Caller { thread: 2, uid: 0, gid: 0 });
        let text = Text::from(&b"[1]"[..]);
        fs.cache.set_key_value(&Key::from("k"), text, Expect::Anything).await.unwrap();
        let look = async || fs.clone().lookup(writer, ROOT, "k".into()).await.unwrap().attr.unwrap().ino;
        let home = look().await;
        let read = Access { write: false, append: false, truncate: false };
        fs.clone().open(reader, home, read).await.unwrap();
        assert_eq!(fs.truncate(writer, home, 2).await, Err(FsError::Superseded));
        let own = look().await;
        assert!(matches!(fs.truncate(writer, own, 2).await, Err(FsError::Invalid(_))));
        assert_eq!((look().await, look().await), (home, home));
    }
}
