//! The unsaved bytes of one file.

use libc::{EFBIG, EINVAL, ESTALE};

use super::door::Outcome;

/// Largest value; one final newline is not counted.
pub(super) const LIMIT: usize = 10_000;

/// What must be true of the key when a draft is published.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Expect {
    Anything,
    At(u64),
}

/// The unsaved bytes of a file, and the name they are for.
#[allow(clippy::struct_excessive_bools, reason = "independent facts about the bytes")]
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) text: Vec<u8>,
    pub(super) expect: Expect,
    /// What another draft of the process was published as after that.
    pub(super) follows: Option<u64>,
    pub(super) published: bool,
    /// Made empty, by who closed it so.
    pub(super) empty: bool,
    /// Differs from what was published.
    pub(super) changed: bool,
    /// Written from the start to the end so far.
    pub(super) in_order: bool,
    /// There was nothing where that began.
    pub(super) from_nothing: bool,
    /// How many bytes are published, as long as only appends followed.
    pub(super) appended_at: Option<usize>,
    /// What is published, where that is not what the text begins with.
    pub(super) base: Option<Vec<u8>>,
    /// White space was added to what was published, if anything.
    pub(super) blank_since: bool,
    /// How many bytes were written from the start on in order, whatever is behind them.
    pub(super) rewritten: usize,
    /// How many from the start on are published without those behind them.
    pub(super) beginning: Option<usize>,
    /// Why it was not published, as its writer was told.
    pub(super) refused: Option<i32>,
    pub(super) scratch: bool,
    /// Of a file that has another name since, by this backup.
    pub(super) backup: Option<u64>,
    /// Its name was removed.
    pub(super) orphan: bool,
    pub(super) writers: usize,
    /// Created with `O_EXCL`.
    pub(super) exclusive: bool,
    /// What was removed for it.
    pub(super) removed: Option<Vec<u8>>,
}

/// Whether `text` is a document.
pub(super) fn is_document(text: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(text).is_ok()
}

/// Whether `text` can still become a document.
pub(super) fn is_beginning(text: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(text).map_or_else(|error| error.is_eof(), |_| true)
}

/// Whether `text` is a document that only white space can follow.
pub(super) fn is_closed(text: &[u8]) -> bool {
    let number = text.trim_ascii().last().is_some_and(u8::is_ascii_digit);
    is_document(text) && !(number && text.ends_with(text.trim_ascii()))
}

pub(super) fn counted(text: &[u8]) -> usize {
    text.len() - usize::from(text.ends_with(b"\n"))
}

impl Draft {
    /// Whether its open has emptied the file, nothing was written since, and others write it, too.
    pub(super) fn is_begun(&self) -> bool {
        let is_emptied = self.text.is_empty() && self.expect == Expect::Anything && !self.exclusive;
        is_emptied && self.writers > 1
    }

    pub(super) fn new(name: &str, text: Vec<u8>, expect: Expect, scratch: bool) -> Self {
        Self {
            name: name.to_owned(),
            from_nothing: text.is_empty(),
            appended_at: Some(text.len()),
            base: None,
            text,
            expect,
            follows: None,
            published: false,
            exclusive: false,
            empty: false,
            changed: false,
            in_order: true,
            blank_since: false,
            rewritten: 0,
            beginning: None,
            refused: None,
            scratch,
            backup: None,
            orphan: false,
            writers: 0,
            removed: None,
        }
    }

    /// Whether it may take the place of that version.
    pub(super) fn goes_on_from(&self, version: Expect) -> bool {
        version == Expect::Anything || self.expect == version || self.follows.map(Expect::At) == Some(version)
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        (self.changed, self.in_order, self.from_nothing) = (true, true, true);
        (self.blank_since, self.refused) = (false, None);
        (self.appended_at, self.base) = (None, None);
        (self.rewritten, self.beginning) = (0, None);
    }

    pub(super) fn truncate(&mut self, size: usize) -> Outcome<()> {
        if size == self.text.len() {
            return Ok(());
        }
        if size > self.text.len() && size > LIMIT && !self.scratch {
            return Err(EFBIG);
        }
        if size == 0 {
            self.clear();
        } else {
            let saved = self.beginning.take() == Some(size);
            self.text.resize(size, 0);
            (self.changed, self.in_order, self.rewritten) = (!saved, false, 0);
            (self.blank_since, self.refused) = (saved, None);
            self.appended_at = saved.then_some(size);
        }
        Ok(())
    }

    /// It is published, as this revision.
    pub(super) fn became(&mut self, revision: u64) {
        (self.expect, self.follows) = (Expect::At(revision), None);
        (self.published, self.changed, self.scratch) = (true, false, false);
        (self.blank_since, self.refused) = (true, None);
        self.appended_at = Some(self.text.len());
    }

    /// What is published is this document alone, if one is given.
    pub(super) fn only_begins_with(&mut self, document: Option<Vec<u8>>) {
        let Some(document) = document else { return };
        (self.changed, self.beginning) = (true, Some(document.len()));
        (self.blank_since, self.appended_at) = (false, None);
    }

    /// What is to be published.
    pub(super) fn value(&self) -> Outcome<Vec<u8>> {
        match (&self.base, self.appended()) {
            (None, _) => Ok(self.text.clone()),
            (Some(base), Some(appended)) => Ok([base, appended].concat()),
            (Some(_), None) => Err(ESTALE),
        }
    }

    /// The document that was written over the beginning of a longer text, where the whole is none.
    pub(super) fn beginning_of<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        let beginning = text.get(..self.rewritten).filter(|beginning| beginning.len() < text.len())?;
        (is_document(beginning) && !is_document(text)).then_some(beginning)
    }

    pub(super) fn appended(&self) -> Option<&[u8]> {
        self.text.get(self.appended_at?..).filter(|appended| !appended.is_empty())
    }

    /// Whether `data` completes a document that is set at once.
    pub(super) fn completes(&self, at: usize, data: &[u8], json: bool) -> bool {
        let text = [&self.text[..], data].concat();
        let in_order = self.in_order && self.from_nothing && at == self.text.len();
        let to_store = json && !self.scratch && !self.orphan;
        to_store && in_order && !is_closed(&self.text) && is_closed(&text)
    }

    pub(super) fn write(&mut self, at: usize, data: &[u8], json: bool) -> Outcome<()> {
        let mut text = self.text.clone();
        text.resize(text.len().max(at + data.len()), 0);
        text[at..at + data.len()].copy_from_slice(data);
        if !self.scratch {
            if text.len() > self.text.len() && counted(&text) > LIMIT {
                return Err(EFBIG);
            }
            self.in_order &= at == self.text.len();
            if json && self.in_order && !is_beginning(&text) {
                return Err(EINVAL);
            }
        }
        self.blank_since &= at == self.text.len() && data.trim_ascii().is_empty();
        (self.text, self.changed, self.refused) = (text, true, None);
        self.rewritten = if at == 0 || at == self.rewritten { at + data.len() } else { 0 };
        self.beginning = None;
        Ok(())
    }
}
