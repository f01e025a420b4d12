//! Writes, sizes, modes, owners and times.

use std::sync::Arc;
use std::time::SystemTime;

use super::document::Validate;
use super::drafts::{DraftId, Purpose};
use super::inodes::{Body, Content, Fh, Ino, Overrides, ROOT, State};
use super::lookup::Found;
use super::versions::By;
use super::{Fs, FsError, FsResult};
use crate::store::{Expect, Limits, Text, counted_len};

/// What chmod, chown, utimes and truncate ask for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes {
    /// New size.
    pub size: Option<u64>,
    /// New permission bits.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New access time.
    pub accessed: Option<SystemTime>,
    /// New modification time.
    pub modified: Option<SystemTime>,
}

impl Fs {
    /// Writes all of `data` or nothing. After a failure the handle stays failed: what it holds can no longer be what
    /// the program meant.
    pub fn write(&self, fh: Fh, offset: u64, data: &[u8]) -> FsResult<usize> {
        let limits = self.cache.limits();
        let mut state = self.state.lock();
        let handle = state.handles.get(&fh).ok_or(FsError::BadHandle)?;
        if let Some(error) = &handle.failed {
            return Err(error.clone());
        }
        let append = handle.append;
        let (id, draft) = state.draft_of(fh)?;
        let offset = if append { draft.text.len() } else { usize::try_from(offset).unwrap_or(usize::MAX) };
        // What has lost its name is never published: any bytes will do.
        let validate = if draft.orphan { Validate::None } else { self.settings.validate };
        let goes_to_store = draft.purpose == Purpose::Key && !draft.orphan;
        let new = draft.published.is_none();
        let outage = if goes_to_store { self.cache.outage() } else { None };
        let full = outage.filter(|error| error.keeps_out(new)).map_or(Ok(()), Err);
        let room =
            full.map_err(FsError::from).and_then(|()| state.room(id, offset.saturating_add(data.len())));
        match room.and_then(|()| state.draft_of(fh)?.1.write(offset, data, &limits, validate)) {
            Ok(()) => Ok(data.len()),
            Err(error) => {
                if let Some(handle) = state.handles.get_mut(&fh) {
                    handle.failed = Some(error.clone());
                    if matches!(error, FsError::Invalid(_)) {
                        handle.refused = data[..data.len().min(limits.value)].to_vec();
                    }
                }
                Err(error)
            }
        }
    }

    /// Reserves space: the file grows with zeros.
    pub fn allocate(&self, fh: Fh, offset: u64, length: u64, keep_size: bool) -> FsResult<()> {
        if fh == super::herald::HANDLE {
            return Ok(());
        }
        let limits = self.cache.limits();
        let end = usize::try_from(offset.saturating_add(length)).unwrap_or(usize::MAX);
        let mut state = self.state.lock();
        let (id, draft) = state.draft_of(fh)?;
        if end <= draft.text.len() {
            return Ok(());
        }
        if keep_size {
            draft.check_size(end, Some(0), &limits)?;
            state.room(id, end)
        } else {
            state.resize(id, end, &limits)
        }
    }

    /// Changes attributes; the answer shows what they are now.
    pub async fn setattr(self: Arc<Self>, ino: Ino, fh: Option<Fh>, changes: Changes) -> FsResult<Found> {
        self.writable()?;
        if let Some(inode) = self.state.lock().inodes.get_mut(&ino) {
            inode.last = true;
        }
        if let Some(size) = changes.size {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            match fh {
                Some(fh) => {
                    let mut state = self.state.lock();
                    let (id, _) = state.draft_of(fh)?;
                    state.resize(id, size, &self.cache.limits())?;
                }
                None => self.truncate(ino, size).await?,
            }
        }
        if changes.mode.is_some() || changes.uid.is_some() || changes.gid.is_some() || has_times(&changes) {
            override_attributes(&mut self.state.lock(), ino, fh, &changes)?;
        }
        self.getattr(ino, fh)
    }

