//! Reports the step that a committer waits for, so that a job that commits nothing says why.
//!
//! An engine that is blocked looks the same from outside whatever blocks it: a broker, the store, a partition without
//! a leader, a closure that never returns. The committer knows which step is outstanding in every phase, so it decides
//! when there is something to report and what. It reads no clock: the time is handed in, in milliseconds of a clock
//! that never jumps.

use std::collections::VecDeque;
use std::fmt;

use fluvial_connector::{OutputPartition, Tick};

use super::{Committer, Flight, FlightState, Phase};

/// How long something may stand still before it is reported.
pub const REPORT_AFTER_MS: u64 = 10_000;
/// The time between two reports of the same standstill.
pub const REPORT_EVERY_MS: u64 = 60_000;

/// The step that has to be done before anything more is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All workers have to fence the writers of earlier generations, and to restore their state.
    Open,
    /// This process's earlier writers have to be fenced.
    Fence,
    /// The journal has to say whether a newer generation exists.
    AskJournal,
    /// The progress of all output partitions has to be read.
    ReadProgress,
    /// The records of these partitions after their progress have to be read.
    ReadTails(Vec<OutputPartition>),
    /// The outputs have to be read back and compared with what this program computes.
    Compare,
    /// The journal has to record which input the ticks through this one have.
    Seal(Tick),
    /// The dataflow has to complete the output of this tick.
    Compute(Tick),
    /// A transaction's records have to be acknowledged.
    Prepare(Vec<OutputPartition>),
    /// A transaction has to be committed.
    Commit(Vec<OutputPartition>),
    /// Nothing is outstanding: the next transaction has to be begun.
    Begin,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => {
                f.write_str("all workers to fence the writers of earlier generations and to restore their state")
            }
            Self::Fence => f.write_str("the writers of its earlier transactions to be fenced"),
            Self::AskJournal => f.write_str("the journal to say whether a newer generation exists"),
            Self::ReadProgress => f.write_str("the committed progress of the outputs to be read"),
            Self::ReadTails(at) => write!(f, "the end of output {} to be read", Listed(at)),
            Self::Compare => f.write_str(
                "the outputs to be compared with what this program computes, as another one has written them",
            ),
            Self::Seal(tick) => write!(f, "the store to append the journal's record of tick {tick}"),
            Self::Compute(tick) => write!(f, "the dataflow to complete tick {tick}"),
            Self::Prepare(at) => write!(f, "the records of a transaction to be acknowledged (output {})", Listed(at)),
            Self::Commit(at) => write!(f, "a transaction to be committed (output {})", Listed(at)),
            Self::Begin => f.write_str("the next transaction to begin"),
        }
    }
}

/// Partitions, the first few of them by name.
struct Listed<'a>(&'a [OutputPartition]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        for (index, at) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{at}", if index > 0 { ", " } else { "" })?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Nothing has been committed for some time, though there is something to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// How long nothing has been committed, in milliseconds.
    pub for_ms: u64,
    /// The step that has to be done first.
    pub step: Step,
    /// Why the last transaction failed, if one has failed since the last commit.
    pub failed: Option<String>,
}

/// Measures for how long nothing has been committed.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    now_ms: u64,
    since_ms: u64,
    committed: Tick,
    reported_ms: Option<u64>,
    /// When the first transaction since the last commit failed, and why the last one did.
    failed: Option<(u64, String)>,
}

impl Watch {
    /// Takes note that a transaction is committed, or that there is none to commit.
    pub(super) fn committed(&mut self) {
        *self = Self { now_ms: self.now_ms, since_ms: self.now_ms, committed: self.committed, ..Self::default() };
    }

    /// Takes note that a transaction failed and is tried again. Returns for how many milliseconds transactions have
    /// failed.
    pub(super) fn failed(&mut self, why: String) -> u64 {
        let since = self.failed.take().map_or(self.now_ms, |(since, _)| since);
        self.failed = Some((since, why));
        self.now_ms - since
    }
}

