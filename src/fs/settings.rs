//! Settings of a mount that concern files.

use std::sync::Arc;

use crate::fs::clock::Clock;
use crate::fs::rules::document::Validate;
use crate::fs::rules::names::Names;
use crate::fs::rules::scratch::Patterns;

/// What the options say of new files, beside what who makes them asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct OfNew {
    /// Owner, in place of who makes them.
    pub uid: Option<u32>,
    /// Group, in place of that of who makes them.
    pub gid: Option<u32>,
    /// Permission bits taken away, beside those of the umask of who makes them.
    pub umask: u32,
}

/// Settings of a mount that concern files.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Refuse every change with `EROFS`.
    pub read_only: bool,
    /// Owner of files nobody chowned.
    pub uid: u32,
    /// Group of files nobody chowned.
    pub gid: u32,
    /// Permission bits taken away from 0666 and 0777.
    pub umask: u32,
    /// Owner, group and permission bits of new files, where the store keeps them.
    pub of_new: OfNew,
    /// Which bytes are a value.
    pub validate: Validate,
    /// How keys are called.
    pub names: Names,
    /// Which names are scratch files.
    pub scratch: Patterns,
    /// Where rejected content is kept.
    pub rejected: std::path::PathBuf,
    /// Whose times new texts and names get.
    pub clock: Arc<dyn Clock>,
    /// Deadline of each message of the kernel.
    pub timeout: std::time::Duration,
}

#[cfg(test)]
impl Settings {
    /// Those of a mount without options, as root has it.
    pub(crate) fn plain() -> Self {
        Self {
            read_only: false,
            uid: 0,
            gid: 0,
            umask: 0,
            of_new: OfNew::default(),
            validate: Validate::Json,
            names: Names::default(),
            scratch: Patterns::new(&[]).unwrap_or_else(|why| panic!("{why}")),
            rejected: std::path::PathBuf::new(),
            clock: Arc::new(crate::fs::clock::SystemClock),
            timeout: std::time::Duration::from_secs(5),
        }
    }
}
