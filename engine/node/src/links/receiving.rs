//! Accepts the connections of other nodes, and reads their messages.
//!
//! Whoever connects is a stranger until it has said hello. Each stranger has a task and a time of its own, so none delays
//! another. There is room for a number of them; one more, and the oldest is closed: a node says hello within milliseconds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fluvial_protocol::group::{NodeId, Refusal};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::connection::{ANSWERS_WITHIN, Answer, Connection, Hello, spoken, understands};
use super::seldom::Seldom;
use super::{Envelope, LinkEvent, Shared};
use crate::status::{STUCK_AFTER, gather};

/// How many connections may be open that have not said hello.
const MOST_STRANGERS: usize = 256;
/// How many nodes may be connected. A group has far fewer.
const MOST_NODES: usize = 4096;
/// How long the store may take to say whether a node's object is there.
const LOOKS_WITHIN: Duration = Duration::from_secs(4);
/// How long a connection may be silent: a node that has nothing to say closes it before.
const SILENT: Duration = Duration::from_secs(120);
/// How long nothing is accepted after a failure such as too many open files.
const AFTER_A_FAILURE: Duration = Duration::from_millis(100);

/// The connections that are open.
#[derive(Default)]
struct Doors {
    state: Mutex<State>,
    refused: Seldom,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Those that have not said hello, oldest first.
    strangers: VecDeque<(u64, AbortHandle)>,
    /// Those of nodes. A node has one; when it opens another, the older one is dead.
    nodes: BTreeMap<NodeId, (u64, AbortHandle)>,
    /// The nodes that are known to see the same store.
    proven: BTreeSet<NodeId>,
}

impl Doors {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a stranger; returns its number.
    fn number(&self) -> u64 {
        let mut state = self.state();
        while state.strangers.len() >= MOST_STRANGERS
            && let Some((_, oldest)) = state.strangers.pop_front()
        {
            oldest.abort();
        }
        state.next += 1;
        state.next
    }

    fn enters(&self, number: u64, task: AbortHandle) {
        self.state().strangers.push_back((number, task));
    }

    /// A stranger has said which node it is: it no longer takes the place of a stranger.
    fn is_node(&self, number: u64, node: &NodeId) {
        let mut state = self.state();
        let found = state.strangers.iter().position(|(stranger, _)| *stranger == number);
        let Some((_, task)) = found.and_then(|at| state.strangers.remove(at)) else { return };
        if let Some((_, older)) = state.nodes.insert(node.clone(), (number, task)) {
            older.abort();
        }
        while state.nodes.len() > MOST_NODES
            && let Some((_, (_, other))) = state.nodes.pop_first()
        {
            other.abort();
        }
    }

    fn leaves(&self, number: u64) {
        let mut state = self.state();
        state.strangers.retain(|(stranger, _)| *stranger != number);
        state.nodes.retain(|_, (node, _)| *node != number);
    }
}

/// Accepts connections until it is aborted; the connections end then, too.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let doors = Arc::new(Doors::default());
    let failed = Seldom::default();
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        match accepted {
            Ok((socket, from)) => {
                let number = doors.number();
                let (shared, of_task) = (Arc::clone(&shared), Arc::clone(&doors));
                let (entered, begin) = oneshot::channel();
                let task = tasks.spawn(async move {
                    // Its handle has to be in its place before it can say hello.
                    if begin.await.is_ok() {
                        receive(socket, from, number, &shared, &of_task).await;
                    }
                });
                doors.enters(number, task);
                let _ = entered.send(());
            }
            Err(error) => {
                if let Some(left_out) = failed.now() {
                    tracing::warn!(%error, left_out, "cannot accept a connection of another copy");
                }
                tokio::time::sleep(AFTER_A_FAILURE).await;
            }
        }
    }
}

/// Ends the entry of a connection when its task ends, however that is.
struct Entered<'a>(&'a Doors, u64);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.leaves(self.1);
    }
}

