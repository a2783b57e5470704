//! The connection of a process of a generation with the supervisor that started it, from the side of the process.
//!
//! Each process has one connection to its supervisor, with lines of JSON in both directions: [`FromPeer`] and [`ToPeer`]. When
//! the connection ends, the supervisor has ended, and the process ends too.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail};
use fluvial_connector::Generation;
use fluvial_protocol::Exit;
use serde::{Deserialize, Serialize};

use super::mesh::{self, Secret};
use crate::fail_point::Doom;

/// The environment variable that makes a job's binary one process of a generation.
pub(crate) const PEER_VARIABLE: &str = "FLUVIAL_PEER";

/// The values that a supervisor hands to a process that it starts, in [`PEER_VARIABLE`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Invitation {
    /// The address at which the supervisor listens.
    pub supervisor: SocketAddr,
    /// The generation's secret, in hexadecimal digits.
    pub secret: String,
    /// Which process this is.
    pub index: usize,
    /// The run, and the generation that precedes this one.
    pub succession: Succession,
    /// Whether its log has colours. The supervisor passes what it prints on to a terminal.
    pub ansi: bool,
    /// The fail point at which it ends or pauses, if a test sets one.
    pub fail_point: Option<Doom>,
}

/// The facts about earlier generations that a generation must know. A supervisor starts the next generation by itself
/// only as long as no other run of the job has opened one since.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Succession {
    /// The random number of the supervisor's run.
    pub run: u32,
    /// Which attempt of the run this is.
    pub attempt: u32,
    /// The newest generation of that run that has opened, if one has.
    pub follows: Option<Generation>,
}

/// A message from a process to its supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromPeer {
    /// The first line: who it is, and where its peers can reach it.
    Hello {
        /// The generation's secret.
        secret: String,
        /// Which process it is.
        index: usize,
        /// The address at which it listens for its peers.
        mesh: SocketAddr,
    },
    /// The generation has its place in the journal.
    Opened(Generation),
    /// The generation reads input: the count of restarts begins again.
    Running,
    /// The process ends.
    Ended {
        /// How it ended.
        exit: Exit,
        /// The reason, in one line; empty where there is nothing to say.
        why: String,
    },
}

/// A message from the supervisor to a process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToPeer {
    /// All processes are there: where they listen, by index.
    Peers(Vec<SocketAddr>),
    /// Commit, complete a checkpoint, and end. Sent to process 0 only.
    Stop,
}

/// This process as one of a generation.
pub(crate) struct Peer {
    /// Which process it is.
    pub index: usize,
    /// How many there are.
    pub processes: usize,
    /// The sockets to the others.
    pub sockets: Vec<Option<TcpStream>>,
    /// After which generation this one comes.
    pub succession: Succession,
    /// Receives the supervisor's request to stop.
    pub stop: Receiver<()>,
    /// The way to tell the supervisor.
    pub supervisor: SupervisorLink,
}

/// The way to tell the supervisor something. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SupervisorLink(Arc<Mutex<TcpStream>>);

impl SupervisorLink {
    /// Sends a message. A failure is ignored: if the supervisor is gone, this process ends anyway.
    pub(crate) fn say(&self, message: &FromPeer) {
        let mut stream = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(error) = write_line(&mut stream, message) {
            tracing::debug!(%error, "could not send a message to the supervisor");
        }
    }
}

