//! What becomes of names: removals and renames.

use libc::{EEXIST, EFBIG, EINVAL, ENOENT};

use super::door::Outcome;
use super::drafts::{Draft, Expect, LIMIT, counted, is_document};
use super::reference::Model;

impl Model {
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
        let is_value =
            if empty { !self.keys.contains_key(to) } else { !self.json || is_document(&draft.text) };
        if counted(&draft.text) > LIMIT || !is_value {
            let errno = if counted(&draft.text) > LIMIT { EFBIG } else { EINVAL };
            // What was removed there is back.
            if let Some(text) = self.removed.remove(to).filter(|_| !self.exists(to)) {
                self.set(to, text);
            }
            return Err(errno);
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
        self.removed.insert(from.to_owned(), text.clone());
        let new = self.set(to, text);
        for draft in self.drafts.iter_mut().filter(|draft| !draft.orphan && draft.name == from) {
            to.clone_into(&mut draft.name);
            if draft.expect == Expect::At(old) {
                draft.expect = Expect::At(new);
            }
            draft.follows = draft.follows.map(|at| if at == old { new } else { at });
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
        let revision = self.set(name, text.to_vec());
        let former = self.drafts.iter_mut().filter(|draft| draft.name == name && draft.backup.is_none());
        former.for_each(|draft| draft.backup = Some(revision));
    }
}
