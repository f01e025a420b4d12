//! Attributes of files: read, changed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::cache::FOREVER;
use crate::fs::core::Fs;
use crate::fs::ops::hand_over::Begun;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::drafts::{Draft, Publish};
use crate::fs::state::nodes::{Body, Content, Handle, Inode, Overrides};
use crate::fs::state::tables::State;
use crate::fs::types::{Attr, Caller, Changes, DraftId, Fh, Found, Ino, ROOT};
use crate::store::{Attributes, Given, Meta, Revision};

impl Fs {
    /// As [`Fs::getattr`], for who may be [the one](State::asks) by whom it shows that the kernel has taken in the answer.
    pub fn getattr_as(&self, caller: Caller, ino: Ino, fh: Option<Fh>) -> FsResult<Found> {
        let mut state = self.state.lock();
        state.asks(caller.thread, ino);
        self.getattr_in(&mut state, ino, fh)
    }

    /// Attributes of an inode; through a handle, of what that handle reads or writes.
    pub fn getattr(&self, ino: Ino, fh: Option<Fh>) -> FsResult<Found> {
        self.getattr_in(&mut self.state.lock(), ino, fh)
    }

    fn getattr_in(&self, state: &mut State, ino: Ino, fh: Option<Fh>) -> FsResult<Found> {
        self.find_again(state, ino);
        state.tell(ino, fh);
        let attr = self.attr_in(state, ino, fh)?;
        // An inode that another version replaced follows its key again once nobody holds it; only a name that leads to it
        // makes its attributes last.
        // So does what a handle shows of another version, which is not for those who read the inode by its pages.
        let handle = fh.and_then(|fh| state.handle(fh).ok());
        let lasting = ino == ROOT
            || attr.lasts
                && state.inode(ino).is_ok_and(|inode| match handle {
                    Some(handle) => handle.shows(inode),
                    None => inode.handles > 0 || state.is_current(ino, inode),
                });
        let ttl = match attr.directory {
            true if attr.links == 0 => Duration::ZERO,
            true => self.listing_ttl(),
            false => FOREVER,
        };
        Ok(Found { attr: Some(attr), ttl: if lasting { ttl } else { Duration::ZERO } })
    }

    /// Changes attributes; the answer shows what they are now.
    pub async fn setattr(
        self: Arc<Self>,
        caller: Caller,
        ino: Ino,
        fh: Option<Fh>,
        changes: Changes,
    ) -> FsResult<Found> {
        self.writable()?;
        let changes = self.ending_privileges(caller, ino, fh, changes);
        let _change = match fh {
            None => Some(self.admit(caller, Begun::Change(ino)).await?),
            Some(_) => None,
        };
        self.find_again(&mut self.state.lock(), ino);
        let asked = changes.mode.is_some() || changes.uid.is_some() || changes.gid.is_some();
        let asked = asked || has_times(&changes);
        let keeps = asked && self.keeps(&self.state.lock(), ino, fh);
        let is_kept_directory = asked && self.is_kept_directory(&self.state.lock(), ino);
        if asked && !keeps && !is_kept_directory {
            self.overridden(&self.state.lock(), ino, fh, &changes)?;
        }
        // What comes by way of an open file is over before that is closed, and nothing changes under it.
        if let Some(inode) = self.state.lock().inode_mut(ino).filter(|_| fh.is_none()) {
            inode.cached.pin();
        }
        if let Some(size) = changes.size {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            match fh {
                Some(fh) => {
                    let mut state = self.state.lock();
                    let (id, _) = state.draft_of(fh)?;
                    let resized = state.resize(id, size, &self.cache.limits());
                    resized.map_err(|error| self.part_is_set(&mut state, id, error))?;
                }
                None => self.truncate(caller, ino, size).await?,
            }
        }
        if keeps {
            self.keep_attributes(ino, fh, &changes).await?;
        } else if is_kept_directory {
            self.keep_directory(ino, &changes).await?;
        } else if asked {
            self.override_attributes(&mut self.state.lock(), ino, fh, &changes)?;
        }
        // The answer tells the kernel of this one.
        let others = if asked { self.state.lock().others_of_name(ino) } else { Vec::new() };
        self.expire_attributes(others);
        self.getattr(ino, fh)
    }

