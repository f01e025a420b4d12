//! The flags of `kvfs serve`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
    #[arg(long, env = "KVFS_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:4200", value_parser = listen)]
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

/// An address with a port. A port alone, or `localhost`, can only mean this machine; an address alone has the usual port.
fn listen(text: &str) -> Result<SocketAddr, String> {
    const PORT: u16 = 4200;
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let address = |text: &str| match text {
        "localhost" => Some(here),
        text => text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text).parse().ok(),
    };
    let (host, port) = match (text.parse(), text.rsplit_once(':')) {
        (Ok(port), _) => (Some(here), Ok(port)),
        (Err(_), Some((host @ "localhost", port))) => (address(host), port.parse()),
        (Err(_), _) => (address(text), Ok(PORT)),
    };
    if let (Some(host), Ok(port)) = (host, port) {
        return Ok(SocketAddr::new(host, port));
    }
    let port = text.strip_prefix(':').filter(|port| port.parse::<u16>().is_ok()).unwrap_or("4200");
    Err(format!(
        "write ADDRESS:PORT: 127.0.0.1:{port} for this machine alone, 0.0.0.0:{port} for all networks"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_where_it_can_mean_one_thing_only() {
        for (text, address) in [
            ("127.0.0.1:14200", "127.0.0.1:14200"),
            ("14200", "127.0.0.1:14200"),
            ("localhost:14200", "127.0.0.1:14200"),
            ("localhost", "127.0.0.1:4200"),
            ("127.0.0.1", "127.0.0.1:4200"),
            ("10.0.0.1", "10.0.0.1:4200"),
            ("[::1]:1", "[::1]:1"),
            ("[::1]", "[::1]:4200"),
            ("::1", "[::1]:4200"),
            ("0.0.0.0:1", "0.0.0.0:1"),
        ] {
            assert_eq!(listen(text), Ok(address.parse().unwrap()), "{text}");
        }
        for (text, example) in [
            (":14200", "127.0.0.1:14200"),
            ("example.org:1", "127.0.0.1:4200"),
            ("localhost:x", "ADDRESS:PORT"),
            ("99999", "ADDRESS:PORT"),
            ("", "0.0.0.0:4200"),
        ] {
            assert!(listen(text).is_err_and(|why| why.contains(example)), "{text}");
        }
    }
}
