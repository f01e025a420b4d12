//! Why a call to the cluster failed.

use crate::store::Error;

/// Why a call failed: what its callers have to tell apart.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The revision that was asked for is no longer kept, or not reached.
    Compacted,
    /// More than one transaction may have.
    TooManyOps,
    /// The request, or the answer to it, is larger than it may be.
    TooBig,
    /// Anything else.
    Store(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Compacted => Self::Other("the cluster has compacted the revision that was read".into()),
            Failure::TooManyOps => {
                Self::Other("too many operations for one transaction (--max-txn-ops)".into())
            }
            Failure::TooBig => {
                Self::Other("it is more than one request may hold (--max-request-bytes)".into())
            }
            Failure::Store(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}
