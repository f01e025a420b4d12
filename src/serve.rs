//! The KV API of Prefect Cloud 1 over any store, so that unchanged 1.x flows go on working.

mod body;
mod browsers;
mod connections;
mod http;
mod keys;
mod listener;
mod memory_budget;
mod query;
mod rows;
mod scalar;
mod schema;
mod tenant;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use self::http::App;
use self::keys::Keys;
use self::tenant::Tenant;
use crate::failure::Failure;
use crate::logging;
use crate::signals::Signals;
use crate::store::{self, Location};
use crate::threads;

pub use keys::Source as KeySource;
pub use tenant::DEFAULT as DEFAULT_TENANT;

/// How long requests in flight may take after the signal to end.
const GRACE: Duration = Duration::from_secs(5);

/// Threads. More than processors: a large answer that is being built must not hold up small ones.
const THREADS: usize = 8;

/// Everything a server needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Name and store of each tenant; the first is the default.
    pub tenants: Vec<(String, Location)>,
    /// The API keys that open them.
    pub keys: KeySource,
    /// Deadline of a store call.
    pub timeout: Duration,
    /// What to log.
    pub log_level: &'static str,
}

/// Serves until SIGTERM, SIGINT or SIGHUP.
pub fn start(settings: &Settings) -> Result<(), Failure> {
    logging::to_stderr(settings.log_level, "");
    if matches!(settings.keys, KeySource::NoAuth) && !settings.listen.ip().is_loopback() {
        return Err(Failure::Usage(format!(
            "--no-auth opens all keys to everybody who reaches {}; listen on 127.0.0.1, or use API keys",
            settings.listen
        )));
    }
    let runtime = threads::runtime("kvfs-serve", THREADS, 0)?;
    let ended = serve(&runtime, settings);
    // A call that the store never answers keeps its thread.
    runtime.shutdown_timeout(GRACE);
    ended
}

fn serve(runtime: &Runtime, settings: &Settings) -> Result<(), Failure> {
    let _entered = runtime.enter();
    // Existing keys are checked first; a new one is generated, and shown, once nothing else can fail.
    let keys = Keys::load(&settings.keys)?;
    let tenants = open_tenants(settings)?;
    let unknown = |name: &String| !tenants.iter().any(|tenant| tenant.name == *name);
    if let Some(name) = keys.iter().flat_map(Keys::tenants).find(unknown) {
        return Err(Failure::Usage(format!(
            "an API key is bound to the tenant {name:?}, which does not exist; add --tenant {name}=STORE"
        )));
    }
    runtime.block_on(async {
        let cannot = |error| cannot_listen(settings.listen, &error);
        let listener = TcpListener::bind(settings.listen).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let keys = keys.map_or_else(|| Keys::generate(&settings.keys), Ok)?;
        for tenant in &tenants {
            tracing::info!("tenant {:?} ({}) is {}", tenant.name, tenant.id, tenant.store.name());
        }
        // A program that reads the next line may send a signal at once.
        let signals = Signals::listen()?;
        eprintln!("kvfs: serving the Prefect 1.x KV API at http://{address}");
        let stores: Vec<_> = tenants.iter().map(|tenant| tenant.store.clone()).collect();
        let ended = listener::serve(listener, App::new(keys, tenants), signals).await;
        tokio::task::block_in_place(|| stores.iter().for_each(|store| store.close()));
        ended
    })
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> Failure {
    let example = SocketAddr::new(address.ip(), address.port().saturating_add(10_000));
    let advice = match error.kind() {
        ErrorKind::AddrInUse => format!(
            "in use by another program, such as a Prefect server or another kvfs serve; name another port, as in \
             --listen {example}"
        ),
        ErrorKind::PermissionDenied => {
            format!("ports below 1024 are root's; name another one, as in --listen {example}")
        }
        ErrorKind::AddrNotAvailable => {
            "this machine has no such address; 127.0.0.1 is this machine alone, 0.0.0.0 all networks"
                .to_owned()
        }
        _ => error.to_string(),
    };
    Failure::Other(format!("cannot listen on {address}: {advice}"))
}

fn open_tenants(settings: &Settings) -> Result<Vec<Arc<Tenant>>, Failure> {
    let open = |(name, location): &(String, Location)| {
        let (store, _) = store::open(location, settings.timeout).map_err(Failure::Store)?;
        Ok(Arc::new(Tenant::new(name, store, settings.tenants.len(), settings.timeout)))
    };
    settings.tenants.iter().map(open).collect()
}
