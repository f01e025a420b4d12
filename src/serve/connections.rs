//! The open connections: their limit, which of them is closed for a new one, and how long a client may leave its answer
//! unread.

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

/// All open connections. At the limit a new one replaces the one that has been waiting for its client for longest: of
/// those that have never sent a request that was admitted, if there are any.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<Open>,
    changed: Notify,
}

#[derive(Default)]
struct Open {
    slots: HashMap<u64, Slot>,
    clock: u64,
}

struct Slot {
    task: AbortHandle,
    /// Whether it has sent a request that was admitted.
    known: bool,
    /// Since when it waits for its client: for a request, or to be read. `None` while a request is carried out.
    waits: Option<u64>,
}

impl Open {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Whether a slot is free; closes a connection if that frees one.
    fn free_slot(&mut self) -> bool {
        if self.slots.len() < CONNECTIONS {
            return true;
        }
        let waiting = self.slots.iter().filter_map(|(id, slot)| Some((slot.known, slot.waits?, *id)));
        let Some((_, _, id)) = waiting.min() else { return false };
        self.slots.remove(&id).is_some_and(|slot| {
            slot.task.abort();
            true
        })
    }
}

impl Connections {
    /// Waits for a free slot.
    pub(super) async fn slot(&self) {
        while !self.open.lock().free_slot() {
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
        let (slot, served) = (FreeOnDrop(handle.clone()), connection(handle));
        let task = tokio::spawn(async move {
            let _slot = slot;
            served.await;
        });
        open.slots.insert(id, Slot { task: task.abort_handle(), known: false, waits: Some(id) });
    }

    fn mark(&self, id: u64, at_work: bool) {
        let mut open = self.open.lock();
        let now = open.tick();
        if let Some(slot) = open.slots.get_mut(&id) {
            slot.known = true;
            slot.waits = (!at_work).then_some(now);
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
    /// An admitted request has arrived as a whole: the connection is not closed until it has been answered.
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

struct FreeOnDrop(Connection);

impl Drop for FreeOnDrop {
    fn drop(&mut self) {
        self.0.all.open.lock().slots.remove(&self.0.id);
        self.0.all.changed.notify_one();
    }
}

/// A connection whose writes fail when the client reads nothing for [`STALL_TIMEOUT`].
pub(super) struct StallTimeout {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    stalled: bool,
}

impl StallTimeout {
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

impl AsyncRead for StallTimeout {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for StallTimeout {
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
