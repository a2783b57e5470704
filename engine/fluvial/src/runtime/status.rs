//! How far the job is: the status line that a person watching the job sees every few seconds, and what the node is told each
//! second for those who ask it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use fluvial_connector::{Offset, Tick};
use fluvial_node::status::{CheckpointFigures, Progress, SplitFigures};
use fluvial_protocol::journal::{Range, SplitName, SplitNumber, SplitStart};
use fluvial_protocol::manifest::OperatorState;
use fluvial_protocol::{FoundSplit, Order, Passed, Report, Status};

use super::ambient;
use super::discovery::ends;
use super::leader::{Ends, Positions};
use super::meter::LeaderFigures;

/// How often the line is printed.
const EVERY: Duration = Duration::from_secs(5);
/// How often the node is told how far the job is.
const MEASURED_EVERY: Duration = Duration::from_secs(1);
/// How long before the line is printed the sources are asked where they end, so that the lag is current.
const ASK_BEFORE: Duration = Duration::from_millis(250);
/// How many ends of a split are kept that the job has not reached yet.
const MOST_ENDS: usize = 16;

/// Gathers what the status line says.
pub(crate) struct StatusLine {
    last: Instant,
    /// Whether a line has been printed.
    said: bool,
    /// Whether the sources have been asked since the last line.
    asked: bool,
    /// Records since the last line.
    records_in: u64,
    records_out: u64,
    /// When the node was told last, and what of it is measured more rarely or adds up.
    measured: Instant,
    told: bool,
    progress: Progress,
    /// The tick that was committed last, and since when nothing follows although something is minted.
    waits: Option<(Tick, Instant)>,
    /// Offsets of outputs that other writers have taken.
    foreign_records: u64,
    /// Splits by number, and how far each has been committed.
    splits: BTreeMap<SplitNumber, (SplitStart, Offset)>,
    /// Stretches without records: each from the end of a reported range to the next offset that is to be read.
    passed: BTreeMap<SplitNumber, Passed>,
    /// Ranges that are minted and not committed.
    in_flight: VecDeque<(Tick, Vec<Range>)>,
    ends: Ends,
    /// When each source last answered with an end for each of its splits.
    ends_at: BTreeMap<String, Instant>,
    /// The ends that each split has had, with their times, until everything before them is committed.
    not_reached: BTreeMap<SplitName, VecDeque<(Instant, Offset)>>,
    checkpoints: Checkpoints,
}

/// The checkpoints of a generation.
#[derive(Default)]
struct Checkpoints {
    /// When the tick of a checkpoint was minted that is not complete.
    begun: VecDeque<(Tick, Instant)>,
    /// The newest that is complete: its tick, how long it took, and its bytes.
    newest: Option<(Tick, Duration, u64)>,
    /// The bytes of each durable operator in the newest checkpoint of the job.
    stored: BTreeMap<String, u64>,
}

impl Checkpoints {
    /// Takes the state files of the newest checkpoint. Returns the bytes of all.
    fn store(&mut self, operators: &[OperatorState]) -> u64 {
        let bytes = |operator: &OperatorState| operator.files.iter().map(|file| file.bytes).sum::<u64>();
        self.stored = operators.iter().map(|operator| (operator.name.clone(), bytes(operator))).collect();
        self.stored.values().sum()
    }

    fn complete(&mut self, tick: Tick, operators: &[OperatorState]) {
        let bytes = self.store(operators);
        while let Some((begun, at)) = self.begun.pop_front_if(|(begun, _)| *begun <= tick) {
            if begun == tick {
                self.newest = Some((tick, at.elapsed(), bytes));
            }
        }
    }
}

impl StatusLine {
    pub(crate) fn new() -> Self {
        Self {
            last: ambient::instant(),
            said: false,
            asked: false,
            records_in: 0,
            records_out: 0,
            measured: ambient::instant(),
            told: false,
            progress: Progress::default(),
            waits: None,
            foreign_records: 0,
            splits: BTreeMap::new(),
            passed: BTreeMap::new(),
            in_flight: VecDeque::new(),
            ends: Ends::new(),
            ends_at: BTreeMap::new(),
            not_reached: BTreeMap::new(),
            checkpoints: Checkpoints::default(),
        }
    }

