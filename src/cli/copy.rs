//! The flags of `kvfs copy`.

use std::time::Duration;

use clap::Args;

use super::places::{locate, locate_existing};
use super::units;
use crate::copy::Settings;
use crate::failure::Failure;

#[derive(Args)]
pub(super) struct Copy {
    /// The store to read
    from: String,
    /// The store to write
    to: String,
    /// Rename keys that the other store cannot have: `Vision Zero` becomes `vision_zero`
    #[arg(long)]
    rename: bool,
    /// Replace other values of the same keys
    #[arg(long)]
    replace: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// How long a call may wait for a store
    #[arg(long, env = "KVFS_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = units::deadline)]
    timeout: Duration,
}

impl Copy {
    pub(super) fn settings(self) -> Result<Settings, Failure> {
        Ok(Settings {
            from: locate_existing(&self.from)?,
            to: locate(Some(&self.to))?,
            rename: self.rename,
            replace: self.replace,
            dry_run: self.dry_run,
            timeout: self.timeout,
        })
    }
}
