//! The documented rules over a flat map, without inodes, caches or messages.

use std::collections::BTreeMap;

use libc::{EEXIST, EFBIG, EINVAL, ENOENT, ESTALE, O_ACCMODE, O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_TRUNC};

use super::door::Outcome;
use super::drafts::{Draft, Expect, LIMIT, counted, is_document};

enum Content {
    Snapshot(Vec<u8>),
    Writer(usize),
    /// Reads a file that is no key yet.
    Reader,
}

struct Handle {
    content: Content,
    append: bool,
    writable: bool,
    failed: Option<i32>,
    /// Something was written by it.
    written: bool,
}

/// The directory.
pub(super) struct Model {
    pub(super) json: bool,
    pub(super) keys: BTreeMap<String, (Vec<u8>, u64)>,
    /// Files that are no keys: new ones and scratch files.
    pub(super) locals: BTreeMap<String, usize>,
    pub(super) drafts: Vec<Draft>,
    handles: Vec<Handle>,
    /// Values that were removed, as long as nothing else has become of their names.
    pub(super) removed: BTreeMap<String, Vec<u8>>,
    revision: u64,
}

impl Model {
    pub(super) fn new(json: bool) -> Self {
        let (keys, locals) = (BTreeMap::new(), BTreeMap::new());
        let (drafts, handles, removed) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { json, keys, locals, drafts, handles, removed, revision: 0 }
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        self.keys.contains_key(name) || self.locals.contains_key(name)
    }

