//! One connection between two nodes: its socket, its TLS, its lines, and the hello.

use std::io;
use std::time::Duration;

use fluvial_protocol::group::{Change, NodeId, Refusal};
use rustix::net::sockopt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::logs::{Page, Question};
use crate::status::{Report, View};
use crate::trust::{Trust, Withdrawn};

/// How long a connection may take to be made, and its TLS to begin.
const OPENS_WITHIN: Duration = Duration::from_secs(3);
/// How long an answer to the hello may take: the other end looks into its store.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(6);
/// How long a line may take to be written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
/// The time after which the kernel gives up a connection whose other end does not acknowledge.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);
/// The longest line. The largest messages are orders, with an entry for each node.
const LONGEST_LINE: u64 = 4 << 20;
/// The longest line before the other end has shown who it is.
pub(super) const LONGEST_HELLO: u64 = 16 << 10;

/// The version of the messages between nodes. It grows when a node of the version before could not understand a message: a field
/// that is added with a default changes nothing, because what is missing or unknown is passed over.
pub(super) const PROTOCOL: u32 = 2;

/// The version of the messages that this process speaks.
pub(super) fn spoken() -> u32 {
    crate::skew::apply(PROTOCOL)
}

/// Whether two nodes understand each other: the versions of their messages are the same, or follow each other. The newer one writes
/// so that the other can read it.
pub(super) const fn understands(mine: u32, theirs: u32) -> bool {
    mine.abs_diff(theirs) <= 1
}

/// What a node speaks that names no version.
const fn first() -> u32 {
    1
}

/// The first line of a connection.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Hello {
    /// Messages follow.
    Messages {
        /// The sender.
        from: NodeId,
        /// The node for which they are.
        to: NodeId,
        /// The location of the sender's store, for people.
        store: String,
        /// The version of the messages that it sends.
        #[serde(default = "first")]
        protocol: u32,
    },
    /// A question, by whoever belongs to the cluster: what does the receiver know of this job?
    Question {
        /// The name of the job.
        job: String,
        /// Whether the receiver is to ask other nodes, too.
        whole: bool,
        /// The job of which also the figures of its parts are wanted.
        #[serde(default)]
        figures_of: Option<String>,
    },
    /// A change that a user of a cluster wants.
    Change {
        /// The node that coordinates.
        to: NodeId,
        /// What is wanted.
        change: Change,
    },
    /// A question for lines of a job's log.
    Logs {
        /// The node that is asked.
        to: NodeId,
        /// What is wanted.
        question: Question,
    },
}

/// The answer to a hello.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// Messages will be read.
    Welcome,
    /// The messages are for another node, or the question is about another job.
    NotMe,
    /// The sender's object does not exist in the store of the receiver, which is here.
    OtherStore(String),
    /// The receiver speaks this version of the messages, and does not understand the sender's.
    OtherVersion(u32),
    /// It is not known whether both ends see the same store, for this reason. The sender has to try again.
    Later(String),
    /// What the receiver knows by itself.
    View(Box<View>),
    /// What the receiver and the nodes that it has asked know.
    Report(Box<Report>),
    /// What has become of a change.
    Changed(Result<(), Refusal>),
    /// Lines of a job's log.
    Logs(Box<Page>),
}

/// The bytes of a connection.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Bytes for S {}

/// A connection of which each end may be sure that the other one belongs to the cluster, until a cluster key is withdrawn: by then
/// the other end may be somebody who has only that one.
pub(super) struct Connection {
    stream: BufReader<Box<dyn Bytes>>,
    withdrawn: Withdrawn,
}

/// Why a connection could not be made.
#[derive(Debug)]
pub(super) enum NotOpened {
    /// Nobody listens at the address.
    Refused,
    /// Something listens there, but the TLS connection failed.
    Insecure(io::Error),
    /// Anything else: the other end may be there.
    Failed(io::Error),
}

