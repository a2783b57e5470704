//! Where a connection begins: both ends prove which process of the generation they are.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use fluvial_node::process_link::MeshIdentity;
use fluvial_node::secret::Secret;
use fluvial_node::trust::{MeshCertificate, Tls};
use rustls::{ClientConnection, Connection, ConnectionCommon, ServerConnection, SideData};

use super::socket::Socket;
use super::tls::TlsSocket;
use crate::runtime::ambient;

const MAGIC: &[u8; 8] = b"fluvial1";

/// After this time without an answer, the kernel gives up a connection over the network. Without it, a host that is gone
/// would be noticed after a quarter of an hour.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// What this process needs to begin connections.
pub(super) struct Door {
    proof: Proof,
    index: usize,
    processes: usize,
}

enum Proof {
    Secret(Secret),
    Certificate(Tls),
}

impl Door {
    /// # Errors
    /// The certificate of the identity is malformed.
    pub(super) fn new(identity: &MeshIdentity, index: usize, processes: usize) -> std::io::Result<Self> {
        let proof = match identity {
            MeshIdentity::Plain(secret) => Proof::Secret(secret.clone()),
            MeshIdentity::Tls(certificate) => Proof::Certificate(certificate.tls().map_err(Error::other)?),
        };
        Ok(Self { proof, index, processes })
    }

    /// Connects to process `peer` at `address`.
    ///
    /// # Errors
    /// It cannot be reached by then, or one of the two refuses the other.
    pub(super) fn call(&self, address: &str, peer: usize, until: Instant) -> std::io::Result<Socket> {
        let tcp = dial(address, until)?;
        let mut timed = Timed { tcp: &tcp, until };
        let (answered, socket) = match &self.proof {
            Proof::Secret(secret) => {
                tcp.set_nodelay(true)?;
                say_hello(&mut timed, secret.bytes(), self.index)?;
                (hear_hello(&mut timed, Some(secret))?, None)
            }
            Proof::Certificate(tls) => {
                over_network(&tcp)?;
                let name = MeshCertificate::server_name(number(peer));
                let mut end = ClientConnection::new(tls.client.clone(), name).map_err(Error::other)?;
                end.complete_io(&mut timed)?;
                say_hello(&mut rustls::Stream::new(&mut end, &mut timed), &[], self.index)?;
                let answered = hear_hello(&mut rustls::Stream::new(&mut end, &mut timed), None)?;
                (answered, Some(Connection::from(end)))
            }
        };
        if answered != peer {
            return Err(refused(format!("it is process {answered}")));
        }
        connected(tcp, socket)
    }

    /// Answers one that has connected: which process it is.
    ///
    /// # Errors
    /// It does not prove by then that it is one with a higher index.
    pub(super) fn welcome(&self, tcp: TcpStream, until: Instant) -> std::io::Result<(usize, Socket)> {
        let mut timed = Timed { tcp: &tcp, until };
        let expected = |peer: usize| match peer > self.index && peer < self.processes {
            true => Ok(peer),
            false => Err(refused(format!("process {peer} does not connect to process {}", self.index))),
        };
        let (peer, socket) = match &self.proof {
            Proof::Secret(secret) => {
                tcp.set_nodelay(true)?;
                let peer = expected(hear_hello(&mut timed, Some(secret))?)?;
                say_hello(&mut timed, secret.bytes(), self.index)?;
                (peer, None)
            }
            Proof::Certificate(tls) => {
                over_network(&tcp)?;
                let mut end = ServerConnection::new(tls.server.clone()).map_err(Error::other)?;
                end.complete_io(&mut timed)?;
                let peer = expected(hear_hello(&mut rustls::Stream::new(&mut end, &mut timed), None)?)?;
                proves(&end, peer)?;
                say_hello(&mut rustls::Stream::new(&mut end, &mut timed), &[], self.index)?;
                (peer, Some(Connection::from(end)))
            }
        };
        Ok((peer, connected(tcp, socket)?))
    }
}

/// Whether the certificate of the other end, which the handshake has verified, is that of process `peer`.
fn proves<S: SideData>(end: &ConnectionCommon<S>, peer: usize) -> std::io::Result<()> {
    match end.peer_certificates() {
        Some([certificate, ..]) if MeshCertificate::is_of(certificate, number(peer)) => Ok(()),
        _ => Err(refused(format!("its certificate is not that of process {peer}"))),
    }
}

