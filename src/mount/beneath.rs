//! Taking over from a dead mount: the new one is mounted beside, moved beneath the dead one, and shows when that is detached. No
//! path leads to the directory below meanwhile, where what programs write would be lost.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::replaced::Replaced;
use crate::failure::Failure;
use crate::fs::Fs;
use crate::sys::{self, moving};

/// A private directory to mount on; gone, with a mount that is there, when it is dropped.
pub(super) struct Beside(PathBuf);

impl Beside {
    /// Makes one in `state`. None where the mount cannot be moved: that takes root, and Linux 6.5.
    pub(super) fn make(state: &Path) -> Option<Self> {
        if !sys::may_mount() || !moving::can_go_beneath() {
            return None;
        }
        let path = state.join(format!("mount-{}", std::process::id()));
        let made = sys::create_private_dir_all(&path);
        made.inspect_err(|error| tracing::warn!("cannot create {}: {error}", path.display())).ok()?;
        Some(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The mount that was made here is at `place`, in the place of the dead one there.
    pub(super) fn take_over(self, place: &Path) -> Result<(), Failure> {
        let cannot = |error: io::Error| {
            let shown = place.display();
            Failure::Mountpoint(format!(
                "the dead mount at {shown} cannot be replaced: {error}; end it with `umount -l {shown}`"
            ))
        };
        let mount = moving::copy(&self.0).map_err(cannot)?;
        if let Err(error) = moving::beneath(&mount, place) {
            tracing::warn!(
                "a mount cannot be moved beneath the dead one: {error}; for a moment there is none"
            );
            sys::unmount(place, true).map_err(cannot)?;
            return moving::to(&mount, place).map_err(cannot);
        }
        sys::unmount(place, true).map_err(cannot)
    }
}

impl Beside {
    /// As [`Beside::take_over`], from a mount that lives.
    pub(super) fn replace(self, old: Replaced, timeout: Duration, fs: &Fs) -> Result<(), Failure> {
        let mount = moving::copy(&self.0)
            .map_err(|error| Failure::Mountpoint(format!("the new mount cannot be moved: {error}")))?;
        old.replace(&mount, timeout, fs)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        _ = sys::unmount(&self.0, true);
        _ = fs::remove_dir(&self.0);
    }
}
