//! Minting: choosing which input belongs to which tick.
//!
//! ```text
//!   workers ──ranges that they have read──► gathered ──mint, when due──► Binding ─► broadcast to all workers at once
//!                                                        ▲ pace, room            └► appended to the journal: sealed
//!                                                        └── committed through ◄── processes
//! ```
//!
//! Ticks are minted when there is data, at most one an interval: at once after an idle time, fewer and larger ones
//! under load, none while too much is minted and not committed. Without data a heartbeat moves the tick, more and more
//! rarely: the journal's store may charge for each record, and a generation that has been superseded only learns it from
//! an append.
//!
//! # Why
//!
//! *The cut of the input into ticks is the only choice in a job that is not determined by its input.* Which records have
//! arrived by now depends on the network, the broker, and the load of each worker. Everything after it is a function: the
//! dataflow gives the same output for the same ticks, whatever the number of workers and the order in which batches reach
//! them. So it is enough to record this one choice. A binding says which offsets of which splits belong to a tick, and a
//! restart that reads the bindings from the journal and the input from the source computes the same output again, record by
//! record. No output, and no state between two checkpoints, has to be stored for that.
//!
//! *One worker chooses for all.* If each worker put its own records into ticks by its own clock, a tick would end on each of
//! them at another moment, and the journal would need an agreement of all before it could name a tick's input. With one
//! sequencer there is one list of ticks, its order is the order of the journal, and no clock but the leader's counts. That
//! clock only proposes: a tick is later than the last one even where the clock went back, since progress, checkpoints and
//! digests all compare ticks.
//!
//! *A binding takes effect before it is durable.* Workers are told of it at once, so that a tick's output is computed while
//! the journal is being appended to: the latency of a record is the longer of the two and not their sum. This is safe
//! because nothing leaves the job before the tick is sealed (`Rule::SealedBeforeVisible`). If the generation ends in
//! between, the next one finds no binding for the tick, and chooses anew; nobody has seen what was computed.
//!
//! *Back-pressure is one number.* What is minted and not committed is all that the job can owe: it bounds the input that
//! dataflow and sinks hold, the replay of a restart, and the time of a stop. Workers do not negotiate with each other. The
//! sequencer stops minting, the workers reach the limit of what they read ahead, and stop polling. A single report that is
//! larger than a bound goes alone; otherwise a record that is larger than the bound would stop the job for good.

use std::collections::{BTreeMap, VecDeque};

use fluvial_connector::{Offset, Tick};

use super::Ended;
use super::history::advance;
use crate::journal::{Binding, Range, SplitNumber};
use crate::manifest::SplitState;

/// The bounds of minting.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The least time between two ticks.
    pub tick_interval_ms: u64,
    /// The longest time between a tick with input and the next tick. From the second tick without input on it doubles.
    pub heartbeat_ms: u64,
    /// The longest time between two ticks, to which the doubling leads.
    pub longest_heartbeat_ms: u64,
    /// The most records that one tick holds, unless a single report of a worker has more.
    pub tick_records: u64,
    /// The most bytes that one tick holds, unless a single report of a worker has more.
    pub tick_bytes: u64,
    /// No more bytes than this are minted and not committed, unless a single report of a worker has more.
    pub in_flight_bytes: u64,
    /// Nothing is minted while so many ticks are minted and not committed.
    pub in_flight_ticks: usize,
}

/// The one that mints.
#[derive(Debug)]
pub(crate) struct Sequencer {
    pace: Pace,
    last: Tick,
    last_at_ms: u64,
    /// How many ticks without input there have been since the last one with input.
    empty: u32,
    /// The tick that must be minted before any other: that of a reconciliation.
    first: Option<Tick>,
    splits: BTreeMap<SplitNumber, SplitState>,
    read: BTreeMap<SplitNumber, Offset>,
    gathered: VecDeque<Gathered>,
    in_flight: VecDeque<(Tick, u64)>,
    in_flight_bytes: u64,
}

#[derive(Debug)]
struct Gathered {
    ranges: Vec<Range>,
    records: u64,
    bytes: u64,
}

