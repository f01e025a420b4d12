//! An HTTP server that misbehaves: it stands before a real one and passes requests on until it is told to fail.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// The treatment of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// They are passed on, and so are the answers.
    None,
    /// Nobody listens.
    Refuse,
    /// They are read and never answered.
    Hang,
    /// They are answered with these bytes, whatever they ask for.
    Answer(Vec<u8>),
    /// They are passed on; after so many bytes of the answer the connection is reset.
    ResetAfter(usize),
    /// They are passed on and carried out; the answer to those that contain this never comes.
    LoseAnswer(&'static str),
    /// They are answered with this and then spaces without end.
    Endless(Vec<u8>),
    /// They are passed on; the answer comes a byte at a time.
    Drip,
    /// They are passed on, but only the first of each connection, which the server says it keeps.
    CloseKept,
    /// The first of two is answered with these bytes, the second is passed on.
    EveryOther(Vec<u8>),
}

/// All bytes of an answer.
pub(crate) fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into()
}

struct Shared {
    /// The address of the real server.
    behind: String,
    fault: Mutex<Fault>,
    changed: Condvar,
    requests: AtomicUsize,
    ended: AtomicBool,
}

/// The misbehaving server; ended when dropped.
pub(crate) struct Proxy {
    pub(crate) address: String,
    shared: Arc<Shared>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    pub(crate) fn before(behind: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Arc::new(Shared {
            behind: behind.to_owned(),
            fault: Mutex::new(Fault::None),
            changed: Condvar::new(),
            requests: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let address = listener.local_addr().unwrap().to_string();
        let proxy = Self { address, shared, listener: Mutex::default() };
        proxy.listen(listener);
        proxy
    }

    /// Sets the treatment of requests from now on; those that hang end.
    pub(crate) fn set(&self, fault: &Fault) {
        *self.shared.fault.lock() = fault.clone();
        self.shared.changed.notify_all();
        if *fault == Fault::Refuse {
            self.close();
        } else if self.listener.lock().is_none() {
            self.listen(TcpListener::bind(&self.address).unwrap());
        }
    }

    /// How many requests have come in.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    fn listen(&self, listener: TcpListener) {
        let shared = self.shared.clone();
        shared.ended.store(false, Ordering::SeqCst);
        let accept = move || {
            for stream in listener.incoming() {
                if shared.ended.load(Ordering::SeqCst) {
                    break;
                }
                let (shared, stream) = (shared.clone(), stream.unwrap());
                // Whatever breaks here is the fault that was asked for.
                std::thread::spawn(move || shared.serve(stream).ok());
            }
        };
        *self.listener.lock() = Some(std::thread::spawn(accept));
    }

    fn close(&self) {
        let Some(listener) = self.listener.lock().take() else { return };
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes it.
        drop(TcpStream::connect(&self.address));
        listener.join().unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(&Fault::Refuse);
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut kept = false;
        while let Some(request) = read_request(&mut client)? {
            let number = self.requests.fetch_add(1, Ordering::SeqCst);
            let fault = self.fault.lock().clone();
            match &fault {
                Fault::Refuse => {}
                Fault::Hang => self.wait_while(&fault),
                Fault::Answer(bytes) => client.write_all(bytes)?,
                Fault::ResetAfter(size) => {
                    let answer = self.ask(&request)?;
                    client.write_all(&answer[..answer.len().min(*size)])?;
                    // The bytes sent so far arrive before the reset.
                    std::thread::sleep(Duration::from_millis(20));
                    reset_on_close(&client);
                }
                Fault::LoseAnswer(text) if request.contains(text) => {
                    self.ask(&request)?;
                    self.wait_while(&fault);
                }
                Fault::Endless(start) => {
                    client.write_all(start)?;
                    while *self.fault.lock() == fault {
                        client.write_all(&[b' '; 1 << 12])?;
                    }
                }
                Fault::Drip => {
                    for byte in self.ask(&request)? {
                        client.write_all(&[byte])?;
                        std::thread::sleep(Duration::from_millis(50));
                    }
                }
                Fault::CloseKept if kept => {}
                Fault::CloseKept => {
                    let answer = String::from_utf8(self.ask(&request)?).unwrap();
                    client.write_all(answer.replacen("connection: close\r\n", "", 1).as_bytes())?;
                    kept = true;
                    continue;
                }
                Fault::EveryOther(bytes) if number.is_multiple_of(2) => client.write_all(bytes)?,
                Fault::None | Fault::LoseAnswer(_) | Fault::EveryOther(_) => {
                    client.write_all(&self.ask(&request)?)?;
                }
            }
            break;
        }
        Ok(())
    }

    fn wait_while(&self, fault: &Fault) {
        let mut now = self.fault.lock();
        while *now == *fault {
            self.changed.wait(&mut now);
        }
    }

    /// The answer of the real server.
    fn ask(&self, request: &str) -> std::io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(&self.behind)?;
        server.write_all(request.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes())?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

/// The next request, head and body; `None` at the end.
pub(crate) fn read_request(stream: &mut TcpStream) -> std::io::Result<Option<String>> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 1 << 14]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Ok(Some(text));
            }
        }
        let size = stream.read(&mut piece)?;
        if size == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&piece[..size]);
    }
}

/// Makes the close of `stream` a reset.
#[allow(unsafe_code)]
pub(crate) fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = u32::try_from(size_of::<libc::linger>()).unwrap();
    // SAFETY: the option's value is a linger of that size.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size,
        )
    };
    assert_eq!(set, 0);
}
