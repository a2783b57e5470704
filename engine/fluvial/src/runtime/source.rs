//! Drives the sources on one worker: reads ahead, reports what was read, releases it at its tick.
//!
//! ```text
//!             ┌ verify: the last range before the checkpoint, compared and dropped
//!  a split's ─┤ replay: the ranges of the journal's bindings, compared and kept for their tick
//!    life     └ live:   whatever comes, reported to the leader, kept until its tick is minted
//! ```
//!
//! Guarantees: records go into the dataflow exactly as the bindings say; a replay that reads anything else than what the
//! journal's counts and digests say ends with an error. Does not mint, and does not know what is sealed.

mod compare;
mod split;
mod stall;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use fluvial_connector::{Digest, Error, ErrorKind, Offset, Record, Slot, SplitReader, Tick, Waker, describe_offsets};
use fluvial_protocol::journal::{Binding, Range, SplitName, SplitNumber, SplitStart};
use fluvial_protocol::manifest::SplitState;
use fluvial_protocol::{Compare, Ended, FoundSplit, Mismatch, Passed, Splits, Standing, System, split_owner};

use super::ambient;
use super::failure::Failure;
use super::leader::Ends;
use crate::job::source::DeclaredSource;
use crate::stream::context::{self, in_operator};
use compare::{Comparison, Known};
pub(crate) use split::Volume;
use split::{Expected, Split};
use stall::Stall;

/// The most records that one poll of a reader hands over.
const MOST_RECORDS_A_POLL: usize = 8192;

/// How often the log repeats which splits a replay waits for.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// How a worker reads.
#[derive(Clone, Debug)]
pub(crate) struct ReadOptions {
    /// How much may wait for its tick before the readers are left alone. Records count only after the journal's replay:
    /// in it, it is the journal that says how far to read.
    pub(crate) most_waiting: Volume,
    /// How replayed ranges are compared with the journal's digests.
    pub(crate) compare: Compare,
    /// See [`fluvial_protocol::Plan::cannot_correct`].
    pub(crate) cannot_correct: Option<String>,
    /// How long to wait for the source's answer.
    pub(crate) patience: Duration,
}

/// The sources of one worker.
pub(crate) struct SourceDriver {
    worker: u32,
    workers: u32,
    options: ReadOptions,
    sources: Vec<Reading>,
    splits: Vec<Split>,
    by_number: BTreeMap<SplitNumber, usize>,
    replay: VecDeque<Binding>,
    /// Every split of the job that has been met, whoever reads it.
    known: BTreeSet<SplitName>,
    /// The newest answers of the sources about the splits that this worker reads.
    said: Splits,
    /// The offsets at which the job stops reading, if it stops at the end of its input. They are known before anything
    /// is read, because records that have been read cannot be left out of the range that is reported next.
    ends: Option<Ends>,
    /// How many records were left out because they could not be decoded.
    skipped: u64,
}

struct Reading {
    declared: DeclaredSource,
    reader: Box<dyn SplitReader>,
    splits: usize,
    known: Known,
    /// Whether the reader has had no more records since the source's last answer about its splits.
    drained: bool,
    /// Whether its client receives anything.
    stall: Stall,
}

impl SourceDriver {
    pub(crate) fn new(
        worker: u32,
        workers: u32,
        options: ReadOptions,
        stop_at: Option<Ends>,
        declared: Vec<DeclaredSource>,
        waker: &Waker,
    ) -> Result<Self, Failure> {
        let mut sources = Vec::new();
        for declared in declared {
            let reader = declared.source.reader(waker.clone()).map_err(|e| Failure::of(System::Source, e))?;
            let (known, stall) = (Known::default(), Stall::new(options.patience));
            sources.push(Reading { declared, reader, splits: 0, known, drained: false, stall });
        }
        Ok(Self {
            worker,
            workers,
            options,
            sources,
            splits: Vec::new(),
            by_number: BTreeMap::new(),
            replay: VecDeque::new(),
            known: BTreeSet::new(),
            said: Splits::default(),
            ends: stop_at,
            skipped: 0,
        })
    }

