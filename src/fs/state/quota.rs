//! How many names and attributes may be in memory alone.

/// How many of what there may be. Hostile or mistaken loops end here, at some 150 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Files that are in no store, those that are being written, and directories without keys.
    pub(crate) names: usize,
    /// Files and directories whose mode, owner or times were changed.
    pub(crate) attributes: usize,
}

impl Quota {
    /// That of a mount.
    pub(crate) const MOUNT: Self = Self { names: 1 << 16, attributes: 1 << 18 };
}
