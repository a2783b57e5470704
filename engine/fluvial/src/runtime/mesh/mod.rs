//! The sockets between the processes of one generation.
//!
//! ```text
//!   process 0 ◄──connect── process 1 ◄──connect── process 2      each connects to those with a lower index
//!        TLS handshake or secret, then hello: magic, own index; answered alike
//! ```
//!
//! The sockets are opened here, not by timely, so that a stray or stale peer is refused: timely trusts what it reads, so no
//! byte may reach it from anyone who has not proved which process of this generation it is ([`MeshIdentity`]). On the
//! loopback interface it does so by a secret of the generation, and over the network by a certificate and TLS.
//!
//! **Guarantees** that nobody waits for a stranger, or for one peer because of another: each connection has a thread and a
//! time limit of its own.

mod door;
mod socket;
#[cfg(test)]
mod tests;
mod tls;

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use fluvial_node::process_link::MeshIdentity;

use super::ambient;
use door::Door;
pub(crate) use socket::Socket;

/// How long all processes have to connect with each other.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one that connects has to prove who it is. The process forgets those that connect and say nothing.
const PROOF_WITHIN: Duration = Duration::from_secs(10);

/// Opens a listener for the other processes, on a free port.
pub(crate) fn listen(at: IpAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind((at, 0))
}

/// A connection with the process of this index.
type Met = (usize, Socket);

/// Connects this process with all others, which listen at `addresses`, each a `host:port`. The result has the socket of
/// process `i` at position `i`, and none at `index`. From then on nobody listens at `listener`.
///
/// # Errors
/// A peer did not come in time, or refused this process.
pub(crate) fn connect(
    listener: &TcpListener,
    addresses: &[String],
    index: usize,
    identity: &MeshIdentity,
) -> std::io::Result<Vec<Option<Socket>>> {
    let deadline = ambient::instant() + PATIENCE;
    let mut sockets: Vec<Option<Socket>> = addresses.iter().map(|_| None).collect();
    let door = Arc::new(Door::new(identity, index, sockets.len())?);
    let (meetings, met) = channel::<std::io::Result<Met>>();
    for (peer, address) in addresses.iter().enumerate().take(index) {
        let (door, meetings, address) = (Arc::clone(&door), meetings.clone(), address.clone());
        let call = move || {
            let failed = |error: Error| Error::new(error.kind(), format!("process {peer} at {address}: {error}"));
            let called = door.call(&address, peer, deadline).map_err(failed);
            // Nobody waits any more if another connection has failed.
            let _ = meetings.send(called.map(|socket| (peer, socket)));
        };
        std::thread::Builder::new().name(format!("mesh-to-{peer}")).spawn(call)?;
    }
    let accepting = listener.try_clone()?;
    std::thread::Builder::new().name("mesh".to_owned()).spawn(move || accept(&accepting, &door, &meetings))?;
    let connected = loop {
        let missing: Vec<_> = (0..sockets.len()).filter(|&peer| peer != index && sockets[peer].is_none()).collect();
        if missing.is_empty() {
            break Ok(sockets);
        }
        match met.recv_timeout(deadline.saturating_duration_since(ambient::instant())) {
            Ok(Ok((peer, socket))) if sockets[peer].is_none() => sockets[peer] = Some(socket),
            Ok(Ok((peer, _))) => tracing::warn!(peer, "a process of this generation has connected twice"),
            Ok(Err(error)) => break Err(error),
            Err(_) => {
                let why = format!("not all processes of this generation connected in time; missing: {missing:?}");
                break Err(Error::new(ErrorKind::TimedOut, why));
            }
        }
    };
    // Ends the thread that accepts.
    rustix::net::shutdown(listener, rustix::net::Shutdown::Both)?;
    connected
}

/// Accepts connections until the listener is shut down.
fn accept(listener: &TcpListener, door: &Arc<Door>, meetings: &Sender<std::io::Result<Met>>) {
    loop {
        match listener.accept() {
            Ok((tcp, from)) => {
                let (door, meetings) = (Arc::clone(door), meetings.clone());
                let welcome = move || welcome(tcp, from, &door, &meetings);
                if let Err(error) = std::thread::Builder::new().name("mesh-from".to_owned()).spawn(welcome) {
                    tracing::warn!(%from, %error, "cannot answer a connection");
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
            Err(error) => {
                // After the shutdown nobody waits for it.
                let _ = meetings.send(Err(error));
                return;
            }
        }
    }
}

fn welcome(tcp: TcpStream, from: SocketAddr, door: &Door, meetings: &Sender<std::io::Result<Met>>) {
    match door.welcome(tcp, ambient::instant() + PROOF_WITHIN) {
        // Nobody waits any more for those that come late.
        Ok(met) => drop(meetings.send(Ok(met))),
        Err(error) => tracing::warn!(%from, %error, "refused a connection from outside this generation"),
    }
}
