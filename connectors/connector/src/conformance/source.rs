//! What every source does.

use std::time::Instant;

use super::{Alarm, Ending, PATIENCE, SourceSubject, TestRecord, numbered};
use crate::{Availability, ErrorKind, Offset, Slot, SplitId, SplitReader, SplitStatus};

/// A sentence and what shows it.
type Check<S> = (&'static str, fn(&mut S));

/// Runs every check, each with a subject of its own.
pub fn all<S: SourceSubject>(mut fresh: impl FnMut() -> S) {
    let checks: [Check<S>; 11] = [
        ("an input that is missing is a configuration error", an_input_that_is_missing_is_a_configuration_error),
        ("splits tell where they begin and end", splits_tell_where_they_begin_and_end),
        ("reading again from any offset gives the same", reading_again_from_any_offset_gives_the_same),
        ("the waker is called for new records", the_waker_is_called_for_new_records),
        ("only committed records are delivered", only_committed_records_are_delivered),
        ("the position passes what is never delivered", the_position_passes_what_is_never_delivered),
        ("a paused split rests and goes on", a_paused_split_rests_and_goes_on),
        ("a split can be started again", a_split_can_be_started_again),
        ("an offset that is gone is a data error", an_offset_that_is_gone_is_a_data_error),
        ("an input made anew has another identity", an_input_made_anew_has_another_identity),
        ("a split that is unavailable holds up no other", a_split_that_is_unavailable_holds_up_no_other),
    ];
    for (name, check) in checks {
        eprintln!("source: {name}");
        check(&mut fresh());
    }
}

/// A record as it came: slot, offset, key, value.
type Read = (u32, u64, Option<Vec<u8>>, Option<Vec<u8>>);

/// A reader and its alarm.
struct Reading {
    reader: Box<dyn SplitReader>,
    alarm: Alarm,
}

impl Reading {
    fn of(subject: &dyn SourceSubject) -> Self {
        let alarm = Alarm::default();
        let reader = subject.source().reader(alarm.waker()).expect("a reader can be made");
        Self { reader, alarm }
    }

    fn from(subject: &dyn SourceSubject, split: u32, offset: u64) -> Self {
        let mut reading = Self::of(subject);
        reading.start(split, offset);
        reading
    }

    fn start(&mut self, split: u32, offset: u64) {
        self.reader
            .start(Slot(split + 10), &SplitId(split.to_string()), Offset(offset))
            .expect("a split that exists can be started");
    }

    fn position(&self, split: u32) -> u64 {
        self.reader.position(Slot(split + 10)).0
    }

    fn poll(&mut self, most: usize, into: &mut Vec<Read>) -> usize {
        let before = into.len();
        let count = self.reader.poll(most, &mut |slot, record| {
            into.push((slot.0 - 10, record.offset.0, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec)));
        });
        let count = count.expect("the reader is well");
        assert_eq!(count, into.len() - before, "poll returns how many records it handed out");
        assert!(count <= most, "poll hands out no more than it was asked for");
        count
    }

    /// Polls, parked on the waker in between, until `done`.
    fn until(&mut self, what: &str, mut done: impl FnMut(&Self, &[Read]) -> bool) -> Vec<Read> {
        let begun = Instant::now();
        let mut read = Vec::new();
        loop {
            let seen = self.alarm.count();
            let count = self.poll(7, &mut read);
            if done(self, &read) {
                return read;
            }
            let left = PATIENCE.saturating_sub(begun.elapsed());
            assert!(!left.is_zero(), "{what}: not in time; read {} records so far", read.len());
            if count == 0 {
                assert!(self.alarm.wait_after(seen, left), "{what}: the waker is not called in time");
            }
        }
    }

    fn exactly(&mut self, count: usize) -> Vec<Read> {
        let read = self.until(&format!("{count} records"), |_, read| read.len() >= count);
        assert_eq!(read.len(), count, "there are not more records than were written");
        read
    }
}

fn splits(subject: &dyn SourceSubject) -> Vec<SplitStatus> {
    let mut splits = subject.source().splits(PATIENCE).expect("an input that exists has splits");
    splits.sort_by(|a, b| a.split.cmp(&b.split));
    splits
}

/// Where a split begins and ends; it is available.
fn extent(subject: &dyn SourceSubject, split: usize) -> (u64, u64) {
    match &splits(subject)[split].availability {
        Availability::Available { earliest, end } => (earliest.0, end.0),
        Availability::Unavailable { why } => panic!("split {split} is unavailable: {why}"),
    }
}

fn earliest(subject: &dyn SourceSubject, split: usize) -> u64 {
    extent(subject, split).0
}

fn end(subject: &dyn SourceSubject, split: usize) -> u64 {
    extent(subject, split).1
}

fn keys(read: &[Read]) -> Vec<Vec<u8>> {
    read.iter().map(|(_, _, key, _)| key.clone().expect("all test records have a key")).collect()
}