    /// Takes the newest answers of sources, and starts to read the splits that have become available.
    ///
    /// # Errors
    /// A split was recreated; or it ends before the end of its bound input, so that input which was read is lost; or it
    /// begins after that, so that input which was never read is lost. The last case is no error if the input is
    /// accepted as it is. Or a client has received nothing for the patience although there is more to read.
    pub(crate) fn found(&mut self, found: &[FoundSplit]) -> Result<(), Failure> {
        self.said.hear(found).map_err(Ended::from)?;
        self.said.refuse_truncated().map_err(Ended::from)?;
        self.refuse_stalled(found)?;
        (0..self.splits.len()).try_for_each(|number| self.start_if_available(number))?;
        self.say_what_the_replay_waits_for();
        Ok(())
    }

    /// Takes over a split that stands as in the checkpoint; does nothing for a split of another worker.
    /// [`SourceDriver::found`] begins to read it.
    pub(crate) fn resume(&mut self, state: &SplitState) -> Result<(), Failure> {
        self.take_over(&state.start, state.position, state.last.as_ref(), Some(state.caught_up_ms))
    }

    /// Takes over a split that the checkpoint does not know, as [`SourceDriver::resume`].
    /// `caught_up_ms` is that of [`fluvial_protocol::Plan::caught_up_ms`].
    pub(crate) fn begin(&mut self, start: &SplitStart, caught_up_ms: Option<u64>) -> Result<(), Failure> {
        self.take_over(start, start.offset, None, caught_up_ms)
    }

    /// `last` is the last range before `position`, which is read again.
    fn take_over(
        &mut self,
        start: &SplitStart,
        position: Offset,
        last: Option<&Range>,
        caught_up_ms: Option<u64>,
    ) -> Result<(), Failure> {
        let name = start.name();
        self.known.insert(name.clone());
        let source = self.sources.iter().find(|s| s.declared.name == start.source);
        if let Some(Reading { declared, .. }) = source {
            context::named(start.number, declared.source.describe_split(&start.split));
        }
        if split_owner(start.number, self.workers) != self.worker {
            return Ok(());
        }
        let Some(source) = self.sources.iter().position(|s| s.declared.name == start.source) else {
            return Err(Ended::from(Mismatch::SourceMissing { source_name: start.source.clone() }).into());
        };
        let reading = &mut self.sources[source];
        let slot = Slot(u32::try_from(reading.splits).expect("splits are few"));
        reading.declared.input.add_split(start.number, &start.split);
        self.by_number.insert(start.number, self.splits.len());
        self.splits.push(Split {
            start: start.clone(),
            source,
            slot,
            expected: last.map(|range| Expected { range: range.clone(), keep: false }).into_iter().collect(),
            started: false,
            waits_said: None,
            available: true,
            begins: Offset(0),
            next_from: last.map_or(position, |range| range.from),
            digest: Digest::default(),
            volume: Volume::default(),
            waiting: VecDeque::new(),
            all_waiting: Volume::default(),
            until: self.ends.as_ref().and_then(|ends| ends.get(&name).copied()),
            told_passed: Offset(0),
            paused: false,
            caught_up_ms,
            compacted: None,
        });
        reading.splits += 1;
        Ok(())
    }

    /// A split was met while the job runs: its source has just said that it can be read from its start on.
    pub(crate) fn start_split(&mut self, start: &SplitStart) -> Result<(), Failure> {
        let before = self.splits.len();
        self.begin(start, None)?;
        (before..self.splits.len()).try_for_each(|number| {
            self.said.met(start);
            self.start_if_available(number)
        })
    }

    /// Bindings to replay, ascending; to be called once, when all splits of the plan are known. Each is read from when its
    /// source says that it is available ([`SourceDriver::found`]).
    pub(crate) fn replay(&mut self, bindings: &[Binding]) {
        self.replay = bindings.iter().cloned().collect();
        for binding in bindings {
            for range in &binding.ranges {
                if let Some(&split) = self.by_number.get(&range.split) {
                    self.splits[split].expected.push_back(Expected { range: range.clone(), keep: true });
                }
            }
        }
        for split in &self.splits {
            self.said.add(&split.start, split.bound());
        }
    }