    /// Whether the store keeps what is said of the file: it has its key.
    fn keeps(&self, state: &State, ino: Ino, fh: Option<Fh>) -> bool {
        let Ok(inode) = state.inode(ino) else { return false };
        if !self.cache.keeps_attributes() || state.has_lost_name(ino, inode) {
            return false;
        }
        match open_as(inode, fh.and_then(|fh| state.handle(fh).ok())) {
            Some(OpenAs::Version(_)) => true,
            Some(OpenAs::Draft(id)) => state.draft(id).is_some_and(|draft| {
                draft.published.is_some() && !draft.orphan && draft.purpose != Publish::Never
            }),
            None => false,
        }
    }

    /// Has the store keep what is asked for, and it does not have.
    async fn keep_attributes(self: &Arc<Self>, ino: Ino, fh: Option<Fh>, changes: &Changes) -> FsResult<()> {
        let _staying = self.stay().await?;
        let (_operation, name) = self.begin_at(ino).await?;
        let (key, new) = {
            let state = self.state.lock();
            (state.inode(ino)?.key.clone(), self.not_stored(Self::stored(&state, ino, fh)?, changes))
        };
        let meta = if new.are_none() { None } else { Some(self.cache.set_attributes(&key, &new).await?) };
        let mut state = self.state.lock();
        let known = state.attributes_of(ino, state.inode(ino)?);
        let mut changes = *changes;
        if meta.as_ref().is_some_and(|meta| !Overrides::are_older(known, meta)) {
            // Somebody else has said something since.
            (changes.mode, changes.uid, changes.gid) = (None, None, None);
        }
        self.override_attributes(&mut state, ino, fh, &changes)?;
        if let Some(meta) = meta {
            state.follow_attributes(&name, &meta);
        }
        Ok(())
    }

    /// What the store has of the file, as far as that is known.
    fn stored(state: &State, ino: Ino, fh: Option<Fh>) -> FsResult<Overrides> {
        let inode = state.inode(ino)?;
        let stored = match open_as(inode, fh.and_then(|fh| state.handle(fh).ok())) {
            Some(OpenAs::Version(meta)) => Overrides::followed(None, meta),
            Some(OpenAs::Draft(_)) | None => None,
        };
        let set = state.attributes_of(ino, inode).filter(|set| set.stored.is_some());
        Ok(set.or(stored).unwrap_or_default())
    }

    /// What of `changes` a program asked for, and is not `stored`.
    pub(crate) fn not_stored(&self, stored: Overrides, changes: &Changes) -> Attributes {
        let other = |asked: Option<u32>, stored| asked.filter(|_| asked != stored);
        Attributes {
            mode: other(changes.mode.map(|mode| mode & 0o7777), stored.mode),
            uid: other(changes.uid, stored.uid),
            gid: other(changes.gid, stored.gid),
            accessed: changes.accessed,
            // truncate(2) tells the time of what it does.
            modified: changes.modified.filter(|_| changes.size.is_none()),
            changed: Some(self.settings.clock.now()),
            ..Attributes::default()
        }
    }

    /// What a set of the draft gives its key, of which the tables know this: all that was asked for and the store has not.
    pub(crate) fn given(&self, set: Option<Overrides>, draft: &Draft) -> Option<Given> {
        if !self.cache.keeps_attributes() {
            return None;
        }
        let modified = Some(draft.bytes.modified()).filter(|_| draft.bytes.is_time_set());
        let mode = set.and_then(|set| set.mode).filter(|_| draft.ends_privileges);
        let set = set.filter(|set| set.stored.is_none()).unwrap_or_default();
        let set = Overrides { mode: mode.or(set.mode), ..set };
        Some(Given { attributes: set.to_store(modified), replaces: draft.published.is_none() })
    }

    /// Attributes change with the inode only, except those of directories, which age with the listing.
    pub(crate) fn listing_ttl(&self) -> Duration {
        if self.cache.is_pushed() { FOREVER } else { Duration::ZERO }
    }

