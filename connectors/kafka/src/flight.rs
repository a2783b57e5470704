//! The messages of one transaction between their sending and their reports.

use std::time::Instant;

use crate::native::{Code, Report};

/// The messages of one transaction that are under way, and where those that arrived lie.
pub(crate) struct Flight {
    /// How many messages have no report yet.
    pub(crate) pending: usize,
    /// By group: where its messages lie.
    pub(crate) groups: Vec<Offsets>,
    /// Why a message was not written.
    pub(crate) failed: Option<Code>,
    /// How many requests had gone without an answer when the transaction began.
    pub(crate) lost: u64,
    /// When all messages must have arrived.
    pub(crate) deadline: Instant,
}

impl Flight {
    /// The group of messages whose offsets nobody asks for.
    pub(crate) const OTHER: usize = 0xff_ffff;
    const INDEX_BITS: u32 = 40;

    pub(crate) fn new(groups: usize, lost: u64, deadline: Instant) -> Self {
        Self { pending: 0, groups: vec![Offsets::default(); groups], failed: None, lost, deadline }
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
                Some(known) if !matches!(known, Code::PurgeQueue | Code::PurgeInflight) => {}
                _ => self.failed = Some(code),
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
        let mut flight = Flight::new(3, 0, Instant::now());
        flight.pending = 2;
        flight.note(Report { opaque: Flight::opaque(2, 0), result: Ok(100) });
        flight.note(Report { opaque: Flight::opaque(Flight::OTHER, 0), result: Ok(5) });
        assert_eq!((flight.pending, flight.groups[2].end_after(1)), (0, Some(101)));
    }
}
