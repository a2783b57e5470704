//! Compares input that is read again with the journal's counts and digests.
//!
//! The source says itself whether it may have lost records in the middle, and is asked only when some are missing. Records
//! before the checkpoint are in the state: of those that compaction has removed, only the comparison is lost.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use fluvial_connector::{Compaction, Digest, Error, ErrorKind, Source, SplitId, describe_offsets};
use fluvial_protocol::journal::Range;
use fluvial_protocol::{Compare, Removed, System};

use super::split::{Expected, Split};
use crate::runtime::ambient;
use crate::runtime::failure::Failure;

/// Compares ranges of the splits of one source.
pub(super) struct Comparison<'a> {
    pub(super) source: &'a dyn Source,
    pub(super) name: &'a str,
    /// See [`super::DeclaredSource::only_newest`].
    pub(super) only_newest: bool,
    pub(super) compare: Compare,
    pub(super) cannot_correct: Option<&'a str>,
    pub(super) patience: Duration,
    pub(super) known: &'a mut Known,
}

/// The facts about a source's compaction.
#[derive(Default)]
pub(super) struct Known {
    /// The answer of the source, once it has been asked.
    compaction: Option<Option<Compaction>>,
    /// The records that are gone from the last ranges before the checkpoint.
    pub(super) before: Missing,
    /// The records that are gone from the ranges after it.
    pub(super) after: Missing,
}

/// Records that compaction removed.
#[derive(Default)]
pub(super) struct Missing {
    splits: BTreeSet<SplitId>,
    records: u64,
    /// How many records the ranges that lack some had.
    of: u64,
}

impl Missing {
    fn add(&mut self, split: &SplitId, range: &Range, count: u64) {
        self.splits.insert(split.clone());
        self.records += range.count - count;
        self.of += range.count;
    }

    /// Describes the missing records and their splits, and forgets them; `None` if none are missing.
    pub(super) fn take(&mut self) -> Option<String> {
        let Self { splits, records, of } = std::mem::take(self);
        let splits: Vec<&str> = splits.iter().map(|split| split.0.as_str()).collect();
        (records > 0).then(|| format!("{records} of {of} records (splits {})", splits.join(", ")))
    }
}

/// The consequence of a range that differs from the journal.
pub(super) enum Verdict {
    /// The job goes on.
    GoOn,
    /// Only the next generation can continue. The text describes the records that are gone.
    Compacted(String),
}

impl Comparison<'_> {
    /// Decides about a range of which `count` records that sum to `digest` are there now.
    pub(super) fn judge(
        &mut self,
        split: &Split,
        expected: &Expected,
        count: u64,
        digest: Digest,
    ) -> Result<Verdict, Failure> {
        let Expected { range, keep } = expected;
        let Range { from, to, count: was, .. } = range;
        let (name, offsets) = (split.name(self.source), describe_offsets(*from, *to));
        if self.compare == Compare::Nothing {
            if !keep {
                tracing::warn!(
                    "{name} no longer holds the records that were read at {offsets}, the last range before the \
                     checkpoint. The state keeps their effect, and records now at these offsets are not read. To start \
                     without them, run a new job under another --name with --reconcile."
                );
            }
            return Ok(Verdict::GoOn);
        }
        // Compaction only removes, and leaves the split's beginning where it is.
        let compaction = if count < *was && *from >= split.begins { self.compaction(&name)? } else { None };
        let Some(compaction) = compaction else { return Err(self.differs(split, range, count, digest)) };
        if !keep {
            self.known.before.add(&split.start.split, range, count);
            return Ok(Verdict::GoOn);
        }
        let removed = Removed {
            source: self.name,
            only_newest: self.only_newest,
            caught_up_ms: split.caught_up_ms,
            deletions_kept: compaction.deletions_kept,
            cannot_correct: self.cannot_correct,
        };
        if let Some(why) = removed.why_not(ambient::now_ms()) {
            let what = format!(
                "{name} no longer holds what was read at {offsets}, which has to be read again after the newest \
                 checkpoint: {was} records then, {count} now, as it is compacted; the job cannot go on without \
                 them: {why}; `run --reconcile` goes on from the input as it is; {}",
                compaction.cure
            );
            return Err(Failure::of(System::Source, Error::new(ErrorKind::Data, what)));
        }
        if self.compare == Compare::AllButCompacted {
            self.known.after.add(&split.start.split, range, count);
            return Ok(Verdict::GoOn);
        }
        Ok(Verdict::Compacted(format!(
            "{name} is compacted and holds only {count} of the {was} records at {offsets}, which have to be read again"
        )))
    }

    fn compaction(&mut self, name: &str) -> Result<Option<Compaction>, Failure> {
        if self.known.compaction.is_none() {
            let answer = self.source.compaction(self.patience).map_err(|error| {
                let what = format!(
                    "{name} lacks records that were read before, and the source could not say whether it is \
                     compacted; `run --reconcile` goes on from the input as it is"
                );
                let kind = if error.kind == ErrorKind::Configuration { ErrorKind::Data } else { error.kind };
                Failure::of(System::Source, Error::caused(kind, what, error))
            })?;
            self.known.compaction = Some(answer);
        }
        Ok(self.known.compaction.clone().flatten())
    }

    /// The failure that the records that are read again are not those that were read first.
    fn differs(&self, split: &Split, range: &Range, count: u64, digest: Digest) -> Failure {
        let name = split.name(self.source);
        let Range { from, to, count: was_count, digest: was_digest, .. } = range;
        let offsets = describe_offsets(*from, *to);
        let what = if *from < split.begins {
            format!(
                "{name} begins at offset {} now: the records at {offsets}, which have to be read again, are gone \
                 (retention, or a topic that was truncated); `run --reconcile` goes on from the input as it is",
                split.begins
            )
        } else {
            format!(
                "{name} no longer holds what was read at {offsets}: {was_count} records with digest {was_digest} then, \
                 {count} with {digest} now (truncated or recreated, or compacted before its settings \
                 changed); `run --reconcile` goes on from the input as it is"
            )
        };
        Failure::of(System::Source, Error::new(ErrorKind::Data, what))
    }
}
