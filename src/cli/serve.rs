//! The flags of `kvfs serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::places::{data_home, locate};
use super::{Level, units};
use crate::failure::Failure;
use crate::serve::{DEFAULT_TENANT, KeySource, Settings};

#[derive(Args)]
pub(super) struct Serve {
    /// The store, if not the embedded one; it is the tenant `default`
    #[arg(env = "KVFS_STORE")]
    store: Option<String>,
    /// Address and port to listen on
    #[arg(long, env = "KVFS_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:4200")]
    listen: SocketAddr,
    /// API keys, one per line, each followed by the tenants it may use if not all. Default: the one in `KVFS_API_KEY`,
    /// else one that is made, shown once and kept in `$XDG_DATA_HOME/kvfs/api_keys`
    #[arg(long, env = "KVFS_KEYS_FILE", value_name = "FILE")]
    keys_file: Option<PathBuf>,
    /// Ask for no API key; only where others cannot reach it
    #[arg(long, env = "KVFS_NO_AUTH", conflicts_with = "keys_file")]
    no_auth: bool,
    /// One more tenant, a namespace with a store of its own; repeat it for more
    #[arg(long, env = "KVFS_TENANT", value_name = "NAME=STORE", value_delimiter = ',')]
    tenant: Vec<String>,
    /// How long a call may wait for the store
    #[arg(long, env = "KVFS_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = units::deadline)]
    timeout: Duration,
    /// What to log: error, warn, info (each request), debug or trace
    #[arg(long, env = "KVFS_LOG_LEVEL", value_name = "LEVEL", default_value = "info", ignore_case = true)]
    log_level: Level,
}

impl Serve {
    pub(super) fn settings(self) -> Result<Settings, Failure> {
        let mut tenants = vec![(DEFAULT_TENANT.to_owned(), locate(self.store.as_deref())?)];
        for tenant in &self.tenant {
            let Some((name, store)) = tenant.split_once('=').filter(|(name, _)| is_name(name)) else {
                return Err(Failure::Usage(format!(
                    "--tenant {tenant}: a tenant is NAME=STORE, the name of letters, digits, - and _"
                )));
            };
            if tenants.iter().any(|(other, _)| other == name) {
                return Err(Failure::Usage(format!("--tenant {tenant}: there are two tenants {name:?}")));
            }
            tenants.push((name.to_owned(), locate(Some(store))?));
        }
        // From the environment only: arguments can be read by everybody on the machine.
        let keys = match (self.keys_file, std::env::var("KVFS_API_KEY")) {
            (Some(file), _) => KeySource::File(file),
            (None, _) if self.no_auth => KeySource::NoAuth,
            (None, Ok(key)) => KeySource::Key(key),
            (None, Err(_)) => KeySource::Generated(data_home().join("kvfs").join("api_keys")),
        };
        let (listen, timeout, log_level) = (self.listen, self.timeout, self.log_level.name());
        Ok(Settings { listen, tenants, keys, timeout, log_level })
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_'))
}