    pub(crate) fn attr_in(&self, state: &State, ino: Ino, fh: Option<Fh>) -> FsResult<Attr> {
        if ino == ROOT {
            return Ok(self.directory_attr(state, ino, ""));
        }
        let inode = state.inode(ino)?;
        if matches!(inode.body, Body::Directory) {
            return Ok(self.directory_attr(state, ino, &inode.name));
        }
        let handle = fh.and_then(|fh| state.handle(fh).ok());
        let shown = match open_as(inode, handle).ok_or(FsError::IsDirectory)? {
            OpenAs::Draft(id) => Shown::of_draft(state.draft(id).ok_or(FsError::NotFound)?),
            OpenAs::Version(meta) => {
                self.followed(state, ino, inode).as_ref().map_or_else(|| Shown::of(meta), Shown::of)
            }
        };
        Ok(self.file_attr(state, ino, inode, shown))
    }

    /// The current version of a key, for an inode that has been replaced and is held by nobody: a file that is
    /// bind-mounted alone goes on with the key.
    fn followed(&self, state: &State, ino: Ino, inode: &Inode) -> Option<Meta> {
        if inode.unlinked || !state.follows_name(ino, inode) {
            return None;
        }
        let current = state.named(&inode.name).and_then(|(_, current)| match &current.body {
            Body::Key(meta) => Some(meta.clone()),
            Body::Local(_) | Body::Draft(_) | Body::Directory => None,
        });
        current.or_else(|| self.peek_meta(&inode.key)?.value)
    }

    fn file_attr(&self, state: &State, ino: Ino, inode: &Inode, shown: Shown) -> Attr {
        let Shown { size, modified, created, version, stored } = shown;
        let set = state.attributes_of(ino, inode).or(stored).unwrap_or_default();
        let times = set.times(modified, version);
        Attr {
            ino,
            number: state.number_of(ino, inode),
            directory: false,
            size,
            mode: set.mode.unwrap_or(0o666 & !self.settings.umask),
            links: u32::from(!state.has_lost_name(ino, inode)),
            uid: set.uid.unwrap_or(self.settings.uid),
            gid: set.gid.unwrap_or(self.settings.gid),
            accessed: times.accessed,
            modified: times.modified,
            changed: times.changed,
            created,
            lasts: !matches!(inode.body, Body::Key(_)) || inode.cached.size.is_known(),
        }
    }

    pub(crate) fn directory_attr(&self, state: &State, ino: Ino, path: &str) -> Attr {
        let unlinked = state.inode(ino).ok().is_some_and(|inode| inode.unlinked);
        let (set, modified, version) = match state.directory(path).filter(|_| !unlinked) {
            Some(directory) => (directory.set, directory.modified, Some(directory.version)),
            None => (Overrides::default(), state.names_modified(), None),
        };
        let times = set.times(modified, version);
        // Who watches a directory without links would be told of its end before that of what was in it.
        let gone = (unlinked || !self.is_directory_there(state, path)) && !self.relay().is_on();
        Attr {
            ino,
            number: ino,
            directory: true,
            size: 0,
            mode: set.mode.unwrap_or(0o777 & !self.settings.umask),
            links: if gone { 0 } else { 2 },
            uid: set.uid.unwrap_or(self.settings.uid),
            gid: set.gid.unwrap_or(self.settings.gid),
            accessed: times.accessed,
            modified: times.modified,
            changed: times.changed,
            created: self.started,
            lasts: true,
        }
    }
}

/// What of a file is of the version that is shown.
#[derive(Clone, Copy)]
struct Shown {
    size: u64,
    modified: SystemTime,
    created: SystemTime,
    version: Option<Revision>,
    /// Its attributes, for one of which nothing is known that is newer.
    stored: Option<Overrides>,
}

impl Shown {
    fn of_draft(draft: &Draft) -> Self {
        let size = draft.bytes.len() as u64;
        match &draft.published {
            Some(meta) if draft.opening => return Self::of(meta),
            Some(meta) if !draft.bytes.is_changed() => return Self { size, ..Self::of(meta) },
            _ => {}
        }
        let modified = draft.bytes.modified();
        let created = draft.published.as_ref().map_or(modified, |meta| meta.created);
        Self { size, modified, created, version: None, stored: None }
    }

