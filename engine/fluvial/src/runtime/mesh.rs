//! The sockets between the processes of one generation.
//!
//! ```text
//!   process 0 ◄──connect── process 1 ◄──connect── process 2      each connects to those with a lower index
//!        hello: magic, the generation's secret, own index
//! ```
//!
//! The sockets are opened here, not by timely, so that a stray or stale peer is refused: only the processes that one
//! node started for one generation know its secret.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use fluvial_node::secret::Secret;

use super::ambient;

const MAGIC: &[u8; 8] = b"fluvial1";
const HELLO_BYTES: usize = 8 + 32 + 4;
const PATIENCE: Duration = Duration::from_secs(20);

/// Opens a listener for the other processes, on a free port.
pub(crate) fn listen(at: IpAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind((at, 0))
}

/// Connects this process with all others. The result has the socket of process `i` at position `i`, and none at `index`.
///
/// # Errors
/// A peer did not come in time, or refused this process.
pub(crate) fn connect(
    listener: &TcpListener,
    addresses: &[String],
    index: usize,
    secret: &Secret,
) -> std::io::Result<Vec<Option<TcpStream>>> {
    let deadline = ambient::instant() + PATIENCE;
    let mut sockets: Vec<Option<TcpStream>> = (0..addresses.len()).map(|_| None).collect();
    for (peer, address) in addresses.iter().enumerate().take(index) {
        let mut resolved = address.to_socket_addrs()?;
        let address = resolved.next().ok_or_else(|| std::io::Error::other(format!("{address} has no address")))?;
        let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        write_hello(&mut socket, secret, index)?;
        let answered = read_hello(&mut socket, secret)?;
        if answered != Some(peer) {
            return Err(std::io::Error::new(
                ErrorKind::PermissionDenied,
                format!("process {peer} is not of this generation"),
            ));
        }
        socket.set_read_timeout(None)?;
        sockets[peer] = Some(socket);
    }
    listener.set_nonblocking(true)?;
    while sockets.iter().skip(index + 1).any(Option::is_none) {
        match listener.accept() {
            Ok((socket, from)) => match welcome(socket, secret, index) {
                Ok(Some((peer, socket))) if peer > index && peer < sockets.len() && sockets[peer].is_none() => {
                    sockets[peer] = Some(socket);
                }
                _ => tracing::warn!(%from, "refused a peer that is not of this generation"),
            },
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(ambient::instant());
                if left.is_zero() {
                    return Err(std::io::Error::new(
                        ErrorKind::TimedOut,
                        "a process of this generation did not connect",
                    ));
                }
                wait_readable(listener, left)?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(sockets)
}

fn wait_readable(listener: &TcpListener, at_most: Duration) -> std::io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec::try_from(at_most).ok();
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn welcome(mut socket: TcpStream, secret: &Secret, index: usize) -> std::io::Result<Option<(usize, TcpStream)>> {
    socket.set_nonblocking(false)?;
    socket.set_nodelay(true)?;
    // A stray that connects and says nothing must not hold up the others for long.
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let Some(peer) = read_hello(&mut socket, secret)? else { return Ok(None) };
    write_hello(&mut socket, secret, index)?;
    socket.set_read_timeout(None)?;
    Ok(Some((peer, socket)))
}

fn write_hello(socket: &mut TcpStream, secret: &Secret, index: usize) -> std::io::Result<()> {
    let mut hello = Vec::with_capacity(HELLO_BYTES);
    hello.extend_from_slice(MAGIC);
    hello.extend_from_slice(secret.bytes());
    hello.extend_from_slice(&u32::try_from(index).expect("a process index is small").to_le_bytes());
    socket.write_all(&hello)
}

/// The index of the peer, if it knows the secret.
fn read_hello(socket: &mut TcpStream, secret: &Secret) -> std::io::Result<Option<usize>> {
    let mut hello = [0u8; HELLO_BYTES];
    socket.read_exact(&mut hello)?;
    if &hello[..8] != MAGIC || !secret.is(&hello[8..40]) {
        return Ok(None);
    }
    let index = [hello[40], hello[41], hello[42], hello[43]];
    Ok(Some(u32::from_le_bytes(index) as usize))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_stray_is_turned_away_and_the_mesh_still_forms() {
        let secret = Secret::new();
        let listeners: Vec<_> = (0..3).map(|_| listen(Ipv4Addr::LOCALHOST.into()).unwrap()).collect();
        let addresses: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
        let mut stray = TcpStream::connect(&addresses[0]).unwrap();
        write_hello(&mut stray, &Secret::new(), 1).unwrap();
        let handles: Vec<_> = listeners
            .into_iter()
            .enumerate()
            .map(|(index, listener)| {
                let (addresses, secret) = (addresses.clone(), secret.clone());
                std::thread::spawn(move || connect(&listener, &addresses, index, &secret).unwrap())
            })
            .collect();
        let mut meshes: Vec<_> = handles.into_iter().map(|h| h.join().unwrap()).collect();
        for (index, sockets) in meshes.iter_mut().enumerate() {
            for (peer, socket) in sockets.iter_mut().enumerate() {
                assert_eq!(socket.is_some(), peer != index);
                if let Some(socket) = socket {
                    socket.write_all(&[index as u8, peer as u8]).unwrap();
                }
            }
        }
        // At the other end of each socket is who it is held for.
        for (index, sockets) in meshes.iter_mut().enumerate() {
            for (peer, socket) in sockets.iter_mut().enumerate().filter_map(|(peer, s)| Some((peer, s.as_mut()?))) {
                let mut said = [0; 2];
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.read_exact(&mut said).unwrap();
                assert_eq!(said, [peer as u8, index as u8]);
            }
        }
    }
}
