//! The room that is left for what is in memory alone: bytes of scratch files, names that no store has, attributes.

use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::scratch;
use crate::fs::state::drafts::Publish;
use crate::fs::state::nodes::{Content, Overrides};
use crate::fs::state::quota::Quota;
use crate::fs::state::tables::State;
use crate::fs::types::DraftId;
use crate::store::Limits;

impl State {
    /// What is used of the quota.
    pub(crate) fn used(&self) -> Quota {
        let names = self.drafts.len() + self.paths.kept_directories();
        Quota { names, attributes: self.paths.attributed() }
    }

    /// Whether there may be one more name that no store has.
    pub(crate) fn room_for_name(&self) -> FsResult<()> {
        let limit = self.quota.names;
        if self.used().names < limit { Ok(()) } else { Err(FsError::NamesFull { limit }) }
    }

    /// Whether what is known as `set` of a file or directory may become `new`.
    pub(crate) fn room_for_attributes(&self, set: Option<&Overrides>, new: &Overrides) -> FsResult<()> {
        let limit = self.quota.attributes;
        let more = new.are_in_memory() && !set.is_some_and(Overrides::are_in_memory);
        if more && self.paths.attributed() >= limit { Err(FsError::AttributesFull { limit }) } else { Ok(()) }
    }

    /// Sets the size of a draft, if there is room for what it grows by.
    pub(crate) fn resize(&mut self, id: DraftId, size: usize, limits: &Limits) -> FsResult<()> {
        self.room(id, size)?;
        let now = self.now();
        self.drafts.get_mut(&id).ok_or(FsError::NotFound)?.truncate(size, limits, now)?;
        // What was refused before is no part of the text then.
        for handle in self
            .handles
            .values_mut()
            .filter(|handle| size == 0 && matches!(handle.content, Content::Draft(draft) if draft == id))
        {
            (handle.failed, handle.refused) = (None, Vec::new());
        }
        Ok(())
    }

    /// Whether a draft may have `size` bytes beside all other scratch files; one that has lost its name is one, too.
    pub(crate) fn room(&self, id: DraftId, size: usize) -> FsResult<()> {
        let draft = self.drafts.get(&id).ok_or(FsError::NotFound)?;
        let more = size.saturating_sub(draft.bytes.len());
        if draft.purpose != Publish::OnClose && more > 0 && self.scratch_full(more) {
            return Err(FsError::ScratchFull);
        }
        Ok(())
    }

