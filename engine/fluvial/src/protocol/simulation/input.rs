//! The simulated source: splits with gaps between their offsets, that grow.

use fluvial_connector::{Availability, Digest, Offset, SplitId, source_digest};

use super::Violation;
use super::dice::Dice;
use crate::journal::{Range, SplitNumber, SplitStart};
use crate::protocol::FoundSplit;

/// A job's input.
pub(super) struct Input {
    splits: Vec<Split>,
}

struct Split {
    /// Offset and key of every record.
    records: Vec<(u64, u8)>,
    /// How many of them there are by now.
    available: usize,
    /// Whether the split exists by now.
    exists: bool,
}

impl Input {
    pub(super) fn new(dice: &mut Dice, splits: usize, records: usize, keys: usize) -> Self {
        let split = |dice: &mut Dice, exists| {
            let mut offset = dice.below(5) as u64;
            let mut make = || {
                offset += if dice.one_in(4) { 2 + dice.below(3) as u64 } else { 1 };
                (offset, dice.below(keys) as u8)
            };
            Split { records: (0..records).map(|_| make()).collect(), available: 0, exists }
        };
        Self { splits: (0..splits).map(|number| split(dice, number + 1 < splits || splits == 1)).collect() }
    }

    /// More input arrives; seldom a split appears.
    pub(super) fn grow(&mut self, dice: &mut Dice) {
        let number = dice.below(self.splits.len());
        let more = dice.between(1, 4);
        let split = &mut self.splits[number];
        split.exists |= dice.one_in(8);
        if split.exists {
            split.available = (split.available + more).min(split.records.len());
        }
    }

    /// All input has arrived.
    pub(super) fn end(&mut self) {
        for split in &mut self.splits {
            split.exists = true;
            split.available = split.records.len();
        }
    }

    /// What the source says now; any split may be unavailable.
    pub(super) fn found(&self, dice: &mut Dice) -> Vec<FoundSplit> {
        let mut found = self.all_available();
        for split in found.iter_mut().filter(|_| dice.one_in(4)) {
            split.availability = Availability::Unavailable { why: "the dice say so".to_owned() };
        }
        found
    }

    /// What the source says when every split is available.
    pub(super) fn all_available(&self) -> Vec<FoundSplit> {
        let exist = self.splits.iter().enumerate().filter(|(_, split)| split.exists);
        exist
            .map(|(number, split)| FoundSplit {
                source: "in".to_owned(),
                described: "the input".to_owned(),
                split: SplitId(number.to_string()),
                availability: Availability::Available {
                    earliest: Offset(split.records.first().map_or(0, |(offset, _)| *offset)),
                    // Nothing is ever truncated.
                    end: Offset(u64::MAX),
                },
                identity: "first".to_owned(),
            })
            .collect()
    }

    fn split(&self, start: &SplitStart) -> &Split {
        let number: usize = start.split.0.parse().expect("the simulation names splits by their numbers");
        &self.splits[number]
    }

    /// Up to `most` records from `from` on, and where the next ones begin.
    pub(super) fn read(&self, start: &SplitStart, from: Offset, most: usize) -> Option<Range> {
        let split = self.split(start);
        let available = &split.records[..split.available];
        let first = available.partition_point(|(offset, _)| *offset < from.0);
        let taken = &available[first..available.len().min(first + most)];
        let to = Offset(taken.last()?.0 + 1);
        Some(range_of(start.number, from, to, taken))
    }

    /// The keys of a range, whose digest must be what it was.
    pub(super) fn replay(&self, start: &SplitStart, range: &Range) -> Result<Vec<u8>, Violation> {
        let records = &self.split(start).records;
        let first = records.partition_point(|(offset, _)| *offset < range.from.0);
        let last = records.partition_point(|(offset, _)| *offset < range.to.0);
        let taken = &records[first..last];
        if range_of(range.split, range.from, range.to, taken) != *range {
            return Err(Violation(format!("range {range:?} reads back as {taken:?}")));
        }
        Ok(taken.iter().map(|(_, key)| *key).collect())
    }

    /// Whether a split has been read to its end.
    pub(super) fn is_read(&self, start: &SplitStart, position: Offset) -> bool {
        self.split(start).records.last().is_none_or(|(offset, _)| *offset < position.0)
    }

    /// How many splits there will be.
    pub(super) fn splits(&self) -> usize {
        self.splits.len()
    }
}

fn range_of(split: SplitNumber, from: Offset, to: Offset, records: &[(u64, u8)]) -> Range {
    let mut digest = Digest::default();
    for (offset, key) in records {
        digest.add(source_digest(Offset(*offset), Some(&[*key]), None));
    }
    Range { split, from, to, count: records.len() as u64, digest }
}
