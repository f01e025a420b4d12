//! The connections that are open: how many, which of them give way to new ones, and how long an answer may wait for its
//! reader.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};

/// Connections open at once.
const CONNECTIONS: usize = 256;
/// How long a client may leave an answer unread.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);

/// All open connections. When there is no room for one more, the one that has been waiting for its client for longest
/// gives way: of those that have never sent a request that was admitted, if there are any.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<Open>,
    changed: Notify,
}

#[derive(Default)]
struct Open {
    seats: HashMap<u64, Seat>,
    clock: u64,
}

struct Seat {
    task: AbortHandle,
    /// Has sent a request that was admitted.
    known: bool,
    /// Since when it waits for its client: for a request, or to be read. `None` while a request is carried out.
    waits: Option<u64>,
}

impl Open {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// True if there is room for one more; ends a connection if that makes some.
    fn make_room(&mut self) -> bool {
        if self.seats.len() < CONNECTIONS {
            return true;
        }
        let waiting = self.seats.iter().filter_map(|(id, seat)| Some((seat.known, seat.waits?, *id)));
        let Some((_, _, id)) = waiting.min() else { return false };
        self.seats.remove(&id).is_some_and(|seat| {
            seat.task.abort();
            true
        })
    }
}

impl Connections {
    /// Waits until there is room for one more connection.
    pub(super) async fn room(&self) {
        while !self.open.lock().make_room() {
            self.changed.notified().await;
        }
    }

    /// Runs a connection, which may be ended at any time while it waits for its client.
    pub(super) fn run<F>(self: &Arc<Self>, connection: impl FnOnce(Connection) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut open = self.open.lock();
        let id = open.tick();
        let handle = Connection { all: self.clone(), id };
        let (leave, served) = (Leave(handle.clone()), connection(handle));
        let task = tokio::spawn(async move {
            let _leave = leave;
            served.await;
        });
        open.seats.insert(id, Seat { task: task.abort_handle(), known: false, waits: Some(id) });
    }

    fn mark(&self, id: u64, at_work: bool) {
        let mut open = self.open.lock();
        let now = open.tick();
        if let Some(seat) = open.seats.get_mut(&id) {
            seat.known = true;
            seat.waits = (!at_work).then_some(now);
        }
        drop(open);
        self.changed.notify_one();
    }
}

/// One of the open connections.
#[derive(Clone)]
pub(super) struct Connection {
    all: Arc<Connections>,
    id: u64,
}

impl Connection {
    /// A request that was admitted is here as a whole and will be answered: the connection stays until then.
    pub(super) fn work(&self) -> Work<'_> {
        self.all.mark(self.id, true);
        Work(self)
    }
}

pub(super) struct Work<'a>(&'a Connection);

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.0.all.mark(self.0.id, false);
    }
}

struct Leave(Connection);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.all.open.lock().seats.remove(&self.0.id);
        self.0.all.changed.notify_one();
    }
}

/// A connection whose writes fail when the client reads nothing for [`STALL_TIMEOUT`].
pub(super) struct Patient {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    stalled: bool,
}

impl Patient {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, end: Box::pin(tokio::time::sleep(STALL_TIMEOUT)), stalled: false }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let stalled = std::mem::replace(&mut self.stalled, written.is_pending());
        if written.is_ready() {
            return written;
        }
        if !stalled {
            self.end.as_mut().reset(Instant::now() + STALL_TIMEOUT);
        }
        let ended = self.end.as_mut().poll(cx);
        ended.map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