fn keys_of(records: &[TestRecord]) -> Vec<Vec<u8>> {
    records.iter().map(|(key, _)| key.clone()).collect()
}

/// An unknown name is told as such.
pub fn an_input_that_is_missing_is_a_configuration_error<S: SourceSubject>(subject: &mut S) {
    let error = subject.missing().splits(PATIENCE).expect_err("there is no such input");
    assert_eq!(error.kind, ErrorKind::Configuration, "{error}");
}

/// Earliest and end of an empty, a filled and a truncated split.
pub fn splits_tell_where_they_begin_and_end<S: SourceSubject>(subject: &mut S) {
    let empty = splits(subject);
    assert_eq!(empty.iter().map(|s| s.split.0.as_str()).collect::<Vec<_>>(), ["0", "1"]);
    let is_empty = |split| extent(subject, split).0 == extent(subject, split).1;
    assert!(is_empty(0) && is_empty(1), "nothing can be read of an empty split");
    subject.append(1, &numbered("a", 0..5));
    let (filled, (first, end)) = (splits(subject), extent(subject, 1));
    assert_eq!(filled[0], empty[0], "a split that did not change says the same");
    assert_eq!(filled[1].identity, empty[1].identity);
    let read = Reading::from(subject, 1, first).exactly(5);
    assert_eq!(read[0].1, first);
    assert!(read[4].1 < end, "the end is after the last record");
    subject.truncate(1, Offset(read[2].1));
    assert_eq!(earliest(subject, 1), read[2].1, "removed records cannot be read");
}

/// A record keeps its offset, key and value; an absent value stays absent and an empty one empty.
pub fn reading_again_from_any_offset_gives_the_same<S: SourceSubject>(subject: &mut S) {
    let mut records = numbered("k", 0..40);
    records[3].1 = None;
    records[4].1 = Some(Vec::new());
    records[5].0 = Vec::new();
    subject.append(0, &records[..25]);
    subject.append(0, &records[25..]);
    subject.append(1, &numbered("other", 0..3));
    let all = Reading::from(subject, 0, earliest(subject, 0)).exactly(40);
    for (read, record) in all.iter().zip(&records) {
        assert_eq!((read.2.as_ref(), read.3.as_ref()), (Some(&record.0), record.1.as_ref()));
    }
    assert!(all.windows(2).all(|w| w[0].1 < w[1].1), "offsets ascend");
    for skip in [1, 17, 39] {
        let again = Reading::from(subject, 0, all[skip].1).exactly(40 - skip);
        assert_eq!(again, all[skip..], "from offset {}", all[skip].1);
    }
    let mut both = Reading::from(subject, 0, all[39].1);
    both.start(1, earliest(subject, 1));
    let read = both.exactly(4);
    assert_eq!(read.iter().filter(|r| r.0 == 1).count(), 3, "each record comes under its own slot");
    assert_eq!(both.position(0), all[39].1 + 1, "the position is the next to read");
}

/// A reader that found nothing is woken when there is something.
pub fn the_waker_is_called_for_new_records<S: SourceSubject>(subject: &mut S) {
    let mut reading = Reading::from(subject, 0, earliest(subject, 0));
    for round in 0..3 {
        let records = numbered(&format!("round {round} "), 0..2);
        subject.append(0, &records);
        assert_eq!(keys(&reading.exactly(2)), keys_of(&records));
    }
}

/// Neither open nor aborted records come, and what comes after an open transaction waits for it.
pub fn only_committed_records_are_delivered<S: SourceSubject>(subject: &mut S) {
    let (first, open, last) = (numbered("first", 0..2), numbered("open", 0..3), numbered("last", 0..2));
    subject.append(0, &first);
    let stable = end(subject, 0);
    subject.append_open(0, &open);
    assert_eq!(end(subject, 0), stable, "an open transaction does not move the end");
    let mut reading = Reading::from(subject, 0, earliest(subject, 0));
    assert_eq!(keys(&reading.exactly(2)), keys_of(&first));
    subject.end(Ending::Commit);
    assert_eq!(keys(&reading.exactly(3)), keys_of(&open), "committed records come");
    subject.append_open(0, &numbered("aborted", 0..3));
    subject.end(Ending::Abort);
    subject.append(0, &last);
    assert_eq!(keys(&reading.exactly(2)), keys_of(&last), "aborted records never come");
}

/// A split that ends in control markers and aborted records is read to its end.
pub fn the_position_passes_what_is_never_delivered<S: SourceSubject>(subject: &mut S) {
    for ending in [Ending::Commit, Ending::Abort] {
        subject.append_open(0, &numbered("k", 0..3));
        subject.end(ending);
        let end = end(subject, 0);
        let mut reading = Reading::from(subject, 0, earliest(subject, 0));
        let read = reading.until("the position reaches the end", |reading, _| reading.position(0) >= end);
        assert_eq!(reading.position(0), end, "the position is not past the end");
        assert_eq!(read.len(), 3, "after {ending:?}");
    }
}

