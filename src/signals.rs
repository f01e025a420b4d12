//! The signals that ask for the end.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// SIGTERM, SIGINT and SIGHUP.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// From now on these signals are heard, and do not end the process by themselves. Call it on a runtime.
    pub fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::Other(format!("cannot listen to signals: {error}")));
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
            hup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them.
    pub async fn first(&mut self) {
        tokio::select! { _ = self.term.recv() => {}, _ = self.int.recv() => {}, _ = self.hup.recv() => {} }
    }

    /// Waits for one more; not for SIGHUP, of which a terminal that closes may send more than one.
    pub async fn another(&mut self) {
        tokio::select! { _ = self.term.recv() => {}, _ = self.int.recv() => {} }
    }

    /// What `work` comes to, unless another signal ends the process before.
    pub async fn unless_another<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::select! { result = work => result, () = self.another() => std::process::exit(1) }
    }
}
