//! Links: how the messages of one node reach another.
//!
//! ```text
//!   send(to, …) ─► newest message of each kind ─► connection to `to` ═══TLS═══► hello, same store? ─► Received
//!                                                      └─ refused, or another node answers ─► Gone
//! ```
//!
//! There is one connection for each pair of nodes and direction of sending, with a line of JSON for each message. The first
//! line is a hello: it names sender and receiver, and is answered.
//!
//! **Guarantees** that a message is received only from a holder of the cluster's trust that sees the same store, and that
//! no receiver, and no stranger at the listener, delays a message to another receiver. **Does not** guarantee that a
//! message arrives: it may be lost, repeated or late, and one that waits is replaced by a newer one of its kind. The messages
//! are made for that ([`fluvial_protocol::group`]).

mod asking;
mod connection;
mod proof;
mod receiving;
#[cfg(test)]
mod rotation_tests;
mod seldom;
mod sending;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use fluvial_protocol::group::{Message, NodeId};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

pub use asking::{ask_for_change, ask_for_logs, ask_for_report, ask_for_view};
pub use proof::StoreProof;

use crate::changes::Changes;
use crate::history::{Carried, History};
use crate::logs::Logs;
use crate::status::Board;
use crate::trust::{Authorities, Trust};

/// What one node sends to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The sender.
    pub from: NodeId,
    /// The message.
    pub message: Message,
    /// The authorities of the newest attempts that the sender knows: from a coordinator, so that nodes can issue the certificates
    /// of their processes; to a coordinator, so that a new one learns them.
    pub authorities: Authorities,
    /// What the receiver does not know of the last hour. The links add and take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Carried>,
}

/// What a node hears from its links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A message of another node.
    Received(Box<Envelope>),
    /// Nobody of this identity answers at its address: the connection is refused there, or another node answers.
    Gone(NodeId),
    /// Another node does not find in its store what this node has created in its own. This copy must end; the text says
    /// which stores they are.
    OtherStore(String),
    /// Another node has another cluster key, and this node has not reached any. This copy must end, unless it runs the job; the
    /// text says what each of them has.
    OtherTrust(String),
    /// Another node speaks a version of the messages that this one does not understand, and this node has not reached any. This copy
    /// must end, unless it runs the job; the text says what to do.
    OtherVersion(String),
}

/// The options of the links.
pub struct LinkOptions {
    /// This node.
    pub me: NodeId,
    /// Accepts the connections of the other nodes.
    pub listener: TcpListener,
    /// By which the ends prove that they belong to the cluster.
    pub trust: Arc<Trust>,
    /// By which the nodes show each other that they see the same store.
    pub proof: StoreProof,
    /// What this node knows, for those who ask.
    pub board: Arc<Board>,
    /// Takes the changes that users of a cluster make at other nodes.
    pub changes: Changes,
    /// The logs of jobs that this node holds, for those who ask.
    pub logs: Option<Logs>,
    /// What this node knows of the last hour, if it is the node of a cluster.
    pub history: Option<History>,
}

/// What the tasks of all links share.
struct Shared {
    me: NodeId,
    trust: Arc<Trust>,
    proof: StoreProof,
    board: Arc<Board>,
    changes: Changes,
    logs: Option<Logs>,
    history: Option<History>,
    events: Box<dyn Fn(LinkEvent) + Send + Sync>,
    /// Whether another node has answered a hello of this one.
    welcomed: AtomicBool,
}

/// The links of one node to all others. Dropping it closes them.
pub struct Links {
    shared: Arc<Shared>,
    runtime: Handle,
    /// The messages that wait, by receiver.
    outboxes: Arc<Outboxes>,
    tasks: Vec<JoinHandle<()>>,
}

type Outboxes = Mutex<BTreeMap<NodeId, Arc<sending::Outbox>>>;

impl Links {
    /// Begins to accept connections, and to show by an object in the store that this node sees it. `events` is called for each
    /// event, on a thread of the runtime, and must not block.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub fn start(
        options: LinkOptions,
        runtime: &Handle,
        events: impl Fn(LinkEvent) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let LinkOptions { me, listener, trust, proof, board, changes, logs, history } = options;
        listener.set_nonblocking(true)?;
        let listener = {
            let _in_runtime = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (events, welcomed) = (Box::new(events), AtomicBool::new(false));
        let shared = Arc::new(Shared { me, trust, proof, board, changes, logs, history, events, welcomed });
        let tasks = vec![
            runtime.spawn(receiving::accept(listener, Arc::clone(&shared))),
            runtime.spawn({
                let shared = Arc::clone(&shared);
                async move { shared.proof.show(&shared.me, &shared.trust).await }
            }),
        ];
        Ok(Self { shared, runtime: runtime.clone(), outboxes: Arc::default(), tasks })
    }

    /// Sends a message, which may be lost. Never blocks.
    pub fn send(&self, to: &NodeId, envelope: Envelope) {
        let mut outboxes = self.outboxes.lock().unwrap_or_else(PoisonError::into_inner);
        let outbox = outboxes.entry(to.clone()).or_insert_with(|| {
            let outbox = Arc::new(sending::Outbox::new());
            let task = sending::send(to.clone(), Arc::clone(&outbox), Arc::clone(&self.shared), &self.outboxes);
            outbox.runs_in(&self.runtime.spawn(task));
            outbox
        });
        outbox.put(envelope);
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        let outboxes = self.outboxes.lock().unwrap_or_else(PoisonError::into_inner);
        outboxes.values().for_each(|outbox| outbox.close());
    }
}
