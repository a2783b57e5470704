//! How members come and go: they join and leave, and the group rebalances.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;

use super::{Group, Joined, Member, Phase};

/// A request to join.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    /// Empty for a member that has no id yet.
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// Whether the client must come again with the id that it is given (version 4 and later).
    pub(crate) id_first: bool,
}

impl Group {
    /// A member joins; the answer comes when the group's next generation is complete, or at once.
    pub(crate) fn join(&mut self, join: Join, now: Instant) -> oneshot::Receiver<Joined> {
        let (reply, answer) = oneshot::channel();
        match self.admit(&join) {
            Err(error) => {
                // A receiver that has gone needs no answer: here and below.
                let _ = reply.send(Joined::refused(error, &join.member));
            }
            Ok(Admitted::Comes(member)) if join.member.is_empty() && join.instance.is_none() && join.id_first => {
                self.promised.insert(member.clone(), now + join.session_timeout);
                let _ = reply.send(Joined::refused(ResponseError::MemberIdRequired, &member));
            }
            Ok(Admitted::Comes(member)) => self.enter(member, join, reply, now),
            Ok(Admitted::Returns(holder)) if join.member.is_empty() => self.replace(&holder, join, reply, now),
            Ok(Admitted::Returns(member)) => self.rejoin(member, join, reply, now),
        }
        answer
    }

    fn admit(&mut self, join: &Join) -> Result<Admitted, ResponseError> {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        let mut others = self.members.iter().filter(|(id, _)| **id != join.member).map(|(_, m)| m).peekable();
        if others.peek().is_some() {
            let shared = |name: &String| self.members.values().all(|m| m.protocols.iter().any(|(n, _)| n == name));
            let common = join.protocols.iter().any(|(name, _)| shared(name));
            if self.protocol_type.as_deref() != Some(&join.protocol_type) || !common {
                return Err(ResponseError::InconsistentGroupProtocol);
            }
        }
        if join.member.is_empty() {
            return Ok(match join.instance.as_deref().and_then(|instance| self.holder(instance)) {
                Some(holder) => Admitted::Returns(holder.to_owned()),
                None => Admitted::Comes(self.new_member_id(join)),
            });
        }
        if self.promised.remove(&join.member).is_some() {
            return Ok(Admitted::Comes(join.member.clone()));
        }
        self.check_member(&join.member, join.instance.as_deref())?;
        Ok(Admitted::Returns(join.member.clone()))
    }

    fn new_member_id(&mut self, join: &Join) -> String {
        self.next_member += 1;
        let prefix = join.instance.as_deref().unwrap_or(&join.client_id);
        format!("{prefix}-{}", uuid::Uuid::new_v4())
    }

    fn enter(&mut self, id: String, join: Join, reply: oneshot::Sender<Joined>, now: Instant) {
        self.protocol_type = Some(join.protocol_type);
        self.next_member += 1;
        let member = Member {
            instance: join.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            protocols: join.protocols,
            assignment: Bytes::new(),
            joining: Some(reply),
            syncing: None,
            deadline: now + join.session_timeout,
            order: self.next_member,
        };
        self.members.insert(id, member);
        self.rebalance(now);
    }

