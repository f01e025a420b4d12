//! The tables: inodes, names, open handles, drafts. Plain data behind one lock (`Fs::state`), which is never held while
//! anything waits.

pub(crate) mod backups;
pub(crate) mod deferred;
mod directories;
pub(crate) mod drafts;
pub(super) mod invalidation;
pub(crate) mod ledger;
pub mod locks;
pub(crate) mod nodes;
pub(crate) mod redirects;
pub(crate) mod tables;
pub(crate) mod unlinked;
pub(crate) mod versions;
