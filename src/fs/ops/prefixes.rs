//! Owner and mode of directories, which the store keeps of the prefixes of their keys.

use std::sync::Arc;
use std::time::Duration;

use crate::fs::core::Fs;
use crate::fs::rules::error::FsResult;
use crate::fs::rules::names::{Decoded, is_within};
use crate::fs::state::nodes::Overrides;
use crate::fs::state::tables::State;
use crate::fs::types::{Changes, Ino};
use crate::store::{self, Attributes, Given, Key, MovedPrefix, Revision};

/// The shortest pause between two looks.
const SHORTEST: Duration = Duration::from_millis(100);

impl Fs {
    /// Takes in what the store keeps of all directories.
    pub async fn load_directories(&self) -> store::Result<()> {
        let kept = self.cache.list_prefixes().await?;
        let mut changed = Vec::new();
        {
            let mut state = self.state.lock();
            for path in state.stored_directories(|_| true) {
                let prefix = self.kept_prefix(&path);
                if !kept.iter().any(|(other, _)| prefix.as_ref() == Some(other)) {
                    changed.extend(state.follow_directory(&path, None));
                }
            }
            for (prefix, kept) in &kept {
                let path = self.settings.names.directory_of(prefix);
                changed.extend(path.and_then(|path| state.follow_directory(&path, Some(kept))));
            }
        }
        self.expire_attributes(changed);
        Ok(())
    }

    /// Asks for that anew while the store does not tell of changes, as often as for keys.
    pub async fn look_at_directories(self: Arc<Self>) {
        while self.cache.keeps_attributes() {
            tokio::time::sleep(self.cache.max_age().max(SHORTEST)).await;
            if !self.cache.is_pushed() {
                // What is known stays while the store is down.
                _ = self.load_directories().await;
            }
        }
    }

    /// Takes in what somebody else has said of a directory, at this revision of the store.
    pub(crate) fn show_prefix(&self, prefix: &Key, kept: Option<&Attributes>, at: Revision) {
        let Some(path) = self.settings.names.directory_of(prefix) else { return };
        let changed = {
            let mut state = self.state.lock();
            let known = state.directory(&path).and_then(|directory| directory.set.stored);
            if known >= Some(at) { None } else { state.follow_directory(&path, kept) }
        };
        self.expire_attributes(changed);
    }

    /// The prefix of which the store keeps what is said of the directory at `path`; `None` if that is the mount's.
    fn kept_prefix(&self, path: &str) -> Option<Key> {
        let prefix = match self.settings.names.decode_directory(path) {
            _ if path.is_empty() => Some(Key::from("")),
            Decoded::Key(prefix) => Some(prefix),
            Decoded::Alias | Decoded::Foreign | Decoded::Impossible => None,
        };
        prefix.filter(|_| self.cache.keeps_attributes())
    }

    /// Whether the store keeps what is said of this inode because it is a directory.
    pub(crate) fn is_kept_directory(&self, state: &State, ino: Ino) -> bool {
        state.directory_path(ino).is_ok_and(|path| self.kept_prefix(&path).is_some())
    }

    /// Has the store keep owner and mode of a directory. Its times are the mount's, as are the names in it that they tell of.
    pub(crate) async fn keep_directory(&self, ino: Ino, changes: &Changes) -> FsResult<()> {
        let _staying = self.stay().await?;
        let (path, new) = {
            let state = self.state.lock();
            let path = state.directory_path(ino)?;
            let set = state.directory(&path).map(|directory| directory.set).unwrap_or_default();
            let changes = Changes { accessed: None, modified: None, ..*changes };
            (path, self.not_stored(set, &changes))
        };
        if !new.are_none()
            && let Some(prefix) = self.kept_prefix(&path)
        {
            let given = Given { attributes: new, replaces: false };
            let kept = self.cache.set_prefix(&prefix, &given).await?;
            self.state.lock().follow_directory(&path, kept.as_deref());
        }
        let times = Changes { mode: None, uid: None, gid: None, ..*changes };
        if times.accessed.is_some() || times.modified.is_some() {
            self.override_attributes(&mut self.state.lock(), ino, None, &times)?;
        }
        Ok(())
    }

    /// Has the store keep what a new directory at `path` has of its own, in place of what it may have kept of an old one there.
    pub(crate) async fn keep_new_directory(&self, path: &str, set: Overrides) -> FsResult<Overrides> {
        let prefix = self.kept_prefix(path);
        let stored = {
            let state = self.state.lock();
            if prefix.is_none() {
                state.room_for_attributes(None, &set)?;
            }
            !state.stored_directories(|other| is_within(other, path)).is_empty()
        };
        let Some(prefix) = prefix.filter(|_| stored || set.are_asked_for()) else { return Ok(set) };
        let given = Given { attributes: set.to_store(None), replaces: true };
        let kept = self.cache.set_prefix(&prefix, &given).await?;
        self.state.lock().forget_stored(path);
        Ok(Overrides { stored: kept.map(|kept| kept.revision), ..set })
    }

    /// Has the store keep nothing any more of the directory at `path`, which is about to be removed.
    pub(crate) async fn keep_no_directory(&self, path: &str) -> FsResult<()> {
        self.keep_new_directory(path, Overrides::default()).await.map(drop)
    }

    /// What the store has to rename along with the keys of the directory at `from`, whose prefix is `old`.
    pub(crate) fn moved_prefix(&self, from: &str, to: &str) -> Option<MovedPrefix> {
        let is_moved = |path: &str| is_within(path, from) || is_within(path, to);
        if self.state.lock().stored_directories(is_moved).is_empty() {
            return None;
        }
        Some(MovedPrefix { from: self.kept_prefix(from)?, to: self.kept_prefix(to)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::types::ROOT;
    use crate::store::{Change, Store};

    fn given(mode: u32) -> Given {
        Given { attributes: Attributes { mode: Some(mode), ..Attributes::default() }, replaces: true }
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_say_of_a_directory_shows_also_while_the_store_does_not_tell() {
        let (fs, elsewhere) = Fs::in_memory(Duration::from_secs(1));
        tokio::spawn(fs.clone().look_at_directories());
        let mode = || fs.getattr(ROOT, None).unwrap().attr.unwrap().mode;
        fs.take_in(Change::Paused).await;
        elsewhere.set_prefix(&"".into(), &given(0o2770)).await.unwrap();
        assert_eq!(mode(), 0o777);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(mode(), 0o2770);
        elsewhere.set_prefix(&"".into(), &Given { replaces: true, ..Given::default() }).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(mode(), 0o777);
    }

    #[tokio::test]
    async fn what_was_said_before_does_not_come_back_by_the_feed() {
        let (fs, _) = Fs::in_memory(Duration::from_secs(1));
        let kept = |mode| Some(Arc::new(given(mode).attributes));
        let tell = |mode, at| {
            let kept =
                kept(mode).map(|kept| Arc::new(Attributes { revision: Revision(at), ..(*kept).clone() }));
            fs.take_in(Change::Prefix("".into(), kept, Revision(at)))
        };
        let mode = || fs.getattr(ROOT, None).unwrap().attr.unwrap().mode;
        tell(0o700, 5).await;
        tell(0o711, 4).await;
        assert_eq!(mode(), 0o700);
        tell(0o711, 6).await;
        assert_eq!(mode(), 0o711);
        // What changed meanwhile was missed, and the store has nothing.
        fs.take_in(Change::Everything).await;
        assert_eq!(mode(), 0o777);
    }
}
