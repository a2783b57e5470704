//! Tests that input which is read again is compared with what the journal says was read.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use fluvial_connector::format::DecodeError;
use fluvial_connector::{Availability, Source as _, SplitId, SplitStatus, source_digest};
use fluvial_memory::Memory;
use fluvial_protocol::Exit;

use super::*;
use crate::job::input::SourceInput;
use crate::job::source::OnMalformed;

/// How many records may wait for their tick.
const MOST_WAITING: u64 = 6;

/// Takes whatever comes, and keeps nothing.
pub(super) struct Nowhere;

impl SourceInput for Nowhere {
    fn add_split(&mut self, _: SplitNumber, _: &SplitId) {}

    fn take(&mut self, _: Slot, _: &Record<'_>) -> Result<(), DecodeError> {
        Ok(())
    }

    fn cut(&mut self, _: Slot, _: Offset) {}

    fn discard(&mut self, _: Slot) {}

    fn release(&mut self, _: Slot, _: Offset) {}

    fn send(&mut self, _: u64) {}
}

/// A topic with one partition and these records.
pub(super) fn topic(values: &[&str]) -> Memory {
    let memory = Memory::new();
    memory.create_topic("in", 1);
    for value in values {
        memory.append("in", 0, None, Some(value.as_bytes())).unwrap();
    }
    memory
}

/// Hands in what is to be replayed, and what the source says then, asked every two seconds.
pub(super) fn open(driver: &mut SourceDriver, memory: &Memory, bindings: &[Binding]) -> Result<(), Failure> {
    driver.replay(bindings);
    (0..3).try_for_each(|number| driver.found(&found(memory, number * 2)))
}

/// As [`open`], where the source says that the splits end after all that is to be replayed.
fn open_before_it_is_there(driver: &mut SourceDriver, memory: &Memory, bindings: &[Binding]) {
    driver.replay(bindings);
    let mut found = found(memory, 0);
    for split in &mut found {
        split.availability = Availability::Available { earliest: Offset(0), end: Offset(u64::MAX) };
    }
    driver.found(&found).unwrap();
}

fn driver(memory: &Memory, stop_at: Option<u64>) -> SourceDriver {
    let declared = DeclaredSource {
        name: "in".to_owned(),
        source: Arc::new(memory.source("in")),
        input: Box::new(Nowhere),
        on_malformed: OnMalformed::Fail,
        only_newest: false,
    };
    let options = ReadOptions {
        most_waiting: Volume { records: MOST_WAITING, bytes: 1 << 20 },
        compare: Compare::All,
        cannot_correct: None,
        patience: Duration::ZERO,
    };
    let ends = stop_at
        .map(|end| [(SplitName { source: "in".to_owned(), split: SplitId("0".to_owned()) }, Offset(end))].into());
    SourceDriver::new(0, 1, options, ends, vec![declared], &Waker::new(|| ())).unwrap()
}

pub(super) fn start() -> SplitStart {
    SplitStart {
        number: SplitNumber(0),
        source: "in".to_owned(),
        split: SplitId("0".to_owned()),
        offset: Offset(0),
        identity: String::new(),
    }
}

/// The split as a checkpoint has it, with the last range before that.
pub(super) fn state(position: u64, last: Option<Range>) -> SplitState {
    SplitState { start: start(), position: Offset(position), last, caught_up_ms: 0 }
}

/// The range of these records from `from` on.
pub(super) fn range(from: u64, values: &[&str]) -> Range {
    let mut digest = Digest::default();
    let offsets = from..from + values.len() as u64;
    for (offset, value) in offsets.clone().zip(values) {
        digest.add(source_digest(Offset(offset), None, Some(value.as_bytes())));
    }
    let (from, to, count) = (Offset(offsets.start), Offset(offsets.end), values.len() as u64);
    Range { split: SplitNumber(0), from, to, count, digest }
}

pub(super) fn binding(tick: u64, range: Range) -> Binding {
    Binding { tick: Tick(tick), ranges: vec![range], checkpoint: false }
}

#[test]
fn the_range_before_the_checkpoint_is_read_again_and_compared() {
    for (last, fits) in [(["b", "c"], true), (["b", "x"], false)] {
        let topic = topic(&["a", "b", "c", "d"]);
        let mut driver = driver(&topic, None);
        driver.resume(&state(3, Some(range(1, &last)))).unwrap();
        open(&mut driver, &topic, &[]).unwrap();
        assert!(!driver.verified(), "nothing has been read yet");
        let read = driver.read();
        if fits {
            read.unwrap();
            assert!(driver.verified());
            assert_eq!(driver.report().unwrap().0, [range(3, &["d"])], "what was compared is not reported again");
        } else {
            let why = read.unwrap_err().line();
            assert!(why.contains("split 0") && why.contains("offsets 1 to 2"), "{why}");
        }
    }
}