impl Connection {
    /// Connects to a node's address.
    pub(super) async fn open(address: &str, trust: &Trust) -> Result<Self, NotOpened> {
        let withdrawn = trust.withdrawn();
        let connected = within(OPENS_WITHIN, "no connection", connect(address)).await;
        let socket = connected.map_err(NotOpened::Failed)?.ok_or(NotOpened::Refused)?;
        let secured = async {
            set_options(&socket)?;
            let Some(tls) = trust.tls() else { return Ok(Self::over(socket, withdrawn)) };
            let name = trust.name_of(address).map_err(io::Error::other)?;
            Ok(Self::over(TlsConnector::from(tls.client).connect(name, socket).await?, withdrawn))
        };
        let handshake = within(OPENS_WITHIN, "no TLS handshake", secured).await;
        handshake.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => NotOpened::Failed(error),
            _ => NotOpened::Insecure(error),
        })
    }

    /// Takes a connection that another node has opened.
    pub(super) async fn accept(socket: TcpStream, trust: &Trust) -> io::Result<Self> {
        set_options(&socket)?;
        let withdrawn = trust.withdrawn();
        let Some(tls) = trust.tls() else { return Ok(Self::over(socket, withdrawn)) };
        let acceptor = TlsAcceptor::from(tls.server);
        let handshake = async { Ok(Self::over(acceptor.accept(socket).await?, withdrawn)) };
        within(OPENS_WITHIN, "no TLS handshake", handshake).await
    }

    pub(super) fn over(stream: impl Bytes + 'static, withdrawn: Withdrawn) -> Self {
        Self { stream: BufReader::new(Box::new(stream)), withdrawn }
    }

    /// The next line, which may take as long as it takes. `None` at the end of the stream.
    pub(super) async fn read<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        self.read_line(LONGEST_LINE).await
    }

    /// The first line.
    pub(super) async fn read_hello(&mut self) -> io::Result<Option<Hello>> {
        within(OPENS_WITHIN, "no hello", self.read_line(LONGEST_HELLO)).await
    }

    /// Reads a line. A future of this that is dropped has perhaps read a part of the line.
    async fn read_line<T: DeserializeOwned>(&mut self, longest: u64) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(longest);
        tokio::select! {
            biased;
            () = self.withdrawn.happens() => return Err(key_withdrawn()),
            read = limited.read_until(b'\n', &mut line) => drop(read?),
        }
        match line.last() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
            Some(_) if line.len() as u64 == longest => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"))
            }
            Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Waits until the other end has closed the connection, or has said what nobody asked for.
    pub(super) async fn ends(&mut self) {
        tokio::select! {
            () = self.withdrawn.happens() => {}
            _ = self.stream.fill_buf() => {}
        }
    }

    /// Writes bytes that need not be a line.
    #[cfg(test)]
    pub(super) async fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        within(WRITTEN_WITHIN, "the other end does not read", self.stream.write_all(bytes)).await
    }

    /// Writes a line.
    pub(super) async fn write<T: Serialize + Sync>(&mut self, content: &T) -> io::Result<()> {
        let mut line = serde_json::to_vec(content)?;
        line.push(b'\n');
        if line.len() as u64 > LONGEST_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
        }
        if self.withdrawn.has_happened() {
            return Err(key_withdrawn());
        }
        let written = async {
            self.stream.write_all(&line).await?;
            self.stream.flush().await
        };
        within(WRITTEN_WITHIN, "the other end does not read", written).await
    }
}

fn key_withdrawn() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "a cluster key was removed since the connection was made")
}

/// Connects to one of the addresses that a name stands for; `None` if each of them refuses.
async fn connect(address: &str) -> io::Result<Option<TcpStream>> {
    let (mut refused, mut failed) = (false, None);
    for address in tokio::net::lookup_host(address).await? {
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok(Some(socket)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => refused = true,
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) => Err(error),
        None if refused => Ok(None),
        None => Err(io::Error::new(io::ErrorKind::NotFound, "the name stands for no address")),
    }
}

/// Small messages leave at once, and a host that has gone without a word is noticed: keepalive probes an idle connection, and
/// the other option bounds the time of unacknowledged data, during which keepalive is silent.
fn set_options(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, Duration::from_secs(1))?;
    sockopt::set_tcp_keepintvl(socket, Duration::from_secs(1))?;
    sockopt::set_tcp_keepcnt(socket, 4)?;
    sockopt::set_tcp_user_timeout(socket, UNACKNOWLEDGED.as_millis() as u32)?;
    Ok(())
}

async fn within<T>(time: Duration, what: &str, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {time:?}")));
    tokio::time::timeout(time, future).await.unwrap_or_else(|_| late())
}