    /// Refuses a reader whose client receives nothing, although the source says in several answers that there is more to
    /// read. The leader's process has received these answers, so this is no outage of the source: this process does not reach
    /// it, and others may.
    fn refuse_stalled(&mut self, found: &[FoundSplit]) -> Result<(), Failure> {
        for (number, Reading { declared, reader, drained, stall, .. }) in self.sources.iter_mut().enumerate() {
            let found = || found.iter().filter(|found| found.source == declared.name);
            let Some(FoundSplit { asked_ms, .. }) = found().next() else { continue };
            // Of a worker that is busy with what it has received, no more is known.
            let Some(answers) = reader.answers().filter(|_| std::mem::take(drained)) else { continue };
            let mut of_reader =
                self.splits.iter().filter(|split| split.source == number && split.started && !split.paused);
            let goes_on = |split: &&Split| {
                let found = found().find(|found| found.split == split.start.split);
                found.and_then(|found| found.availability.end()).is_some_and(|end| reader.position(split.slot) < end)
            };
            let split = of_reader.find(goes_on);
            if let Some(for_s) = stall.hear(split.is_some(), answers, *asked_ms)
                && let Some(split) = split
            {
                let what = format!(
                    "this process has received nothing from the source '{}' for {for_s} s, although {} has more records: \
                     the source answers other clients and not this one",
                    declared.name,
                    split.name(declared.source.as_ref())
                );
                return Err(Failure::of(System::Source, Error::new(ErrorKind::Retry, what)));
            }
        }
        Ok(())
    }

    fn start_if_available(&mut self, number: usize) -> Result<(), Failure> {
        let split = &mut self.splits[number];
        let standing = self.said.standing(&split.start.name());
        split.available = !matches!(standing, Standing::Unavailable { .. });
        match standing {
            _ if split.started => Ok(()),
            Standing::Available { earliest } => {
                split.begins = *earliest;
                self.start_reading(number)
            }
            // The reader reports what it means that the split is missing.
            Standing::Missing => self.start_reading(number),
            Standing::Unknown | Standing::Unavailable { .. } | Standing::InDoubt | Standing::Truncated { .. } => Ok(()),
        }
    }

    /// Starts the reader of a split that is available, if the split is what the journal says of it.
    ///
    /// A split that begins later by now is read from its new beginning. If records are gone that the journal binds,
    /// their digests tell whether they were needed. If records after these are gone, this function refuses the split.
    fn start_reading(&mut self, number: usize) -> Result<(), Failure> {
        let split = &mut self.splits[number];
        let reading = &mut self.sources[split.source];
        let source = reading.declared.source.as_ref();
        let bound = split.bound();
        let begins = split.begins;
        if bound < begins && self.options.compare != Compare::Nothing {
            let what = format!(
                "{} begins at offset {begins} now, and has been read up to {bound}: the records between are lost \
                 (retention, or a topic that was truncated or recreated); `run --reconcile` goes on from the input \
                 as it is",
                split.name(source)
            );
            return Err(Failure::of(System::Source, Error::new(ErrorKind::Data, what)));
        }
        let compared = split.expected.front().filter(|expected| !expected.keep).map(|expected| &expected.range);
        if let Some(last) = compared.filter(|last| last.from < begins) {
            // The state contains the effect of these records, so only their comparison is lost.
            let SplitStart { source, split: name, .. } = &split.start;
            let from = last.from;
            tracing::warn!(
                split = %name, source, %begins, %from,
                "the last records that were read before the checkpoint are gone and cannot be compared"
            );
            split.next_from = last.to;
            split.expected.pop_front();
        }
        let from = split.next_from.max(begins);
        reading.reader.start(split.slot, &split.start.split, from).map_err(|e| Failure::of(System::Source, e))?;
        split.started = true;
        Ok(())
    }

    /// Logs which splits the replay cannot go on without, once their sources have answered.
    fn say_what_the_replay_waits_for(&mut self) {
        for split in self.splits.iter_mut().filter(|split| !split.started) {
            let Some((from, to)) = split.to_replay() else { continue };
            let standing = self.said.standing(&split.start.name());
            let Some(why) = standing.why_not().filter(|_| *standing != Standing::Unknown) else { continue };
            if split.waits_said.is_some_and(|said| said.elapsed() < SAY_AGAIN) {
                continue;
            }
            split.waits_said = Some(ambient::instant());
            let name = split.name(self.sources[split.source].declared.source.as_ref());
            tracing::warn!(
                "the start waits for {name}, whose {} must be read again: {why}; it goes on by itself when the split \
                 is available",
                describe_offsets(from, to)
            );
        }
    }