#[test]
fn a_tick_is_replayed_when_all_of_it_has_been_read_and_is_what_it_was() {
    let memory = topic(&["a", "b"]);
    let mut driver = driver(&memory, None);
    driver.begin(&start(), None).unwrap();
    open_before_it_is_there(
        &mut driver,
        &memory,
        &[binding(1, range(0, &["a"])), binding(2, range(1, &["b", "c"])), binding(3, range(3, &["d"]))],
    );
    driver.read().unwrap();
    assert_eq!(driver.replay_next().map(|binding| binding.tick), Some(Tick(1)));
    assert!(driver.replay_next().is_none(), "a record is missing");
    memory.append("in", 0, None, Some(b"c")).unwrap();
    memory.append("in", 0, None, Some(b"changed")).unwrap();
    assert!(driver.read().unwrap_err().line().contains("offset 3:"));
}

#[test]
fn nothing_is_read_while_enough_waits_for_its_tick() {
    let first = ["a", "b", "c", "d", "e", "f"];
    let memory = topic(&first);
    let mut driver = driver(&memory, None);
    driver.begin(&start(), None).unwrap();
    open(&mut driver, &memory, &[]).unwrap();
    driver.read().unwrap();
    memory.append("in", 0, None, Some(b"g")).unwrap();
    assert!(!driver.read().unwrap(), "what is read and not reported waits");
    assert_eq!(driver.report().unwrap().0, [range(0, &first)]);
    assert!(!driver.read().unwrap(), "what is reported waits");
    driver.release(&binding(1, range(0, &first)));
    driver.read().unwrap();
    assert_eq!(driver.report().unwrap().0, [range(6, &["g"])]);
}

#[test]
fn however_much_waits_a_replay_goes_on() {
    let first = ["a", "b", "c", "d", "e", "f"];
    let memory = topic(&first);
    let mut driver = driver(&memory, None);
    driver.begin(&start(), None).unwrap();
    open_before_it_is_there(&mut driver, &memory, &[binding(1, range(0, &first)), binding(2, range(6, &["g"]))]);
    driver.read().unwrap();
    memory.append("in", 0, None, Some(b"g")).unwrap();
    driver.read().unwrap();
    let ticks = [driver.replay_next(), driver.replay_next()].map(|binding| binding.map(|binding| binding.tick));
    assert_eq!(ticks, [Some(Tick(1)), Some(Tick(2))]);
}

/// The generation before has read on between the moment at which the ends were noted and its end.
#[test]
fn what_the_journal_binds_is_read_also_after_the_end_to_stop_at() {
    let memory = topic(&["a"]);
    let mut driver = driver(&memory, Some(1));
    driver.begin(&start(), None).unwrap();
    open_before_it_is_there(&mut driver, &memory, &[binding(1, range(0, &["a"])), binding(2, range(1, &["b"]))]);
    driver.read().unwrap();
    memory.append("in", 0, None, Some(b"b")).unwrap();
    driver.read().unwrap();
    let ticks = [driver.replay_next(), driver.replay_next()].map(|binding| binding.map(|binding| binding.tick));
    assert_eq!(ticks, [Some(Tick(1)), Some(Tick(2))]);
    memory.append("in", 0, None, Some(b"c")).unwrap();
    driver.read().unwrap();
    assert!(driver.report().is_none() && driver.at_end(), "nothing more is read");
}

/// The other split was then read without bounds.
#[test]
fn a_split_that_is_still_compared_does_not_let_another_be_read_for_ever() {
    let memory = Memory::new();
    memory.create_topic("in", 2);
    let value = [b'x'; 1 << 20];
    memory.append("in", 1, None, Some(&value)).unwrap();
    let mut driver = driver(&memory, None);
    driver.resume(&state(1, Some(range(0, &["a"])))).unwrap();
    let other = SplitStart { number: SplitNumber(1), split: SplitId("1".to_owned()), ..start() };
    driver.begin(&other, None).unwrap();
    open_before_it_is_there(&mut driver, &memory, &[]);
    driver.read().unwrap();
    memory.append("in", 1, None, Some(&value)).unwrap();
    for compared in [false, true] {
        driver.read().unwrap();
        assert_eq!(driver.verified(), compared);
        let read = driver.sources[0].reader.position(driver.splits[1].slot);
        assert_eq!(read, Offset(1));
        memory.append("in", 0, None, Some(b"a")).unwrap();
    }
    let (ranges, _) = driver.report().unwrap();
    driver.release(&Binding { tick: Tick(1), ranges, checkpoint: false });
    driver.read().unwrap();
    assert_eq!(driver.sources[0].reader.position(driver.splits[1].slot), Offset(2));
}

