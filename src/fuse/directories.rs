//! The handles of open directories.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fuser::FileHandle;
use parking_lot::Mutex;

use crate::fs::{Caller, Fs, FsError, FsResult, OpenDirectory};

/// The snapshot of each handle, from which READDIR continues.
#[derive(Default)]
pub(super) struct Directories {
    open: Mutex<HashMap<u64, Arc<OpenDirectory>>>,
    last: AtomicU64,
}

impl Directories {
    pub(super) fn add(&self, directory: OpenDirectory) -> FileHandle {
        let fh = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.lock().insert(fh, Arc::new(directory));
        FileHandle(fh)
    }

    pub(super) fn remove(&self, fh: FileHandle) {
        self.open.lock().remove(&fh.0);
    }

    /// The snapshot for a read from `offset` on.
    pub(super) async fn at(
        self: Arc<Self>,
        fs: Arc<Fs>,
        caller: Caller,
        fh: FileHandle,
        offset: u64,
    ) -> FsResult<Arc<OpenDirectory>> {
        let open = self.open.lock().get(&fh.0).cloned().ok_or(FsError::BadHandle)?;
        let current = fs.directory_at(caller, open, offset).await?;
        if let Some(open) = self.open.lock().get_mut(&fh.0) {
            open.clone_from(&current);
        }
        Ok(current)
    }
}