impl Peer {
    /// Joins the generation that started this process.
    ///
    /// # Errors
    /// The supervisor or a peer is gone.
    pub(crate) fn join(invitation: &Invitation) -> anyhow::Result<Self> {
        // A stopped process cannot see its supervisor go; the kernel can.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .context("cannot arrange that this process ends with its supervisor")?;
        let secret = Secret::from_hex(&invitation.secret).context("the invitation's secret is malformed")?;
        let listener = mesh::listen().context("cannot listen for the other processes of the job")?;
        let mut stream = TcpStream::connect(invitation.supervisor).context("the supervisor is gone")?;
        stream.set_nodelay(true)?;
        let hello = FromPeer::Hello {
            secret: invitation.secret.clone(),
            index: invitation.index,
            mesh: listener.local_addr()?,
        };
        write_line(&mut stream, &hello)?;
        let mut lines = BufReader::new(stream.try_clone()?);
        let Some(ToPeer::Peers(addresses)) = read_line(&mut lines)? else { bail!("the supervisor is gone") };
        let sockets = mesh::connect(&listener, &addresses, invitation.index, &secret)
            .context("cannot connect the processes of the job with each other")?;
        let (asked, stop) = channel();
        std::thread::Builder::new().name("supervisor-link".to_owned()).spawn(move || follow(lines, &asked))?;
        Ok(Self {
            index: invitation.index,
            processes: addresses.len(),
            succession: invitation.succession,
            sockets,
            stop,
            supervisor: SupervisorLink(Arc::new(Mutex::new(stream))),
        })
    }
}

/// Reads what the supervisor says; its silence for good ends the process.
fn follow(mut lines: BufReader<TcpStream>, stop: &Sender<()>) {
    loop {
        match read_line(&mut lines) {
            Ok(Some(ToPeer::Stop)) => {
                // Nobody waiting any more means that the process is ending already.
                let _ = stop.send(());
            }
            Ok(Some(ToPeer::Peers(_))) => {}
            Ok(None) | Err(_) => std::process::exit(i32::from(Exit::GenerationLost.code())),
        }
    }
}

/// The supervisor's end of one connection.
pub(crate) struct PeerLink {
    stream: TcpStream,
}

impl PeerLink {
    /// Accepts the next process of the generation; `None` for a stray.
    pub(crate) fn accept(
        listener: &TcpListener,
        secret: &Secret,
    ) -> std::io::Result<Option<(usize, SocketAddr, Self)>> {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
        let mut lines = BufReader::new(stream.try_clone()?);
        match read_line(&mut lines) {
            Ok(Some(FromPeer::Hello { secret: said, index, mesh }))
                if Secret::from_hex(&said).as_ref() == Some(secret) =>
            {
                stream.set_read_timeout(None)?;
                Ok(Some((index, mesh, Self { stream })))
            }
            _ => Ok(None),
        }
    }

    /// Sends a message. A failure is ignored: if the process is gone, its exit is noticed.
    pub(crate) fn say(&mut self, message: &ToPeer) {
        if let Err(error) = write_line(&mut self.stream, message) {
            tracing::debug!(%error, "could not send a message to a process of the job");
        }
    }

    /// A second handle to read what the process says.
    pub(crate) fn lines(&self) -> std::io::Result<BufReader<TcpStream>> {
        Ok(BufReader::new(self.stream.try_clone()?))
    }
}

/// The next line, or `None` at the end.
pub(crate) fn read_line<T: serde::de::DeserializeOwned>(lines: &mut impl BufRead) -> std::io::Result<Option<T>> {
    let mut line = String::new();
    if lines.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line).map(Some).map_err(std::io::Error::other)
}

fn write_line<T: Serialize>(stream: &mut TcpStream, message: &T) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_who_knows_the_secret_is_a_process_of_the_generation() {
        let (secret, listener) = (Secret([7; 32]), mesh::listen().unwrap());
        let mesh = listener.local_addr().unwrap();
        for (said, index) in [(Secret([8; 32]).to_hex(), None), (String::new(), None), (secret.to_hex(), Some(1))] {
            let mut peer = TcpStream::connect(mesh).unwrap();
            write_line(&mut peer, &FromPeer::Hello { secret: said, index: 1, mesh }).unwrap();
            let accepted = PeerLink::accept(&listener, &secret).unwrap();
            assert_eq!(accepted.map(|(index, ..)| index), index);
        }
    }
}
