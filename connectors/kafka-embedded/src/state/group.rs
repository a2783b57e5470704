//! A consumer group: its members, their rebalances (Kafka's classic protocol) and its offsets.
//!
//! Guarantees that all members of a generation got the same leader and protocol, that assignments reach members of that
//! generation only, and that a member of an older generation can commit nothing. Static members keep their assignment
//! when they come back under a new id. Not here: KIP-848's consumer protocol, which the broker does not offer.
//!
//! ```text
//!            a member joins            all have joined, or time is up            the leader assigns
//!   Empty ──────────────────► Joining ────────────────────────────────► Syncing ───────────────────► Stable
//!     ▲                          ▲  │ nobody is left                       │  a member joins or leaves  │
//!     └──────────────────────────┼──┘                                      │                            │
//!                                └─────────────────────────────────────────┴────────────────────────────┘
//! ```

mod assignment;
mod membership;
mod offsets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;

pub(crate) use assignment::Sync;
pub(crate) use membership::Join;
pub(crate) use offsets::{Committed, Offsets};

/// A consumer group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) phase: Phase,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    leader: Option<String>,
    pub(crate) members: BTreeMap<String, Member>,
    /// Ids that were given to members who have not come back with them yet.
    promised: HashMap<String, Instant>,
    /// When a rebalance goes on without those who have not joined.
    join_deadline: Instant,
    pub(crate) offsets: Offsets,
    next_member: u64,
}

/// The state of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Without members.
    Empty,
    /// Waiting for its members to join.
    Joining,
    /// Waiting for the leader's assignment.
    Syncing,
    /// At work.
    Stable,
}

impl Phase {
    /// Kafka's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Joining => "PreparingRebalance",
            Self::Syncing => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A member of a group.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    session_timeout: Duration,
    rebalance_timeout: Duration,
    /// The protocols it knows, the best first, with its subscription in each.
    protocols: Vec<(String, Bytes)>,
    pub(crate) assignment: Bytes,
    joining: Option<oneshot::Sender<Joined>>,
    syncing: Option<oneshot::Sender<Result<Bytes, ResponseError>>>,
    /// When it is taken for dead.
    deadline: Instant,
    /// The order in which members came.
    order: u64,
}

impl Member {
    /// Its subscription in a protocol.
    pub(crate) fn subscription(&self, protocol: Option<&str>) -> Bytes {
        let known = self.protocols.iter().find(|(name, _)| Some(name.as_str()) == protocol);
        known.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }
}

/// The answer to a join.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    pub(crate) error: Option<ResponseError>,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    pub(crate) member: String,
    /// For the leader only: id, instance and subscription of each.
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
    /// The leader need not assign: the group goes on as it was.
    pub(crate) skip_assignment: bool,
}

impl Joined {
    fn refused(error: ResponseError, member: &str) -> Self {
        Self { error: Some(error), generation: -1, member: member.to_owned(), ..Self::default() }
    }
}

impl Group {
    /// A group without members.
    pub(crate) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            phase: Phase::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            promised: HashMap::new(),
            join_deadline: Instant::now(),
            offsets: Offsets::default(),
            next_member: 0,
        }
    }

    /// Whether it has no members.
    pub(crate) fn is_empty(&self) -> bool {
        self.phase == Phase::Empty
    }

    /// Finds a member, by its id or as the holder of an instance.
    ///
    /// # Errors
    ///
    /// `UNKNOWN_MEMBER_ID`, or `FENCED_INSTANCE_ID` when another member has taken over the instance.
    fn check_member(&self, member: &str, instance: Option<&str>) -> Result<(), ResponseError> {
        if let Some(instance) = instance {
            match self.holder(instance) {
                Some(holder) if holder == member => return Ok(()),
                Some(_) => return Err(ResponseError::FencedInstanceId),
                None => return Err(ResponseError::UnknownMemberId),
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(ResponseError::UnknownMemberId) }
    }

    fn holder(&self, instance: &str) -> Option<&str> {
        let held = self.members.iter().find(|(_, m)| m.instance.as_deref() == Some(instance));
        held.map(|(id, _)| id.as_str())
    }

    fn check_generation(&self, generation: i32) -> Result<(), ResponseError> {
        if generation == self.generation { Ok(()) } else { Err(ResponseError::IllegalGeneration) }
    }

    /// Whether a caller may commit offsets.
    ///
    /// # Errors
    ///
    /// `UNKNOWN_MEMBER_ID`, `FENCED_INSTANCE_ID`, `ILLEGAL_GENERATION`, or `REBALANCE_IN_PROGRESS`.
    pub(crate) fn check_commit(
        &self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        transactional: bool,
    ) -> Result<(), ResponseError> {
        if generation < 0 && self.is_empty() {
            return Ok(());
        }
        if generation >= 0 || !member.is_empty() || instance.is_some() {
            self.check_member(member, instance)?;
            self.check_generation(generation)?;
        } else if !transactional {
            return Err(ResponseError::UnknownMemberId);
        }
        if !transactional && self.phase == Phase::Syncing {
            return Err(ResponseError::RebalanceInProgress);
        }
        Ok(())
    }

    /// Keeps a member alive, since it has just been heard from.
    pub(crate) fn heard_from(&mut self, member: &str, now: Instant) {
        if let Some(member) = self.members.get_mut(member) {
            member.deadline = now + member.session_timeout;
        }
    }

    /// A member says that it lives.
    ///
    /// # Errors
    ///
    /// What it has to do: `REBALANCE_IN_PROGRESS` means to join again.
    pub(crate) fn heartbeat(
        &mut self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.check_member(member, instance)?;
        self.check_generation(generation)?;
        self.heard_from(member, now);
        if self.phase == Phase::Joining { Err(ResponseError::RebalanceInProgress) } else { Ok(()) }
    }

    /// Ends the sessions that are over, and a rebalance whose time is up; gives the next deadline.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Instant> {
        self.promised.retain(|_, deadline| *deadline > now);
        let dead: Vec<String> = self.sessions().filter(|(_, deadline)| *deadline <= now).map(|(id, _)| id).collect();
        for member in &dead {
            tracing::info!(group = self.id, member, "consumer's session has expired");
            self.remove(member, now);
        }
        self.complete_join(now);
        let sessions = self.sessions().map(|(_, deadline)| deadline);
        let joining = (self.phase == Phase::Joining).then_some(self.join_deadline);
        sessions.chain(joining).chain(self.promised.values().copied()).min()
    }

    /// The members who must be heard from, and by when; one that waits for an answer of ours need not.
    fn sessions(&self) -> impl Iterator<Item = (String, Instant)> {
        self.members.iter().filter(|(_, m)| m.joining.is_none()).map(|(id, m)| (id.clone(), m.deadline))
    }
}
