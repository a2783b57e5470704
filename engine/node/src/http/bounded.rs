//! A listener with a bound on its open connections: one more, and the oldest is closed.
//!
//! Nothing proves who connects, so a stranger could otherwise take all files that this process may open, or, if new connections
//! had to wait, keep a platform from seeing that the copy works.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// How many connections may be open.
pub(super) const MOST: usize = 64;

/// The listener. It closes a connection by dropping its sender.
pub(super) struct Bounded {
    listener: TcpListener,
    open: VecDeque<oneshot::Sender<()>>,
}

/// A connection that its listener can close.
pub(super) struct Held {
    socket: TcpStream,
    closes: oneshot::Receiver<()>,
    closed: bool,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, open: VecDeque::new() }
    }
}

impl Listener for Bounded {
    type Io = Held;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Held, SocketAddr) {
        // A failure of the system's accept is logged and retried there.
        let (socket, address) = Listener::accept(&mut self.listener).await;
        self.open.retain(|connection| !connection.is_closed());
        while self.open.len() >= MOST {
            self.open.pop_front();
        }
        let (connection, closes) = oneshot::channel();
        self.open.push_back(connection);
        (Held { socket, closes, closed: false }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Held {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.closed = self.closed || Pin::new(&mut self.closes).poll(context).is_ready();
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.socket).poll_read(context, into)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
