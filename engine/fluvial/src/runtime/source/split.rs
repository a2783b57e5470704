//! One split, from its reader to the ticks of its records: the ranges in the journal that are still to be read, the
//! range that is being read, and the ranges that wait for their tick.

use std::collections::VecDeque;
use std::time::Instant;

use fluvial_connector::{Digest, Error, ErrorKind, Offset, Record, Slot, Source, source_digest};
use fluvial_protocol::Exit;
use fluvial_protocol::journal::{Range, SplitStart};

use super::compare::{Comparison, Verdict};
use crate::job::input::SourceInput;
use crate::job::source::OnMalformed;
use crate::runtime::failure::{Failure, chain};
use crate::stream::Origin;
use crate::stream::context;

/// An amount of input.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Volume {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl Volume {
    pub(super) fn of(record: &Record<'_>) -> Self {
        let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        Self { records: 1, bytes: bytes as u64 }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.records -= other.records;
        self.bytes -= other.bytes;
    }
}

/// A range of a split that the journal holds, with a count and a digest.
pub(super) struct Expected {
    pub(super) range: Range,
    /// Whether its records are kept for the tick, or only compared.
    pub(super) keep: bool,
}

/// A split of one of this worker's sources.
pub(super) struct Split {
    pub(super) start: SplitStart,
    /// The index of its source among the worker's.
    pub(super) source: usize,
    /// Its place in the source's reader and in the source's input.
    pub(super) slot: Slot,
    /// The ranges in the journal that are still to be read.
    pub(super) expected: VecDeque<Expected>,
    /// Whether its reader has been started. That waits until the source has said where the split begins and ends.
    pub(super) started: bool,
    /// When the log last said that the replay waits for the split.
    pub(super) waits_said: Option<Instant>,
    /// Whether the split could be read by the newest answer of its source. Nothing waits for an unavailable split,
    /// except for the ranges of it that have to be replayed.
    pub(super) available: bool,
    /// Where the split began in its system when its reader was started.
    pub(super) begins: Offset,
    /// Where the next range begins.
    pub(super) next_from: Offset,
    /// The digest of the range that is being read, so far; `volume` is its size.
    pub(super) digest: Digest,
    pub(super) volume: Volume,
    /// The ranges that wait for their tick: the end and the size of each.
    pub(super) waiting: VecDeque<(Offset, Volume)>,
    /// The size of all waiting ranges together.
    pub(super) all_waiting: Volume,
    /// Where to stop, if the job stops at the end of its input.
    pub(super) until: Option<Offset>,
    /// The offset up to which the leader knows that there is no record after `next_from`.
    pub(super) told_passed: Offset,
    /// Whether the reader is told not to read the split, because too much waits already.
    pub(super) paused: bool,
    /// When the checkpoint was known to hold all of the split; see
    /// [`fluvial_protocol::manifest::SplitState::caught_up_ms`].
    pub(super) caught_up_ms: Option<u64>,
    /// Describes records that compaction removed and without which only the next generation can continue.
    pub(super) compacted: Option<String>,
}

impl Split {
    pub(super) fn name(&self, source: &dyn Source) -> String {
        source.describe_split(&self.start.split)
    }

    /// The offsets that have to be replayed before the job can continue, if there are any.
    pub(super) fn to_replay(&self) -> Option<(Offset, Offset)> {
        let first = self.expected.iter().find(|expected| expected.keep)?;
        Some((first.range.from, self.bound()))
    }

    /// Whether the range before the checkpoint is still to be compared.
    pub(super) fn compares(&self) -> bool {
        self.expected.front().is_some_and(|expected| !expected.keep)
    }

    /// Whether records are gone that no range has passed yet; the next range says so, even if it is empty.
    pub(super) fn misses_its_begin(&self) -> bool {
        self.next_from < self.begins
    }

    /// Adds a range that ends at `to` and waits for its tick.
    pub(super) fn cut(&mut self, to: Offset, volume: Volume) {
        self.waiting.push_back((to, volume));
        self.all_waiting.add(volume);
        self.next_from = to;
    }

    /// Removes the ranges up to `to`, which have been released at their tick.
    pub(super) fn release(&mut self, to: Offset) {
        while let Some((_, volume)) = self.waiting.pop_front_if(|(end, _)| *end <= to) {
            self.all_waiting.subtract(volume);
        }
    }

    /// Ends the range that is being read, and returns its digest and size.
    pub(super) fn take_totals(&mut self) -> (Digest, Volume) {
        (std::mem::take(&mut self.digest), std::mem::take(&mut self.volume))
    }

    /// The end of what the journal binds of the split. To be called before any of that has been read.
    pub(super) fn bound(&self) -> Offset {
        self.expected.back().map_or(self.next_from, |expected| expected.range.to)
    }

    /// Takes one record.
    pub(super) fn take(
        &mut self,
        record: &Record<'_>,
        source: &dyn Source,
        input: &mut dyn SourceInput,
        on_malformed: OnMalformed,
        skipped: &mut u64,
    ) -> Result<(), Failure> {
        if self.compacted.is_some() {
            return Ok(());
        }
        let expected = self.expected.front();
        let behind_the_end = expected.is_none() && self.until.is_some_and(|until| record.offset >= until);
        if behind_the_end || expected.is_some_and(|e| record.offset < e.range.from) {
            return Ok(());
        }
        let keep = expected.is_none_or(|e| e.keep);
        self.volume.add(Volume::of(record));
        self.digest.add(source_digest(record.offset, record.key, record.value));
        if !keep {
            return Ok(());
        }
        context::at_record(Origin::read(self.start.number, record.offset));
        if let Err(error) = input.take(self.slot, record) {
            let what = format!("cannot decode the record at offset {} of {}", record.offset, self.name(source));
            match on_malformed {
                OnMalformed::Fail => {
                    let what = format!(
                        "{what} (with `--on-malformed skip`, where the job has that option, or declared with \
                         OnMalformed::Skip, the source leaves such records out)"
                    );
                    return Err(Failure::new(Exit::Failed, Error::caused(ErrorKind::Data, what, error)));
                }
                OnMalformed::Skip => {
                    *skipped += 1;
                    tracing::warn!(skipped, error = chain(error), "{what}; skipped");
                }
            }
        }
        Ok(())
    }

    /// Ends every expected range that lies wholly before `position`, comparing it with what was read. Where records are
    /// gone without which only the next generation can go on, the split goes no further.
    pub(super) fn finish_ranges(
        &mut self,
        position: Offset,
        comparison: &mut Comparison<'_>,
        input: &mut dyn SourceInput,
    ) -> Result<(), Failure> {
        while self.compacted.is_none()
            && let Some(expected) = self.expected.pop_front_if(|e| e.range.to <= position)
        {
            let (digest, volume) = self.take_totals();
            if (volume.records, digest) != (expected.range.count, expected.range.digest)
                && let Verdict::Compacted(what) = comparison.judge(self, &expected, volume.records, digest)?
            {
                self.compacted = Some(what);
                self.expected.push_front(expected);
                return Ok(());
            }
            let Expected { range, keep } = expected;
            if keep {
                input.cut(self.slot, range.to);
                self.cut(range.to, volume);
            } else {
                input.discard(self.slot);
                self.next_from = range.to;
            }
        }
        Ok(())
    }
}
