//! A listener with a bound on its open connections: one more, and the oldest is closed.
//!
//! Whoever connects is a stranger at first, who could otherwise take all files that this process may open, or, if new connections
//! had to wait, keep a platform from seeing that the copy works. Where requests show who makes them, a connection with such a request
//! is no longer a stranger's, so that strangers close only each other's connections.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::Sleep;

/// How many connections of strangers may be open.
pub(super) const MOST: usize = 64;
/// How many others may be open.
const MOST_KNOWN: usize = 256;
/// How long a reader may take nothing of what is written to it.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// The listener. It closes a connection by dropping its sender.
pub(super) struct Bounded {
    listener: TcpListener,
    strangers: VecDeque<Open>,
    known: VecDeque<Open>,
}

struct Open {
    closes: oneshot::Sender<()>,
    standing: Standing,
}

/// Whether a request over a connection has shown who makes it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing(Arc<AtomicBool>);

impl Standing {
    pub(super) fn is_known(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection that its listener can close.
pub(super) struct Held {
    pub(super) socket: TcpStream,
    pub(super) standing: Standing,
    closes: oneshot::Receiver<()>,
    closed: bool,
    /// When a write that is under way is given up.
    stalls: Option<Pin<Box<Sleep>>>,
}

impl Held {
    /// Whether the listener has closed this connection.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.closed = self.closed || Pin::new(&mut self.closes).poll(context).is_ready();
        if self.closed { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Gives up a write that its reader does not take.
    fn bound<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalls = None;
            return written;
        }
        let stalls = self.stalls.get_or_insert_with(|| Box::pin(tokio::time::sleep(TAKEN_WITHIN)));
        if stalls.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl Bounded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, strangers: VecDeque::new(), known: VecDeque::new() }
    }

    /// Makes room for a stranger.
    fn make_room(&mut self) {
        let strangers = std::mem::take(&mut self.strangers).into_iter().chain(std::mem::take(&mut self.known));
        for open in strangers.filter(|open| !open.closes.is_closed()) {
            let known = open.standing.0.load(Ordering::Relaxed);
            if known { self.known.push_back(open) } else { self.strangers.push_back(open) }
        }
        while self.strangers.len() >= MOST {
            self.strangers.pop_front();
        }
        while self.known.len() > MOST_KNOWN {
            self.known.pop_front();
        }
    }
}

impl Listener for Bounded {
    type Io = Held;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Held, SocketAddr) {
        // A failure of the system's accept is logged and retried there.
        let (socket, address) = Listener::accept(&mut self.listener).await;
        self.make_room();
        let ((closes, closed), standing) = (oneshot::channel(), Standing::default());
        self.strangers.push_back(Open { closes, standing: standing.clone() });
        (Held { socket, standing, closes: closed, closed: false, stalls: None }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Held {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.socket).poll_read(context, into)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.bound(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        let flushed = Pin::new(&mut self.socket).poll_flush(context);
        self.bound(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