    /// Takes the answers of sources. The answers of the other sources stay.
    pub(crate) fn found(&mut self, found: &[FoundSplit]) {
        for of_source in found.chunk_by(|one, next| one.source == next.source) {
            let (source, now) = (&of_source[0].source, ambient::instant());
            self.ends.retain(|of, _| of.source != *source);
            let at = self.ends_at.entry(source.clone()).or_insert(now);
            if of_source.iter().all(|split| split.availability.end().is_some()) {
                *at = now;
            }
        }
        let now = ambient::instant();
        let found_ends = ends(found);
        for (name, end) in &found_ends {
            let earlier = self.not_reached.entry(name.clone()).or_default();
            if earlier.back().is_none_or(|(_, before)| before < end) {
                // The oldest end decides the lag, and after it the next one.
                earlier.truncate(MOST_ENDS - 1);
                earlier.push_back((now, *end));
            }
        }
        self.ends.extend(found_ends);
    }

    pub(crate) fn hear(&mut self, report: &Report) {
        match report {
            Report::Read { ranges, .. } => {
                let read = ranges.iter().map(|r| r.count).sum::<u64>();
                self.records_in += read;
                self.progress.records_in += read;
            }
            // Offsets without a record are no lag.
            Report::Passed(passed) => self.passed.extend(passed.iter().map(|passed| (passed.split, *passed))),
            _ => {}
        }
    }

    /// The offset up to which nothing of a split remains to be done: it follows the committed records, and the offsets
    /// without a record after them.
    fn done(&self, split: SplitNumber, committed: Offset) -> Offset {
        self.passed.get(&split).map_or(committed, |passed| passed.read_to(committed))
    }

    /// Records that a process has committed.
    pub(crate) fn wrote(&mut self, records: u64) {
        self.records_out += records;
        self.progress.records_out += records;
    }

    /// Offsets between this job's records that are another writer's.
    pub(crate) fn others_wrote(&mut self, offsets: u64) {
        self.foreign_records += offsets;
    }

    pub(crate) fn order(&mut self, order: &Order) {
        match order {
            Order::Opened(plan) => {
                for state in plan.checkpoint.iter().flat_map(|c| &c.splits) {
                    self.splits.insert(state.start.number, (state.start.clone(), state.position));
                }
                for start in &plan.splits {
                    self.splits.insert(start.number, (start.clone(), start.offset));
                }
                if let Some(checkpoint) = &plan.checkpoint {
                    self.checkpoints.store(&checkpoint.operators);
                }
                self.in_flight.extend(plan.replay.iter().map(|b| (b.tick, b.ranges.clone())));
            }
            Order::SplitStarted(start) => {
                self.splits.insert(start.number, (start.clone(), start.offset));
            }
            Order::Minted(binding) => {
                if binding.checkpoint {
                    self.checkpoints.begun.push_back((binding.tick, ambient::instant()));
                }
                self.in_flight.push_back((binding.tick, binding.ranges.clone()));
            }
            Order::CheckpointComplete { tick, operators } => self.checkpoints.complete(*tick, operators),
            Order::AllFenced | Order::Sealed(_) | Order::Finish(_) => {}
        }
    }

    /// Counts everything through this tick as committed.
    fn committed(&mut self, through: Tick) {
        while let Some((_, ranges)) = self.in_flight.pop_front_if(|(tick, _)| *tick <= through) {
            for range in ranges {
                if let Some((_, position)) = self.splits.get_mut(&range.split) {
                    *position = range.to;
                }
            }
        }
    }

    /// How far each split is committed at the end.
    pub(crate) fn at_the_end(&mut self, status: &Status) -> Positions {
        self.committed(status.committed);
        self.positions()
    }

    fn positions(&self) -> Positions {
        let position =
            |(number, (start, at)): (&SplitNumber, &(SplitStart, Offset))| (start.name(), self.done(*number, *at));
        self.splits.iter().map(position).collect()
    }

