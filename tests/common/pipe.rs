//! A way to a server that can be cut: bytes pass unchanged, until they do not.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// A pipe before `behind`; the thread that listens lives as long as the tests.
pub(crate) struct Pipe {
    pub(crate) address: String,
    open: Arc<AtomicBool>,
    hold: Arc<Hold>,
    behind: Arc<Mutex<String>>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

/// Whether anything gets through.
#[derive(Default)]
struct Hold {
    /// Nothing does.
    on: AtomicBool,
    /// What was the last to get through has.
    is_through: AtomicBool,
    last: Mutex<Option<&'static str>>,
}

impl Hold {
    fn set(&self, held: bool) {
        self.on.store(held, Ordering::SeqCst);
        self.is_through.store(held, Ordering::SeqCst);
    }

    /// Waits until `text` may pass. Whether it is the last that does: nothing follows it then, however soon it is answered.
    fn pass(&self, text: &str) -> bool {
        while self.on.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let is_last = self.last.lock().take_if(|last| text.contains(*last)).is_some();
        if is_last {
            self.on.store(true, Ordering::SeqCst);
        }
        is_last
    }
}

impl Pipe {
    pub(crate) fn before(behind: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (open, streams) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Vec::new())));
        let hold = Arc::new(Hold::default());
        let behind = Arc::new(Mutex::new(behind.to_owned()));
        let pipe = Self {
            address,
            open: open.clone(),
            hold: hold.clone(),
            behind: behind.clone(),
            streams: streams.clone(),
        };
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                if !open.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&*behind.lock()) else { continue };
                let mut streams = streams.lock();
                streams.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                let (from_client, from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let holds = (hold.clone(), hold.clone());
                std::thread::spawn(move || pass(from_client, server, &holds.0));
                std::thread::spawn(move || pass(from_server, client, &holds.1));
            }
        });
        pipe
    }

    /// Ends all connections, and each new one at once.
    pub(crate) fn cut(&self) {
        self.open.store(false, Ordering::SeqCst);
        for stream in self.streams.lock().drain(..) {
            // The other end may have gone first.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Connections stay and are made, but nothing gets through, until it is mended.
    #[allow(dead_code, reason = "each test file uses its own part")]
    pub(crate) fn hold(&self) {
        self.hold.set(true);
    }

    /// As [`Pipe::hold`], once `last` has got through.
    #[allow(dead_code, reason = "each test file uses its own part")]
    pub(crate) fn hold_after(&self, last: &'static str) {
        *self.hold.last.lock() = Some(last);
    }

    #[allow(dead_code, reason = "each test file uses its own part")]
    pub(crate) fn is_held(&self) -> bool {
        self.hold.is_through.load(Ordering::SeqCst)
    }

    /// New connections lead to another server.
    #[allow(dead_code, reason = "each test file uses its own part")]
    pub(crate) fn lead_to(&self, behind: &str) {
        behind.clone_into(&mut self.behind.lock());
    }

    pub(crate) fn mend(&self) {
        self.hold.set(false);
        self.open.store(true, Ordering::SeqCst);
    }
}

/// Passes bytes on until either end is gone.
fn pass(mut from: TcpStream, mut to: TcpStream, hold: &Hold) {
    let mut piece = [0; 1 << 12];
    while let Ok(size @ 1..) = from.read(&mut piece) {
        let is_last = hold.pass(&String::from_utf8_lossy(&piece[..size]));
        if to.write_all(&piece[..size]).is_err() {
            break;
        }
        if is_last {
            hold.is_through.store(true, Ordering::SeqCst);
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