#[test]
fn input_that_is_gone_before_it_was_bound_is_not_passed_over() {
    let memory = topic(&["a", "b", "c", "d"]);
    memory.truncate("in", 0, Offset(3)).unwrap();
    for (position, fits) in [(2, false), (3, true)] {
        let mut driver = driver(&memory, None);
        driver.resume(&state(position, None)).unwrap();
        assert_eq!(open(&mut driver, &memory, &[]).is_ok(), fits, "from {position}");
    }
}

/// The job once waited for records that would never come.
#[test]
fn a_split_that_ends_before_what_was_read_of_it_is_refused() {
    let memory = topic(&["a", "b"]);
    let bound = |to: &[&str]| binding(1, range(1, to));
    for (position, bindings, fits) in
        [(2, vec![], true), (3, vec![], false), (1, vec![bound(&["b"])], true), (1, vec![bound(&["b", "c"])], false)]
    {
        let mut driver = driver(&memory, None);
        driver.resume(&state(position, None)).unwrap();
        match open(&mut driver, &memory, &bindings) {
            Ok(()) => assert!(fits, "from {position}"),
            Err(why) => {
                let line = why.line();
                assert!(!fits && why.exit == Exit::StateRefused, "{line}");
                assert!(line.contains("split 0 ends at offset 2 now, and has been read up to 3"), "{line}");
            }
        }
    }
}

#[test]
fn the_end_is_reached_when_everything_before_it_is_reported_and_nothing_after_it() {
    let memory = topic(&["a", "b", "c"]);
    let mut driver = driver(&memory, Some(2));
    driver.begin(&start(), None).unwrap();
    open(&mut driver, &memory, &[]).unwrap();
    assert!(!driver.at_end());
    driver.read().unwrap();
    assert!(!driver.at_end(), "nothing is reported yet");
    assert_eq!(driver.report().unwrap().0, [range(0, &["a", "b"])]);
    assert!(driver.at_end());
    assert!(driver.report().is_none());
}

/// The answers of the sources, as the leader passes them on, asked `asked_s` seconds after the first time.
fn found(memory: &Memory, asked_s: u64) -> Vec<FoundSplit> {
    let source = memory.source("in");
    let splits = source.splits(Duration::ZERO).unwrap().into_iter();
    let found = |SplitStatus { split, identity, availability }: SplitStatus| FoundSplit {
        source: "in".to_owned(),
        described: source.describe_split(&split),
        split,
        availability,
        identity,
        asked_ms: asked_s * 1000,
    };
    splits.map(found).collect()
}

/// Two partitions, of which the first is unavailable.
fn half_available() -> Memory {
    let memory = Memory::new();
    memory.create_topic("in", 2);
    for (partition, value) in [(0, "a"), (0, "b"), (1, "x")] {
        memory.append("in", partition, None, Some(value.as_bytes())).unwrap();
    }
    memory.set_available("in", 0, false).unwrap();
    memory
}

fn other() -> SplitStart {
    SplitStart { number: SplitNumber(1), split: SplitId("1".to_owned()), ..start() }
}

/// A start waited for every partition.
#[test]
fn a_split_that_is_unavailable_is_compared_when_it_is_back_and_nothing_waits_for_it() {
    for (last, fits) in [("a", true), ("other", false)] {
        let memory = half_available();
        let mut driver = driver(&memory, None);
        driver.resume(&state(1, Some(range(0, &[last])))).unwrap();
        driver.begin(&other(), None).unwrap();
        open(&mut driver, &memory, &[]).unwrap();
        assert!(driver.verified() && driver.replayed(), "the job is open without the split");
        driver.read().unwrap();
        let of_other = Range { split: SplitNumber(1), ..range(0, &["x"]) };
        assert_eq!(driver.report().unwrap().0, [of_other]);
        driver.found(&found(&memory, 10)).unwrap();
        memory.set_available("in", 0, true).unwrap();
        driver.read().unwrap();
        assert!(driver.report().is_none(), "nothing is read before it is known where the split begins and ends");
        driver.found(&found(&memory, 10)).unwrap();
        assert!(!driver.verified());
        let read = driver.read();
        if fits {
            read.unwrap();
            assert!(driver.verified());
            assert_eq!(driver.report().unwrap().0, [range(1, &["b"])]);
        } else {
            assert!(read.unwrap_err().line().contains("no longer holds what was read at offset 0:"));
        }
    }
}

