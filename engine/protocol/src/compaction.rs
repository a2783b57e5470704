//! Records that compaction removed before they were read again: whether a job can go on without them.
//!
//! Compaction keeps, of each key in a split, at least the newest record. A table of the newest record of each key therefore
//! ends where it ended before; only the ticks on the way are different, and upsert outputs can be corrected once everything
//! that is left has been read again. That holds only where nothing but such tables is made of the source, where every
//! output can be corrected, and where the same logic computes it.
//!
//! One kind of newest record does disappear: a deletion, some time after it was written. Where the checkpoint holds a row
//! whose deletion has to be read again and is gone, the row would come back for good. A deletion that was written after
//! the split was last read to its end is kept at least as long as the system says from then on. Half of that time is left to
//! the replay itself and to clocks that differ. A row and its deletion may be in different splits, as partitions of a topic
//! that has got more of them.
//!
//! This decides for one range of one split. It does not know how records are compared, and corrects nothing.

use std::time::Duration;

use fluvial_connector::Tick;
use serde::{Deserialize, Serialize};

use super::history::History;
use super::leader::LeaderConfig;

/// How input that is read again is compared with what was read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// Everything must be as it was.
    All,
    /// So it must, but for records that compaction removed: the outputs are corrected after the replay.
    AllButCompacted,
    /// The input is taken as it is.
    Nothing,
}

/// The outputs are corrected, because not all of the input that is read again is what it was, or because the logic is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciliation {
    /// The tick at which they are.
    pub tick: Tick,
    /// How the input is compared all the same: all of it after an upgrade.
    pub compare: Compare,
}

/// Records that have to be read again and that compaction removed, as the worker that reads the split knows them.
#[derive(Clone, Debug)]
pub struct Removed<'a> {
    /// The source's name in the job.
    pub source: &'a str,
    /// Whether only the newest record of each key counts, whatever the job makes of it.
    pub only_newest: bool,
    /// When the split had nothing that the checkpoint does not hold, in milliseconds since the epoch; `None` where the
    /// checkpoint holds nothing of the source: no row of its state can have been deleted.
    pub caught_up_ms: Option<u64>,
    /// How long the system keeps deletions.
    pub deletions_kept: Duration,
    /// See [`Plan::cannot_correct`](super::Plan::cannot_correct).
    pub cannot_correct: Option<&'a str>,
}

impl Removed<'_> {
    /// Why the job cannot go on without them, if it cannot.
    pub fn why_not(&self, now_ms: u64) -> Option<String> {
        if !self.only_newest {
            return Some(format!(
                "the job does not read the source '{}' as a changelog on which a malformed record ends the job \
                 (`.changelog()`), so older records of a key may count",
                self.source
            ));
        }
        if let Some(why) = self.cannot_correct {
            return Some(why.to_owned());
        }
        let kept = self.deletions_kept / 2;
        let age = Duration::from_millis(now_ms.saturating_sub(self.caught_up_ms?));
        (age > kept).then(|| {
            let known = if self.caught_up_ms == Some(0) {
                "it is not known when the checkpoint last held all of the split".to_owned()
            } else {
                format!("the checkpoint last held all of the split {} s ago", age.as_secs())
            };
            format!(
                "{known}, and deletions written since may be gone as well: they are kept for {} s, of which half is relied \
                 on",
                self.deletions_kept.as_secs()
            )
        })
    }
}

/// Why a generation cannot correct its outputs after compaction, if it cannot: one of them cannot be corrected, or they
/// were written by another program, whose logic may be different.
pub(super) fn cannot_correct(config: &LeaderConfig, history: &History) -> Option<String> {
    if let Some(append) = config.outputs.iter().find(|output| !output.envelope.can_be_corrected()) {
        let kind = crate::ended::cannot_correct(append.envelope);
        return Some(format!("output '{}' is {kind}, which cannot be corrected", append.output));
    }
    let other = history.programs.iter().find(|program| **program != config.program)?;
    Some(format!(
        "this binary with these options (hash {}) is not what wrote the outputs since the checkpoint ({other})",
        config.program
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_goes_on_without_what_was_compacted_only_where_nothing_can_be_wrong_in_the_end() {
        const HOUR: u64 = 3_600_000;
        let removed = Removed {
            source: "orders",
            only_newest: true,
            caught_up_ms: Some(100 * HOUR),
            deletions_kept: Duration::from_secs(24 * 3600),
            cannot_correct: None,
        };
        let check = |removed: Removed<'_>, now_hours: u64, expected: Option<&str>| {
            let why = removed.why_not(now_hours * HOUR);
            assert_eq!(why.is_some(), expected.is_some(), "{removed:?} at {now_hours}: {why:?}");
            assert!(
                why.zip(expected).is_none_or(|(why, expected)| why.contains(expected)),
                "{removed:?}: {expected:?}"
            );
        };
        check(removed.clone(), 100, None);
        check(removed.clone(), 112, None);
        check(removed.clone(), 113, Some("46800 s ago"));
        check(Removed { caught_up_ms: Some(0), ..removed.clone() }, 100, Some("it is not known when"));
        check(
            Removed { deletions_kept: Duration::ZERO, ..removed.clone() },
            101,
            Some("deletions written since may be gone"),
        );
        // Nothing of it is in the state.
        check(Removed { caught_up_ms: None, deletions_kept: Duration::ZERO, ..removed.clone() }, 1000, None);
        check(Removed { only_newest: false, ..removed.clone() }, 100, Some("source 'orders'"));
        check(Removed { cannot_correct: Some("an append output"), ..removed }, 100, Some("an append output"));
    }
}