    fn of(meta: &Meta) -> Self {
        Self {
            size: meta.size,
            modified: meta.modified,
            created: meta.created,
            version: Some(meta.revision),
            stored: Overrides::followed(None, meta),
        }
    }
}

impl Fs {
    /// What is to be known of a file or directory from now on, if there is room for it.
    fn overridden(&self, state: &State, ino: Ino, fh: Option<Fh>, changes: &Changes) -> FsResult<Overrides> {
        let (set, version, usual) = if let Ok(path) = state.directory_path(ino) {
            let known = state.directory(&path).map(|directory| (directory.set, directory.version));
            (known.map(|(set, _)| set), known.map(|(_, version)| version), 0o777)
        } else {
            let inode = state.inode(ino)?;
            let version = match open_as(inode, fh.and_then(|fh| state.handle(fh).ok())) {
                Some(OpenAs::Draft(id)) => state.draft(id).and_then(|draft| draft.published.as_ref()),
                Some(OpenAs::Version(meta)) => Some(meta),
                None => None,
            };
            (state.attributes_of(ino, inode), version.map(|meta| meta.revision), 0o666)
        };
        let usual = (!self.goes_with_key(state, ino, fh)).then_some(usual);
        let new = self.merged(set.unwrap_or_default(), changes, version, usual);
        let is_stored = self.keeps(state, ino, fh);
        if !is_stored && !state.inode(ino).is_ok_and(|inode| state.has_lost_name(ino, inode)) {
            state.room_for_attributes(set.as_ref(), &new)?;
        }
        Ok(new)
    }

    /// Whether what is said of the file goes into the store, now or with the first set of its key.
    fn goes_with_key(&self, state: &State, ino: Ino, fh: Option<Fh>) -> bool {
        let Ok(inode) = state.inode(ino) else { return false };
        self.cache.keeps_attributes()
            && match open_as(inode, fh.and_then(|fh| state.handle(fh).ok())) {
                Some(OpenAs::Version(_)) => true,
                Some(OpenAs::Draft(id)) => {
                    state.draft(id).is_some_and(|draft| draft.purpose != Publish::Never)
                }
                None => false,
            }
    }

    /// `set` with what is asked for while this `version` is there. Where there is a `usual` mode, less the umask, what equals
    /// that of all others is not kept.
    fn merged(
        &self,
        set: Overrides,
        changes: &Changes,
        version: Option<Revision>,
        usual: Option<u32>,
    ) -> Overrides {
        let settings = &self.settings;
        let own = |asked: Option<u32>, set: Option<u32>, other: u32| match asked {
            Some(asked) => (usual.is_none() || asked != other).then_some(asked),
            None => set,
        };
        let (modified, by_write, version) = match changes.modified {
            // truncate(2) tells the time of what it does.
            Some(modified) => (Some(modified), changes.size.is_some(), version),
            None => (set.modified, set.by_write, set.version),
        };
        Overrides {
            mode: own(
                changes.mode.map(|mode| mode & 0o7777),
                set.mode,
                usual.unwrap_or_default() & !settings.umask,
            ),
            uid: own(changes.uid, set.uid, settings.uid),
            gid: own(changes.gid, set.gid, settings.gid),
            accessed: changes.accessed.or(set.accessed),
            modified,
            by_write,
            version,
            changed: Some(settings.clock.now()),
            stored: set.stored,
        }
    }

    pub(crate) fn override_attributes(
        &self,
        state: &mut State,
        ino: Ino,
        fh: Option<Fh>,
        changes: &Changes,
    ) -> FsResult<()> {
        let keeps = self.keeps(state, ino, fh);
        let new = self.overridden(state, ino, fh, changes)?;
        let new = Overrides { stored: new.stored.filter(|_| keeps), ..new };
        if let Ok(path) = state.directory_path(ino) {
            state.edit_directory(&path, |directory| directory.set = new);
            return Ok(());
        }
        let inode = state.inode(ino)?;
        let open = open_as(inode, fh.and_then(|fh| state.handle(fh).ok()));
        if let (Some(modified), Some(OpenAs::Draft(id))) = (changes.modified, open)
            && let Some(draft) = state.draft_mut(id)
        {
            draft.bytes.set_modified(modified);
        }
        if let Some(modified) = changes.modified.filter(|_| changes.size.is_none()) {
            state.set_modified(ino, modified);
        }
        state.set_attributes_of(ino, Some(new));
        Ok(())
    }
}