impl Committer {
    /// Takes note of the time. Returns the step that is waited for when nothing has been committed for ten seconds
    /// though there is something to commit, and again each minute.
    pub fn stalled(&mut self, now_ms: u64) -> Option<Stall> {
        let step = self.awaited();
        let committed = self.committed_through();
        let watch = &mut self.watch;
        watch.now_ms = now_ms.max(watch.now_ms);
        if step.is_none() || committed > watch.committed {
            watch.committed = committed.max(watch.committed);
            watch.committed();
        }
        let due = watch.reported_ms.map_or(watch.since_ms + REPORT_AFTER_MS, |last| last + REPORT_EVERY_MS);
        let step = step.filter(|_| watch.now_ms >= due)?;
        watch.reported_ms = Some(watch.now_ms);
        let failed = watch.failed.as_ref().map(|(_, why)| why.clone());
        Some(Stall { for_ms: watch.now_ms - watch.since_ms, step, failed })
    }

    /// The step that has to be done before anything more is committed; `None` where there is nothing to commit.
    fn awaited(&self) -> Option<Step> {
        match &self.phase {
            _ if self.lanes.is_empty() => None,
            Phase::Waiting => Some(Step::Open),
            Phase::Fencing(_) => Some(Step::Fence),
            Phase::Checking | Phase::Doubting(_) => Some(Step::AskJournal),
            Phase::Reading => Some(Step::ReadProgress),
            Phase::Tails(_) => Some(Step::ReadTails(self.lanes.iter().map(|lane| lane.target.at.clone()).collect())),
            Phase::Active(flights) => self.awaited_by_lanes(flights),
        }
    }