    /// For how long a record has waited at least that is not committed: it was there when its source was asked.
    fn waited(&mut self) -> Option<Duration> {
        for (name, done) in self.positions() {
            if let Some(ends) = self.not_reached.get_mut(&name) {
                while ends.pop_front_if(|(_, end)| *end <= done).is_some() {}
            }
        }
        let oldest = self.not_reached.values().filter_map(|ends| ends.front()).map(|(asked, _)| *asked).min();
        oldest.map(|asked| asked.elapsed())
    }

    /// How far each split is committed. Returned once for each line, when it is time to report this to the sources and
    /// to ask them where they end.
    pub(crate) fn ask(&mut self) -> Option<Positions> {
        if self.asked || self.last.elapsed() < EVERY - ASK_BEFORE {
            return None;
        }
        self.asked = true;
        Some(self.positions())
    }

    /// How long there is nothing to ask or to print.
    pub(crate) fn rests(&self) -> Duration {
        let next = if self.asked { EVERY } else { EVERY - ASK_BEFORE };
        next.saturating_sub(self.last.elapsed())
    }

    /// Prints the line, if it is time. `store_requests` is how many requests a store that charges for them has had.
    pub(crate) fn print(&mut self, status: &Status, store_requests: Option<u64>) {
        let passed = self.last.elapsed();
        self.committed(status.committed);
        if passed < EVERY {
            return;
        }
        self.last = ambient::instant();
        self.asked = false;
        if status.minted == Tick(0) {
            return;
        }
        self.said = true;
        let age = self.ends_at.values().min().map_or(passed, Instant::elapsed);
        let (lag, lag_ms) = self.lag(status, passed).unzip();
        let unknown_for = lag.is_none().then_some(age);
        let now = ambient::now_ms();
        let rate = |count: u64| (count as f64 / passed.as_secs_f64() * 10.0).round() / 10.0;
        let [records_in_per_s, records_out_per_s] =
            [&mut self.records_in, &mut self.records_out].map(|count| rate(std::mem::take(count)));
        let counted = self.progress.clone();
        self.progress = Progress { records_in_per_s, records_out_per_s, lag_records: lag, lag_ms, ..counted };
        tracing::info!(
            records_in_per_s,
            records_out_per_s,
            lag_records = lag,
            lag_ms,
            lag_unknown_for_s = unknown_for.map(|age| age.as_secs()),
            foreign_records = Some(self.foreign_records).filter(|count| *count > 0),
            in_flight_bytes = status.in_flight_bytes,
            store_requests,
            checkpoint_age_s = status.checkpoint.map(|tick| now.saturating_sub(tick.0) / 1000),
            "running"
        );
    }