    pub(super) fn is_key(&self, name: &str) -> bool {
        self.keys.contains_key(name)
    }

    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.keys.keys().chain(self.locals.keys()).cloned().collect();
        names.sort();
        names
    }

    /// What the store has.
    pub(super) fn stored(&self) -> BTreeMap<String, Vec<u8>> {
        self.keys.iter().map(|(name, (text, _))| (name.clone(), text.clone())).collect()
    }

    /// What a reader finds; `None` where it is a file that somebody may be writing.
    pub(super) fn text(&self, name: &str) -> Outcome<Option<&[u8]>> {
        match (self.keys.get(name), self.locals.get(name)) {
            (Some((text, _)), _) => Ok(Some(text)),
            (None, Some(draft)) => {
                Ok(Some(&self.drafts[*draft]).filter(|draft| draft.scratch).map(|draft| &draft.text[..]))
            }
            (None, None) => Err(ENOENT),
        }
    }

    /// What an open file shows; `None` for a reader of a file that somebody may be writing.
    pub(super) fn contents(&self, handle: usize) -> Option<&[u8]> {
        match &self.handles[handle].content {
            Content::Snapshot(text) => Some(text),
            Content::Writer(draft) => Some(&self.drafts[*draft].text),
            Content::Reader => None,
        }
    }

    /// Whether writes through this handle go to a key or to a file that can become one.
    pub(super) fn can_write(&self, handle: usize) -> bool {
        let open = &self.handles[handle];
        open.writable && matches!(open.content, Content::Writer(draft) if !self.drafts[draft].orphan)
    }

    pub(super) fn open(&mut self, name: &str, flags: i32) -> Outcome<usize> {
        if flags & O_CREAT != 0 && flags & O_EXCL != 0 && self.exists(name) {
            return Err(EEXIST);
        }
        let (write, truncate) = (flags & O_ACCMODE != O_RDONLY, flags & O_TRUNC != 0);
        let content = if let Some(&draft) = self.locals.get(name) {
            if truncate {
                let local = &mut self.drafts[draft];
                if local.changed || !local.text.is_empty() || !self.json {
                    local.clear();
                }
            }
            if write { Content::Writer(draft) } else { Content::Reader }
        } else if let Some((text, revision)) = self.keys.get(name) {
            if let Some(draft) = self.shared(name).filter(|_| write) {
                if truncate {
                    self.drafts[draft].clear();
                    self.drafts[draft].expect = Expect::Anything;
                }
                Content::Writer(draft)
            } else if write {
                let mut draft = Draft::new(name, text.clone(), Expect::At(*revision), false);
                draft.published = true;
                if truncate {
                    draft.clear();
                    draft.expect = Expect::Anything;
                }
                Content::Writer(self.add(draft))
            } else {
                Content::Snapshot(text.clone())
            }
        } else if flags & O_CREAT != 0 {
            let draft = self.add(Draft::new(name, Vec::new(), Expect::Anything, name.starts_with(".x.")));
            self.drafts[draft].removed = self.removed.remove(name);
            self.drafts[draft].exclusive = flags & O_EXCL != 0;
            self.locals.insert(name.to_owned(), draft);
            Content::Writer(draft)
        } else {
            return Err(ENOENT);
        };
        if let Content::Writer(draft) = content {
            self.drafts[draft].writers += 1;
        }
        let append = flags & O_APPEND != 0;
        self.handles.push(Handle { content, append, writable: write, failed: None, written: false });
        Ok(self.handles.len() - 1)
    }

    /// The draft that is written to already, if nothing of it is unsaved.
    fn shared(&self, name: &str) -> Option<usize> {
        let (there, revision) = self.keys.get(name)?;
        self.drafts.iter().position(|draft| {
            let is_of_it = draft.name == name && draft.backup.is_none() && !draft.orphan;
            let is_live = is_of_it && draft.writers > 0 && !draft.scratch;
            is_live && !draft.changed && draft.expect == Expect::At(*revision) && draft.text == *there
        })
    }

    pub(super) fn add(&mut self, draft: Draft) -> usize {
        self.drafts.push(draft);
        self.drafts.len() - 1
    }

    fn writer(&self, handle: usize) -> Option<usize> {
        if let Content::Writer(draft) = self.handles[handle].content { Some(draft) } else { None }
    }

    pub(super) fn write(&mut self, handle: usize, at: usize, data: &[u8]) -> Outcome<usize> {
        let id = self.writer(handle).unwrap();
        let (failed, draft) = (self.handles[handle].failed, &mut self.drafts[id]);
        let size = draft.text.len();
        let append = self.handles[handle].append;
        let at = if append { size } else { at };
        let completes = draft.completes(at, data, self.json);
        self.handles[handle].written |= failed.is_none();
        if let Some(errno) = failed.filter(|_| !(completes && draft.refused == failed)) {
            return Err(errno);
        }
        let mut written = draft.write(at, data, self.json);
        if !append {
            draft.appended_at = None;
        }
        if written.is_ok() && completes {
            written = self.publish(id, false);
            if written.is_err() {
                self.drafts[id].text.truncate(size);
            }
        }
        self.handles[handle].failed = written.err();
        written.map(|()| data.len())
    }

    pub(super) fn ftruncate(&mut self, handle: usize, size: usize) -> Outcome<()> {
        let draft = self.writer(handle).unwrap();
        self.resize(draft, size)
    }

    fn resize(&mut self, id: usize, size: usize) -> Outcome<()> {
        self.drafts[id].truncate(size)?;
        // What was refused is no part of the text any more.
        let of_it = |handle: &&mut Handle| matches!(handle.content, Content::Writer(draft) if draft == id);
        self.handles
            .iter_mut()
            .filter(|handle| size == 0 && of_it(handle))
            .for_each(|open| open.failed = None);
        Ok(())
    }

    pub(super) fn truncate(&mut self, name: &str, size: usize) -> Outcome<()> {
        if let Some(&id) = self.locals.get(name) {
            let draft = &self.drafts[id];
            if self.json && draft.writers == 0 && !draft.scratch && size != draft.text.len() {
                return Err(if size > LIMIT { EFBIG } else { EINVAL });
            }
            return self.resize(id, size);
        }
        if let Some(id) = self.shared(name) {
            self.resize(id, size)?;
            return if self.check(&self.drafts[id].text).is_ok() { self.publish(id, false) } else { Ok(()) };
        }
        let (text, before) = self.keys.get(name).map(|(text, at)| (text, Expect::At(*at))).ok_or(ENOENT)?;
        match size {
            _ if size == text.len() => Ok(()),
            _ if size > LIMIT => Err(EFBIG),
            _ => {
                let mut text = text.clone();
                text.resize(size, 0);
                if self.json && !is_document(&text) {
                    return Err(EINVAL);
                }
                self.set_anew(name, None, text, before);
                Ok(())
            }
        }
    }

    pub(super) fn set(&mut self, name: &str, text: Vec<u8>) -> u64 {
        self.forget_removed(name);
        self.revision += 1;
        self.keys.insert(name.to_owned(), (text, self.revision));
        self.revision
    }

    /// As [`Model::set`], in place of that version, or of any. Drafts of the same file that have it may take its place: all are of
    /// one process.
    fn set_anew(&mut self, name: &str, backup: Option<u64>, text: Vec<u8>, before: Expect) {
        let revision = self.set(name, text);
        let of_it = |draft: &&mut Draft| draft.name == name && draft.backup == backup && !draft.orphan;
        let kin = self.drafts.iter_mut().filter(of_it).filter(|draft| draft.goes_on_from(before));
        kin.for_each(|draft| draft.follows = Some(revision));
    }

    /// What was removed at `name` does not come back.
    pub(super) fn forget_removed(&mut self, name: &str) {
        self.removed.remove(name);
        self.drafts.iter_mut().filter(|draft| draft.name == name).for_each(|draft| draft.removed = None);
    }

    /// fsync(2), or the first half of close(2).
    pub(super) fn sync(&mut self, handle: usize, fsync: bool) -> Outcome<()> {
        if let Some(errno) = self.handles[handle].failed {
            return Err(errno);
        }
        match self.writer(handle) {
            Some(draft) => self.publish(draft, fsync),
            None => Ok(()),
        }
    }

    fn publish(&mut self, id: usize, fsync: bool) -> Outcome<()> {
        let draft = &self.drafts[id];
        let due = draft.changed || !self.json && !draft.published;
        let is_nothing = self.json && draft.text.is_empty() && !draft.published;
        if draft.orphan || draft.scratch || !due || is_nothing {
            return Ok(());
        }
        let whole = draft.value()?;
        let begins = draft.beginning_of(&whole).filter(|_| fsync && self.json).map(<[u8]>::to_vec);
        let mut value = begins.clone().unwrap_or(whole);
        self.check(&value)?;
        let there = self.keys.get(&draft.name);
        let now = there.map(|(_, revision)| Expect::At(*revision));
        let mut before = draft.expect;
        if matches!(before, Expect::At(_)) && now != Some(before) {
            if self.json && draft.blank_since {
                let draft = &mut self.drafts[id];
                (draft.changed, draft.appended_at) = (false, Some(draft.text.len()));
                return Ok(());
            }
            // What was only appended goes to what there is now.
            let appended = there.zip(draft.appended()).map(|((text, _), appended)| [text, appended].concat());
            let merged = appended.ok_or(ESTALE).and_then(|merged| match self.check(&merged) {
                Err(EINVAL) => Err(ESTALE),
                checked => checked.map(|()| merged),
            });
            let is_own = draft.follows.is_some() && draft.follows.map(Expect::At) == now;
            let draft = &mut self.drafts[id];
            before = now.unwrap_or(before);
            if merged != Err(ESTALE) || !is_own {
                draft.refused = merged.as_ref().err().copied();
                value = merged?;
                draft.base = Some(Vec::new());
            }
        }
        let draft = &mut self.drafts[id];
        let (name, backup) = (draft.name.clone(), draft.backup);
        draft.base.iter_mut().for_each(|base| base.clone_from(&value));
        self.set_anew(&name, backup, value, before);
        self.published(id, self.revision);
        self.drafts[id].only_begins_with(begins);
        Ok(())
    }

    pub(super) fn check(&self, text: &[u8]) -> Outcome<()> {
        if counted(text) > LIMIT {
            Err(EFBIG)
        } else if self.json && !is_document(text) {
            Err(EINVAL)
        } else {
            Ok(())
        }
    }

    pub(super) fn published(&mut self, id: usize, revision: u64) {
        self.drafts[id].became(revision);
        self.locals.retain(|_, local| *local != id);
    }

    pub(super) fn close(&mut self, handle: usize) -> Outcome<()> {
        let is_begun = self.writer(handle).is_some_and(|id| !self.json && self.drafts[id].is_begun());
        let synced = match self.handles[handle].failed {
            failed if is_begun => failed.map_or(Ok(()), Err),
            _ if self.is_left_to_others(handle) => Ok(()),
            _ => self.sync(handle, false),
        };
        if let Err(errno) = synced {
            self.put_back(handle, errno);
        }
        if let Some(id) = self.writer(handle) {
            let failed = self.handles[handle].failed.is_some();
            let draft = &mut self.drafts[id];
            draft.writers -= 1;
            let local = self.locals.values().any(|local| *local == id);
            if draft.writers == 0 && local && !draft.scratch {
                if !draft.empty && (failed || draft.changed && !draft.text.is_empty()) {
                    // Rejected; there is no file, as there was none.
                    draft.orphan = true;
                    self.locals.retain(|_, local| *local != id);
                } else if failed || draft.changed {
                    // Rejected; the file is as empty as it was.
                    draft.clear();
                    draft.changed = false;
                }
                self.drafts[id].empty = true;
            }
        }
        synced
    }

    /// Whether what is no value was not written by this handle, and others are left that may write to it.
    fn is_left_to_others(&self, handle: usize) -> bool {
        let Some(draft) = self.writer(handle).map(|id| &self.drafts[id]) else { return false };
        let is_unfit = draft.changed && draft.value().and_then(|value| self.check(&value)).is_err();
        is_unfit && draft.writers > 1 && !self.handles[handle].written
    }

    /// A new file was refused: what was removed for it is back, and who writes it goes on as a writer of that.
    fn put_back(&mut self, handle: usize, errno: i32) {
        let Some(id) = self.writer(handle) else { return };
        let draft = &mut self.drafts[id];
        let is_new = !draft.orphan && !draft.published;
        let (name, Some(text)) = (draft.name.clone(), draft.removed.take().filter(|_| is_new)) else {
            return;
        };
        let revision = self.set(&name, text);
        let draft = &mut self.drafts[id];
        (draft.published, draft.expect) = (true, Expect::At(revision));
        if self.handles[handle].failed.is_none() {
            // It is none that a write was told of.
            draft.refused = Some(-errno);
        }
        self.locals.retain(|_, local| *local != id);
    }
}