fn connected(tcp: TcpStream, tls: Option<Connection>) -> std::io::Result<Socket> {
    tcp.set_read_timeout(None)?;
    tcp.set_write_timeout(None)?;
    Ok(match tls {
        None => Socket::Plain(tcp),
        Some(tls) => Socket::Tls(TlsSocket::new(tcp, tls)),
    })
}

/// Connects to the first address of a `host:port` that can be reached.
fn dial(address: &str, until: Instant) -> std::io::Result<TcpStream> {
    let mut failed = Error::new(ErrorKind::NotFound, "the host has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(until)?) {
            Ok(tcp) => return Ok(tcp),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn over_network(tcp: &TcpStream) -> std::io::Result<()> {
    use rustix::net::sockopt;
    tcp.set_nodelay(true)?;
    // The first is for a connection with data on the way, which stops the probes of the others; they are for an idle one.
    sockopt::set_tcp_user_timeout(tcp, u32::try_from(GIVE_UP_AFTER.as_millis()).unwrap_or(u32::MAX))?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, Duration::from_secs(1))?;
    sockopt::set_tcp_keepintvl(tcp, Duration::from_secs(1))?;
    sockopt::set_tcp_keepcnt(tcp, 3)?;
    Ok(())
}

fn say_hello(to: &mut impl Write, secret: &[u8], index: usize) -> std::io::Result<()> {
    to.write_all(&[MAGIC.as_slice(), secret, &number(index).to_le_bytes()].concat())?;
    to.flush()
}

/// The index that the other end says it has. It has to say the secret, too, if there is one.
fn hear_hello(from: &mut impl Read, secret: Option<&Secret>) -> std::io::Result<usize> {
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic)?;
    if &magic != MAGIC {
        return Err(refused("it is no process of a job".to_owned()));
    }
    if let Some(secret) = secret {
        let mut said = [0; 32];
        from.read_exact(&mut said)?;
        if !secret.is(&said) {
            return Err(refused("it does not know the secret".to_owned()));
        }
    }
    let mut index = [0; 4];
    from.read_exact(&mut index)?;
    Ok(u32::from_le_bytes(index) as usize)
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("processes are few")
}

fn refused(why: String) -> Error {
    Error::new(ErrorKind::PermissionDenied, why)
}

fn left(until: Instant) -> std::io::Result<Duration> {
    match until.saturating_duration_since(ambient::instant()) {
        Duration::ZERO => Err(Error::new(ErrorKind::TimedOut, "it did not prove in time who it is")),
        left => Ok(left),
    }
}

/// A socket whose calls together end at a certain time: one that sends a byte now and then gets no more than one that sends
/// nothing.
struct Timed<'a> {
    tcp: &'a TcpStream,
    until: Instant,
}

impl Timed<'_> {
    fn timed<T>(&mut self, call: impl FnOnce(&mut &TcpStream) -> std::io::Result<T>) -> std::io::Result<T> {
        let left = left(self.until)?;
        self.tcp.set_read_timeout(Some(left))?;
        self.tcp.set_write_timeout(Some(left))?;
        call(&mut self.tcp).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => Error::new(ErrorKind::TimedOut, "it did not prove in time who it is"),
            _ => error,
        })
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.timed(|tcp| tcp.read(into))
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.timed(|tcp| tcp.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Until here nobody has proved anything; what follows is read by timely, which trusts it.
        #[test]
        fn a_hello_that_is_changed_anywhere_is_refused_or_says_another_index(
            at in 0..44_usize, byte in any::<u8>(), cut in 0..45_usize, index in 0..1000_usize,
        ) {
            let secret = Secret::new();
            let mut hello = Vec::new();
            say_hello(&mut hello, secret.bytes(), index).unwrap();
            prop_assert_eq!(hear_hello(&mut hello.as_slice(), Some(&secret)).unwrap(), index);
            prop_assert!(cut >= hello.len() || hear_hello(&mut &hello[..cut], Some(&secret)).is_err());
            let same = hello[at] == byte;
            hello[at] = byte;
            let heard = hear_hello(&mut hello.as_slice(), Some(&secret));
            let of_proof = at < MAGIC.len() + secret.bytes().len();
            prop_assert_eq!(heard.is_err(), of_proof && !same);
        }
    }
}
