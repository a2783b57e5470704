//! A TLS connection that one thread reads while another writes, as timely does.
//!
//! ```text
//!   writing thread: out ┐                          ┌ incoming :reading thread
//!   encrypts into it,   ├──► connection (shared) ◄─┤ reads into it,
//!   then writes it      ┘                          └ then decrypts from it
//! ```
//!
//! rustls has one state for both directions, and its own streams dead-lock when both ends write: each would hold the
//! connection while its write waits for the other end to read. Here the lock of the connection is held only to encrypt and to
//! decrypt, never over a call that waits. The locks that are held over such a call belong to one direction alone: `out`, over
//! writes, which only writing takes, and `incoming`, over reads, which only reading takes. Both are taken before `connection`.
//!
//! Reading never writes, not even where the protocol asks for it: two readers that wait until they can write would wait for
//! each other. The answer to a key update therefore goes out with the next write, before which it is not due.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::Connection;

/// How much is read from the socket at once.
const READ_BYTES: usize = 1 << 16;

/// A TLS connection after its handshake. A clone is the same connection.
#[derive(Clone)]
pub(crate) struct TlsSocket(Arc<Shared>);

struct Shared {
    tcp: TcpStream,
    /// What is encrypted and not written yet.
    out: Mutex<Vec<u8>>,
    incoming: Mutex<Incoming>,
    connection: Mutex<Connection>,
}

/// What was read and is not decrypted yet.
struct Incoming {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
}

impl TlsSocket {
    /// The connection over `tcp`, whose handshake is complete.
    pub(super) fn new(tcp: TcpStream, connection: Connection) -> Self {
        let incoming = Incoming { bytes: vec![0; READ_BYTES].into_boxed_slice(), from: 0, to: 0 };
        let (out, incoming, connection) = (Mutex::default(), Mutex::new(incoming), Mutex::new(connection));
        Self(Arc::new(Shared { tcp, out, incoming, connection }))
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> std::io::Result<()> {
        match nonblocking {
            // A write could end in the middle of a record.
            true => Err(ErrorKind::Unsupported.into()),
            false => self.0.tcp.set_nonblocking(false),
        }
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> std::io::Result<()> {
        if how != Shutdown::Read {
            self.write_tls(|connection| {
                connection.send_close_notify();
                Ok(())
            })?;
        }
        self.0.tcp.shutdown(how)
    }

    /// Whether a write waits now until the other end reads.
    #[cfg(test)]
    pub(super) fn is_full(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut asked = [PollFd::new(&self.0.tcp, PollFlags::OUT)];
        poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|writable| writable == 0)
    }

    /// Lets the connection encrypt something, and writes all that is encrypted.
    pub(super) fn write_tls<T>(
        &self,
        encrypt: impl FnOnce(&mut Connection) -> std::io::Result<T>,
    ) -> std::io::Result<T> {
        let mut out = lock(&self.0.out);
        let mut connection = lock(&self.0.connection);
        let encrypted = encrypt(&mut connection)?;
        while connection.wants_write() {
            connection.write_tls(&mut *out)?;
        }
        drop(connection);
        (&self.0.tcp).write_all(&out)?;
        out.clear();
        Ok(encrypted)
    }
}

impl Write for TlsSocket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // The connection takes as much as its buffer holds, which is empty.
        self.write_tls(|connection| connection.writer().write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Read for TlsSocket {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let mut incoming = lock(&self.0.incoming);
        loop {
            if let Some(read) = incoming.decrypt(&mut lock(&self.0.connection), into)? {
                return Ok(read);
            }
            incoming.from = 0;
            incoming.to = match (&self.0.tcp).read(&mut incoming.bytes) {
                Ok(0) => {
                    // Without the other end's close_notify, an end may be anybody's doing.
                    let mut connection = lock(&self.0.connection);
                    connection.read_tls(&mut std::io::empty())?;
                    return connection.reader().read(into);
                }
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
        }
    }
}

impl Incoming {
    /// The number of bytes that were decrypted `into` the buffer, 0 at the end; `None` if more has to be read for that.
    fn decrypt(&mut self, connection: &mut Connection, into: &mut [u8]) -> std::io::Result<Option<usize>> {
        let mut decrypted = 0;
        loop {
            match connection.reader().read(&mut into[decrypted..]) {
                // The buffer is full, or this is the end.
                Ok(0) => return Ok(Some(decrypted)),
                Ok(more) => decrypted += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.from == self.to {
                        return Ok(Some(decrypted).filter(|&decrypted| decrypted > 0));
                    }
                    self.from += connection.read_tls(&mut &self.bytes[self.from..self.to])?;
                    connection.process_new_packets().map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
