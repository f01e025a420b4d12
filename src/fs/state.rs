//! The tables: inodes, names, open handles, drafts. Plain data behind one lock (`Fs::state`), which is never held while
//! anything waits.

pub(crate) mod backups;
pub(crate) mod buffer;
pub(crate) mod closers;
mod deferred_renames;
mod directories;
pub(crate) mod directory;
pub(crate) mod drafts;
mod elsewhere;
pub(crate) mod file_numbers;
mod files;
mod held_here;
mod home;
pub(super) mod invalidation;
mod kin;
pub(crate) mod ledger;
pub(crate) mod listings;
pub mod locks;
pub(crate) mod nodes;
pub(crate) mod paths;
pub(crate) mod predecessors;
#[cfg(test)]
mod properties;
mod put_back;
mod quota;
pub(crate) mod redirects;
pub(crate) mod release;
mod renames;
mod room;
mod shadows;
mod size;
pub(crate) mod tables;
pub(crate) mod turns;
pub(crate) mod unlinked;
pub(crate) mod versions;
mod witness;
