//! What the journal says, folded: where a new generation goes on from.

use std::collections::BTreeMap;

use fluvial_connector::{Generation, Incarnation, Tick};

use super::Ended;
use crate::journal::{Binding, Entry, JournalRecord, Nonce, Range, Seq, SinkStart, SplitNumber};
use crate::state::{Manifest, SplitState};

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
pub fn newest_checkpoint(records: &BTreeMap<Seq, JournalRecord>) -> Option<CheckpointEntry> {
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
pub fn is_kept(record: &JournalRecord) -> bool {
    record.entries.is_empty() || record.entries.iter().any(|e| matches!(e, Entry::Opened { .. }))
}

/// A journal, folded from its floor to its end over the manifest of its newest checkpoint.
#[derive(Clone, Debug)]
pub struct History {
    /// The job.
    pub incarnation: Incarnation,
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
    pub reconcile: Option<Tick>,
    /// The most workers and turns that any generation has had.
    pub most_workers: u32,
    /// See `most_workers`.
    pub most_turns: u32,
    writer: Option<(Generation, Nonce)>,
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
    /// [`Ended::Refused`] for a gap, another incarnation's record, a record of a generation that had been fenced, ticks
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
                return Err(Ended::journal(expected, "is missing"));
            }
            expected = seq.next();
            if record.incarnation != incarnation {
                let what = format!("is of incarnation {}, not of {incarnation}", record.incarnation);
                return Err(Ended::journal(*seq, what));
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
                return Err(Ended::Refused(format!(
                    "the manifest {} is of tick {} of incarnation {}; the journal's record {} names it as the checkpoint \
                     of tick {} of {incarnation}",
                    entry.manifest, manifest.tick, manifest.incarnation, entry.at, entry.tick
                )));
            }
            Some((_, manifest)) => Some(manifest),
            None => None,
        };
        Ok(Self {
            incarnation,
            splits: manifest.iter().flat_map(|m| &m.splits).map(|s| (s.start.number, s.clone())).collect(),
            new_splits: Vec::new(),
            sinks: manifest.iter().flat_map(|m| m.sinks.clone()).collect(),
            replay: Vec::new(),
            reconcile: None,
            most_workers: manifest.as_ref().map_or(0, |m| m.most_workers),
            most_turns: manifest.as_ref().map_or(0, |m| m.most_turns),
            writer: None,
            checkpoint: manifest,
        })
    }

    fn take(&mut self, seq: Seq, record: &JournalRecord, entry: &Entry) -> Result<(), Ended> {
        let writer = (record.generation, record.nonce);
        if let Entry::Opened { workers, turns, .. } = entry {
            self.most_workers = self.most_workers.max(*workers);
            self.most_turns = self.most_turns.max(*turns);
            // One that lost the race to open may have a record behind the winner's; it has nothing else.
            if self.writer.is_none_or(|(generation, _)| record.generation >= generation) {
                self.writer = Some(writer);
            }
            return Ok(());
        }
        // The floor may lie behind the opened record of the generation that wrote there.
        if *self.writer.get_or_insert(writer) != writer {
            let what = format!("is of generation {}, which had been fenced before", record.generation);
            return Err(Ended::journal(seq, what));
        }
        match entry {
            Entry::Binding(binding) => self.bind(seq, binding)?,
            Entry::SplitStarted(start) => {
                self.splits.entry(start.number).or_insert_with(|| {
                    self.new_splits.push(start.number);
                    SplitState { start: start.clone(), position: start.offset, last: None, watermark: None }
                });
            }
            Entry::SinkStarted(start) => {
                if !self.sinks.iter().any(|sink| sink.output == start.output) {
                    self.sinks.push(start.clone());
                }
            }
            Entry::SinkStopped { output, .. } => self.sinks.retain(|sink| &sink.output != output),
            Entry::Reconciled { tick } => self.reconcile = Some(*tick).filter(|tick| *tick > self.as_of()),
            Entry::Opened { .. } | Entry::Checkpoint { .. } => {}
        }
        Ok(())
    }

    fn bind(&mut self, seq: Seq, binding: &Binding) -> Result<(), Ended> {
        if binding.tick <= self.as_of() {
            return Ok(());
        }
        if binding.tick <= self.sealed() {
            return Err(Ended::journal(seq, format!("binds tick {} after tick {}", binding.tick, self.sealed())));
        }
        for range in &binding.ranges {
            advance(&mut self.splits, range).map_err(|what| Ended::journal(seq, what))?;
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
            "has offsets {} to {} of split {} of source {}, which stands at {}",
            range.from, range.to, split.start.split, split.start.source, split.position
        ));
    }
    split.position = range.to;
    split.last = Some(range.clone());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use fluvial_connector::{Digest, Envelope, Offset, SplitId};
    use uuid::Uuid;

    use super::*;
    use crate::journal::SplitStart;

    const JOB: Incarnation = Incarnation(Uuid::from_u128(1));

    fn of(generation: u64, nonce: u64, entries: Vec<Entry>) -> JournalRecord {
        JournalRecord { incarnation: JOB, generation: Generation(generation), nonce: Nonce(nonce), entries }
    }

    fn opened(generation: u64, nonce: u64, workers: u32) -> JournalRecord {
        of(generation, nonce, vec![Entry::Opened { binary: "b".to_owned(), workers, turns: 2 }])
    }

    fn split(number: u32) -> Entry {
        let (source, split) = ("in".to_owned(), SplitId(number.to_string()));
        let number = SplitNumber(number);
        Entry::SplitStarted(SplitStart { number, source, split, offset: Offset(10), identity: String::new() })
    }

    fn sink() -> SinkStart {
        SinkStart { output: "out".to_owned(), partitions: 2, envelope: Envelope::Upsert, tick: Tick(0) }
    }

    fn bind(tick: u64, from: u64, to: u64) -> Entry {
        let (from, to, digest) = (Offset(from), Offset(to), Digest::default());
        let range = Range { split: SplitNumber(0), from, to, count: 1, digest };
        Entry::Binding(Binding { tick: Tick(tick), ranges: vec![range], checkpoint: true })
    }

    fn journal(from: u64, records: Vec<JournalRecord>) -> BTreeMap<Seq, JournalRecord> {
        (from..).map(Seq).zip(records).collect()
    }

    fn manifest(tick: u64, position: u64) -> Manifest {
        let Entry::SplitStarted(start) = split(0) else { unreachable!() };
        Manifest {
            incarnation: JOB,
            generation: Generation(1),
            tick: Tick(tick),
            splits: vec![SplitState { start, position: Offset(position), last: None, watermark: None }],
            sinks: vec![sink()],
            outputs: Vec::new(),
            operators: Vec::new(),
            most_workers: 7,
            most_turns: 1,
        }
    }

    fn checkpoint(tick: u64, floor: u64) -> Entry {
        Entry::Checkpoint { tick: Tick(tick), manifest: format!("m{tick}"), floor: Seq(floor) }
    }

    #[test]
    fn a_journal_without_a_checkpoint_is_replayed_from_its_beginning() {
        let begin = of(1, 5, vec![split(0), Entry::SinkStarted(sink())]);
        let records = journal(0, vec![opened(1, 5, 4), begin, of(1, 5, vec![bind(3, 10, 12), bind(4, 12, 12)])]);
        let history = History::fold(JOB, &records, None).unwrap();
        assert_eq!((history.as_of(), history.sealed()), (Tick(0), Tick(4)));
        assert_eq!((history.most_workers, history.most_turns), (4, 2));
        assert_eq!((history.new_splits.len(), history.sinks.len()), (1, 1));
        assert_eq!(history.splits[&SplitNumber(0)].position, Offset(12));
        assert!(history.replay.iter().all(|binding| !binding.checkpoint));
    }

    #[test]
    fn a_checkpoint_covers_what_is_at_or_before_its_tick() {
        let records = journal(
            8,
            vec![
                of(1, 5, vec![bind(3, 10, 12), bind(4, 12, 14)]),
                of(1, 5, vec![split(1), Entry::Reconciled { tick: Tick(3) }, bind(6, 14, 15)]),
                of(1, 5, vec![checkpoint(4, 8)]),
                of(2, 6, Vec::new()),
                opened(2, 6, 3),
            ],
        );
        let found = newest_checkpoint(&records).unwrap();
        assert_eq!((found.at, found.tick, found.floor), (Seq(10), Tick(4), Seq(8)));
        let history = History::fold(JOB, &records, Some((found, manifest(4, 14)))).unwrap();
        assert_eq!((history.as_of(), history.sealed()), (Tick(4), Tick(6)));
        assert_eq!(history.replay.len(), 1);
        assert_eq!(history.new_splits, [SplitNumber(1)]);
        assert_eq!((history.most_workers, history.most_turns), (7, 2));
        assert_eq!(history.reconcile, None, "the checkpoint covers it");
    }

    #[test]
    fn what_cannot_have_been_written_is_refused() {
        let check = |records: Vec<JournalRecord>, expected: &str| {
            let error = History::fold(JOB, &journal(0, records), None).unwrap_err();
            assert!(matches!(&error, Ended::Refused(what) if what.contains(expected)), "{error}");
        };
        let begin = of(1, 5, vec![split(0), bind(3, 10, 12)]);
        let other = JournalRecord { incarnation: Incarnation(Uuid::from_u128(2)), ..begin.clone() };
        check(vec![opened(1, 5, 1), other], "record 1 is of incarnation");
        check(
            vec![opened(1, 5, 1), begin.clone(), of(1, 5, vec![bind(3, 12, 13)])],
            "record 2 binds tick 3 after tick 3",
        );
        check(vec![opened(1, 5, 1), begin.clone(), of(1, 5, vec![bind(4, 11, 13)])], "offsets 11 to 13 of split 0");
        check(vec![opened(1, 5, 1), of(1, 5, vec![bind(4, 11, 13)])], "split 0, which has not started");
        check(vec![opened(1, 5, 1), opened(2, 6, 1), begin], "generation 1, which had been fenced");
        let mut gap = journal(0, vec![opened(1, 5, 1), of(1, 5, Vec::new()), of(1, 5, Vec::new())]);
        gap.remove(&Seq(1));
        let error = History::fold(JOB, &gap, None).unwrap_err();
        assert!(error.to_string().contains("record 1 is missing"), "{error}");
    }

    #[test]
    fn one_that_lost_the_race_to_open_takes_nothing_from_the_winner() {
        let records = journal(
            0,
            vec![opened(1, 5, 1), opened(3, 7, 1), opened(2, 6, 9), of(3, 7, vec![split(0), bind(3, 10, 12)])],
        );
        let history = History::fold(JOB, &records, None).unwrap();
        assert_eq!((history.sealed(), history.most_workers), (Tick(3), 9));
    }

    #[test]
    fn opened_records_and_no_ops_are_kept() {
        assert!(is_kept(&opened(1, 5, 1)));
        assert!(is_kept(&of(1, 5, Vec::new())));
        assert!(!is_kept(&of(1, 5, vec![bind(3, 10, 12)])));
    }
}