    /// A known member joins again.
    fn rejoin(&mut self, id: String, join: Join, reply: oneshot::Sender<Joined>, now: Instant) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let changed = member.protocols != join.protocols;
        member.protocols = join.protocols;
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        member.deadline = now + join.session_timeout;
        let repeats = match self.phase {
            Phase::Syncing => !changed,
            Phase::Stable => !changed && self.leader.as_ref() != Some(&id),
            Phase::Empty | Phase::Joining => false,
        };
        if repeats {
            let _ = reply.send(self.joined(&id, false));
            return;
        }
        member.joining = Some(reply);
        self.rebalance(now);
    }

    /// A static member comes back without its id: a new id takes over the old one's place.
    fn replace(&mut self, holder: &str, join: Join, reply: oneshot::Sender<Joined>, now: Instant) {
        let id = self.new_member_id(&join);
        let Some(mut member) = self.members.remove(holder) else { return };
        if let Some(old) = member.joining.take() {
            let _ = old.send(Joined::refused(ResponseError::FencedInstanceId, holder));
        }
        if let Some(old) = member.syncing.take() {
            let _ = old.send(Err(ResponseError::FencedInstanceId));
        }
        let led = self.leader.as_deref() == Some(holder);
        if led {
            self.leader = Some(id.clone());
        }
        let unchanged = self.phase == Phase::Stable && member.protocols == join.protocols;
        member.deadline = now + join.session_timeout;
        member.protocols = join.protocols;
        self.members.insert(id.clone(), member);
        if unchanged {
            // An older client would assign again if it were told that it leads, so it is given the name of the old leader.
            let mut joined = self.joined(&id, true);
            if led && !joined.skip_assignment {
                joined.leader = holder.to_owned();
            }
            let _ = reply.send(joined);
            return;
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.joining = Some(reply);
        }
        self.rebalance(now);
    }

    /// A member leaves, named by its id or its instance.
    ///
    /// # Errors
    ///
    /// `UNKNOWN_MEMBER_ID` or `FENCED_INSTANCE_ID`.
    pub(crate) fn leave(&mut self, member: &str, instance: Option<&str>, now: Instant) -> Result<(), ResponseError> {
        if self.promised.remove(member).is_some() {
            self.complete_join(now);
            return Ok(());
        }
        let id = match instance {
            Some(instance) if member.is_empty() => self.holder(instance).ok_or(ResponseError::UnknownMemberId)?,
            _ => {
                self.check_member(member, instance)?;
                member
            }
        };
        let id = id.to_owned();
        self.remove(&id, now);
        Ok(())
    }

    pub(super) fn remove(&mut self, id: &str, now: Instant) {
        if self.members.remove(id).is_some() {
            self.rebalance(now);
        }
    }

    /// Begins a rebalance unless one is under way, and completes it if nobody is missing.
    fn rebalance(&mut self, now: Instant) {
        if self.phase != Phase::Joining {
            for member in self.members.values_mut() {
                if let Some(reply) = member.syncing.take() {
                    let _ = reply.send(Err(ResponseError::RebalanceInProgress));
                }
            }
            let patience = self.members.values().map(|m| m.rebalance_timeout).max().unwrap_or_default();
            self.join_deadline = now + patience;
            self.phase = Phase::Joining;
        }
        self.complete_join(now);
    }

    /// Starts the next generation if all have joined, or without the missing when time is up.
    pub(super) fn complete_join(&mut self, now: Instant) {
        if self.phase != Phase::Joining {
            return;
        }
        let missing = self.members.values().any(|m| m.joining.is_none()) || !self.promised.is_empty();
        if missing && now < self.join_deadline {
            return;
        }
        self.members.retain(|_, member| member.joining.is_some());
        self.generation += 1;
        if self.members.is_empty() {
            (self.phase, self.protocol, self.leader) = (Phase::Empty, None, None);
            return;
        }
        self.protocol = self.vote();
        if !self.leader.as_ref().is_some_and(|leader| self.members.contains_key(leader)) {
            self.leader = self.members.iter().min_by_key(|(_, m)| m.order).map(|(id, _)| id.clone());
        }
        self.phase = Phase::Syncing;
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id, false);
            if let Some(member) = self.members.get_mut(&id) {
                member.deadline = now + member.session_timeout;
                if let Some(reply) = member.joining.take() {
                    let _ = reply.send(joined);
                }
            }
        }
    }

    /// Each member votes for the first of its protocols that all know.
    fn vote(&self) -> Option<String> {
        let shared = |name: &str| self.members.values().all(|m| m.protocols.iter().any(|(n, _)| n == name));
        let votes: Vec<&str> = self
            .members
            .values()
            .filter_map(|m| m.protocols.iter().map(|(n, _)| n.as_str()).find(|n| shared(n)))
            .collect();
        let count = |name: &str| votes.iter().filter(|v| **v == name).count();
        votes.iter().max_by_key(|name| (count(name), std::cmp::Reverse(**name))).map(|name| (*name).to_owned())
    }

    fn joined(&self, id: &str, skip_assignment: bool) -> Joined {
        let leads = self.leader.as_deref() == Some(id);
        let subscribed =
            |(id, m): (&String, &Member)| (id.clone(), m.instance.clone(), m.subscription(self.protocol.as_deref()));
        Joined {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member: id.to_owned(),
            members: if leads { self.members.iter().map(subscribed).collect() } else { Vec::new() },
            skip_assignment: leads && skip_assignment,
        }
    }
}

/// Who joins.
enum Admitted {
    /// A new member, under this id.
    Comes(String),
    /// This one, again.
    Returns(String),
}
