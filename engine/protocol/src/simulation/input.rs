//! The simulated source: splits with gaps between their offsets, that grow, and may be compacted.

use std::collections::BTreeSet;

use fluvial_connector::{Availability, Digest, Offset, SplitId, source_digest};

use super::dice::Dice;
use crate::FoundSplit;
use crate::journal::{Range, SplitNumber, SplitStart};

/// A job's input.
pub(super) struct Input {
    splits: Vec<Split>,
    /// Whether it is a changelog that is compacted: only the newest record of each key counts, and each key is in one split.
    compacts: bool,
}

struct Split {
    /// Offset and key of every record.
    records: Vec<(u64, u8)>,
    /// How many of them there are by now.
    available: usize,
    /// Whether the split exists by now.
    exists: bool,
    /// The offsets of the records that are gone.
    removed: BTreeSet<u64>,
}

impl Input {
    pub(super) fn new(dice: &mut Dice, splits: usize, records: usize, keys: usize, compacts: bool) -> Self {
        let split = |dice: &mut Dice, number: usize| {
            let mut offset = dice.below(5) as u64;
            let mut make = || {
                offset += if dice.one_in(4) { 2 + dice.below(3) as u64 } else { 1 };
                let key = dice.below(keys);
                (offset, if compacts { key * splits + number } else { key } as u8)
            };
            let records = (0..records).map(|_| make()).collect();
            let exists = number + 1 < splits || splits == 1;
            Split { records, available: 0, exists, removed: BTreeSet::new() }
        };
        Self { splits: (0..splits).map(|number| split(dice, number)).collect(), compacts }
    }

    pub(super) fn compacts(&self) -> bool {
        self.compacts
    }

    /// What a record says of its key.
    pub(super) fn value(&self, offset: u64) -> u64 {
        if self.compacts { offset + 1 } else { 1 }
    }

    /// What two records, or more, say of their key together: which is the newest, or how many there are.
    pub(super) fn both(&self, one: u64, other: u64) -> u64 {
        if self.compacts { one.max(other) } else { one + other }
    }

    /// Removes some of the records that others of their key have superseded by now.
    pub(super) fn compact(&mut self, dice: &mut Dice) {
        let number = dice.below(self.splits.len());
        let split = &mut self.splits[number];
        let available = &split.records[..split.available];
        let superseded =
            |(at, (_, key)): &(usize, &(u64, u8))| available[at + 1..].iter().any(|(_, later)| later == key);
        let until = dice.below(available.len() + 1);
        let gone = available.iter().enumerate().take(until).filter(superseded);
        split.removed.extend(gone.map(|(_, (offset, _))| *offset));
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
    pub(super) fn found(&self, dice: &mut Dice, now: u64) -> Vec<FoundSplit> {
        let mut found = self.all_available(now);
        for split in found.iter_mut().filter(|_| dice.one_in(4)) {
            split.availability = Availability::Unavailable { why: "the dice say so".to_owned() };
        }
        found
    }

    /// What the source says when every split is available.
    fn all_available(&self, now: u64) -> Vec<FoundSplit> {
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
                asked_ms: now,
            })
            .collect()
    }

    fn split(&self, start: &SplitStart) -> &Split {
        let number: usize = start.split.0.parse().expect("the simulation names splits by their numbers");
        &self.splits[number]
    }

    /// Up to `most` records from `from` on, and the range that they are.
    pub(super) fn read(&self, start: &SplitStart, from: Offset, most: usize) -> Option<(Range, Vec<(u64, u8)>)> {
        let split = self.split(start);
        let end = split.records[..split.available].last()?.0 + 1;
        let taken: Vec<_> = self.held(start, from, Offset(end)).into_iter().take(most).collect();
        let to = Offset(taken.last()?.0 + 1);
        Some((range_of(start.number, from, to, &taken), taken))
    }

    /// What a split holds between two offsets by now.
    pub(super) fn held(&self, start: &SplitStart, from: Offset, to: Offset) -> Vec<(u64, u8)> {
        let split = self.split(start);
        let within = |(offset, _): &&(u64, u8)| (from.0..to.0).contains(offset) && !split.removed.contains(offset);
        split.records.iter().filter(within).copied().collect()
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

/// The range of these records.
pub(super) fn range_of(split: SplitNumber, from: Offset, to: Offset, records: &[(u64, u8)]) -> Range {
    let mut digest = Digest::default();
    for (offset, key) in records {
        digest.add(source_digest(Offset(*offset), Some(&[*key]), None));
    }
    Range { split, from, to, count: records.len() as u64, digest }
}
