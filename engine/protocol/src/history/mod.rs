//! What the journal says, folded: where a new generation goes on from.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use fluvial_connector::{Generation, Incarnation, Tick, describe_offsets};

use crate::journal::{Binding, Entry, JournalRecord, Nonce, Range, Recreated, Rewound, Seq, SinkStart, SplitNumber};
use crate::manifest::{Manifest, SplitState};
use crate::{Compare, Ended, JournalFault, Reconciliation};

/// The newest checkpoint that a journal names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointEntry {
    /// The record that names it.
    pub at: Seq,
    /// The tick that it is of.
    pub tick: Tick,
    /// Its manifest's object.
    pub manifest: String,
    /// Where the journal begins with it.
    pub floor: Seq,
}

/// The newest checkpoint that `records` name, if any does.
#[must_use]
pub(crate) fn newest_checkpoint(records: &BTreeMap<Seq, JournalRecord>) -> Option<CheckpointEntry> {
    records.iter().rev().find_map(|(at, record)| {
        record.entries.iter().rev().find_map(|entry| match entry {
            Entry::Checkpoint { tick, manifest, floor } => {
                Some(CheckpointEntry { at: *at, tick: *tick, manifest: manifest.clone(), floor: *floor })
            }
            _ => None,
        })
    })
}

/// Whether pruning must leave a record: opened records and the no-ops before them keep the next position of every
/// earlier writer taken for ever.
#[must_use]
pub(crate) fn is_kept(record: &JournalRecord) -> bool {
    record.entries.is_empty() || record.entries.iter().any(|e| matches!(e, Entry::Opened { .. }))
}

/// A journal, folded from its floor to its end over the manifest of its newest checkpoint.
#[derive(Clone, Debug)]
pub struct History {
    /// The checkpoint to restore.
    pub checkpoint: Option<Manifest>,
    /// Every split, with its position after the last binding.
    pub splits: BTreeMap<SplitNumber, SplitState>,
    /// The splits that were met after the checkpoint.
    pub new_splits: Vec<SplitNumber>,
    /// Every output that is written.
    pub sinks: Vec<SinkStart>,
    /// The bindings after the checkpoint, without their checkpoint marks: those checkpoints will never be complete.
    pub replay: Vec<Binding>,
    /// A reconciliation that no checkpoint covers yet.
    pub reconciliation: Option<Reconciliation>,
    /// The program that began the reconciliation; `None` if there is none, or if compaction made it necessary.
    pub reconciled_by: Option<String>,
    /// The programs that have written output since the checkpoint, and the program that took the checkpoint.
    pub programs: BTreeSet<String>,
    /// The most slots (processes) and turns that any generation has had.
    pub most_slots: u32,
    /// See `most_slots`.
    pub most_turns: u32,
    writer: Option<(Generation, Nonce)>,
    /// The program of the newest generation that opened.
    opened: Option<String>,
}

impl History {
    /// The last sealed tick; tick 0 in an empty journal.
    #[must_use]
    pub fn sealed(&self) -> Tick {
        self.replay.last().map_or(self.as_of(), |binding| binding.tick)
    }

    /// The tick of the checkpoint; tick 0 where there is none.
    #[must_use]
    pub fn as_of(&self) -> Tick {
        self.checkpoint.as_ref().map_or(Tick(0), |manifest| manifest.tick)
    }

    /// Folds the records from the floor of `checkpoint` (position 0 without one) to the end.
    ///
    /// # Errors
    /// [`Ended::Journal`] for a gap, another incarnation's record, a record of a generation that had been fenced, ticks
    /// that do not grow, ranges that do not follow each other, and a manifest that does not belong to the checkpoint.
    pub fn fold(
        incarnation: Incarnation,
        records: &BTreeMap<Seq, JournalRecord>,
        checkpoint: Option<(CheckpointEntry, Manifest)>,
    ) -> Result<Self, Ended> {
        let floor = checkpoint.as_ref().map_or(Seq(0), |(entry, _)| entry.floor);
        let mut history = Self::over(incarnation, checkpoint)?;
        let mut expected = floor;
        for (seq, record) in records.range(floor..) {
            if *seq != expected {
                return Err(JournalFault::RecordMissing { at: expected }.into());
            }
            expected = seq.next();
            if record.incarnation != incarnation {
                let (at, is, own) = (*seq, record.incarnation, incarnation);
                return Err(JournalFault::RecordOfAnother { at, is, own }.into());
            }
            for entry in &record.entries {
                history.take(*seq, record, entry)?;
            }
        }
        Ok(history)
    }

    fn over(incarnation: Incarnation, checkpoint: Option<(CheckpointEntry, Manifest)>) -> Result<Self, Ended> {
        let manifest = match checkpoint {
            Some((entry, manifest)) if manifest.incarnation != incarnation || manifest.tick != entry.tick => {
                let fault = JournalFault::ManifestOfAnother {
                    manifest: entry.manifest,
                    is: manifest.tick,
                    incarnation: manifest.incarnation,
                    at: entry.at,
                    tick: entry.tick,
                    own: incarnation,
                };
                return Err(fault.into());
            }
            Some((_, manifest)) => Some(manifest),
            None => None,
        };
        Ok(Self {
            splits: manifest.iter().flat_map(|m| &m.splits).map(|s| (s.start.number, s.clone())).collect(),
            new_splits: Vec::new(),
            sinks: manifest.iter().flat_map(|m| m.sinks.clone()).collect(),
            replay: Vec::new(),
            reconciliation: None,
            reconciled_by: None,
            programs: manifest.iter().map(|m| m.program.clone()).collect(),
            most_slots: manifest.as_ref().map_or(0, |m| m.most_slots),
            most_turns: manifest.as_ref().map_or(0, |m| m.most_turns),
            writer: None,
            opened: None,
            checkpoint: manifest,
        })
    }