#[test]
fn a_replay_waits_for_the_split_that_it_has_to_read_again() {
    let memory = half_available();
    let mut driver = driver(&memory, None);
    driver.begin(&start(), None).unwrap();
    driver.begin(&other(), None).unwrap();
    let of_other = Range { split: SplitNumber(1), ..range(0, &["x"]) };
    open(&mut driver, &memory, &[binding(1, of_other), binding(2, range(0, &["a", "b"]))]).unwrap();
    driver.read().unwrap();
    assert_eq!(driver.replay_next().map(|binding| binding.tick), Some(Tick(1)));
    driver.read().unwrap();
    assert!(driver.replay_next().is_none() && !driver.replayed());
    memory.set_available("in", 0, true).unwrap();
    driver.found(&found(&memory, 10)).unwrap();
    driver.read().unwrap();
    assert_eq!(driver.replay_next().map(|binding| binding.tick), Some(Tick(2)));
    assert!(driver.replayed());
}

#[test]
fn a_split_that_comes_back_without_what_was_read_of_it_is_refused_when_several_answers_say_so() {
    let memory = half_available();
    let mut driver = driver(&memory, None);
    driver.resume(&state(3, None)).unwrap();
    open(&mut driver, &memory, &[]).unwrap();
    memory.set_available("in", 0, true).unwrap();
    for asked_s in 11..14 {
        driver.found(&found(&memory, asked_s)).unwrap();
    }
    memory.set_available("in", 0, false).unwrap();
    driver.found(&found(&memory, 20)).unwrap();
    memory.set_available("in", 0, true).unwrap();
    for asked_s in 21..25 {
        driver.found(&found(&memory, asked_s)).unwrap();
    }
    let why = driver.found(&found(&memory, 25)).unwrap_err().line();
    assert!(why.contains("split 0 ends at offset 2 now, and has been read up to 3"), "{why}");
}

/// A reader that has come so far, and whose client receives so much.
struct Deaf {
    position: Offset,
    answers: Option<u64>,
    grows: bool,
}

impl SplitReader for Deaf {
    fn start(&mut self, _: Slot, _: &SplitId, _: Offset) -> Result<(), Error> {
        Ok(())
    }

    fn set_paused(&mut self, _: Slot, _: bool) -> Result<(), Error> {
        Ok(())
    }

    fn poll(&mut self, _: usize, _: &mut dyn FnMut(Slot, Record<'_>)) -> Result<usize, Error> {
        self.answers = self.answers.map(|answers| answers + u64::from(self.grows));
        Ok(0)
    }

    fn position(&self, _: Slot) -> Offset {
        self.position
    }

    fn answers(&self) -> Option<u64> {
        self.answers
    }
}

/// Its splits stood still for as long as the process did not reach the source.
#[test]
fn a_reader_whose_client_receives_nothing_while_there_is_more_ends_its_process() {
    for (answers, grows, is_busy, fails) in [
        (Some(1), false, false, true),
        (Some(1), true, false, false),
        (Some(1), false, true, false),
        (None, false, false, false),
    ] {
        let memory = topic(&["a", "b"]);
        let mut driver = driver(&memory, None);
        driver.begin(&start(), None).unwrap();
        open(&mut driver, &memory, &[]).unwrap();
        driver.read().unwrap();
        driver.sources[0].reader = Box::new(Deaf { position: Offset(2), answers, grows });
        memory.append("in", 0, None, Some(b"c")).unwrap();
        let heard = (10..16).map(|asked_s| {
            if !is_busy {
                driver.read().unwrap();
            }
            driver.found(&found(&memory, asked_s))
        });
        let failure = heard.filter_map(Result::err).next();
        assert_eq!(failure.as_ref().map(|failure| failure.exit), fails.then_some(Exit::SourceFailed));
        let says = failure.map(|failure| failure.line()).unwrap_or_default();
        assert!(!fails || says.contains("the source 'in'") && says.contains("split 0 has more records"), "{says}");
    }
}

#[test]
fn the_end_is_not_reached_while_a_split_is_unavailable() {
    let memory = half_available();
    let mut driver = driver(&memory, Some(2));
    driver.resume(&state(2, None)).unwrap();
    open(&mut driver, &memory, &[]).unwrap();
    assert!(!driver.at_end());
    memory.set_available("in", 0, true).unwrap();
    driver.found(&found(&memory, 10)).unwrap();
    assert!(driver.at_end());
}
