//! What those who watch know.

use tokio::time::Instant;

use crate::cache::Keys;

/// The keys as those who watch know them, while changes are not told, or some were missed.
#[derive(Default)]
pub(crate) struct WatchBaseline {
    pub(super) listing: Option<Keys>,
    /// Changes were missed since, and are yet to be told.
    pub(super) missed: bool,
    /// The listing was asked for in vain before there was one.
    pub(super) no_baseline: bool,
    pub(super) at: Option<Instant>,
}
