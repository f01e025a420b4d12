//! Whether the kernel has taken in the size of the version that an inode shows.
//!
//! It ignores the answer to a question (LOOKUP, GETATTR) that it put before it counted a new version of the attributes: at
//! `INVAL_INODE`, and once it takes in the answer to an UNLINK, or to a RENAME over the inode. When it does so cannot be seen, so
//! that an answer is no proof. One is what a reader does: he opens the inode after the invalidation, then asks, then reads.

use std::time::Duration;

use tokio::time::Instant;

use crate::fs::types::Fh;

/// What the kernel goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Size {
    /// That of another version, for all that is known.
    #[default]
    Unknown,
    /// An answer told it.
    Told,
    /// It has certainly taken that in.
    Known,
}

/// A reader past the page cache, by whose messages the kernel shows that it has taken in the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Witness {
    fh: Fh,
    /// His question was answered.
    asked: bool,
}

/// For so long a question may be under way, and an answer, where nobody proves that it is not.
pub(crate) const UNDER_WAY: Duration = Duration::from_secs(1);

/// The size of one inode in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelSize {
    size: Size,
    witness: Option<Witness>,
    /// When an invalidation ended.
    invalidated: Option<Instant>,
    /// When a RENAME over the inode was answered, whose effect may be yet to come.
    replaced: Option<Instant>,
    /// The first answer to a question that certainly was put after that.
    told: Option<Instant>,
}

/// Whether that was so long ago that nothing of it is under way any more, or never.
fn is_over(moment: Option<Instant>) -> bool {
    moment.is_none_or(|moment| moment.elapsed() >= UNDER_WAY)
}

impl KernelSize {
    /// An answer told it.
    pub(crate) fn tell(&mut self) {
        if self.size == Size::Unknown {
            self.size = Size::Told;
        }
        if is_over(self.invalidated) && is_over(self.replaced) {
            self.told.get_or_insert_with(Instant::now);
        }
    }

    /// Whether an answer told it.
    pub(crate) const fn is_told(&self) -> bool {
        !matches!(self.size, Size::Unknown)
    }

    /// The kernel has it: an answer introduces the inode, or an open truncates it, and it counts what is written.
    pub(crate) const fn know(&mut self) {
        self.size = Size::Known;
    }

    /// Whether the kernel has certainly taken it in.
    pub(crate) fn is_known(&self) -> bool {
        match self.size {
            Size::Unknown => false,
            Size::Told => self.told.is_some() && is_over(self.told),
            Size::Known => true,
        }
    }

    /// The inode goes on as another version, or the kernel may take in the size of one.
    pub(crate) const fn forget(&mut self) {
        (self.size, self.witness, self.told) = (Size::Unknown, None, None);
    }

    /// The kernel has dropped what it had of others.
    pub(crate) fn invalidated(&mut self) {
        self.invalidated = Some(Instant::now());
    }

    /// A RENAME over the inode is about to be answered.
    pub(crate) fn replaced(&mut self) {
        (self.replaced, self.told, self.witness) = (Some(Instant::now()), None, None);
    }

    /// A reader has opened the inode past the page cache.
    pub(crate) fn opened(&mut self, fh: Fh) {
        if self.size != Size::Known && self.witness.is_none_or(|witness| !witness.asked) {
            self.witness = Some(Witness { fh, asked: false });
        }
    }

    /// The reader whose messages are looked at.
    pub(crate) const fn witness(&self) -> Option<Fh> {
        match self.witness {
            Some(witness) => Some(witness.fh),
            None => None,
        }
    }

    /// His question is answered.
    pub(crate) fn asked(&mut self) {
        if let Some(witness) = self.witness.as_mut().filter(|_| is_over(self.replaced)) {
            witness.asked = true;
        }
    }

    /// A reader reads: he has taken in what he was answered before.
    pub(crate) fn read(&mut self, fh: Fh) -> bool {
        let proves = self.witness.take_if(|witness| witness.fh == fh && witness.asked).is_some();
        if proves {
            self.size = Size::Known;
        }
        proves
    }

    /// A reader has closed the inode.
    pub(crate) fn closed(&mut self, fh: Fh) {
        self.witness.take_if(|witness| witness.fh == fh);
    }
}