    /// Bytes in scratch files, against [`scratch::TOTAL_LIMIT`].
    pub(crate) fn scratch_full(&self, more: usize) -> bool {
        let scratch = self.drafts.values().filter(|draft| draft.purpose != Publish::OnClose);
        scratch.map(|draft| draft.bytes.len()).sum::<usize>().saturating_add(more) > scratch::TOTAL_LIMIT
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use crate::fs::core::Fs;
    use crate::fs::types::{Access, Caller, Changes, Ino, ROOT};
    use crate::store::{Change, Expect, Key, Revision, Text};

    use super::*;

    const CALLER: Caller = Caller { thread: 1, uid: 0, gid: 0 };
    const WRITE: Access = Access { write: true, append: false, truncate: false };
    const FEW: usize = 3;

    /// A mount whose quota is [`FEW`] of each.
    fn mounted() -> Arc<Fs> {
        let (fs, _) = Fs::in_memory(Duration::ZERO);
        fs.state.lock().quota = Quota { names: FEW, attributes: FEW };
        fs
    }

    async fn touch(fs: &Arc<Fs>, name: &str, mode: u32) -> FsResult<Ino> {
        let (found, opened) = fs.create(CALLER, (ROOT, name), mode, WRITE, false)?;
        fs.clone().flush(CALLER, opened.fh, 0).await?;
        fs.clone().release(opened.fh).await;
        Ok(found.attr.unwrap().ino)
    }

    async fn set(fs: &Arc<Fs>, name: &str) -> Ino {
        fs.cache.set_key_value(&Key::from(name), Text::from(&b"1"[..]), Expect::Anything).await.unwrap();
        fs.clone().lookup(CALLER, ROOT, name.into()).await.unwrap().attr.unwrap().ino
    }

    async fn chmod(fs: &Arc<Fs>, ino: Ino, mode: u32) -> FsResult<()> {
        let changes = Changes { mode: Some(mode), ..Changes::default() };
        fs.clone().setattr(CALLER, ino, None, changes).await.map(drop)
    }

    #[tokio::test]
    async fn so_many_names_are_in_memory_alone_whatever_they_are_and_one_that_goes_makes_room() {
        for names in [["a", "b", "c"], ["a~", "b~", "c~"], ["a", ".b.swp", "c"]] {
            let fs = mounted();
            let mut inos = Vec::new();
            for name in names {
                inos.push(touch(&fs, name, 0o666).await.unwrap());
            }
            let full = Err(FsError::NamesFull { limit: FEW });
            assert_eq!(touch(&fs, "one", 0o666).await, full);
            assert_eq!(touch(&fs, "one~", 0o666).await, full);
            let made = fs.clone().make_file(CALLER, (ROOT, "one"), 0o666).await;
            assert_eq!(made.map(|_| Ino(0)), full);
            fs.clone().unlink(CALLER, ROOT, names[1].into()).await.unwrap();
            fs.forget(inos[1], 1);
            touch(&fs, "one", 0o666).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_file_that_is_published_counts_no_more() {
        let fs = mounted();
        // The times of those that were written last are kept in mind.
        for number in 0..2 * 4096 {
            let name = format!("k{number}");
            let (found, opened) = fs.create(CALLER, (ROOT, &name), 0o666, WRITE, false).unwrap();
            fs.write(opened.fh, 0, b"1").unwrap();
            fs.clone().flush(CALLER, opened.fh, 0).await.unwrap();
            fs.clone().release(opened.fh).await;
            assert_eq!(fs.state.lock().used(), Quota { names: 0, attributes: 0 });
            fs.forget(found.attr.unwrap().ino, 1);
        }
        assert_eq!(fs.state.lock().paths().len(), 4096);
    }

    #[tokio::test]
    async fn so_many_attributes_are_kept_and_what_equals_the_default_is_none() {
        let fs = mounted();
        fs.state.lock().quota.names = 2 * FEW;
        let mut inos = Vec::new();
        // Those of keys are in the store.
        for name in ["a", "b", "c", "d"] {
            let key = set(&fs, &format!("{name}-key")).await;
            chmod(&fs, key, 0o600).await.unwrap();
            inos.push(touch(&fs, &format!("{name}~"), 0o666).await.unwrap());
        }
        for ino in &inos[..FEW] {
            chmod(&fs, *ino, 0o600).await.unwrap();
        }
        let full = Err(FsError::AttributesFull { limit: FEW });
        assert_eq!(chmod(&fs, inos[FEW], 0o600).await, full);
        let key = set(&fs, "more").await;
        chmod(&fs, key, 0o600).await.unwrap();
        chmod(&fs, ROOT, 0o700).await.unwrap();
        let times = Changes { modified: Some(SystemTime::UNIX_EPOCH), ..Changes::default() };
        assert_eq!(fs.clone().setattr(CALLER, inos[FEW], None, times).await.map(drop), full);
        assert_eq!(touch(&fs, "new~", 0o600).await.map(drop), full);
        // What is said anew of a scratch file takes no more room, and as it would be by itself it takes none.
        chmod(&fs, inos[0], 0o640).await.unwrap();
        chmod(&fs, inos[FEW], 0o666).await.unwrap();
        touch(&fs, "new~", 0o666).await.unwrap();
        chmod(&fs, inos[0], 0o666).await.unwrap();
        chmod(&fs, inos[FEW], 0o600).await.unwrap();
        assert_eq!(fs.getattr(inos[FEW], None).unwrap().attr.unwrap().mode, 0o600);
        // Those of a file go with it.
        fs.clone().unlink(CALLER, ROOT, "d~".into()).await.unwrap();
        chmod(&fs, inos[0], 0o600).await.unwrap();
    }

    #[tokio::test]
    async fn what_was_removed_for_a_file_that_finds_no_room_is_back() {
        let fs = mounted();
        let me = Caller { thread: std::process::id(), ..CALLER };
        let key = Key::from("k");
        set(&fs, "k").await;
        fs.clone().unlink(me, ROOT, "k".into()).await.unwrap();
        for name in ["a", "b", "c"] {
            touch(&fs, name, 0o666).await.unwrap();
        }
        // A store may tell of a deletion after it was answered.
        fs.take_in(Change::Deleted(key.clone(), Revision(9))).await;
        let created = fs.create(me, (ROOT, "k"), 0o666, WRITE, true).map(drop);
        assert_eq!(created, Err(FsError::NamesFull { limit: FEW }));
        fs.put_back_due().await;
        assert_eq!(fs.cache.ask_store(&key).await.unwrap().unwrap().text[..], *b"1");
        assert_eq!(fs.clone().lookup(CALLER, ROOT, "k".into()).await.unwrap().attr.unwrap().size, 1);
    }
}
