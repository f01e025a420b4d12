//! A start while the store is down, on what an earlier mount has kept, and the keeping of it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Settings;
use crate::cache::{Cache, Offline};
use crate::failure::Failure;
use crate::store::{self, Down, Error};

/// How often what is known is written, if it has changed.
const PERIOD: Duration = Duration::from_secs(2);
/// How often it is written with newer times alone.
const CONFIRMED: Duration = Duration::from_mins(1);

/// What is kept of the store, if that is asked for.
#[derive(Default)]
pub(super) struct KeptStore {
    file: Option<Offline>,
    /// When the youngest of what the mount has started on was confirmed.
    started_on: Mutex<Option<Instant>>,
    /// When it was written the last time, at which [`Cache::edits`]. Held while it is written.
    written: Mutex<Option<(Instant, u64)>>,
    /// Why it was not written the last time.
    failure: Mutex<Option<String>>,
}

impl KeptStore {
    /// That of the `store` of a mount.
    pub(super) fn open(settings: &Settings, store: &str) -> Result<Arc<Self>, Failure> {
        let open = |directory: &std::path::PathBuf| Offline::within(directory, store, &settings.cache);
        let file = settings.offline_cache.as_ref().map(open).transpose();
        let file = file.map_err(|why| Failure::Usage(format!("--offline-cache: {why}")))?;
        Ok(Arc::new(Self { file, ..Self::default() }))
    }

    /// Gives `cache` what was kept. If the store, `asked` before, does not answer, that is shown: the line that says so. A
    /// refusal, or an outage with nothing kept, is a failure.
    pub(super) fn start_on(
        &self,
        cache: &Cache,
        asked: store::Result<()>,
    ) -> Result<Option<String>, Failure> {
        let kept = self.file.as_ref().map_or(Ok(None), Offline::read);
        let Err(error) = asked else {
            let restored = kept.map(|kept| kept.and_then(|kept| cache.restore(kept)));
            return Ok(restored.err());
        };
        let why = error.describe(cache.name());
        if self.file.is_none() || !matches!(error, Error::Unreachable(_) | Error::TimedOut(_)) {
            return Err(Failure::Store(why));
        }
        let failed = |also: &str| Failure::Store(format!("{why}; {also}"));
        let kept = kept.map_err(|also| failed(&also))?;
        let kept = kept.ok_or_else(|| failed("nothing is kept of it in --offline-cache yet"))?;
        let age =
            cache.restore(kept).ok_or_else(|| failed("what is kept of it is older than --max-stale"))?;
        *self.started_on.lock() = Instant::now().checked_sub(age);
        Ok(Some(format!(
            "{}: {error}; what was last known is shown, {} s old at the least, and changes fail until it answers",
            cache.name(),
            age.as_secs()
        )))
    }

    /// How old the youngest of what the mount has started on is, if the store has not answered since.
    pub(super) fn age_at(&self, down: &Down) -> Option<Duration> {
        (*self.started_on.lock()).filter(|_| down.answered.is_none()).map(|at| at.elapsed())
    }

    /// Why what is known could not be written the last time.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Writes what `cache` knows from time to time, until the mount ends.
    pub(super) async fn keep(self: Arc<Self>, cache: Arc<Cache>) {
        while self.file.is_some() {
            tokio::time::sleep(PERIOD).await;
            let written = *self.written.lock();
            let is_new = |(at, edits): (Instant, u64)| edits != cache.edits() || at.elapsed() >= CONFIRMED;
            if written.is_none_or(is_new) {
                let (kept, cache) = (self.clone(), cache.clone());
                _ = tokio::task::spawn_blocking(move || kept.write(&cache)).await;
            }
        }
    }

    /// Writes what `cache` knows. A failure is logged when it begins.
    pub(super) fn write(&self, cache: &Cache) {
        let Some(file) = &self.file else { return };
        let mut written = self.written.lock();
        let edits = cache.edits();
        let failed = file.write(cache).err().map(|error| format!("what is known is not kept: {error}"));
        *written = Some((Instant::now(), edits));
        let mut failure = self.failure.lock();
        if let Some(why) = failed.as_ref().filter(|_| failure.is_none()) {
            tracing::error!("{why}");
        }
        *failure = failed;
    }
}
