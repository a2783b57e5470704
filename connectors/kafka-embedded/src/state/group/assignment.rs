//! How members get their partitions: the leader brings the assignments, and each member asks for its own.

use std::time::Instant;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;

use super::{Group, Phase};

/// A request for an assignment; the leader's brings all of them.
#[derive(Clone, Debug)]
pub(crate) struct Sync {
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignments: Vec<(String, Bytes)>,
}

impl Group {
    /// A member asks for its assignment; the answer comes when the leader has assigned, or at once.
    pub(crate) fn sync(&mut self, sync: Sync, now: Instant) -> oneshot::Receiver<Result<Bytes, ResponseError>> {
        let (reply, answer) = oneshot::channel();
        match self.check_sync(&sync) {
            Err(error) => {
                let _ = reply.send(Err(error));
            }
            Ok(()) => {
                self.heard_from(&sync.member, now);
                let leads = self.leader.as_ref() == Some(&sync.member);
                if let Some(member) = self.members.get_mut(&sync.member) {
                    member.syncing = Some(reply);
                }
                if self.phase == Phase::Syncing && leads {
                    self.assign(sync.assignments, now);
                } else if self.phase == Phase::Stable {
                    self.answer_syncs(now);
                }
            }
        }
        answer
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), ResponseError> {
        self.check_member(&sync.member, sync.instance.as_deref())?;
        self.check_generation(sync.generation)?;
        let differs = |theirs: &Option<String>, ours: &Option<String>| theirs.is_some() && theirs != ours;
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        if self.phase == Phase::Joining { Err(ResponseError::RebalanceInProgress) } else { Ok(()) }
    }

    fn assign(&mut self, assignments: Vec<(String, Bytes)>, now: Instant) {
        self.members.values_mut().for_each(|member| member.assignment = Bytes::new());
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.phase = Phase::Stable;
        self.answer_syncs(now);
    }

    fn answer_syncs(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            if let Some(reply) = member.syncing.take() {
                member.deadline = now + member.session_timeout;
                let _ = reply.send(Ok(member.assignment.clone()));
            }
        }
    }
}