/// What a file is, by its inode or by an open file of it.
enum OpenAs<'a> {
    Version(&'a Meta),
    Draft(DraftId),
}

/// `None` is a directory.
fn open_as<'a>(inode: &'a Inode, handle: Option<&'a Handle>) -> Option<OpenAs<'a>> {
    Some(match (handle.map(|handle| &handle.content), &inode.body) {
        (Some(Content::Draft(id)), _) | (_, Body::Local(id) | Body::Draft(id)) => OpenAs::Draft(*id),
        (Some(Content::Snapshot(_, Some(meta))), Body::Key(_)) | (_, Body::Key(meta)) => {
            OpenAs::Version(meta)
        }
        (_, Body::Directory) => return None,
    })
}

fn has_times(changes: &Changes) -> bool {
    changes.accessed.is_some() || changes.modified.is_some()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fs::types::{Access, Caller};
    use crate::store::{Change, Expect, Key, Store, Text};

    const CALLER: Caller = Caller { thread: 1, uid: 0, gid: 0 };

    /// The time that utimes(2) set for the value before `change` is told, or is missed (`Everything`), and the kernel has
    /// forgotten the inode or not: what the file shows then, and what is its own.
    async fn after(change: Option<()>, forgotten: bool) -> (SystemTime, SystemTime) {
        let (fs, elsewhere) = Fs::in_memory(Duration::ZERO);
        let (key, old) = (Key::from("k"), SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        let text = |text: &str| Text::from(text.as_bytes());
        fs.cache.set_key_value(&key, text("1"), Expect::Anything).await.unwrap();
        let look = async || fs.clone().lookup(CALLER, ROOT, "k".into()).await.unwrap().attr.unwrap();
        let ino = look().await.ino;
        let set = Changes { modified: Some(old), ..Changes::default() };
        assert_eq!(fs.clone().setattr(CALLER, ino, None, set).await.unwrap().attr.unwrap().modified, old);
        if forgotten {
            fs.forget(ino, 1);
            assert_eq!(look().await.modified, old);
            fs.forget(look().await.ino, 2);
        }
        let meta = elsewhere.set_key_value(&key, text("2"), Expect::Anything).await.unwrap();
        let change = change.map_or(Change::Everything, |()| Change::Set(key, meta.clone()));
        fs.take_in(change).await;
        (look().await.modified, meta.modified)
    }

    #[tokio::test]
    async fn the_time_that_is_set_by_an_open_file_stays() {
        let (fs, _) = Fs::in_memory(Duration::ZERO);
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        fs.cache.set_key_value(&Key::from("k"), Text::from(&b"1"[..]), Expect::Anything).await.unwrap();
        let look = async || fs.clone().lookup(CALLER, ROOT, "k".into()).await.unwrap().attr.unwrap();
        for write in [false, true] {
            let access = Access { write, append: false, truncate: false };
            let (ino, modified) = (look().await.ino, old + Duration::from_secs(u64::from(write)));
            let opened = fs.clone().open(CALLER, ino, access).await;
            // A writer is sent to look again.
            let (ino, opened) = if let Ok(opened) = opened {
                (ino, opened)
            } else {
                let ino = look().await.ino;
                (ino, fs.clone().open(CALLER, ino, access).await.unwrap())
            };
            let set = Changes { modified: Some(modified), ..Changes::default() };
            fs.clone().setattr(CALLER, ino, Some(opened.fh), set).await.unwrap();
            fs.clone().flush(CALLER, opened.fh, 0).await.unwrap();
            fs.clone().release(opened.fh).await;
            assert_eq!(look().await.modified, modified, "write: {write}");
        }
    }

    #[tokio::test]
    async fn a_newer_value_has_its_own_time_however_it_became_known() {
        for change in [Some(()), None] {
            for forgotten in [false, true] {
                let (shown, own) = after(change, forgotten).await;
                assert_eq!(shown, own, "{change:?}, forgotten: {forgotten}");
            }
        }
    }
}
