//! The offsets that a group has committed, and those that open transactions will commit.

use std::collections::{BTreeMap, HashMap};

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The next record to read.
    pub(crate) offset: i64,
    /// The leader epoch of the last one read, or -1.
    pub(crate) leader_epoch: i32,
    /// Whatever the client stored with it.
    pub(crate) metadata: Option<String>,
}

type Table = BTreeMap<(String, i32), Committed>;

/// The offsets of one group.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    committed: Table,
    /// By the producer id of their transaction.
    pending: HashMap<i64, Table>,
}

impl Offsets {
    /// Commits an offset.
    pub(crate) fn commit(&mut self, topic: &str, partition: i32, offset: Committed) {
        self.committed.insert((topic.to_owned(), partition), offset);
    }

    /// Keeps an offset until its transaction ends.
    pub(crate) fn hold(&mut self, producer_id: i64, topic: &str, partition: i32, offset: Committed) {
        self.pending.entry(producer_id).or_default().insert((topic.to_owned(), partition), offset);
    }

    /// Commits or drops what a transaction has held.
    pub(crate) fn release(&mut self, producer_id: i64, committed: bool) {
        let held = self.pending.remove(&producer_id).unwrap_or_default();
        if committed {
            self.committed.extend(held);
        }
    }

    /// The committed offset of a partition.
    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.committed.get(&(topic.to_owned(), partition))
    }

    /// Whether an open transaction is going to commit an offset of the partition.
    pub(crate) fn is_pending(&self, topic: &str, partition: i32) -> bool {
        self.pending.values().any(|held| held.contains_key(&(topic.to_owned(), partition)))
    }

    /// The partitions that have an offset.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = (&str, i32)> {
        self.committed.keys().map(|(topic, partition)| (topic.as_str(), *partition))
    }

    /// Forgets one offset.
    pub(crate) fn forget(&mut self, topic: &str, partition: i32) {
        self.committed.remove(&(topic.to_owned(), partition));
    }

    /// Forgets the offsets of a topic.
    pub(crate) fn forget_topic(&mut self, topic: &str) {
        self.committed.retain(|(t, _), _| t != topic);
        self.pending.values_mut().for_each(|held| held.retain(|(t, _), _| t != topic));
    }
}
