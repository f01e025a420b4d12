//! The errors of stores.

use super::Meta;

/// Why a call to a store failed. Messages are for people: they name the thing and say what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such key.
    #[error("no such key")]
    NotFound,
    /// The key exists, and the caller expected it not to.
    #[error("the key exists")]
    Exists,
    /// Changed since the revision the caller expected.
    #[error("changed by somebody else since it was read")]
    Changed,
    /// Over [`Limits::value`].
    #[error("the value has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Bytes of the value.
        size: usize,
        /// Bytes the store keeps.
        limit: usize,
    },
    /// The key has other characters than [`Limits::key_chars`], or none.
    #[error("a key of this store has only the characters {0}")]
    BadKey(&'static str),
    /// Over [`Limits::key`].
    #[error("the key has {size} bytes, the limit is {limit}")]
    KeyTooLong {
        /// Bytes of the key.
        size: usize,
        /// Bytes the store keeps.
        limit: usize,
    },
    /// The store keeps JSON, and this is no JSON, or none that it can keep.
    #[error("{0}")]
    Invalid(String),
    /// The credentials were refused.
    #[error("access denied: {0}")]
    Denied(String),
    /// The store has the key, and its value is not the one that was set.
    #[error("its value is damaged in the store; set it anew, delete it, or restore the store from a backup")]
    Damaged(Meta),
    /// The path of the store no longer names the files that were opened.
    #[error("{0}")]
    Displaced(String),
    /// The store or the database file cannot be written.
    #[error("the store is read-only: {0}")]
    ReadOnly(String),
    /// Refused for overload, or for a lock that was not released in time: other changes would be, too.
    #[error("the store is busy: {0}")]
    Busy(String),
    /// Others keep changing this key.
    #[error("the key is busy: {0}")]
    Contended(String),
    /// No answer within `--timeout`. A set or delete may or may not have been carried out.
    #[error("no answer from the store within {0} ms")]
    TimedOut(u128),
    /// The deadline passed before the store could be asked.
    #[error("the store was not asked, for {0} ms were over before it could be; nothing was changed")]
    Expired(u128),
    /// The store cannot be reached.
    #[error("the store cannot be reached: {0}")]
    Unreachable(String),
    /// The certificate of the server does not hold.
    #[error("the server is not trusted: {0}")]
    Untrusted(String),
    /// The limit of keys in the plan, or the quota of the server's database, is used up.
    #[error("the store takes no more: {0}")]
    Quota(String),
    /// The disk is full.
    #[error("no space left: {0}")]
    NoSpace(String),
    /// More renames than one transaction of the store can hold; nothing was changed.
    #[error("the store renames at most {0} keys at once; copy them and delete the old ones")]
    TooMany(usize),
    /// Anything else.
    #[error("{0}")]
    Other(String),
    /// Failed for this reason, but a set, delete or rename may have been carried out.
    #[error("{0}; whether the change was made, only the store knows")]
    Unsure(Box<Self>),
}

impl Error {
    /// The message about the store called `name`, with advice.
    pub fn describe(&self, name: &str) -> String {
        match self {
            Self::Unreachable(_) | Self::TimedOut(_) => {
                format!("{name}: {self}; is the server running, and the address right?")
            }
            _ => format!("{name}: {self}"),
        }
    }

    /// Whether the cached state of the key may be wrong after a set, delete or rename with this error: the key was in another
    /// state, or may have been changed. Every other error is a refusal: nothing was changed.
    pub fn may_have_changed(&self) -> bool {
        match self {
            Self::NotFound
            | Self::Exists
            | Self::Changed
            | Self::TimedOut(_)
            | Self::Other(_)
            | Self::Unsure(_) => true,
            Self::Busy(_)
            | Self::Contended(_)
            | Self::Expired(_)
            | Self::TooLarge { .. }
            | Self::BadKey(_)
            | Self::KeyTooLong { .. }
            | Self::Invalid(_)
            | Self::Denied(_)
            | Self::Damaged(_)
            | Self::Displaced(_)
            | Self::ReadOnly(_)
            | Self::Unreachable(_)
            | Self::Untrusted(_)
            | Self::Quota(_)
            | Self::NoSpace(_)
            | Self::TooMany(_) => false,
        }
    }

    /// The same error, of a change that may have been carried out all the same.
    #[must_use]
    pub fn unsure(self) -> Self {
        match self {
            Self::TimedOut(_) | Self::Other(_) | Self::Unsure(_) => self,
            refusal => Self::Unsure(Box::new(refusal)),
        }
    }

    /// The error inside [`Error::Unsure`], or the error itself.
    pub fn reason(&self) -> &Self {
        match self {
            Self::Unsure(reason) => reason,
            error => error,
        }
    }

    /// Whether the deadline passed without an answer: a caller with a later one may ask again.
    pub fn is_late(&self) -> bool {
        matches!(self, Self::TimedOut(_) | Self::Expired(_))
    }

    /// Whether the store has no space.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::NoSpace(_) | Self::Quota(_))
    }

    /// Whether a store with this error refuses a set of a key that is `new` or not: a quota may limit the number of keys.
    pub fn keeps_out(&self, new: bool) -> bool {
        matches!(self, Self::NoSpace(_)) || new && matches!(self, Self::Quota(_))
    }

    /// Whether the store itself or the network failed, or the credentials were refused: then the last known value may still
    /// be shown.
    pub fn is_outage(&self) -> bool {
        matches!(
            self.reason(),
            Self::Denied(_)
                | Self::Damaged(_)
                | Self::Displaced(_)
                | Self::Busy(_)
                | Self::Contended(_)
                | Self::TimedOut(_)
                | Self::Expired(_)
                | Self::Unreachable(_)
                | Self::Untrusted(_)
                | Self::Other(_)
        )
    }
}
