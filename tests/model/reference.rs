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
}

/// The directory.
pub(super) struct Model {
    json: bool,
    keys: BTreeMap<String, (Vec<u8>, u64)>,
    /// Files that are no keys: new ones and scratch files.
    locals: BTreeMap<String, usize>,
    drafts: Vec<Draft>,
    handles: Vec<Handle>,
    /// Values that were removed, as long as nothing else has become of their names.
    removed: BTreeMap<String, Vec<u8>>,
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
            if write {
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
        self.handles.push(Handle { content, append: flags & O_APPEND != 0, writable: write, failed: None });
        Ok(self.handles.len() - 1)
    }

    fn add(&mut self, draft: Draft) -> usize {
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
        if let Some(errno) = failed.filter(|_| !(completes && draft.refused == failed)) {
            return Err(errno);
        }
        let mut written = draft.write(at, data, self.json);
        if !append {
            draft.appended_at = None;
        }
        if written.is_ok() && completes {
            written = self.publish(id);
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
        let (text, _) = self.keys.get(name).ok_or(ENOENT)?;
        match size {
            _ if size == text.len() => Ok(()),
            _ if size > LIMIT => Err(EFBIG),
            _ => {
                let mut text = text.clone();
                text.resize(size, 0);
                if self.json && !is_document(&text) {
                    return Err(EINVAL);
                }
                self.set(name, text);
                Ok(())
            }
        }
    }

    fn set(&mut self, name: &str, text: Vec<u8>) -> u64 {
        self.forget_removed(name);
        self.revision += 1;
        self.keys.insert(name.to_owned(), (text, self.revision));
        self.revision
    }

    /// What was removed at `name` does not come back.
    fn forget_removed(&mut self, name: &str) {
        self.removed.remove(name);
        self.drafts.iter_mut().filter(|draft| draft.name == name).for_each(|draft| draft.removed = None);
    }

    /// fsync(2), and the first half of close(2).
    pub(super) fn sync(&mut self, handle: usize) -> Outcome<()> {
        if let Some(errno) = self.handles[handle].failed {
            return Err(errno);
        }
        match self.writer(handle) {
            Some(draft) => self.publish(draft),
            None => Ok(()),
        }
    }

    fn publish(&mut self, id: usize) -> Outcome<()> {
        let draft = &self.drafts[id];
        let due = draft.changed || !self.json && !draft.published;
        let is_nothing = self.json && draft.text.is_empty() && !draft.published;
        if draft.orphan || draft.scratch || !due || is_nothing {
            return Ok(());
        }
        let mut value = draft.value()?;
        self.check(&value)?;
        let there = self.keys.get(&draft.name);
        if let Expect::At(revision) = draft.expect
            && there.map(|(_, revision)| *revision) != Some(revision)
        {
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
            let draft = &mut self.drafts[id];
            draft.refused = merged.as_ref().err().copied();
            value = merged?;
            draft.base = Some(Vec::new());
        }
        let draft = &mut self.drafts[id];
        let name = draft.name.clone();
        draft.base.iter_mut().for_each(|base| base.clone_from(&value));
        let revision = self.set(&name, value);
        self.published(id, revision);
        Ok(())
    }

    fn check(&self, text: &[u8]) -> Outcome<()> {
        if counted(text) > LIMIT {
            Err(EFBIG)
        } else if self.json && !is_document(text) {
            Err(EINVAL)
        } else {
            Ok(())
        }
    }

    fn published(&mut self, id: usize, revision: u64) {
        let draft = &mut self.drafts[id];
        draft.expect = Expect::At(revision);
        (draft.published, draft.changed, draft.scratch) = (true, false, false);
        (draft.blank_since, draft.refused) = (true, None);
        draft.appended_at = Some(draft.text.len());
        self.locals.retain(|_, local| *local != id);
    }

    pub(super) fn close(&mut self, handle: usize) -> Outcome<()> {
        let is_begun = self.writer(handle).is_some_and(|id| !self.json && self.drafts[id].is_begun());
        let synced =
            if is_begun { self.handles[handle].failed.map_or(Ok(()), Err) } else { self.sync(handle) };
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
            draft.refused = Some(errno);
        }
        self.locals.retain(|_, local| *local != id);
    }

    fn orphan(&mut self, name: &str) {
        self.forget_removed(name);
        self.drafts.iter_mut().filter(|draft| draft.name == name).for_each(|draft| draft.orphan = true);
    }

    pub(super) fn unlink(&mut self, name: &str) -> Outcome<()> {
        let local = self.locals.remove(name);
        let key = if local.is_none() { Some(self.keys.remove(name).ok_or(ENOENT)?) } else { None };
        self.orphan(name);
        self.removed.extend(key.map(|(text, _)| (name.to_owned(), text)));
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str, no_replace: bool) -> Outcome<()> {
        if !self.exists(from) {
            return Err(ENOENT);
        }
        if no_replace && self.exists(to) {
            return Err(EEXIST);
        }
        if from == to {
            return Ok(());
        }
        if let Some(draft) = self.locals.get(from).copied() {
            return self.rename_local(draft, from, to);
        }
        self.rename_key(from, to);
        Ok(())
    }

    fn rename_local(&mut self, id: usize, from: &str, to: &str) -> Outcome<()> {
        let draft = &self.drafts[id];
        let empty = self.json && draft.text.is_empty();
        if counted(&draft.text) > LIMIT {
            return Err(EFBIG);
        }
        if empty && self.keys.contains_key(to) || !empty && self.json && !is_document(&draft.text) {
            return Err(EINVAL);
        }
        let text = draft.text.clone();
        self.locals.remove(to);
        self.orphan(to);
        self.locals.remove(from);
        self.forget_removed(from);
        to.clone_into(&mut self.drafts[id].name);
        if empty {
            self.drafts[id].scratch = false;
            self.locals.insert(to.to_owned(), id);
        } else {
            // A value that is there already is not set again.
            let same = self.keys.get(to).filter(|(there, _)| *there == text).map(|(_, revision)| *revision);
            let revision = same.unwrap_or_else(|| self.set(to, text));
            self.published(id, revision);
        }
        Ok(())
    }

    /// Writers go on under the new name; those whose value was changed under them stay stale.
    fn rename_key(&mut self, from: &str, to: &str) {
        self.locals.remove(to);
        self.orphan(to);
        self.forget_removed(from);
        let (text, old) = self.keys.remove(from).unwrap();
        let new = self.set(to, text);
        for draft in self.drafts.iter_mut().filter(|draft| !draft.orphan && draft.name == from) {
            to.clone_into(&mut draft.name);
            if draft.expect == Expect::At(old) {
                draft.expect = Expect::At(new);
            }
        }
    }

    /// A file that was written under another name is renamed onto `name`. Who writes that goes on with a file without a name.
    pub(super) fn replace_by_rename(&mut self, name: &str, text: &[u8]) {
        self.locals.remove(name);
        self.orphan(name);
        if self.keys.get(name).is_none_or(|(there, _)| there != text) {
            self.set(name, text.to_vec());
        }
    }

    /// The key `name` is renamed to `backup`, and written anew.
    pub(super) fn replace_with_backup(&mut self, name: &str, text: &[u8], backup: &str) {
        let old = self.keys[name].0.clone();
        if self.locals.remove(backup).is_some() {
            self.orphan(backup);
        }
        let draft = self.add(Draft::new(backup, old, Expect::Anything, true));
        self.locals.insert(backup.to_owned(), draft);
        self.set(name, text.to_vec());
    }
}