    fn take(&mut self, seq: Seq, record: &JournalRecord, entry: &Entry) -> Result<(), Ended> {
        let writer = (record.generation, record.nonce);
        if let Entry::Opened { program, processes, turns, .. } = entry {
            self.most_slots = self.most_slots.max(*processes);
            self.most_turns = self.most_turns.max(*turns);
            // One that lost the race to open may have a record behind the winner's; it has nothing else.
            if self.writer.is_none_or(|(generation, _)| record.generation >= generation) {
                self.writer = Some(writer);
                self.opened = Some(program.clone());
            }
            return Ok(());
        }
        // The floor may lie behind the opened record of the generation that wrote there.
        if *self.writer.get_or_insert(writer) != writer {
            return Err(JournalFault::RecordOfFenced { at: seq, generation: record.generation }.into());
        }
        // One that only opened, and was refused or ended before it minted anything, has no part in the output's logic.
        self.programs.extend(self.opened.clone());
        match entry {
            Entry::Binding(binding) => self.bind(seq, binding)?,
            Entry::SplitStarted(start) => {
                self.splits.entry(start.number).or_insert_with(|| {
                    self.new_splits.push(start.number);
                    SplitState { start: start.clone(), position: start.offset, last: None, caught_up_ms: 0 }
                });
            }
            Entry::SinkStarted(start) => {
                if !self.sinks.iter().any(|sink| sink.output == start.output) {
                    self.sinks.push(start.clone());
                }
            }
            Entry::Reconciled { tick, rewound, recreated } if *tick > self.as_of() => {
                self.reconciled(*tick, rewound, recreated);
                self.reconciled_by = self.opened.clone();
            }
            Entry::Compacted { tick } if *tick > self.as_of() => self.compacted(*tick),
            Entry::Upgraded { tick } if *tick > self.as_of() => {
                self.upgraded(*tick);
                self.reconciled_by = self.opened.clone();
            }
            Entry::Reconciled { .. } | Entry::Compacted { .. } | Entry::Upgraded { .. } => self.reconciliation = None,
            Entry::Opened { .. } | Entry::Checkpoint { .. } => {}
        }
        Ok(())
    }

    /// Takes the input as it is from `tick` on: nothing of a split that was rewound lies behind its end, in the checkpoint
    /// and in the bindings after it, whose digests no longer count. An output that was recreated is known by the identity
    /// that it has since.
    pub fn reconciled(&mut self, tick: Tick, rewound: &[Rewound], recreated: &[Recreated]) {
        self.corrected(Reconciliation { tick, compare: Compare::Nothing });
        for Recreated { output, identity } in recreated {
            for sink in self.sinks.iter_mut().filter(|sink| &sink.output == output) {
                sink.identity.clone_from(identity);
            }
        }
        for Rewound { split, to } in rewound {
            let of_checkpoint = self.checkpoint.iter_mut().flat_map(|manifest| &mut manifest.splits);
            for state in of_checkpoint.chain(self.splits.values_mut()).filter(|state| state.start.number == *split) {
                state.position = state.position.min(*to);
                state.last = state.last.take().filter(|last| last.to <= *to);
            }
            let ranges = self.replay.iter_mut().flat_map(|binding| &mut binding.ranges);
            for range in ranges.filter(|range| range.split == *split) {
                (range.from, range.to) = (range.from.min(*to), range.to.min(*to));
            }
        }
    }

    /// Goes on without records that compaction removed, and corrects the outputs at `tick`.
    pub fn compacted(&mut self, tick: Tick) {
        self.corrected(Reconciliation { tick, compare: Compare::AllButCompacted });
    }

    /// Goes on with the input as it was, and corrects the outputs at `tick` to what a program computes that was approved.
    pub fn upgraded(&mut self, tick: Tick) {
        self.reconciliation = Some(Reconciliation { tick, compare: Compare::All });
    }

    fn corrected(&mut self, reconciliation: Reconciliation) {
        self.reconciliation = Some(reconciliation);
        // A checkpoint from there on vouches for nothing that was read first before it.
        self.splits.values_mut().for_each(|state| state.last = None);
    }

    fn bind(&mut self, seq: Seq, binding: &Binding) -> Result<(), Ended> {
        if binding.tick <= self.as_of() {
            return Ok(());
        }
        if binding.tick <= self.sealed() {
            return Err(JournalFault::TickOutOfOrder { at: seq, tick: binding.tick, sealed: self.sealed() }.into());
        }
        for range in &binding.ranges {
            advance(&mut self.splits, range).map_err(|what| JournalFault::RangeOutOfOrder { at: seq, what })?;
        }
        self.replay.push(Binding { checkpoint: false, ..binding.clone() });
        Ok(())
    }
}

/// Moves a split past `range`, which must begin where the split stands.
pub(crate) fn advance(splits: &mut BTreeMap<SplitNumber, SplitState>, range: &Range) -> Result<(), String> {
    let Some(split) = splits.get_mut(&range.split) else {
        return Err(format!("has a range of split {}, which has not started", range.split.0));
    };
    if range.from != split.position || range.to < range.from {
        return Err(format!(
            "has {} of split {} of source {}, which stands at {}",
            describe_offsets(range.from, range.to),
            split.start.split,
            split.start.source,
            split.position
        ));
    }
    split.position = range.to;
    split.last = Some(range.clone());
    Ok(())
}