    fn awaited_by_lanes(&self, flights: &VecDeque<Flight>) -> Option<Step> {
        let newest = self.data_to_come.back().copied().unwrap_or(self.data);
        if newest <= self.committed_through() && flights.is_empty() && self.is_ready() {
            return None;
        }
        let partitions =
            |flight: &Flight| flight.writes.iter().map(|planned| self.lanes[planned.lane].target.at.clone()).collect();
        // Transactions commit in their order, so the oldest one is what everything else waits for.
        if let Some(oldest) = flights.front() {
            return Some(match oldest.state {
                FlightState::Preparing => Step::Prepare(partitions(oldest)),
                FlightState::Prepared | FlightState::Committing => Step::Commit(partitions(oldest)),
            });
        }
        let next = self.data_to_come.front().copied().unwrap_or(self.data);
        let to_compute = newest.min(self.sealed);
        Some(if self.sealed < next {
            Step::Seal(next)
        } else if self.complete < to_compute {
            Step::Compute(to_compute)
        } else {
            Step::Begin
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_connector::Offset;

    use super::super::tests::{actions, at, binding, committed, plan, prepared, ready, records, recover_nothing, tick};
    use super::super::{Done, Failure};
    use super::*;
    use crate::{TickRecords, Verdict};

    fn step(committer: &mut Committer, now_ms: u64) -> Option<Step> {
        committer.stalled(now_ms).map(|stall| stall.step)
    }

    #[test]
    fn a_committer_without_anything_to_commit_reports_nothing() {
        let mut committer = ready(1);
        for now in [0, 20_000, 100_000] {
            assert_eq!(committer.stalled(now), None);
        }
        // The wait begins with the tick, not with the last commit.
        tick(&mut committer, 6, "a1");
        assert_eq!(committer.stalled(109_999), None);
        assert_eq!(committer.stalled(110_000).unwrap().for_ms, 10_000);
    }

    #[test]
    fn a_wait_is_reported_after_ten_seconds_and_again_each_minute_until_something_is_committed() {
        let mut committer = ready(2);
        tick(&mut committer, 6, "a1");
        actions(&mut committer, 0);
        let reports: Vec<u64> = (0..=140).filter(|s| committer.stalled(s * 1000).is_some()).collect();
        assert_eq!(reports, [10, 70, 130]);
        prepared(&mut committer, 0, &[11, 10]);
        actions(&mut committer, 0);
        committed(&mut committer, 0);
        assert_eq!(committer.stalled(300_000), None);
        tick(&mut committer, 7, "b1");
        let reports: Vec<u64> = (300..=320).filter(|s| committer.stalled(s * 1000).is_some()).collect();
        assert_eq!(reports, [310]);
    }

    #[test]
    fn every_step_on_the_way_to_a_commit_is_named() {
        let mut committer = Committer::new(&plan(1, &[]), ready(1).config);
        assert_eq!(step(&mut committer, 10_000), Some(Step::Open));
        committer.all_fenced();
        assert_eq!(step(&mut committer, 70_000), Some(Step::ReadProgress));

        let mut committer = ready(1);
        committer.minted(&binding(6, false));
        committer.stalled(0);
        assert_eq!(step(&mut committer, 10_000), Some(Step::Seal(Tick(6))));
        committer.sealed(Tick(6));
        assert_eq!(step(&mut committer, 70_000), Some(Step::Compute(Tick(6))));
        committer.output(Tick(6), &at(0), TickRecords::new(records("a1"))).unwrap();
        committer.complete(Tick(6)).unwrap();
        assert_eq!(step(&mut committer, 130_000), Some(Step::Begin));
        actions(&mut committer, 0);
        assert_eq!(step(&mut committer, 190_000), Some(Step::Prepare(vec![at(0)])));
        prepared(&mut committer, 0, &[11]);
        assert_eq!(step(&mut committer, 250_000), Some(Step::Commit(vec![at(0)])));
        assert_eq!(actions(&mut committer, 0), ["commit 0"]);
        committer.on(Done::Committed { turn: 0, result: Err(Failure::Unknown("no answer".to_owned())) }).unwrap();
        let stall = committer.stalled(310_000).unwrap();
        assert_eq!((stall.step, stall.failed.as_deref()), (Step::Fence, Some("no answer")));
        actions(&mut committer, 0);
        committer.on(Done::Fenced { turn: 0 }).unwrap();
        committer.on(Done::Fenced { turn: 1 }).unwrap();
        assert_eq!(step(&mut committer, 370_000), Some(Step::AskJournal));
        actions(&mut committer, 0);
        committer.on(Done::Journal(Verdict::Mine)).unwrap();
        assert_eq!(step(&mut committer, 430_000), Some(Step::ReadProgress));
    }

    #[test]
    fn transactions_that_fail_one_after_the_other_end_the_generation_when_the_patience_is_over() {
        let mut committer = ready(1);
        tick(&mut committer, 6, "a1");
        let mut fail = |turn: u32, now_ms: u64| {
            committer.stalled(now_ms);
            assert_eq!(actions(&mut committer, 0), [format!("prepare {turn}: out/0 a1 @6 from 10")]);
            committer.on(Done::Prepared { turn, result: Err(Failure::Unknown("no answer".to_owned())) })?;
            recover_nothing(&mut committer);
            committer.complete(Tick(6))
        };
        assert_eq!(fail(0, 1_000), Ok(()));
        assert_eq!(fail(1, 60_000), Ok(()));
        let ended = fail(0, 61_000).unwrap_err();
        assert_eq!(ended, crate::Ended::CommitsNothing { for_ms: 60_000, why: "no answer".to_owned() });
        assert!(ended.to_string().contains("for 60 s; the last one failed: no answer"), "{ended}");
    }

    #[test]
    fn a_commit_ends_the_count_of_failures() {
        let mut committer = ready(1);
        committer.stalled(1_000);
        assert_eq!(committer.watch.failed("first".to_owned()), 0);
        committer.stalled(2_000);
        committer.watch.committed();
        committer.watch.now_ms = 90_000;
        assert_eq!(committer.watch.failed("second".to_owned()), 0);
        assert_eq!(committer.committed_through(), Tick(5));
        assert_eq!(committer.lanes[0].planned().unwrap().end, Offset(10));
    }

    #[test]
    fn many_partitions_are_counted() {
        let of = |count: u32| Step::Prepare((0..count).map(at).collect()).to_string();
        assert!(of(2).ends_with("(output out/0, out/1)"), "{}", of(2));
        assert!(of(9).ends_with("(output out/0, out/1, out/2, out/3 and 5 more)"), "{}", of(9));
    }
}
