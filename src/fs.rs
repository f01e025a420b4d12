//! What a directory of JSON files means, with no kernel and no store in sight.
//!
//! An inode is one version of a key, and immutable from outside while somebody holds it open; a writer gets an
//! inode of its own (`docs/semantics.md`, rules 3 and 4). So readers never see a draft, and the kernel may cache
//! whatever it was told. All tables are in [`state`] behind one mutex. Lock order: `moving`, the gates of names
//! ([`operation`]), the state, then the cache's own lock; the state is never held across an await.

mod clock;
mod core;
mod door;
mod feed;
mod gates;
mod hand_over;
mod inotify;
mod invalidate;
mod kernel;
mod operation;
mod ops;
mod refusals;
mod rejected;
mod rules;
mod settings;
mod state;
mod types;

pub use self::core::Fs;
pub use self::inotify::{queue, relay};
pub use clock::{Clock, SystemClock};
pub use hand_over::Change;
pub use kernel::Kernel;
pub use ops::listing::{Item, OpenDirectory};
pub use refusals::{Kept, Refusal};
pub use rejected::Lost;
pub use rules::error::{FsError, FsResult};
pub use rules::{document, names, scratch};
pub use settings::{OfNew, Settings};
pub use state::invalidation::Invalidation;
pub use state::locks;
pub use types::{Access, Attr, Caller, Changes, Document, Fh, Found, Ino, Opened, ROOT, WriteMode, Written};
