//! The flags of `kvfs copy`.

use std::time::Duration;

use clap::Args;

use super::{directory, units};
use crate::copy::Settings;
use crate::failure::Failure;
use crate::store::Location;

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
    #[arg(long, env = "KVFS_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = units::duration)]
    timeout: Duration,
}

impl Copy {
    pub(super) fn settings(self) -> Result<Settings, Failure> {
        let data_home = directory("XDG_DATA_HOME", ".local/share");
        let locate = |store: &str| Location::parse(Some(store), &data_home).map_err(Failure::Usage);
        Ok(Settings {
            from: locate(&self.from)?,
            to: locate(&self.to)?,
            rename: self.rename,
            replace: self.replace,
            dry_run: self.dry_run,
            timeout: self.timeout,
        })
    }
}
