//! What programs do, a family of operations per file.

mod append;
mod attributes;
pub(crate) mod backup;
mod close;
mod create;
mod directories;
pub(crate) mod granted;
pub(super) mod hand_over;
mod io;
pub(super) mod listing;
mod locking;
mod lookup;
mod maintenance;
pub(crate) mod open;
mod prefixes;
mod publish;
mod put_back;
mod refusals;
mod release;
pub(crate) mod rename;
mod rename_directory;
pub(crate) mod resolve;
mod shared;
mod stat;
mod truncate;
mod unlink;
mod xattrs;