impl Sequencer {
    /// Goes on after `last`, where the splits stand as given.
    pub(crate) fn new(pace: Pace, last: Tick, splits: BTreeMap<SplitNumber, SplitState>) -> Self {
        Self {
            pace,
            last,
            last_at_ms: 0,
            empty: 0,
            first: None,
            read: splits.iter().map(|(number, split)| (*number, split.position)).collect(),
            splits,
            gathered: VecDeque::new(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
        }
    }

    /// The next tick is this one.
    pub(crate) fn begin_at(&mut self, tick: Tick) {
        self.first = Some(tick);
    }

    pub(crate) fn last(&self) -> Tick {
        self.last
    }

    /// The splits as of the last tick.
    pub(crate) fn splits(&self) -> &BTreeMap<SplitNumber, SplitState> {
        &self.splits
    }

    /// The splits, to note what is not a matter of ticks.
    pub(crate) fn splits_mut(&mut self) -> impl Iterator<Item = &mut SplitState> {
        self.splits.values_mut()
    }

    pub(crate) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// A split was met.
    pub(crate) fn add_split(&mut self, split: SplitState) {
        self.read.insert(split.start.number, split.position);
        self.splits.insert(split.start.number, split);
    }

    /// Takes what a worker has read.
    ///
    /// # Errors
    /// [`Ended::Bug`] for a range that does not begin where the last one of its split ended.
    pub(crate) fn gather(&mut self, ranges: Vec<Range>, bytes: u64) -> Result<(), Ended> {
        for range in &ranges {
            let read = self.read.get_mut(&range.split).filter(|at| **at == range.from && range.to >= range.from);
            let Some(read) = read else {
                return Err(Ended::Bug(format!("a worker read {range:?}, which does not follow what was read before")));
            };
            *read = range.to;
        }
        let records = ranges.iter().map(|range| range.count).sum();
        self.gathered.push_back(Gathered { ranges, records, bytes });
        Ok(())
    }

    /// Every worker has committed through `tick`.
    pub(crate) fn committed(&mut self, tick: Tick) {
        while let Some((_, bytes)) = self.in_flight.pop_front_if(|(minted, _)| *minted <= tick) {
            self.in_flight_bytes -= bytes;
        }
    }

    /// Whether nothing that was read waits for a tick.
    pub(crate) fn is_drained(&self) -> bool {
        self.gathered.is_empty()
    }

    /// Whether a tick is due.
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        self.first.is_some() || self.deadline_ms().is_some_and(|deadline| deadline <= now_ms)
    }