    /// truncate(2) by name. No close follows it: what it leaves is published at once, or refused.
    async fn truncate(self: &Arc<Self>, ino: Ino, size: usize) -> FsResult<()> {
        let (name, key, draft) = {
            let state = self.state.lock();
            let inode = state.inode(ino)?;
            // The name of a writer's own inode is that of the key.
            let draft = match inode.body {
                Body::Directory => return Err(FsError::IsDirectory),
                Body::Key(_) | Body::Draft(_) => None,
                Body::Local(draft) => Some(draft),
            };
            (inode.name.clone(), inode.key.clone(), draft)
        };
        let limits = self.cache.limits();
        if let Some(id) = draft {
            let mut state = self.state.lock();
            let draft = state.drafts.get(&id).ok_or(FsError::NotFound)?;
            if draft.handles == 0 && draft.purpose == Purpose::Key && size != draft.text.len() {
                resized(&draft.text, size, &limits, self.settings.validate)?;
            }
            return state.resize(id, size, &limits);
        }
        let _staying = self.moving.read().await;
        let entry = self.cache.get_key_value(&key).await?.value.ok_or(FsError::NotFound)?;
        if entry.text.len() == size {
            return Ok(());
        }
        let text = Text::from(resized(&entry.text, size, &limits, self.settings.validate)?);
        self.hold_changes(&name);
        let set = self.cache.set_key_value(&key, text, Expect::At(entry.meta.revision)).await;
        let notices = match &set {
            Ok(meta) => {
                let mut state = self.state.lock();
                state.unpublished.remove(&name);
                state.adopt(&name, meta, By::Mount)
            }
            Err(_) => Vec::new(),
        };
        self.release_changes(&name, set.as_ref().map(|meta| meta.revision).unwrap_or_default());
        set?;
        self.settle(notices).await;
        Ok(())
    }
}

impl State {
    /// Sets the size of a draft, if there is room for what it grows by.
    fn resize(&mut self, id: DraftId, size: usize, limits: &Limits) -> FsResult<()> {
        self.room(id, size)?;
        self.drafts.get_mut(&id).ok_or(FsError::NotFound)?.truncate(size, limits)
    }

    /// Whether a draft may have `size` bytes beside all other scratch files; one that has lost its name is one, too.
    fn room(&self, id: DraftId, size: usize) -> FsResult<()> {
        let draft = self.drafts.get(&id).ok_or(FsError::NotFound)?;
        let more = size.saturating_sub(draft.text.len());
        if draft.purpose != Purpose::Key && more > 0 && self.scratch_full(more) {
            return Err(FsError::ScratchFull);
        }
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

fn override_attributes(state: &mut State, ino: Ino, fh: Option<Fh>, changes: &Changes) -> FsResult<()> {
    if ino == ROOT {
        merge(&mut state.root, changes);
        return Ok(());
    }
    let inode = state.inode(ino)?;
    let (mut name, unlinked) = (inode.name.clone(), inode.unlinked);
    if matches!(inode.body, Body::Directory) {
        name.push('/');
    }
    let draft = match (fh.and_then(|fh| state.handles.get(&fh)).map(|handle| &handle.content), &inode.body) {
        (Some(Content::Draft(draft)), _) | (None, Body::Local(draft) | Body::Draft(draft)) => Some(*draft),
        _ => None,
    };
    if let Some(modified) = changes.modified
        && let Some(draft) = draft.and_then(|draft| state.drafts.get_mut(&draft))
    {
        draft.modified = modified;
        draft.time_set = true;
    }
    if !unlinked {
        merge(state.overrides.entry(name).or_default(), changes);
    }
    Ok(())
}

fn has_times(changes: &Changes) -> bool {
    changes.accessed.is_some() || changes.modified.is_some()
}

fn merge(set: &mut Overrides, changes: &Changes) {
    set.mode = changes.mode.map(|mode| mode & 0o7777).or(set.mode);
    set.uid = changes.uid.or(set.uid);
    set.gid = changes.gid.or(set.gid);
    set.accessed = changes.accessed.or(set.accessed);
    set.modified = changes.modified.or(set.modified);
    set.changed = Some(SystemTime::now());
}