    /// Whether the ranges before the checkpoint have been compared, except those of unavailable splits, which are
    /// compared before anything else of these splits is read.
    pub(crate) fn verified(&self) -> bool {
        self.splits.iter().all(|split| !split.available || !split.compares())
    }

    /// Whether all of the journal's bindings are in the dataflow.
    pub(crate) fn replayed(&self) -> bool {
        self.replay.is_empty()
    }

    /// Whether the job stops at the end of its input, and all of this worker's has been reported.
    pub(crate) fn at_end(&self) -> bool {
        let Some(ends) = &self.ends else { return false };
        self.replayed()
            && ends.keys().all(|split| self.known.contains(split))
            && self.splits.iter().all(|split| {
                if !split.started {
                    return false;
                }
                let position = self.sources[split.source].reader.position(split.slot);
                split.volume.records == 0
                    && !split.misses_its_begin()
                    && split.expected.is_empty()
                    && split.until.is_none_or(|until| position >= until)
            })
    }

    /// Reads what there is, within the limits. Returns whether there may be more at once.
    pub(crate) fn read(&mut self) -> Result<bool, Failure> {
        // While something is read again (the journal's ticks, and the last range before the checkpoint), what that still
        // needs has to be read, however much waits; then the other splits are paused, and resumed when half is gone. After
        // that it is enough not to ask the readers.
        let replayed = self.replayed();
        let reads_again = !replayed || !self.verified();
        let most = self.options.most_waiting;
        let mut waiting = Volume::default();
        for split in &self.splits {
            waiting.add(split.volume);
            waiting.add(split.all_waiting);
        }
        let full = waiting.bytes >= most.bytes || replayed && waiting.records >= most.records;
        let much = waiting.bytes >= most.bytes / 2;
        let mut wanted = false;
        for split in self.splits.iter_mut().filter(|split| split.started) {
            let next = self.replay.front().and_then(|b| b.ranges.iter().find(|r| r.split == split.start.number));
            let position = || self.sources[split.source].reader.position(split.slot);
            // What the journal binds is read, also after the end that a run is to stop at.
            let at_end = split.expected.is_empty() && split.until.is_some_and(|until| position() >= until);
            let goes_on = split.compacted.is_none() && !at_end;
            let compares = split.available && split.compares();
            let needed = goes_on && (next.is_some_and(|range| split.next_from < range.to) || compares);
            wanted |= needed;
            let pause = !goes_on || reads_again && !needed && (full || split.paused && much);
            if pause != split.paused {
                self.sources[split.source]
                    .reader
                    .set_paused(split.slot, pause)
                    .map_err(|e| Failure::of(System::Source, e))?;
                split.paused = pause;
            }
        }
        let mut more = false;
        for source in 0..self.sources.len() {
            if !full || wanted {
                more |= self.poll(source)?;
            }
        }
        self.note_what_is_gone();
        Ok(more)
    }

    /// Logs once which records could not be compared.
    fn note_what_is_gone(&mut self) {
        let (verified, replayed) = (self.verified(), self.replayed());
        for Reading { declared, known, .. } in &mut self.sources {
            if verified && let Some(missing) = known.before.take() {
                tracing::info!(
                    "{} was compacted: {missing} of the last range before the checkpoint are gone. The checkpoint \
                     contains their effect; the digest of the remaining records cannot be verified.",
                    declared.source.describe()
                );
            }
            if replayed && let Some(missing) = known.after.take() {
                tracing::warn!(
                    "{} was compacted: {missing} that had to be replayed are gone. The remaining records have been \
                     replayed, and the outputs are being corrected; the digest of the remaining records cannot be \
                     verified.",
                    declared.source.describe()
                );
            }
        }
    }

    /// Describes records that compaction removed and without which only the next generation can continue, if there are
    /// any.
    pub(crate) fn compacted(&self) -> Option<&str> {
        self.splits.iter().find_map(|split| split.compacted.as_deref())
    }

