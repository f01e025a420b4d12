//! The one errno table (`docs/semantics.md`). No wildcard: the compiler demands a line for a new error.

use fuser::Errno;

use crate::fs::FsError;
use crate::store::Error;

pub(super) fn errno(error: &FsError) -> Errno {
    match error {
        FsError::NotFound => Errno::ENOENT,
        FsError::Exists => Errno::EEXIST,
        FsError::Invalid(_)
        | FsError::BadName
        | FsError::NoExtension(_)
        | FsError::Tags
        | FsError::Argument => Errno::EINVAL,
        FsError::NameTooLong => Errno::ENAMETOOLONG,
        FsError::TooLarge { .. } => Errno::EFBIG,
        FsError::ScratchFull | FsError::NamesFull { .. } | FsError::AttributesFull { .. } => Errno::ENOSPC,
        FsError::ReadOnly => Errno::EROFS,
        FsError::Flat | FsError::NoLinks => Errno::EPERM,
        FsError::IsDirectory => Errno::EISDIR,
        FsError::NotDirectory => Errno::ENOTDIR,
        FsError::NotEmpty => Errno::ENOTEMPTY,
        // The kernel looks the name up again, once, and only then shows this to the program.
        FsError::Superseded => Errno::ESTALE,
        FsError::NotSupported => Errno::EOPNOTSUPP,
        FsError::NoAttribute => Errno::ENODATA,
        FsError::BadHandle => Errno::EBADF,
        FsError::WouldBlock => Errno::EAGAIN,
        FsError::Deadlock => Errno::EDEADLK,
        FsError::Replaced => Errno::ENOLCK,
        FsError::Interrupted => Errno::EINTR,
        FsError::PartlySet { why, .. } | FsError::PutBack(why) => errno(why),
        FsError::Store(error) => store_errno(error),
    }
}

fn store_errno(error: &Error) -> Errno {
    match error {
        Error::NotFound => Errno::ENOENT,
        Error::Exists => Errno::EEXIST,
        Error::Changed => Errno::ESTALE,
        Error::TooLarge { .. } => Errno::EFBIG,
        // A key rule, not the name's length in bytes, which is ENAMETOOLONG.
        Error::BadKey(_) | Error::KeyTooLong { .. } | Error::Invalid(_) => Errno::EINVAL,
        Error::Denied(_) => Errno::EACCES,
        Error::ReadOnly(_) => Errno::EROFS,
        // Not EAGAIN: Python and others would take it for a non-blocking descriptor and spin.
        Error::Busy(_) | Error::Contended(_) => Errno::EBUSY,
        Error::TimedOut(_) | Error::Expired(_) => Errno::ETIMEDOUT,
        Error::Unreachable(_) => Errno::EHOSTUNREACH,
        Error::Quota(_) => Errno::EDQUOT,
        Error::NoSpace(_) => Errno::ENOSPC,
        // mv(1) copies then, as between filesystems.
        Error::TooMany(_) => Errno::EXDEV,
        Error::Damaged(_) | Error::Displaced(_) | Error::Untrusted(_) | Error::Other(_) => Errno::EIO,
        Error::Unsure(reason) => store_errno(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_trouble_is_eio_and_never_enoent() {
        assert_eq!(errno(&FsError::Store(Error::Other("?".into()))), Errno::EIO);
        for error in [Error::Busy(String::new()), Error::TimedOut(1), Error::Unreachable(String::new())] {
            assert_ne!(errno(&error.into()), Errno::ENOENT);
        }
        assert_eq!(errno(&Error::NotFound.into()), Errno::ENOENT);
        assert_eq!(errno(&Error::Changed.into()), Errno::ESTALE);
    }
}
