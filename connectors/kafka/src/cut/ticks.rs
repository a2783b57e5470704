//! Giving the records of one output partition their ticks. Pure: offsets and progress in, ticks out.

use std::collections::{BTreeMap, VecDeque};

use fluvial_connector::{Generation, Position, Progress, Tick};

/// What is known of one output partition.
#[derive(Debug)]
pub(super) struct Ticks<R> {
    /// Every record before this offset has its tick.
    known_end: u64,
    /// The tick that the partition is known to be complete through.
    complete: Option<Tick>,
    /// No cut is consistent before this tick: there are records whose tick is only known to be at most this.
    floor: Tick,
    /// Records that wait for their tick, ascending.
    waiting: VecDeque<(u64, R)>,
    /// Progress that is not used yet, by its rank.
    entries: BTreeMap<Rank, Progress>,
    /// Up to here it does not wait for earlier progress: what is missing is gone.
    confirmed: Option<Rank>,
}

/// See [`Progress::rank`].
type Rank = (Tick, Position, Generation);

impl<R> Ticks<R> {
    /// A partition whose first record that can be read stands at `earliest`.
    pub(super) fn new(earliest: u64) -> Self {
        Self {
            known_end: earliest,
            complete: None,
            floor: Tick(0),
            waiting: VecDeque::new(),
            entries: BTreeMap::new(),
            confirmed: None,
        }
    }

    /// The tick that the partition is known to be complete through.
    pub(super) fn complete(&self) -> Option<Tick> {
        self.complete
    }

    /// The first tick at which a cut is consistent.
    pub(super) fn floor(&self) -> Tick {
        self.floor
    }

