//! The connection between a process of a job and the node that started it.
//!
//! It is a pair of sockets. The process finds its end as its standard input, so nothing has to listen, and no stranger can
//! connect. Both sides send lines of JSON: first the node an [`Invitation`], then [`ToProcess`] and [`FromProcess`]. When the
//! connection ends, the node has ended, and the process ends too.

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use fluvial_connector::Generation;
use fluvial_protocol::{Exit, Layout};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::isolation::Secrets;
use crate::secret::Secret;
use crate::status::{ProcessFigures, Progress};
use crate::trust::MeshCertificate;

/// The environment variable that makes a job's binary one process of an attempt.
pub const PROCESS_VARIABLE: &str = "FLUVIAL_PROCESS";

/// The version of this protocol. A binary whose processes speak another one cannot run on a node: a change of [`Invitation`],
/// [`ToProcess`] or [`FromProcess`] that the other end would not understand has to change it.
pub const VERSION: u32 = 1;

/// The first line that a process reads: what it is part of.
#[derive(Debug, Serialize, Deserialize)]
pub struct Invitation {
    /// Which process this is.
    pub index: u32,
    /// The numbers of workers and processes.
    pub layout: Layout,
    /// The run, and the generation that precedes this one.
    pub succession: Succession,
    /// How it connects with the other processes.
    pub mesh: MeshPlace,
    /// Whether this is the first attempt that its node has started: a fail point of a test counts for this one only.
    pub first: bool,
    /// What the references to secrets among its options stand for; `None` if it is to resolve them itself.
    #[serde(default)]
    pub secrets: Option<Secrets>,
    /// Whether its log has colours. The node passes what it prints on to a terminal.
    pub ansi: bool,
}

/// How a process connects with the other processes of its attempt.
#[derive(Debug, Serialize, Deserialize)]
pub struct MeshPlace {
    /// The address of this host at which it listens, on a free port.
    pub listen: IpAddr,
    /// The host name or address by which the others reach it.
    pub host: String,
    /// What it proves to them, and they to it.
    pub identity: MeshIdentity,
}

/// What proves that a process belongs to an attempt.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeshIdentity {
    /// It knows this secret, which it sends unencrypted: on the loopback interface only.
    Plain(Secret),
    /// It has this certificate.
    Tls(MeshCertificate),
}

/// The facts about earlier generations that a generation must know. A run starts the next generation by itself
/// only as long as no other run of the job has opened one since.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Succession {
    /// The random number of the run.
    pub run: u32,
    /// Which attempt of the run this is.
    pub attempt: u32,
    /// The newest generation of that run that has opened, if one has.
    pub follows: Option<Generation>,
}

/// A message from a process to its node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromProcess {
    /// It waits at this address for the other processes of its attempt.
    Listens(String),
    /// The generation has its place in the journal.
    Opened(Generation),
    /// The generation reads input: the count of restarts begins again.
    Running,
    /// It is there. It says so each second, on a thread that is no worker.
    Beat {
        /// For how long its slowest worker has computed without a pause, in milliseconds.
        step_ms: u64,
        /// The requests that it has made to a store that charges for them.
        store_requests: Option<u64>,
        /// How far the job is; process 0 knows it.
        progress: Option<Progress>,
        /// What the parts of the job do in this process; `None` if it was told a moment ago.
        #[serde(default)]
        figures: Option<Box<ProcessFigures>>,
    },
    /// The process ends.
    Ended {
        /// How it ended.
        exit: Exit,
        /// The reason, in one line; empty where there is nothing to say.
        why: String,
        /// As in [`fluvial_protocol::ProcessEnd::Said`].
        #[serde(default)]
        elsewhere: bool,
    },
}

/// A message from a node to a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToProcess {
    /// All processes are there: where they listen, by index.
    Peers(Vec<String>),
    /// Commit, complete a checkpoint, and end. Sent to process 0 only.
    Stop,
}

/// The way of a process to tell its node something. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeLink(Arc<Mutex<UnixStream>>);

/// A process's end of the connection with its node.
#[derive(Debug)]
pub struct Invited {
    /// What it is part of.
    pub invitation: Invitation,
    /// The way to tell the node something.
    pub node: NodeLink,
    /// What the node says from now on: lines of [`ToProcess`].
    pub lines: BufReader<UnixStream>,
}

