//! Why a file operation failed. Climbs from the store's errors to the kernel's errno (`fuse/errno.rs`).

use super::document::Fault;
use crate::store;

/// Why a file operation failed. Messages are for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FsError {
    /// There is no such file.
    #[error("no such key")]
    NotFound,
    /// The file exists and the caller asked for it not to.
    #[error("the key exists")]
    Exists,
    /// What was written is not a value.
    #[error("{0}; the old value stays")]
    Invalid(#[from] Fault),
    /// No key can have this name.
    #[error("no key can have this file name (control characters and malformed escapes are not allowed)")]
    BadName,
    /// Names of keys end in the extension of `--extension`, and this one does not.
    #[error("the name of a key ends in {0} here (--extension)")]
    NoExtension(String),
    /// The name has more than 255 bytes.
    #[error("the file name has more than 255 bytes")]
    NameTooLong,
    /// The value would pass the limit.
    #[error("the value would have {size} bytes, the limit is {limit}; the old value stays")]
    TooLarge {
        /// Bytes it would have.
        size: usize,
        /// Bytes the store keeps.
        limit: usize,
    },
    /// The scratch files are full.
    #[error("scratch files may hold 16 MiB each and 64 MiB together")]
    ScratchFull,
    /// So many files and directories are in memory alone.
    #[error(
        "{limit} files and directories are in no store already: files without content, scratch files, directories without \
         keys. Remove some, or write to them"
    )]
    NamesFull {
        /// How many there may be.
        limit: usize,
    },
    /// So many files and directories have attributes of their own.
    #[error(
        "mode, owner or times of {limit} files and directories are kept already, and go with the mount; mount with --umask, \
         --uid and --gid instead of changing each"
    )]
    AttributesFull {
        /// Of how many they are kept.
        limit: usize,
    },
    /// The mount is read-only.
    #[error("the mount is read-only")]
    ReadOnly,
    /// The view is flat.
    #[error("the directory of keys is flat here; --separator makes directories of the parts of keys")]
    Flat,
    /// There are files and directories only.
    #[error("no links and no special files: a store has keys only")]
    NoLinks,
    /// A directory where a file is meant.
    #[error("it is a directory")]
    IsDirectory,
    /// A file where a directory is meant.
    #[error("it is no directory")]
    NotDirectory,
    /// The directory to remove or to replace is not empty.
    #[error("the directory is not empty")]
    NotEmpty,
    /// The kernel names an inode that another one has replaced; it looks the name up again.
    #[error("the file was replaced; look it up again")]
    Superseded,
    /// The operation is unknown here.
    #[error("not supported")]
    NotSupported,
    /// There is no such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// What was to become the tags of a key.
    #[error("tags are a JSON array of strings, as in [\"a\",\"b\"]")]
    Tags,
    /// A flag or an argument makes no sense here.
    #[error("invalid argument")]
    Argument,
    /// The handle does not exist or was not opened for this.
    #[error("the file is not open for this")]
    BadHandle,
    /// A lock that is held elsewhere, and the caller does not wait.
    #[error("locked by another process")]
    WouldBlock,
    /// Who waits for a lock is waited for by who holds it.
    #[error("each waits for a lock of the other")]
    Deadlock,
    /// Another mount is in the place of this one, by which others lock the file.
    #[error(
        "the mount was replaced since the file was opened (kvfs --replace), and others lock it there; open it anew"
    )]
    Replaced,
    /// The caller was sent a signal while it waited for a lock.
    #[error("interrupted")]
    Interrupted,
    /// The rest of a text was refused after a document at its beginning had been set.
    #[error(
        "{}; the document that was written before it stays set{}",
        without_old_value(.why),
        if *.replaced { ", and the value that it replaced is kept for a minute, as that of a deleted key is" } else { "" }
    )]
    PartlySet {
        /// Why the rest was refused.
        why: Box<Self>,
        /// There was a value before.
        replaced: bool,
    },
    /// A text was refused for which the file had been removed before, and made anew.
    #[error("{}; the value that was removed for it is back", without_old_value(.0))]
    PutBack(Box<Self>),
    /// The store did not do what it was asked to.
    #[error(transparent)]
    Store(store::Error),
}

impl From<store::Error> for FsError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::NotFound => Self::NotFound,
            store::Error::Exists => Self::Exists,
            store::Error::TooLarge { size, limit } => Self::TooLarge { size, limit },
            other => Self::Store(other),
        }
    }
}

impl FsError {
    /// The reason alone, whatever had been set before.
    pub fn reason(&self) -> &Self {
        match self {
            Self::PartlySet { why, .. } | Self::PutBack(why) => why.reason(),
            other => other,
        }
    }

    /// True for trouble of the store itself, which may be over at the next try.
    pub fn is_outage(&self) -> bool {
        matches!(self.reason(), Self::Store(error) if error.is_outage())
    }

    /// Answers that programs ask for in normal work, not trouble that a person wants to hear of.
    pub fn is_routine(&self) -> bool {
        matches!(
            self.reason(),
            Self::NotFound
                | Self::Exists
                | Self::Superseded
                | Self::IsDirectory
                | Self::NotDirectory
                | Self::NotEmpty
                | Self::Store(store::Error::TooMany(_))
                | Self::NoAttribute
                | Self::NotSupported
                | Self::WouldBlock
                | Self::Deadlock
                | Self::Interrupted
        )
    }
}

/// Why a text was refused, where the old value does not just stay.
fn without_old_value(why: &FsError) -> String {
    why.to_string().trim_end_matches("; the old value stays").to_owned()
}

/// Result of a file operation.
pub type FsResult<T> = Result<T, FsError>;