    /// How many records wait for their tick.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn record(&mut self, offset: u64, record: R) {
        self.waiting.push_back((offset, record));
    }

    pub(super) fn progress(&mut self, progress: Progress) {
        self.entries.insert(progress.rank(), progress);
    }

    /// Says that all progress before what is here has come: what is missing is gone, removed by compaction.
    pub(super) fn confirm(&mut self) {
        self.confirmed = self.entries.last_key_value().map(|(rank, _)| *rank).max(self.confirmed);
    }

    /// Whether the first progress in line tells of later records than come next, and earlier progress may yet come.
    pub(super) fn misses_progress(&self) -> bool {
        let first = self.entries.first_key_value();
        first.is_some_and(|(rank, progress)| progress.begin.0 > self.known_end && self.confirmed < Some(*rank))
    }

    /// Uses the progress for which all records are known, which are those before `position`, and hands out records with
    /// their ticks.
    pub(super) fn assign(&mut self, position: u64, mut give: impl FnMut(Tick, u64, R)) {
        while !self.misses_progress()
            && let Some(first) = self.entries.first_entry()
            && first.get().end.0 <= position
        {
            let progress = first.remove();
            self.pass_gap(&progress, &mut give);
            let mut ticks = progress.ticks.iter().peekable();
            while let Some((offset, record)) = self.waiting.pop_front_if(|(offset, _)| *offset < progress.end.0) {
                while ticks.next_if(|tick| tick.end.0 <= offset).is_some() {}
                give(ticks.peek().map_or(progress.tick, |tick| tick.tick), offset, record);
            }
            self.known_end = self.known_end.max(progress.end.0);
            let complete = match progress.position {
                Position::Complete => Some(progress.tick),
                Position::Records(_) => progress.tick.0.checked_sub(1).map(Tick),
            };
            self.complete = self.complete.max(complete);
        }
    }

    /// Records before the progress begins that no progress tells of: they are of its first tick at the latest.
    fn pass_gap(&mut self, progress: &Progress, give: &mut impl FnMut(Tick, u64, R)) {
        let latest = progress.ticks.first().map_or(progress.tick, |first| first.tick);
        while let Some((offset, record)) = self.waiting.pop_front_if(|(offset, _)| *offset < progress.begin.0) {
            self.floor = self.floor.max(latest);
            give(latest, offset, record);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_connector::{Digest, Incarnation, Offset, TickEnd};

    use super::*;

    fn made(begin: u64, ticks: &[(u64, u64)], tick: u64, position: Position) -> Progress {
        let end = ticks.last().map_or(begin, |(_, end)| *end);
        Progress {
            incarnation: Incarnation(uuid::Uuid::nil()),
            generation: Generation(1),
            tick: Tick(tick),
            position,
            digest: Digest::default(),
            begin: Offset(begin),
            end: Offset(end),
            ticks: ticks.iter().map(|(tick, end)| TickEnd { tick: Tick(*tick), end: Offset(*end) }).collect(),
        }
    }

    fn assigned(ticks: &mut Ticks<()>, position: u64) -> Vec<(u64, u64)> {
        let mut given = Vec::new();
        ticks.assign(position, |tick, offset, ()| given.push((offset, tick.0)));
        given
    }

    fn with_records(offsets: impl IntoIterator<Item = u64>) -> Ticks<()> {
        let mut ticks = Ticks::new(0);
        for offset in offsets {
            ticks.record(offset, ());
        }
        ticks
    }

    #[test]
    fn records_get_the_tick_in_whose_stretch_they_lie() {
        let mut ticks = with_records([0, 1, 2, 5, 6]);
        ticks.progress(made(0, &[(10, 2), (11, 3)], 11, Position::Complete));
        ticks.progress(made(3, &[(15, 7)], 16, Position::Complete));
        assert_eq!(assigned(&mut ticks, 7), [(0, 10), (1, 10), (2, 11), (5, 15), (6, 15)]);
        assert_eq!((ticks.complete(), ticks.floor()), (Some(Tick(16)), Tick(0)));
    }

    #[test]
    fn progress_waits_for_its_records() {
        let mut ticks = with_records([0]);
        ticks.progress(made(0, &[(10, 2)], 10, Position::Complete));
        assert_eq!(assigned(&mut ticks, 1), []);
        assert_eq!(ticks.complete(), None);
    }

    #[test]
    fn a_part_of_a_tick_does_not_complete_it() {
        let mut ticks = with_records([0, 1, 3]);
        ticks.progress(made(0, &[(10, 2)], 10, Position::Records(2)));
        assert_eq!(assigned(&mut ticks, 2), [(0, 10), (1, 10)]);
        assert_eq!(ticks.complete(), Some(Tick(9)));
        ticks.progress(made(2, &[(10, 4)], 10, Position::Complete));
        assert_eq!(assigned(&mut ticks, 4), [(3, 10)]);
        assert_eq!(ticks.complete(), Some(Tick(10)));
    }

    #[test]
    fn progress_that_came_from_two_places_is_used_in_order() {
        let mut ticks = with_records([0, 1, 3, 4]);
        ticks.progress(made(2, &[(20, 5)], 20, Position::Complete));
        assert_eq!(assigned(&mut ticks, 5), []);
        assert!(ticks.misses_progress());
        ticks.progress(made(0, &[(10, 2)], 10, Position::Complete));
        assert_eq!(assigned(&mut ticks, 5), [(0, 10), (1, 10), (3, 20), (4, 20)]);
    }

    #[test]
    fn records_whose_progress_is_gone_forbid_earlier_cuts() {
        let mut ticks = with_records([0, 1, 3, 4]);
        ticks.progress(made(2, &[(20, 4), (21, 5)], 21, Position::Complete));
        assert_eq!(assigned(&mut ticks, 5), []);
        ticks.confirm();
        assert_eq!(assigned(&mut ticks, 5), [(0, 20), (1, 20), (3, 20), (4, 21)]);
        assert_eq!(ticks.floor(), Tick(20));
    }

    #[test]
    fn progress_without_records_completes_ticks() {
        let mut ticks = with_records([]);
        ticks.progress(made(0, &[], 7, Position::Complete));
        assert_eq!(assigned(&mut ticks, 0), []);
        assert_eq!((ticks.complete(), ticks.floor()), (Some(Tick(7)), Tick(0)));
    }
}