    /// The records that are not committed, and for how many milliseconds the oldest of them has waited. The lag of a source
    /// that has not answered for so long is unknown: a source that hangs must not look like one without input.
    fn lag(&mut self, status: &Status, answered_within: Duration) -> Option<(u64, u64)> {
        if self.ends_at.values().any(|at| at.elapsed() > answered_within) {
            return None;
        }
        let known = self.splits.iter().map(|(number, (start, at))| self.behind(start, self.done(*number, *at)));
        let lag: u64 = known.sum::<Option<_>>()?;
        // Without input nothing is late, however old the last tick is. What has not been read yet has no tick.
        let waited = self.waited().map_or(0, |waited| u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
        let since_commit = ambient::now_ms().saturating_sub(status.committed.0);
        Some((lag, if lag == 0 { 0 } else { since_commit.max(waited) }))
    }

    /// How far the job is, if it is time to tell the node: as soon as something has been committed, and then each second. Rates and lag are those of the last line; before the first one, the
    /// lag is what the answers that the opening waited for give.
    pub(crate) fn measure(&mut self, status: &Status) -> Option<Progress> {
        let now = ambient::instant();
        let waits = (status.committed < status.minted).then_some(status.committed);
        self.waits = waits.map(|committed| match self.waits {
            Some((before, since)) if before == committed => (before, since),
            _ => (committed, now),
        });
        let is_first = !self.told && status.committed > Tick(0);
        if status.minted == Tick(0) || !is_first && now - self.measured < MEASURED_EVERY {
            return None;
        }
        (self.measured, self.told) = (now, true);
        if !self.said {
            (self.progress.lag_records, self.progress.lag_ms) = self.lag(status, EVERY).unzip();
        }
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Some(Progress {
            minted: status.minted.0,
            sealed: status.sealed.0,
            committed: status.committed.0,
            checkpoint: status.checkpoint.map(|tick| tick.0),
            checkpoint_age_ms: status.checkpoint.map(|tick| ambient::now_ms().saturating_sub(tick.0)),
            commits_nothing_for_ms: self.waits.map_or(0, |(_, since)| millis(now - since)),
            foreign_records: self.foreign_records,
            in_flight_bytes: status.in_flight_bytes,
            ..self.progress.clone()
        })
    }

    /// What is known of splits and checkpoints.
    pub(crate) fn figures(&mut self) -> LeaderFigures {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // This also forgets the ends that have been reached.
        let _ = self.waited();
        let split = |(number, (start, at)): (&SplitNumber, &(SplitStart, Offset))| {
            let offset = self.done(*number, *at);
            let name = start.name();
            let lag_records = self.behind(start, offset);
            let ends = self.not_reached.get(&name);
            let waited = ends.and_then(|ends| ends.front()).map(|(asked, _)| millis(asked.elapsed()));
            SplitFigures {
                source: name.source,
                split: name.split.0,
                offset: offset.0,
                lag_records,
                lag_ms: lag_records.map(|lag| if lag == 0 { 0 } else { waited.unwrap_or_default() }),
            }
        };
        let checkpoint = self.checkpoints.newest.map(|(tick, took, bytes)| CheckpointFigures {
            tick: tick.0,
            duration_ms: millis(took),
            bytes,
            age_ms: ambient::now_ms().saturating_sub(tick.0),
        });
        LeaderFigures {
            splits: self.splits.iter().map(split).collect(),
            checkpoint,
            stored: self.checkpoints.stored.clone(),
        }
    }

    /// How much of a split is not committed; unknown while the split is unavailable.
    fn behind(&self, start: &SplitStart, position: Offset) -> Option<u64> {
        let end = self.ends.get(&start.name())?;
        Some(end.0.saturating_sub(position.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use fluvial_connector::{Availability, SplitId};
    use fluvial_protocol::journal::Binding;
    use fluvial_protocol::manifest::{OperatorKind, StateFile};

    use super::*;

    #[test]
    fn a_job_waits_as_long_as_its_last_commit_stays_the_last_although_more_is_minted() {
        let mut line = StatusLine::new();
        let status = |minted, committed| Status {
            minted: Tick(minted),
            sealed: Tick(committed),
            committed: Tick(committed),
            checkpoint: None,
            in_flight_bytes: 0,
        };
        let mut waits = |minted, committed| {
            line.measured = ambient::instant() - MEASURED_EVERY;
            line.measure(&status(minted, committed))
        };
        assert_eq!(waits(0, 0), None, "there is no progress before the first tick");
        let mut first = StatusLine::new();
        assert_eq!(first.measure(&status(5, 0)), None, "nothing has been committed yet");
        assert_eq!(first.measure(&status(6, 5)).unwrap().committed, 5, "the first commit is told at once");
        assert_eq!(first.measure(&status(7, 6)), None, "it was told a moment ago");
        assert_eq!(waits(5, 5).unwrap().commits_nothing_for_ms, 0);
        waits(6, 5);
        ambient::pause(Duration::from_millis(20));
        let progress = waits(7, 5).unwrap();
        assert!(progress.commits_nothing_for_ms >= 20, "{progress:?}");
        assert_eq!((progress.minted, progress.committed), (7, 5));
        let waited_ms = progress.commits_nothing_for_ms;
        assert!(waits(8, 6).unwrap().commits_nothing_for_ms < waited_ms);
        assert_eq!(line.measure(&status(9, 6)), None, "it was told a moment ago");
    }

    /// The only split.
    fn name() -> SplitName {
        SplitName { source: "in".to_owned(), split: SplitId("0".to_owned()) }
    }

    /// A status line whose job reads the split from its beginning.
    fn reading() -> StatusLine {
        let mut line = StatusLine::new();
        let SplitName { source, split } = name();
        let (number, offset) = (SplitNumber(0), Offset(0));
        line.order(&Order::SplitStarted(SplitStart { number, source, split, offset, identity: String::new() }));
        line
    }

    fn ends_at(line: &mut StatusLine, end: u64) {
        let SplitName { source, split } = name();
        let availability = Availability::Available { earliest: Offset(0), end: Offset(end) };
        let (described, identity) = (String::new(), String::new());
        line.found(&[FoundSplit { source, described, split, availability, identity, asked_ms: 0 }]);
    }

    #[test]
    fn the_lag_is_known_before_the_first_line_if_the_sources_have_answered() {
        let status =
            Status { minted: Tick(5), sealed: Tick(5), committed: Tick(5), checkpoint: None, in_flight_bytes: 0 };
        let lag = |line: &mut StatusLine| {
            line.measured = ambient::instant() - MEASURED_EVERY;
            let progress = line.measure(&status).unwrap();
            (progress.lag_records, progress.lag_ms.is_some())
        };
        let mut line = reading();
        assert_eq!(lag(&mut line), (None, false), "nobody has said where the split ends");
        ends_at(&mut line, 10);
        assert_eq!(lag(&mut line), (Some(10), true));
        *line.ends_at.get_mut("in").unwrap() -= EVERY;
        assert_eq!(lag(&mut line), (None, false), "the source hangs");
    }

    #[test]
    fn figures_say_the_lag_of_each_split_and_what_the_newest_checkpoint_took() {
        let mut line = reading();
        ends_at(&mut line, 10);
        let split = line.figures().splits.remove(0);
        assert_eq!((split.source.as_str(), split.offset, split.lag_records), ("in", 0, Some(10)));
        assert!(split.lag_ms.is_some());
        line.splits.get_mut(&SplitNumber(0)).unwrap().1 = Offset(10);
        let split = line.figures().splits.remove(0);
        assert_eq!((split.offset, split.lag_records, split.lag_ms), (10, Some(0), Some(0)));

        assert_eq!(line.figures().checkpoint, None);
        let file = |bytes| StateFile { object: String::new(), rows: 1, bytes, crc32: 0 };
        let kind = OperatorKind { operator: "latest".to_owned(), schema: String::new() };
        let operators = vec![OperatorState { name: "a".to_owned(), kind, files: vec![file(3), file(4)], keys: None }];
        for (tick, checkpoint) in [(5, true), (6, false), (7, true)] {
            line.order(&Order::Minted(Binding { tick: Tick(tick), ranges: Vec::new(), checkpoint }));
        }
        ambient::pause(Duration::from_millis(20));
        line.order(&Order::CheckpointComplete { tick: Tick(5), operators });
        let figures = line.figures();
        let checkpoint = figures.checkpoint.unwrap();
        assert_eq!((checkpoint.tick, checkpoint.bytes, figures.stored["a"]), (5, 7, 7));
        assert!((20..10_000).contains(&checkpoint.duration_ms) && checkpoint.age_ms > 1_000_000, "{checkpoint:?}");
        line.order(&Order::CheckpointComplete { tick: Tick(7), operators: Vec::new() });
        assert_eq!(line.figures().checkpoint.map(|checkpoint| checkpoint.tick), Some(7));
    }

    #[test]
    fn a_record_that_has_not_been_read_waits_since_it_was_seen() {
        let (mut line, name) = (reading(), name());
        let stands_at = |line: &mut StatusLine, at| line.splits.get_mut(&SplitNumber(0)).unwrap().1 = Offset(at);
        ends_at(&mut line, 0);
        assert_eq!(line.waited(), None);
        ends_at(&mut line, 10);
        let first = line.waited().unwrap();
        ends_at(&mut line, 20);
        assert!(line.waited().unwrap() >= first);
        stands_at(&mut line, 15);
        assert_eq!(line.not_reached[&name].len(), 2, "until it is asked");
        assert!(line.waited().is_some() && line.not_reached[&name].len() == 1);
        stands_at(&mut line, 20);
        assert_eq!(line.waited(), None);
        for end in 21..100 {
            ends_at(&mut line, end);
        }
        assert_eq!(line.not_reached[&name].front().unwrap().1, Offset(21));
        assert_eq!((line.not_reached[&name].back().unwrap().1, line.not_reached[&name].len()), (Offset(99), MOST_ENDS));
    }
}
