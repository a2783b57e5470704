//! The messages of one transaction between their sending and their reports.

use std::time::Instant;

use fluvial_connector::{Offset, PartitionWrite};

use crate::native::{Code, Report};

/// The messages of one transaction that are in flight, and the offsets of those that were acknowledged.
pub(crate) struct Flight<'a> {
    writes: &'a [PartitionWrite],
    /// How many messages have no report yet.
    pub(crate) pending: usize,
    /// The offsets of each group's messages.
    pub(crate) groups: Vec<Offsets>,
    /// By group, and one more for those of no group: how many messages have no report yet.
    pending_of: Vec<usize>,
    /// Why a message was not written.
    pub(crate) failed: Option<Failed>,
    /// How many requests had gone without an answer when the transaction began.
    pub(crate) lost: u64,
    /// When all messages must have arrived.
    pub(crate) deadline: Instant,
}

/// Messages that were not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// Their group.
    pub(crate) group: usize,
    /// The first of them, and the last that failed for the same reason: the others may only be of its batch.
    pub(crate) first: usize,
    pub(crate) last: usize,
    /// Kafka's code for the reason.
    pub(crate) code: Code,
}

impl Failed {
    /// Whether something else has failed, of which this is only a consequence.
    pub(crate) fn is_consequence(&self) -> bool {
        matches!(self.code, Code::PurgeQueue | Code::PurgeInflight | Code::InvalidDifferentRecord)
    }
}

impl<'a> Flight<'a> {
    /// The group of messages whose offsets are not needed.
    pub(crate) const OTHER: usize = 0xff_ffff;
    const INDEX_BITS: u32 = 40;

    /// Of a transaction with these writes, each of which is a group.
    pub(crate) fn new(writes: &'a [PartitionWrite], lost: u64, deadline: Instant) -> Self {
        let groups = vec![Offsets::default(); writes.len()];
        Self { writes, pending: 0, pending_of: vec![0; writes.len() + 1], groups, failed: None, lost, deadline }
    }

    /// So many messages of a group are on their way.
    pub(crate) fn sent(&mut self, group: usize, messages: usize) {
        self.pending += messages;
        self.pending_of[group.min(self.writes.len())] += messages;
    }

    /// The write that a group's messages belong to; those of no group go to the progress topic.
    pub(crate) fn write(&self, group: usize) -> Option<&'a PartitionWrite> {
        self.writes.get(group)
    }

    /// What is not acknowledged yet, for people.
    pub(crate) fn unacknowledged(&self) -> String {
        let pending = self.pending_of.iter().enumerate().filter(|(_, pending)| **pending > 0);
        let each = pending.map(|(group, pending)| format!("{pending} of {}", self.describe(group)));
        let each: Vec<_> = each.collect();
        format!("records that are not acknowledged: {}", each.join(", "))
    }

    /// The groups of which something is not acknowledged yet.
    pub(crate) fn pending_groups(&self) -> impl Iterator<Item = usize> {
        (0..self.pending_of.len()).filter(|group| self.pending_of[*group] > 0)
    }

    /// What a group is, for people.
    pub(crate) fn describe(&self, group: usize) -> String {
        match self.writes.get(group) {
            Some(write) => format!("topic '{}' partition {}", write.at.output, write.at.partition),
            None => "the progress topic".to_owned(),
        }
    }

    /// What a message carries that its report is known by.
    pub(crate) fn opaque(group: usize, index: usize) -> usize {
        (group << Self::INDEX_BITS) | index
    }

    /// The index that is in what a message carries.
    pub(crate) fn index(opaque: usize) -> usize {
        opaque & ((1 << Self::INDEX_BITS) - 1)
    }

    /// The writes of the transaction.
    pub(crate) fn writes(&self) -> &'a [PartitionWrite] {
        self.writes
    }

    /// Takes a report.
    pub(crate) fn note(&mut self, report: Report) {
        self.pending = self.pending.saturating_sub(1);
        let (group, index) = (report.opaque >> Self::INDEX_BITS, Self::index(report.opaque));
        let pending = &mut self.pending_of[group.min(self.writes.len())];
        *pending = pending.saturating_sub(1);
        match report.result {
            Ok(offset) => {
                if let Some(offsets) = self.groups.get_mut(group) {
                    offsets.note(index, offset);
                }
            }
            // The first failure is the cause; what was dropped because of it says less.
            Err(code) => match &mut self.failed {
                Some(known) if known.group == group && known.code == code => known.last = known.last.max(index),
                Some(known) if !known.is_consequence() => {}
                _ => self.failed = Some(Failed { group, first: index, last: index, code }),
            },
        }
    }
}

