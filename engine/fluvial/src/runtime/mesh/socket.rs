//! A connection with another process, as timely takes it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use timely::communication::allocator::zero_copy::stream::Stream;

use super::tls::TlsSocket;

/// A connection whose other end has proved which process of the generation it is.
pub(crate) enum Socket {
    /// On the loopback interface.
    Plain(TcpStream),
    /// Over the network.
    Tls(TlsSocket),
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(into),
            Self::Tls(tls) => tls.read(into),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

impl Stream for Socket {
    fn try_clone(&self) -> std::io::Result<Self> {
        match self {
            Self::Plain(tcp) => tcp.try_clone().map(Self::Plain),
            Self::Tls(tls) => Ok(Self::Tls(tls.clone())),
        }
    }

    fn set_nonblocking(&self, nonblocking: bool) -> std::io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.set_nonblocking(nonblocking),
            Self::Tls(tls) => tls.set_nonblocking(nonblocking),
        }
    }

    fn shutdown(&self, how: Shutdown) -> std::io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.shutdown(how),
            Self::Tls(tls) => tls.shutdown(how),
        }
    }
}