impl Invited {
    /// Takes this process's end of the connection. Standard input is empty from then on.
    ///
    /// # Errors
    /// No node has started this process.
    pub fn take() -> anyhow::Result<Self> {
        let reserved = || format!("the environment variable {PROCESS_VARIABLE} is reserved for the engine; unset it");
        // A stopped process cannot see its node go; the kernel can.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .context("cannot arrange that this process ends with its node")?;
        let stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        stream.peer_addr().with_context(reserved)?;
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?).context("cannot replace standard input")?;
        let mut lines = BufReader::new(stream.try_clone()?);
        let invitation = read_line(&mut lines).with_context(reserved)?.context("the node is gone")?;
        Ok(Self { invitation, node: NodeLink(Arc::new(Mutex::new(stream))), lines })
    }
}

impl NodeLink {
    /// Sends a message. A failure is ignored: if the node is gone, this process ends anyway.
    pub fn say(&self, message: &FromProcess) {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = write_line(&mut *stream, message) {
            tracing::debug!(%error, "could not send a message to the node");
        }
    }
}

/// The longest message, in bytes. The node must not take more memory for what the code of a job writes.
const LONGEST_LINE: u64 = 4 << 20;

/// The next line, or `None` at the end.
///
/// # Errors
/// The connection is broken, or the line is no message.
pub fn read_line<T: DeserializeOwned>(lines: &mut impl BufRead) -> std::io::Result<Option<T>> {
    let mut line = String::new();
    if std::io::Read::take(&mut *lines, LONGEST_LINE).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line).map(Some).map_err(std::io::Error::other)
}

/// Sends one message.
pub(crate) fn write_line(stream: &mut impl Write, message: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Cursor;

    use super::*;
    use crate::hostile::{decode_changed, within_bounds};
    use crate::trust::AttemptAuthority;

    /// The most memory that a line may take: the line, and what it is read into.
    const MOST: u64 = 4 * LONGEST_LINE;

    #[test]
    fn hostile_lines_of_a_process_and_of_a_node_are_read_or_refused() {
        let figures = Some(Box::new(ProcessFigures::default()));
        let beat =
            FromProcess::Beat { step_ms: 1, store_requests: Some(2), progress: Some(Progress::default()), figures };
        let ended = FromProcess::Ended { exit: Exit::Done, why: "\u{e9}".to_owned(), elsewhere: false };
        let said = [FromProcess::Listens("a:1".to_owned()), FromProcess::Opened(Generation(3)), beat, ended];
        let invitation = Invitation {
            index: 1,
            layout: Layout { workers: 4, processes: 2 },
            succession: Succession { run: 1, attempt: 2, follows: Some(Generation(3)) },
            mesh: MeshPlace {
                listen: [127, 0, 0, 1].into(),
                host: "a".to_owned(),
                identity: MeshIdentity::Tls(AttemptAuthority::new().certificate(1)),
            },
            first: true,
            secrets: None,
            ansi: false,
        };
        let mut lines = Vec::new();
        said.iter().for_each(|message| write_line(&mut lines, message).unwrap());
        write_line(&mut lines, &invitation).unwrap();
        write_line(&mut lines, &ToProcess::Peers(vec!["a:1".to_owned()])).unwrap();
        let valid: Vec<_> = lines.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        decode_changed(&valid, MOST, |input| {
            drop(read_line::<FromProcess>(&mut Cursor::new(input)));
            drop(read_line::<ToProcess>(&mut Cursor::new(input)));
            let Ok(Some(invitation)) = read_line::<Invitation>(&mut Cursor::new(input)) else { return };
            if let MeshIdentity::Tls(certificate) = invitation.mesh.identity {
                drop(certificate.tls());
            }
        });
    }

    #[test]
    fn a_hostile_line_without_an_end_takes_a_bounded_memory() {
        let endless = || assert!(read_line::<FromProcess>(&mut BufReader::new(std::io::repeat(b'['))).is_err());
        within_bounds(MOST, endless).unwrap();
    }
}