/// Where the messages of one partition lie: stretches in which offset minus index stays the same. There is one, unless
/// somebody else writes to the partition too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    /// First index of the stretch, and the offset of index 0 in it.
    stretches: Vec<(usize, u64)>,
}

impl Offsets {
    /// Reports of one partition come in its order.
    fn note(&mut self, index: usize, offset: u64) {
        let base = offset.wrapping_sub(index as u64);
        if self.stretches.last().is_none_or(|(_, last)| *last != base) {
            self.stretches.push((index, base));
        }
    }

    /// The offset after the message with this index, which has arrived.
    pub(crate) fn end_of(&self, index: usize) -> Offset {
        let later = self.stretches.partition_point(|(first, _)| *first <= index);
        let (_, base) = self.stretches[later - 1];
        Offset(base.wrapping_add(index as u64) + 1)
    }
}

#[cfg(test)]
mod tests {
    use fluvial_connector::{Generation, Incarnation, OutputPartition, OutputRecords, Progress, Tick};

    use super::*;

    fn write() -> PartitionWrite {
        PartitionWrite {
            at: OutputPartition { output: "o".to_owned(), partition: 7 },
            records: OutputRecords::default(),
            ticks: Vec::new(),
            progress: Progress::complete(Incarnation(uuid::Uuid::nil()), Generation(1), Tick(1), Offset(0)),
        }
    }

    #[test]
    fn offsets_are_found_also_where_others_write_in_between() {
        let mut offsets = Offsets::default();
        for (index, offset) in [10, 11, 12, 20, 21].into_iter().enumerate() {
            offsets.note(index, offset);
        }
        assert_eq!(offsets.stretches.len(), 2);
        let ends: Vec<_> = (0..5).map(|index| offsets.end_of(index).0).collect();
        assert_eq!(ends, [11, 12, 13, 21, 22]);
    }

    #[test]
    fn group_and_index_survive_the_opaque() {
        let writes = vec![write(); 3];
        let mut flight = Flight::new(&writes, 0, Instant::now());
        flight.sent(2, 1);
        flight.sent(Flight::OTHER, 1);
        assert_eq!(
            flight.unacknowledged(),
            "records that are not acknowledged: 1 of topic 'o' partition 7, 1 of the progress topic"
        );
        flight.note(Report { opaque: Flight::opaque(2, 0), result: Ok(100) });
        flight.note(Report { opaque: Flight::opaque(Flight::OTHER, 0), result: Ok(5) });
        assert_eq!((flight.pending, flight.groups[2].end_of(0)), (0, Offset(101)));
    }

    #[test]
    fn the_first_failure_is_kept_unless_it_says_nothing() {
        let mut flight = Flight::new(&[], 0, Instant::now());
        let mut fail = |group, index, code| {
            flight.note(Report { opaque: Flight::opaque(group, index), result: Err(code) });
            flight.failed.clone().map(|failed| (failed.group, failed.first, failed.last, failed.code))
        };
        assert_eq!(fail(0, 0, Code::PurgeQueue), Some((0, 0, 0, Code::PurgeQueue)));
        assert_eq!(fail(1, 4, Code::InvalidDifferentRecord), Some((1, 4, 4, Code::InvalidDifferentRecord)));
        assert_eq!(fail(1, 5, Code::MessageSizeTooLarge), Some((1, 5, 5, Code::MessageSizeTooLarge)));
        assert_eq!(fail(2, 0, Code::InvalidRecord), Some((1, 5, 5, Code::MessageSizeTooLarge)));
        // The others of its batch.
        assert_eq!(fail(1, 9, Code::MessageSizeTooLarge), Some((1, 5, 9, Code::MessageSizeTooLarge)));
    }
}