async fn receive(socket: TcpStream, address: SocketAddr, number: u64, shared: &Shared, doors: &Doors) {
    let _entered = Entered(doors, number);
    let hello = async {
        let mut connection = Connection::accept(socket, &shared.trust).await?;
        let hello = connection.read_hello().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok::<_, io::Error>((connection, hello))
    };
    let (mut connection, hello) = match hello.await {
        Ok(said) => said,
        Err(error) => {
            if let Some(left_out) = doors.refused.now() {
                tracing::warn!(from = %address, %error, left_out, "refused a connection that is not of this cluster");
            }
            return;
        }
    };
    let (from, to, store) = match hello {
        Hello::Messages { from, protocol, .. } if !understands(spoken(), protocol) => {
            tracing::warn!(%from, its_version = protocol, version = spoken(), "refused a node of another version");
            if let Err(error) = connection.write(&Answer::OtherVersion(spoken())).await {
                tracing::debug!(%from, %error, "could not answer a hello");
            }
            return;
        }
        Hello::Messages { from, to, store, .. } => (from, to, store),
        Hello::Change { to, change } => {
            let answer = if to == shared.me {
                let changed = tokio::time::timeout(ANSWERS_WITHIN, shared.changes.make(change)).await;
                Answer::Changed(changed.unwrap_or(Err(Refusal::NotCoordinator)))
            } else {
                Answer::NotMe
            };
            if let Err(error) = connection.write(&answer).await {
                tracing::debug!(from = %address, %error, "could not answer a change");
            }
            return;
        }
        Hello::Logs { to, question } => {
            let answer = match &shared.logs {
                Some(logs) if to == shared.me => Answer::Logs(Box::new(logs.answer(&question))),
                _ => Answer::NotMe,
            };
            if let Err(error) = connection.write(&answer).await {
                tracing::debug!(from = %address, %error, "could not answer a question for a log");
            }
            return;
        }
        // Whoever asks stays a stranger, so that the number of questions is bounded.
        Hello::Question { job, whole, figures_of } => {
            let answer = answer(shared, &job, whole, figures_of.as_deref());
            let answered = tokio::time::timeout(ANSWERS_WITHIN, answer).await;
            let answer = answered.unwrap_or_else(|_| Answer::Later("the other copies do not answer".to_owned()));
            if let Err(error) = connection.write(&answer).await {
                tracing::debug!(from = %address, %error, "could not answer a question");
            }
            return;
        }
    };
    doors.is_node(number, &from);
    if let Err(error) = messages(connection, &from, &to, &store, shared, doors).await {
        tracing::debug!(%from, %error, "the connection of another copy ended");
    }
}

/// What is known here of a job.
async fn answer(shared: &Shared, job: &str, whole: bool, figures_of: Option<&str>) -> Answer {
    match shared.board.read() {
        Some((view, _)) if view.job != job => Answer::NotMe,
        Some((_, age)) if age >= STUCK_AFTER => Answer::Later(format!("this copy is stuck for {} s", age.as_secs())),
        Some((view, _)) if whole => Answer::Report(Box::new(gather(view, &shared.trust).await)),
        Some((view, _)) => Answer::View(Box::new(view.with_figures_of(figures_of))),
        None => Answer::Later("this copy is being started".to_owned()),
    }
}

/// Answers the hello of a node, and receives its messages.
async fn messages(
    mut connection: Connection,
    from: &NodeId,
    to: &NodeId,
    store: &str,
    shared: &Shared,
    doors: &Doors,
) -> io::Result<()> {
    let answer = if *to == shared.me { sees_the_same(from, store, shared, doors).await } else { Answer::NotMe };
    connection.write(&answer).await?;
    if !matches!(answer, Answer::Welcome) {
        return Ok(());
    }
    loop {
        let read = tokio::time::timeout(SILENT, connection.read::<Envelope>());
        let Some(mut envelope) = read.await.map_err(io::Error::from)?? else { return Ok(()) };
        if envelope.from != *from {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of another node than its connection"));
        }
        if let (Some(history), Some(carried)) = (&shared.history, envelope.history.take()) {
            history.hear(from, carried);
        }
        (shared.events)(LinkEvent::Received(Box::new(envelope)));
    }
}

/// Whether a node sees the same store as this one.
async fn sees_the_same(node: &NodeId, its_store: &str, shared: &Shared, doors: &Doors) -> Answer {
    if doors.state().proven.contains(node) {
        return Answer::Welcome;
    }
    let looked = tokio::time::timeout(LOOKS_WITHIN, shared.proof.sees(node)).await;
    match looked {
        Ok(Ok(true)) => {
            let mut state = doors.state();
            // Many more than are connected have come and gone: they are looked for again.
            if state.proven.len() >= MOST_NODES {
                state.proven.clear();
            }
            state.proven.insert(node.clone());
            Answer::Welcome
        }
        Ok(Ok(false)) => {
            let mine = shared.proof.store();
            tracing::warn!(
                "the copy at {node} uses another store, '{its_store}', than this one, '{mine}': it is refused"
            );
            Answer::OtherStore(mine.to_owned())
        }
        Ok(Err(error)) => Answer::Later(error.to_string()),
        Err(_) => Answer::Later(format!("the store '{}' does not answer", shared.proof.store())),
    }
}
