//! Ports for servers that want to be told theirs.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// A port of this machine that no other test is given for as long as this lives, whatever process it runs in: also while the
/// server that it is for is down. Below those that the kernel takes for outgoing connections (from 32768 on).
pub struct Port {
    pub number: u16,
    _held: UnixListener,
}

impl Port {
    pub fn reserve() -> Self {
        loop {
            let number = fastrand::u16(10_000..32_000);
            let name = SocketAddr::from_abstract_name(format!("kvfs-test-port-{number}")).unwrap();
            if let Ok(held) = UnixListener::bind_addr(&name)
                && TcpListener::bind(("127.0.0.1", number)).is_ok()
            {
                return Self { number, _held: held };
            }
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}
