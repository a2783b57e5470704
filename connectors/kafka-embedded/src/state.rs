//! Everything that the broker knows, apart from sockets: pure decisions under one lock.
//!
//! Owns topics, groups, transactions and the count of memory, and what must happen to several of them in one step: a
//! produce, the end of a transaction, the deletion of a topic. The time is handed in. The only thing that leaves is a
//! wake-up: to readers ([`waiters`]), to members of a group (a channel each) and to the clock ([`Alarm`]).

pub(crate) mod batch;
pub(crate) mod group;
pub(crate) mod groups;
pub(crate) mod log;
mod memory;
mod producers;
pub(crate) mod settings;
pub(crate) mod timestamps;
pub(crate) mod topics;
pub(crate) mod transactions;
mod waiters;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use kafka_protocol::ResponseError;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::clock::Now;
use batch::Header;
use groups::Groups;
use memory::Memory;
use producers::Verdict;
use topics::{Named, Topics};
use transactions::{Ending, Producer, Transactions};

/// There is one broker, so the leader of a partition never changes.
pub(crate) const LEADER_EPOCH: i32 = 0;

/// What the broker knows.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) topics: Topics,
    pub(crate) groups: Groups,
    pub(crate) transactions: Transactions,
    pub(crate) memory: Memory,
    pub(crate) alarm: Alarm,
    /// The topic whose partitions get no markers.
    pub(crate) withheld: Option<String>,
    /// The aborts of what is left open by that.
    hanging: Vec<Ending>,
}

/// When something is due next.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    at: Option<Instant>,
    /// Rings when the deadline has come nearer.
    pub(crate) nearer: Arc<Notify>,
}

impl Alarm {
    /// Makes sure that [`State::expire`] runs at this moment or before.
    pub(crate) fn set(&mut self, at: Instant) {
        if self.at.is_none_or(|set| at < set) {
            self.at = Some(at);
            self.nearer.notify_one();
        }
    }
}

impl State {
    /// An empty broker.
    pub(crate) fn new(memory_limit_bytes: usize) -> Self {
        Self {
            topics: Topics::default(),
            groups: Groups::default(),
            transactions: Transactions::default(),
            memory: Memory::new(memory_limit_bytes),
            alarm: Alarm::default(),
            withheld: None,
            hanging: Vec::new(),
        }
    }

    /// Appends a checked batch to a partition, and gives its base offset.
    ///
    /// # Errors
    ///
    /// Those of [`Transactions::check_write`] and [`log::Log::judge`]; `MESSAGE_TOO_LARGE`; `POLICY_VIOLATION` when the
    /// memory limit is reached.
    pub(crate) fn produce(
        &mut self,
        topic: Named<'_>,
        partition: i32,
        header: &Header,
        bytes: &[u8],
    ) -> Result<i64, ResponseError> {
        let found = self.topics.get_mut(topic)?;
        let index = usize::try_from(partition).map_err(|_| ResponseError::UnknownTopicOrPartition)?;
        if bytes.len() > found.settings.max_message_bytes() {
            return Err(ResponseError::MessageTooLarge);
        }
        let target = found.partitions.get_mut(index).ok_or(ResponseError::UnknownTopicOrPartition)?;
        if target.leaderless {
            return Err(ResponseError::NotLeaderOrFollower);
        }
        if let Verdict::Duplicate(offset) = target.log.judge(header)? {
            return Ok(offset);
        }
        if header.is_transactional() {
            let producer = Producer { id: header.producer_id, epoch: header.producer_epoch };
            self.transactions.check_write(producer, (found.id, partition))?;
        }
        self.memory.take(log::Log::cost(bytes.len()))?;
        Ok(target.change(|log| log.append(header, bytes)))
    }

    /// Aborts in their partitions the transactions whose markers were withheld, as `kafka-transactions.sh abort` does, and
    /// withholds no more.
    pub(crate) fn abort_withheld(&mut self, now: Now) {
        self.withheld = None;
        for ending in std::mem::take(&mut self.hanging) {
            self.finish(&ending, now);
        }
    }

    /// Writes the end of a transaction wherever it has been: to partitions and to groups' offsets.
    pub(crate) fn finish(&mut self, ending: &Ending, now: Now) {
        let Producer { id, epoch } = ending.producer;
        let withheld = self.withheld.as_deref().and_then(|topic| Some(self.topics.get(Named::Name(topic)).ok()?.id));
        let (hanging, written): (BTreeSet<_>, BTreeSet<_>) =
            ending.partitions.iter().partition(|(topic, _)| Some(*topic) == withheld);
        if !hanging.is_empty() {
            let (producer, groups) = (ending.producer, BTreeSet::new());
            self.hanging.push(Ending { producer, committed: false, partitions: hanging, groups });
        }
        for (topic, partition) in &written {
            // The topic may have been deleted meanwhile.
            let Ok(partition) = self.topics.partition_mut(Named::Id(*topic), *partition) else { continue };
            let before = partition.log.bytes();
            partition.change(|log| log.end_transaction(id, epoch, ending.committed, now.wall_ms));
            // A marker is never refused: the transaction has ended.
            self.memory.force(partition.log.bytes() - before);
        }
        for group in &ending.groups {
            self.groups.or_new(group).offsets.release(id, ending.committed);
        }
    }

    /// Deletes the records before an offset (-1: all there are), and gives the new start.
    ///
    /// # Errors
    ///
    /// `UNKNOWN_TOPIC_OR_PARTITION`, or `OFFSET_OUT_OF_RANGE` for an offset beyond the end.
    pub(crate) fn delete_records(&mut self, topic: &str, partition: i32, offset: i64) -> Result<i64, ResponseError> {
        let log = &mut self.topics.partition_mut(Named::Name(topic), partition)?.log;
        let before = log.bytes();
        log.delete_before(if offset == -1 { log.end() } else { offset })?;
        self.memory.free(before - log.bytes());
        Ok(log.start())
    }

    /// Deletes a topic with the offsets that groups have in it.
    ///
    /// # Errors
    ///
    /// `UNKNOWN_TOPIC_OR_PARTITION` or `UNKNOWN_TOPIC_ID`.
    pub(crate) fn delete_topic(&mut self, topic: Named<'_>) -> Result<(String, Uuid), ResponseError> {
        let id = self.topics.get(topic)?.id;
        let name = self.topics.name(id).unwrap_or_default().to_owned();
        let freed = self.topics.delete(&name)?;
        self.memory.free(freed);
        self.groups.forget_topic(&name);
        Ok((name, id))
    }

    /// Does what is due: aborts transactions that are open too long, and ends sessions. Gives the next deadline.
    pub(crate) fn expire(&mut self, now: Now) -> Option<Instant> {
        let (endings, transaction) = self.transactions.expire(now.instant);
        for (id, ending) in &endings {
            tracing::warn!(transactional_id = id, "transaction timed out: aborted, and its producer fenced");
            self.finish(ending, now);
        }
        let next = [transaction, self.groups.expire(now.instant)].into_iter().flatten().min();
        self.alarm.at = next;
        next
    }
}

#[cfg(test)]
mod tests;
