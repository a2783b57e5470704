//! What the nodes of a group tell each other.
//!
//! A message holds all that its receiver needs of its sender's state, so one that is lost, repeated or late does no harm: the
//! next one says the same again, and an older one than the newest that was received is passed over.

use std::collections::{BTreeMap, BTreeSet};

use fluvial_connector::Generation;
use serde::{Deserialize, Serialize};

use super::placement::Workers;
use super::record::{Attempt, AttemptNumber, NodeId, Outcome, Term};
use crate::{Exit, ProcessEnd};

/// A message from one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The state of a node. It is the heartbeat, too: for the coordinator, and for the other members, who say whom they do not
    /// hear.
    Status(Box<Status>),
    /// From the coordinator, to each node whose status it has.
    Orders(Box<Orders>),
    /// From a node that may claim the next term: does the receiver hear the coordinator?
    Ask {
        /// The newest term that the sender knows.
        term: Term,
    },
    /// The answer.
    Hears {
        /// The newest term that the sender knows.
        term: Term,
        /// Whether it hears the coordinator of that term, or coordinates itself, and the coordinator reaches the store.
        hears: bool,
    },
}

/// The state of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Grows with each status of this node.
    pub number: u64,
    /// The newest term that it knows.
    pub term: Term,
    /// What it is and offers.
    pub offer: Offer,
    /// The processes that it runs or ran last, by the name of their job.
    pub running: BTreeMap<String, Running>,
    /// The members that it has not heard for so long that it would take them for lost: it cannot run processes together with
    /// them.
    pub deaf_to: Vec<NodeId>,
}

/// What a node is and offers, as its start and its surroundings decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The program that it would run: the hash of the binary and of the job's own options.
    pub version: String,
    /// How many workers it can run.
    pub slots: u32,
    /// The number of workers that its user wants over all copies.
    pub workers: Workers,
    /// Why it could not run the job now, if it could not.
    pub unready: Option<String>,
    /// Whether it was told to leave.
    pub leaving: bool,
    /// Of a node of a cluster: the versions that it has fetched and checked, with the reason where it could not run one.
    pub programs: BTreeMap<String, Option<String>>,
    /// Its labels, such as `zone` and `disk`, as its user gives them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Offer {
    /// Whether the node has these labels.
    #[must_use]
    pub fn has_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}

/// The processes of a job's attempt on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The attempt.
    pub attempt: AttemptNumber,
    /// Its processes on this node, by number.
    pub processes: BTreeMap<u32, ProcessState>,
    /// The generation that it has become, once its journal is open; the node of process 0 knows it.
    pub generation: Option<Generation>,
    /// Whether it has read input.
    pub reads: bool,
    /// Whether it has read input for so long that it does not count among attempts that failed at once. Its node measures
    /// that, so it survives the loss of a coordinator.
    #[serde(default)]
    pub healthy: bool,
    /// Whether it was asked to stop, so that its end does not mean that the job has ended.
    pub asked_to_stop: bool,
}

/// A node as the coordinator knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// What it said last; `None` if it has not been heard yet in this term.
    pub status: Option<Status>,
    /// For how long it has been silent.
    pub silent_ms: u64,
}

impl Running {
    /// Whether all of its processes on this node have ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.processes.values().all(|process| process.end().is_some())
    }
}

impl ProcessState {
    /// How it ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<&ProcessEnd> {
        match self {
            Self::Ended(end) => Some(end),
            Self::Started | Self::Listens(_) => None,
        }
    }

    /// Whether it has ended without a word.
    #[must_use]
    pub fn has_died(&self) -> bool {
        matches!(self, Self::Ended(ProcessEnd::Died { .. }))
    }

    /// Whether it has ended because everything is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Ended(ProcessEnd::Said { exit: Exit::Done, .. }))
    }
}

/// The state of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// It has been started.
    Started,
    /// It waits at this address for the other processes of its attempt, or has met them.
    Listens(String),
    /// It has ended.
    Ended(ProcessEnd),
}

/// What the coordinator wants of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// Grows with each message of this term to this node.
    pub number: u64,
    /// The term of the coordinator.
    pub term: Term,
    /// All nodes that it hears, whom its receiver asks before it claims the next term.
    pub members: Vec<NodeId>,
    /// Whether it can reach the store. One that cannot makes no decisions, and another node takes over that can.
    pub reaches_store: bool,
    /// The newest attempts, and what to do with each.
    pub jobs: Vec<JobOrder>,
    /// The versions that are to run: a node of a cluster fetches and checks them.
    pub versions: BTreeSet<String>,
    /// How the only job has ended: end so.
    pub outcome: Option<Outcome>,
    /// The receiver was told to leave, and nothing needs it any more.
    pub may_leave: bool,
}

/// What the coordinator wants of a node for one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOrder {
    /// The name of the job.
    pub job: String,
    /// The run to which its attempts belong.
    pub run: u32,
    /// Its newest attempt.
    pub attempt: Attempt,
    /// What to do with it.
    pub command: Command,
}

/// What to do with an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Start its processes, unless they have been started, and wait.
    Start,
    /// Run it: its processes listen at these addresses.
    Run(Vec<String>),
    /// Commit, take a checkpoint and end.
    Stop,
    /// End its processes at once.
    Kill,
}