    fn poll(&mut self, source: usize) -> Result<bool, Failure> {
        let Self { sources, splits, skipped, options, .. } = self;
        let reading = &mut sources[source];
        let mut by_slot: Vec<&mut Split> = splits.iter_mut().filter(|s| s.source == source).collect();
        let mut failed = None;
        let Reading { declared, reader, known, drained, .. } = reading;
        let DeclaredSource { name, source: described, input, on_malformed, only_newest } = declared;
        let described = described.as_ref();
        let mut comparison = Comparison {
            source: described,
            name,
            only_newest: *only_newest,
            compare: options.compare,
            cannot_correct: options.cannot_correct.as_deref(),
            patience: options.patience,
            known,
        };
        let mut each = |slot: Slot, record: Record<'_>| {
            if failed.is_some() {
                return;
            }
            let split = &mut *by_slot[slot.0 as usize];
            let taken = split
                .finish_ranges(record.offset, &mut comparison, input.as_mut())
                .and_then(|()| split.take(&record, described, input.as_mut(), *on_malformed, skipped));
            failed = taken.err();
        };
        let polled = in_operator("source", || reader.poll(MOST_RECORDS_A_POLL, &mut each));
        let polled = polled.map_err(|e| Failure::of(System::Source, e))?;
        *drained |= polled == 0;
        if let Some(failure) = failed {
            return Err(failure);
        }
        for split in by_slot.into_iter().filter(|split| split.started) {
            let position = reader.position(split.slot);
            split.finish_ranges(position, &mut comparison, input.as_mut())?;
        }
        Ok(polled > 0)
    }

    /// The ranges that have been read since the last report, and how many bytes they have.
    pub(crate) fn report(&mut self) -> Option<(Vec<Range>, u64)> {
        let mut ranges = Vec::new();
        let mut all_bytes = 0;
        for split in &mut self.splits {
            if !split.started || (split.volume.records == 0 && !split.misses_its_begin()) || !split.expected.is_empty()
            {
                continue;
            }
            let reading = &mut self.sources[split.source];
            let mut to = reading.reader.position(split.slot);
            if let Some(until) = split.until {
                to = to.min(until);
            }
            reading.declared.input.cut(split.slot, to);
            let (digest, volume) = split.take_totals();
            ranges.push(Range { split: split.start.number, from: split.next_from, to, count: volume.records, digest });
            split.cut(to, volume);
            all_bytes += volume.bytes;
        }
        (!ranges.is_empty()).then_some((ranges, all_bytes))
    }

    /// The splits whose reader has passed offsets without a record since the last report and the last call. No binding
    /// holds these offsets yet: they become part of the range of the next record.
    pub(crate) fn passed(&mut self) -> Vec<Passed> {
        let mut all = Vec::new();
        for split in &mut self.splits {
            let to = self.sources[split.source].reader.position(split.slot);
            let is_idle = split.volume.records == 0 && split.expected.is_empty() && !split.misses_its_begin();
            if is_idle && to > split.next_from.max(split.told_passed) {
                split.told_passed = to;
                all.push(Passed { split: split.start.number, from: split.next_from, to });
            }
        }
        all
    }

    /// Puts the next of the journal's ticks into the dataflow, if all of it has been read. Returns the tick.
    pub(crate) fn replay_next(&mut self) -> Option<Binding> {
        let binding = self.replay.front()?;
        let read = binding.ranges.iter().all(|range| match self.by_number.get(&range.split) {
            Some(&split) => self.splits[split].next_from >= range.to,
            None => true,
        });
        if !read {
            return None;
        }
        let binding = self.replay.pop_front()?;
        self.release(&binding);
        Some(binding)
    }

    /// Puts a minted tick's records into the dataflow.
    pub(crate) fn release(&mut self, binding: &Binding) {
        context::entered(binding);
        for range in &binding.ranges {
            let Some(&split) = self.by_number.get(&range.split) else { continue };
            let split = &mut self.splits[split];
            self.sources[split.source].declared.input.release(split.slot, range.to);
            split.release(range.to);
        }
        for reading in &mut self.sources {
            reading.declared.input.send(binding.tick.0);
        }
    }

    /// Tells the dataflow that nothing comes at or before `tick`: the restored state is of that tick.
    pub(crate) fn begin_after(&mut self, tick: Tick) {
        for reading in &mut self.sources {
            reading.declared.input.send(tick.0);
        }
    }
}