/// Nothing of a paused split comes, the other split goes on, and after resuming nothing is missing or doubled.
pub fn a_paused_split_rests_and_goes_on<S: SourceSubject>(subject: &mut S) {
    let (first, second, third) = (numbered("a", 0..20), numbered("b", 0..5), numbered("c", 0..4));
    subject.append(0, &first);
    let end = end(subject, 0);
    let mut reading = Reading::from(subject, 0, earliest(subject, 0));
    reading.start(1, earliest(subject, 1));
    // Once in the middle of what is there, and once at its end.
    let mut read = reading.until("some records", |_, read| !read.is_empty());
    reading.reader.set_paused(Slot(10), true).expect("a split can be paused");
    subject.append(1, &second);
    assert!(reading.exactly(5).iter().all(|r| r.0 == 1), "a paused split delivers nothing");
    reading.reader.set_paused(Slot(10), false).expect("a split can be resumed");
    read.extend(reading.until("the end of the split", |reading, _| reading.position(0) >= end));
    assert_eq!(keys(&read), keys_of(&first));

    reading.reader.set_paused(Slot(10), true).expect("a split can be paused");
    subject.append(0, &third);
    reading.reader.set_paused(Slot(10), false).expect("a split can be resumed");
    assert_eq!(keys(&reading.exactly(4)), keys_of(&third), "a split paused at its end loses nothing");
}

/// The same split under the same slot, from an earlier and from a later offset.
pub fn a_split_can_be_started_again<S: SourceSubject>(subject: &mut S) {
    let records = numbered("k", 0..30);
    subject.append(0, &records);
    let mut reading = Reading::from(subject, 0, earliest(subject, 0));
    let all = reading.exactly(30);
    for skip in [0, 12, 29] {
        reading.start(0, all[skip].1);
        assert_eq!(reading.position(0), all[skip].1);
        assert_eq!(reading.exactly(30 - skip), all[skip..]);
    }
}

/// The error names the split, the wanted offset and what is there.
pub fn an_offset_that_is_gone_is_a_data_error<S: SourceSubject>(subject: &mut S) {
    subject.append(1, &numbered("k", 0..10));
    let all = Reading::from(subject, 1, earliest(subject, 1)).exactly(10);
    let (wanted, left) = (all[2].1, all[6].1);
    subject.truncate(1, Offset(left));
    let mut reading = Reading::from(subject, 1, wanted);
    let begun = Instant::now();
    let error = loop {
        let seen = reading.alarm.count();
        match reading.reader.poll(10, &mut |_, _| panic!("nothing may be skipped silently")) {
            Ok(_) => assert!(begun.elapsed() < PATIENCE && reading.alarm.wait_after(seen, PATIENCE), "an error comes"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, ErrorKind::Data);
    for part in ["partition 1".to_owned(), wanted.to_string(), left.to_string()] {
        assert!(error.to_string().contains(&part), "'{error}' says '{part}'");
    }
}

/// Where the system can tell an input from a later one of the same name, the source says so.
pub fn an_input_made_anew_has_another_identity<S: SourceSubject>(subject: &mut S) {
    let before = splits(subject);
    subject.make_anew();
    let after = splits(subject);
    assert!(
        before[0].identity.is_empty() || before[0].identity != after[0].identity,
        "'{}' stands for both",
        before[0].identity
    );
}

/// A split that cannot be read for now says so, the other goes on, and its own records come afterwards.
pub fn a_split_that_is_unavailable_holds_up_no_other<S: SourceSubject>(subject: &mut S) {
    let (first, second) = (numbered("a", 0..3), numbered("b", 0..3));
    subject.append(0, &first);
    subject.append(1, &second);
    let (of_first, of_second) = (earliest(subject, 0), earliest(subject, 1));
    let before = splits(subject);
    if !subject.set_available(0, false) {
        eprintln!("source: this subject cannot make a split unavailable");
        return;
    }
    let meanwhile = splits(subject);
    assert!(meanwhile[0].availability.why_not().is_some(), "the split is unavailable");
    assert_eq!(meanwhile[0].identity, before[0].identity);
    assert_eq!(meanwhile[1], before[1]);
    let mut reading = Reading::from(subject, 0, of_first);
    reading.start(1, of_second);
    assert_eq!(keys(&reading.exactly(3)), keys_of(&second), "the other split goes on");
    assert_eq!(reading.position(0), of_first);
    assert!(subject.set_available(0, true));
    assert_eq!(keys(&reading.exactly(3)), keys_of(&first), "the records of the split come when it is back");
    assert_eq!(splits(subject), before);
}
