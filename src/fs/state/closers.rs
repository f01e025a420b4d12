//! Who closed copies of a descriptor: by their tables of descriptors, which FLUSH tells apart (`lock_owner`).

/// So many are remembered.
const MOST: usize = 64;

/// Those who closed copies of one descriptor.
#[derive(Debug, Default)]
pub(crate) struct Closers {
    /// The process that opened the file, or who is taken for it.
    opener: Option<u64>,
    /// Those of whom it is not known whether they did.
    unknown: Vec<u64>,
}

impl Closers {
    /// Whether the process that opened the file has closed a copy, for all that is known.
    pub(crate) const fn have_opener(&self) -> bool {
        self.opener.is_some()
    }

    /// The process that opened the file closes a copy.
    pub(crate) fn by_opener(&mut self, table: u64) {
        self.opener.get_or_insert(table);
    }

    /// Somebody closes a copy who cannot be known, before anything was written if `is_untouched`. Whether it may be the process
    /// that opened the file, and done with it. Shells close a copy first thing, and so are known again. Who else closes one for
    /// the second time is a child: execve(2) has closed the other one.
    pub(crate) fn by_unknown(&mut self, table: u64, is_untouched: bool) -> bool {
        if is_untouched {
            self.by_opener(table);
        }
        if let Some(opener) = self.opener {
            return table == opener;
        }
        let is_first = !self.unknown.contains(&table);
        if is_first {
            self.unknown.truncate(MOST - 1);
            self.unknown.insert(0, table);
        }
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_closes_a_copy_before_the_first_byte_is_taken_for_the_opener() {
        let mut shell = Closers::default();
        assert!(shell.by_unknown(1, true));
        assert!(!shell.by_unknown(2, true) && !shell.by_unknown(2, false));
        assert!(shell.by_unknown(1, false) && shell.by_unknown(1, false));
    }

    #[test]
    fn others_may_be_it_once() {
        let mut parent = Closers::default();
        for child in 2..200 {
            assert!(parent.by_unknown(child, false));
            assert!(!parent.by_unknown(child, false));
        }
        assert_eq!(parent.unknown.len(), MOST);
        assert!(parent.by_unknown(1, false));
    }
}
