//! The id of a new key, which who makes the key may choose.

use std::sync::Arc;

tokio::task_local! {
    static CHOSEN: Arc<str>;
}

/// Runs `work`: a key that it makes has this `id`, in a store that [takes ids](super::Store::takes_ids). Not for keys that a
/// task makes which is spawned there.
pub async fn with_new_id<F: Future>(id: Option<Arc<str>>, work: F) -> F::Output {
    match id {
        Some(id) => CHOSEN.scope(id, work).await,
        None => work.await,
    }
}

/// The id that was chosen, if one was.
pub(super) fn chosen() -> Option<Arc<str>> {
    CHOSEN.try_with(Arc::clone).ok()
}
