//! The signals that ask for the end, or for a fresh start.

use std::io::IsTerminal;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// SIGTERM, SIGINT and SIGHUP; SIGUSR1 and SIGUSR2, which mean nothing.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    _users: [Signal; 2],
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM, SIGINT: the end.
    End,
    /// SIGHUP: all that is remembered is asked for anew, and files are opened anew.
    Refresh,
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
            _users: [listen(SignalKind::user_defined1())?, listen(SignalKind::user_defined2())?],
        })
    }

    /// Waits for one of them, where SIGHUP asks for the end as well.
    pub async fn first(&mut self) {
        self.next().await;
    }

    /// Waits for one of them.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.term.recv() => Asked::End,
            _ = self.int.recv() => Asked::End,
            _ = self.hup.recv() => Asked::Refresh,
        }
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

/// Whether a person can see this process: one of its standard streams is a terminal that is still there.
pub fn has_terminal() -> bool {
    std::io::stdin().is_terminal() || std::io::stdout().is_terminal() || std::io::stderr().is_terminal()
}