    /// When the next tick is due if nothing else happens; `None` while too much is in flight.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        let wait = if self.gathered.is_empty() { self.heartbeat_ms() } else { self.pace.tick_interval_ms };
        self.may_mint().then_some(self.last_at_ms + wait)
    }

    /// Whether there is room for another tick.
    pub(crate) fn may_mint(&self) -> bool {
        if self.in_flight.len() >= self.pace.in_flight_ticks || self.room() == 0 {
            return false;
        }
        // What does not fit waits until there is room for all of it. With nothing in flight it would wait for ever, so it
        // goes alone.
        self.gathered.front().is_none_or(|next| self.in_flight_bytes == 0 || next.bytes <= self.room())
    }

    /// How long after the last tick the next one follows without input.
    fn heartbeat_ms(&self) -> u64 {
        let doubled = self.pace.heartbeat_ms.saturating_mul(1 << self.empty.saturating_sub(1).min(32));
        doubled.min(self.pace.longest_heartbeat_ms)
    }

    /// How many bytes may still be minted.
    fn room(&self) -> u64 {
        self.pace.in_flight_bytes.saturating_sub(self.in_flight_bytes)
    }

    /// Mints a tick of what has gathered, as much as one tick may hold.
    ///
    /// # Errors
    /// [`Ended::Bug`] where the ranges do not fit the splits.
    pub(crate) fn mint(&mut self, now_ms: u64, checkpoint: bool) -> Result<Binding, Ended> {
        // The clock may have gone back, also since an earlier generation on another host; ticks never do.
        let tick = self.first.take().unwrap_or(Tick(now_ms)).max(self.last.next());
        let mut ranges: BTreeMap<SplitNumber, Range> = BTreeMap::new();
        let (mut records, mut bytes) = (0, 0);
        let most_bytes = self.pace.tick_bytes.min(self.room());
        // Reports are taken whole and in their order, so that the ranges of a split follow each other without a gap.
        while let Some(gathered) = self.gathered.pop_front_if(|next| {
            records == 0 && bytes == 0
                || records + next.records <= self.pace.tick_records && bytes + next.bytes <= most_bytes
        }) {
            records += gathered.records;
            bytes += gathered.bytes;
            for range in gathered.ranges {
                match ranges.entry(range.split) {
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        entry.insert(range);
                    }
                    std::collections::btree_map::Entry::Occupied(entry) => {
                        let whole = entry.into_mut();
                        whole.to = range.to;
                        whole.count += range.count;
                        whole.digest.add(range.digest);
                    }
                }
            }
        }
        let ranges: Vec<Range> = ranges.into_values().collect();
        for range in &ranges {
            advance(&mut self.splits, range).map_err(Ended::Bug)?;
        }
        self.last = tick;
        self.last_at_ms = now_ms;
        self.empty = if ranges.is_empty() { self.empty.saturating_add(1) } else { 0 };
        self.in_flight.push_back((tick, bytes));
        self.in_flight_bytes += bytes;
        Ok(Binding { tick, ranges, checkpoint })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use fluvial_connector::{Digest, SplitId};

    use super::*;
    use crate::journal::SplitStart;

    const PACE: Pace = Pace {
        tick_interval_ms: 10,
        heartbeat_ms: 1000,
        longest_heartbeat_ms: 5000,
        tick_records: 100,
        tick_bytes: 1000,
        in_flight_bytes: 2000,
        in_flight_ticks: 3,
    };

    fn sequencer() -> Sequencer {
        let start = SplitStart {
            number: SplitNumber(0),
            source: "in".to_owned(),
            split: SplitId("0".to_owned()),
            offset: Offset(0),
            identity: String::new(),
        };
        let split = SplitState { start, position: Offset(0), last: None, caught_up_ms: 0 };
        let mut sequencer = Sequencer::new(PACE, Tick(5000), [(SplitNumber(0), split)].into());
        sequencer.last_at_ms = 6000;
        sequencer
    }

    fn range(from: u64, to: u64) -> Vec<Range> {
        let digest = Digest(u128::from(to - from));
        vec![Range { split: SplitNumber(0), from: Offset(from), to: Offset(to), count: to - from, digest }]
    }

    #[test]
    fn data_after_an_idle_time_is_minted_at_once_and_then_once_an_interval() {
        let mut s = sequencer();
        assert!(!s.is_due(6005));
        s.gather(range(0, 3), 30).unwrap();
        assert!(!s.is_due(6005));
        assert!(s.is_due(6500));
        assert_eq!(s.mint(6500, false).unwrap().tick, Tick(6500));
        s.gather(range(3, 5), 30).unwrap();
        s.gather(range(5, 9), 30).unwrap();
        assert_eq!(s.deadline_ms(), Some(6510));
        let binding = s.mint(6510, false).unwrap();
        assert_eq!((binding.ranges[0].from, binding.ranges[0].to), (Offset(3), Offset(9)));
        assert_eq!((binding.ranges[0].count, binding.ranges[0].digest), (6, Digest(6)));
        assert_eq!(s.deadline_ms(), Some(7510));
    }

    #[test]
    fn heartbeats_become_rarer_until_input_comes() {
        let mut s = sequencer();
        let mut waits = Vec::new();
        let mut now = 6000;
        for _ in 0..6 {
            let next = s.deadline_ms().unwrap();
            waits.push(next - now);
            now = next;
            let tick = s.mint(now, false).unwrap().tick;
            s.committed(tick);
        }
        assert_eq!(waits, [1000, 1000, 2000, 4000, 5000, 5000]);
        s.gather(range(0, 1), 1).unwrap();
        s.mint(now, false).unwrap();
        assert_eq!(s.deadline_ms(), Some(now + 1000));
    }

    #[test]
    fn ticks_grow_when_the_clock_goes_back() {
        let mut s = sequencer();
        assert_eq!(s.mint(100, false).unwrap().tick, Tick(5001));
        assert_eq!(s.mint(101, false).unwrap().tick, Tick(5002));
    }

    #[test]
    fn a_tick_is_bounded_and_takes_at_least_one_report() {
        let mut s = sequencer();
        s.gather(range(0, 300), 10).unwrap();
        s.gather(range(300, 360), 10).unwrap();
        s.gather(range(360, 390), 10).unwrap();
        s.gather(range(390, 401), 10).unwrap();
        let counts: Vec<u64> = (0..3).map(|i| s.mint(7000 + i, false).unwrap().ranges[0].count).collect();
        assert_eq!(counts, [300, 90, 11]);
    }

    #[test]
    fn nothing_is_minted_while_too_much_is_not_committed() {
        let mut s = sequencer();
        for i in 0..2 {
            s.gather(range(i, i + 1), 1000).unwrap();
            s.mint(7000 + i, false).unwrap();
        }
        s.gather(range(2, 3), 1000).unwrap();
        assert!(!s.is_due(9000));
        s.committed(Tick(7000));
        assert!(s.is_due(9000));
        assert_eq!(s.in_flight_bytes(), 1000);
    }

    #[test]
    fn what_is_in_flight_stays_below_its_bound_however_the_reports_fall() {
        let mut s = sequencer();
        for (i, bytes) in [900, 900, 900, 150].into_iter().enumerate() {
            s.gather(range(i as u64, i as u64 + 1), bytes).unwrap();
        }
        let mut now = 7000;
        while s.is_due(now) && !s.is_drained() {
            s.mint(now, false).unwrap();
            now += 10;
        }
        assert_eq!(s.in_flight_bytes(), 1800, "the third would be beyond 2000");
        s.committed(Tick(7000));
        assert!(s.is_due(now));
        let binding = s.mint(now, false).unwrap();
        assert_eq!((binding.ranges[0].count, s.in_flight_bytes()), (1, 1800));
    }

    #[test]
    fn a_report_beyond_the_bound_goes_alone() {
        let mut s = sequencer();
        s.gather(range(0, 1), 5000).unwrap();
        s.gather(range(1, 2), 10).unwrap();
        s.mint(7000, false).unwrap();
        assert!(!s.is_due(9000));
        s.committed(Tick(7000));
        assert!(s.is_due(9000));
    }

    #[test]
    fn a_range_that_does_not_follow_is_a_fault() {
        let mut s = sequencer();
        assert!(matches!(s.gather(range(1, 2), 1), Err(Ended::Bug(_))));
    }
}
