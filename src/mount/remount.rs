//! `-o remount`: changes an existing mount.

use std::io::ErrorKind;

use serde_json::Value;

use super::{Settings, mounts};
use crate::failure::Failure;
use crate::sys;

/// Makes the mount read-only in the kernel, or writable again. Nothing else can be changed.
pub(super) fn change(settings: &Settings) -> Result<(), Failure> {
    let shown = settings.mountpoint.display();
    let failed = |why: String| Failure::Mountpoint(format!("{shown} {why}"));
    let place = mounts::find(&settings.mountpoint)
        .map_err(|error| Failure::Other(format!("cannot read the mount table: {error}")))?
        .ok_or_else(|| {
            failed("is no mount of kvfs, so there is nothing to remount; `kvfs status` lists them".into())
        })?;
    let document = mounts::ask(&place.path).map_err(|error| failed(format!("cannot be asked: {error}")))?;
    let document: Value = serde_json::from_slice(&document).unwrap_or_default();
    let read_only = settings.fs.read_only;
    if !read_only && document["read_only"] == true {
        let why = "was mounted to be read only, which cannot be taken back while it is mounted: umount it, and mount it anew";
        return Err(failed(why.into()));
    }
    sys::remount(&place.path, read_only).map_err(|error| match error.kind() {
        ErrorKind::ResourceBusy => failed("has files that are open for writing; close them first".into()),
        ErrorKind::PermissionDenied => failed(format!("cannot be remounted: {error}; only root can do that")),
        _ => failed(format!("cannot be remounted: {error}")),
    })
}
