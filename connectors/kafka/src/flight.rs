//! The messages of one transaction between their sending and their reports.

use std::time::Instant;

use fluvial_connector::PartitionWrite;

use crate::native::{Code, Report};

/// The messages of one transaction that are under way, and where those that arrived lie.
pub(crate) struct Flight<'a> {
    writes: &'a [PartitionWrite],
    /// How many messages have no report yet.
    pub(crate) pending: usize,
    /// By group: where its messages lie.
    pub(crate) groups: Vec<Offsets>,
    /// Why a message was not written, and its group.
    pub(crate) failed: Option<(usize, Code)>,
    /// How many requests had gone without an answer when the transaction began.
    pub(crate) lost: u64,
    /// When all messages must have arrived.
    pub(crate) deadline: Instant,
}

impl<'a> Flight<'a> {
    /// The group of messages whose offsets nobody asks for.
    pub(crate) const OTHER: usize = 0xff_ffff;
    const INDEX_BITS: u32 = 40;

    /// Of a transaction with these writes, each of which is a group.
    pub(crate) fn new(writes: &'a [PartitionWrite], lost: u64, deadline: Instant) -> Self {
        Self { writes, pending: 0, groups: vec![Offsets::default(); writes.len()], failed: None, lost, deadline }
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

    /// Takes a report.
    pub(crate) fn note(&mut self, report: Report) {
        self.pending = self.pending.saturating_sub(1);
        let (group, index) = (report.opaque >> Self::INDEX_BITS, report.opaque & ((1 << Self::INDEX_BITS) - 1));
        match report.result {
            Ok(offset) => {
                if let Some(offsets) = self.groups.get_mut(group) {
                    offsets.note(index, offset);
                }
            }
            // The first failure is the cause; what was thrown away in its wake says less.
            Err(code) => match self.failed {
                Some((_, known)) if !matches!(known, Code::PurgeQueue | Code::PurgeInflight) => {}
                _ => self.failed = Some((group, code)),
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

    /// The offset after the first `records` messages; `None` where there are no messages.
    pub(crate) fn end_after(&self, records: usize) -> Option<u64> {
        let last = records.checked_sub(1)?;
        let stretch = self.stretches.partition_point(|(first, _)| *first <= last).checked_sub(1)?;
        Some(self.stretches[stretch].1.wrapping_add(last as u64) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_found_also_where_others_write_in_between() {
        let mut offsets = Offsets::default();
        for (index, offset) in [10, 11, 12, 20, 21].into_iter().enumerate() {
            offsets.note(index, offset);
        }
        assert_eq!(offsets.stretches.len(), 2);
        let ends: Vec<_> = (0..=5).map(|records| offsets.end_after(records)).collect();
        assert_eq!(ends, [None, Some(11), Some(12), Some(13), Some(21), Some(22)]);
    }

    #[test]
    fn group_and_index_survive_the_opaque() {
        let mut flight = Flight::new(&[], 0, Instant::now());
        (flight.pending, flight.groups) = (2, vec![Offsets::default(); 3]);
        flight.note(Report { opaque: Flight::opaque(2, 0), result: Ok(100) });
        flight.note(Report { opaque: Flight::opaque(Flight::OTHER, 0), result: Ok(5) });
        assert_eq!((flight.pending, flight.groups[2].end_after(1)), (0, Some(101)));
    }

    #[test]
    fn the_first_failure_is_kept_unless_it_says_nothing() {
        let mut flight = Flight::new(&[], 0, Instant::now());
        let mut fail = |group, code| {
            flight.note(Report { opaque: Flight::opaque(group, 0), result: Err(code) });
            flight.failed
        };
        assert_eq!(fail(0, Code::PurgeQueue), Some((0, Code::PurgeQueue)));
        assert_eq!(fail(1, Code::MessageSizeTooLarge), Some((1, Code::MessageSizeTooLarge)));
        assert_eq!(fail(2, Code::InvalidRecord), Some((1, Code::MessageSizeTooLarge)));
    }
}
