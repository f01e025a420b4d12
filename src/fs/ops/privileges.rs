//! Files that run as their owner or group: what ends that, as on a local disk. The kernel leaves it to the filesystem
//! (`FUSE_HANDLE_KILLPRIV_V2`).

use crate::fs::core::Fs;
use crate::fs::rules::error::FsResult;
use crate::fs::state::nodes::Overrides;
use crate::fs::types::{Caller, Changes, Fh, GROUP_RUNS, Ino, SETGID, SETUID};

/// The mode once that has ended, if it is another one then.
fn ended(mode: u32) -> Option<u32> {
    let without = match mode & GROUP_RUNS {
        0 => mode & !SETUID,
        _ => mode & !SETUID & !SETGID,
    };
    (without != mode).then_some(without)
}

impl Fs {
    /// chown(2), and truncate(2) by others than root.
    pub(super) fn ending_privileges(
        &self,
        caller: Caller,
        ino: Ino,
        fh: Option<Fh>,
        changes: Changes,
    ) -> Changes {
        let ends =
            changes.uid.is_some() || changes.gid.is_some() || changes.size.is_some() && caller.uid != 0;
        if !ends || changes.mode.is_some() {
            return changes;
        }
        let shown = self.attr_in(&self.state.lock(), ino, fh).ok().filter(|attr| !attr.directory);
        Changes { mode: shown.and_then(|attr| ended(attr.mode)), ..changes }
    }

    /// Before a write(2) by others than root: at once here, and with the next set in the store.
    pub fn end_privileges(&self, fh: Fh) -> FsResult<()> {
        let others = {
            let mut state = self.state.lock();
            let (id, draft) = state.draft_of(fh)?;
            let (ino, published) = (draft.ino, draft.published.clone());
            let known = state.attributes_of(ino, state.inode(ino)?);
            let known = known.or_else(|| Overrides::followed(None, published.as_ref()?)).unwrap_or_default();
            let Some(mode) = known.mode.and_then(ended) else { return Ok(()) };
            state.set_attributes_of(ino, Some(Overrides { mode: Some(mode), ..known }));
            if let Some(draft) = state.draft_mut(id) {
                draft.ends_privileges = true;
            }
            state.others_of_name(ino)
        };
        self.expire_attributes(others);
        Ok(())
    }
}
