//! What every source does.
//!
//! | contract of [`Source`](crate::Source) and [`SplitReader`] | check |
//! | --- | --- |
//! | `describe`, `describe_split`: the input and a split of it, for people | [`an_input_and_its_splits_can_be_described`] |
//! | `splits`: an input that does not exist is a configuration error | [`an_input_that_does_not_exist_is_a_configuration_error`] |
//! | `splits`: the splits that exist; [`Availability`]: the earliest offset and the end of what is committed | [`splits_tell_where_they_begin_and_end`] |
//! | `splits`: an unavailable split is a status, and nothing waits for it; `start`: it goes on by itself | [`an_unavailable_split_holds_up_no_other`] |
//! | [`SplitStatus::identity`]: tells a split from a later one of the same name | [`a_recreated_input_has_another_identity`] |
//! | A record keeps its split, offset, key and value; splits can be read again from any offset | [`reading_again_from_any_offset_gives_equal_records`] |
//! | `poll`: each split's records in the order of their offsets | [`offsets_ascend_within_a_split`] |
//! | `poll`: at most so many records, and returns how many there were | [`poll_hands_out_no_more_than_it_was_asked_for`] |
//! | `poll`: without waiting | [`poll_does_not_wait`] |
//! | `poll`: after 0 the waker is called when there may be more | [`the_waker_is_called_for_records_that_come_after_an_empty_poll`] |
//! | the same of a transaction that commits | [`the_waker_is_called_when_a_transaction_commits`] |
//! | Only committed records are delivered: no open or aborted transaction | [`only_committed_records_are_delivered`] |
//! | Only committed records are delivered: no part of a record | [`a_partly_written_record_is_not_delivered`] |
//! | A record that is gone is a data error naming split, wanted and available offset, never skipped | [`an_offset_that_is_gone_is_a_data_error`] |
//! | the same where a split ends before the wanted offset | [`an_offset_beyond_the_end_is_a_data_error`] |
//! | `position`: the next offset to read | [`reading_goes_on_from_the_position`] |
//! | `position`: also moves past what is not delivered | [`the_position_passes_what_is_never_delivered`] |
//! | `set_paused`: stops or resumes the delivery of one split | [`a_paused_split_delivers_nothing_until_it_is_resumed`] |
//! | `start`: begins at an offset, also again | [`a_split_can_be_started_again`] |
//! | `start`: a split's records come as its slot | [`several_splits_of_one_reader_come_as_their_slots`] |
//! | `start`: a split that does not exist is an error | [`a_split_that_does_not_exist_delivers_nothing`] |
//! | `reader`: a reader is used by one thread; several threads have a reader each, with a waker each | [`readers_on_several_threads_are_woken_each`] |
//! | `report_committed`: for monitoring alone | [`reporting_committed_positions_changes_nothing`] |
//!
//! `used_by` is called before anything that connects, as the engine does. `warnings` and `compaction` are answers for
//! people and for one decision of the engine about the connector's own system; a connector tests them itself. `as_output`
//! is checked with the sink, in [`super::sink`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::{Alarm, Check, Ending, Outcome, Report, SourceSubject, TestRecord, checks, in_time, names, numbered, run_all};
use crate::{Availability, Error, ErrorKind, JobProcess, Offset, Slot, Source, SplitId, SplitReader, SplitStatus, Waker};

/// Makes every check, each with a subject of its own.
///
/// # Panics
/// Checks failed; the message lists them.
pub fn all<S: SourceSubject>(fresh: impl FnMut() -> S) -> Report {
    run_all(&checks(), fresh)
}

/// The checks one by one.
#[must_use]
pub fn checks<S: SourceSubject>() -> Vec<Check<S>> {
    checks![
        an_input_and_its_splits_can_be_described
        an_input_that_does_not_exist_is_a_configuration_error
        splits_tell_where_they_begin_and_end
        reading_again_from_any_offset_gives_equal_records
        offsets_ascend_within_a_split
        poll_hands_out_no_more_than_it_was_asked_for
        poll_does_not_wait
        the_waker_is_called_for_records_that_come_after_an_empty_poll
        the_waker_is_called_when_a_transaction_commits
        only_committed_records_are_delivered
        a_partly_written_record_is_not_delivered
        an_offset_that_is_gone_is_a_data_error
        an_offset_beyond_the_end_is_a_data_error
        reading_goes_on_from_the_position
        the_position_passes_what_is_never_delivered
        a_paused_split_delivers_nothing_until_it_is_resumed
        a_split_can_be_started_again
        several_splits_of_one_reader_come_as_their_slots
        a_split_that_does_not_exist_delivers_nothing
        readers_on_several_threads_are_woken_each
        an_unavailable_split_holds_up_no_other
        a_recreated_input_has_another_identity
        reporting_committed_positions_changes_nothing
    ]
}

const NO_TRANSACTIONS: Outcome = Outcome::Skipped("the subject cannot leave a transaction open");
const NO_TRUNCATION: Outcome = Outcome::Skipped("the subject cannot remove records");

/// A record as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Read {
    split: u32,
    offset: u64,
    record: TestRecord,
}

/// A reader, what wakes it, and how long it may take.
struct Reading {
    reader: Box<dyn SplitReader>,
    alarm: Alarm,
    splits: [SplitId; 2],
    patience: Duration,
}

/// The slot that the kit reads a split as: not its number, which a connector could take for it.
fn slot(split: u32) -> Slot {
    Slot(split + 10)
}

fn split_ids<S: SourceSubject>(subject: &S) -> [SplitId; 2] {
    subject.splits().map(SplitId)
}

/// The input, opened as the engine opens it.
fn open<S: SourceSubject>(subject: &S) -> Arc<dyn Source> {
    let source = subject.source();
    source.used_by(&JobProcess { job: "conformance".to_owned(), index: 0 });
    source
}

impl Reading {
    fn new(source: &dyn Source, splits: [SplitId; 2], patience: Duration) -> Self {
        let alarm = Alarm::default();
        let reader = source.reader(alarm.waker()).expect("a reader can be created");
        Self { reader, alarm, splits, patience }
    }

    fn of<S: SourceSubject>(subject: &S) -> Self {
        Self::new(&*open(subject), split_ids(subject), subject.patience())
    }

    fn from<S: SourceSubject>(subject: &S, split: u32, offset: u64) -> Self {
        let mut reading = Self::of(subject);
        reading.start(split, offset);
        reading
    }

    /// Reads a split from its earliest offset.
    fn from_earliest<S: SourceSubject>(subject: &S, split: u32) -> Self {
        Self::from(subject, split, earliest(subject, split))
    }

    fn start(&mut self, split: u32, offset: u64) {
        let id = &self.splits[split as usize];
        self.reader.start(slot(split), id, Offset(offset)).expect("a split that exists can be started");
    }

    fn position(&self, split: u32) -> u64 {
        self.reader.position(slot(split)).0
    }

    fn set_paused(&mut self, split: u32, paused: bool) {
        self.reader.set_paused(slot(split), paused).expect("a split that was started can be paused and resumed");
    }

    fn try_poll(&mut self, most: usize, into: &mut Vec<Read>) -> Result<usize, Error> {
        let before = into.len();
        let count = self.reader.poll(most, &mut |slot, record| {
            let key_and_value = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
            let split = slot.0.checked_sub(10).expect("records come as a slot that was started");
            into.push(Read { split, offset: record.offset.0, record: key_and_value });
        })?;
        assert_eq!(count, into.len() - before, "poll returns how many records it handed out");
        assert!(count <= most, "poll was asked for {most} records and handed out {count}");
        Ok(count)
    }

    fn poll(&mut self, most: usize, into: &mut Vec<Read>) -> usize {
        self.try_poll(most, into).expect("nothing is wrong with the input")
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
            let left = self.patience.saturating_sub(begun.elapsed());
            assert!(!left.is_zero(), "{what}: not in time; read {} records so far", read.len());
            if count == 0 {
                assert!(
                    self.alarm.wait_after(seen, left),
                    "{what}: the waker was not called in time; read {} records so far",
                    read.len()
                );
            }
        }
    }

    fn exactly(&mut self, count: usize) -> Vec<Read> {
        let mut read = self.until(&format!("{count} records"), |_, read| read.len() >= count);
        // What should not be there may come with the next poll.
        self.poll(7, &mut read);
        assert_eq!(read.len(), count, "there are more records than were appended: {read:?}");
        read
    }

    /// Polls until there is nothing; the number is what the alarm had counted before that poll.
    fn idle(&mut self) -> u64 {
        let mut read = Vec::new();
        let seen = self.alarm.count();
        let count = self.poll(7, &mut read);
        assert_eq!(count, 0, "nothing is left to deliver, and {read:?} came");
        seen
    }

    /// Waits until the waker is called after [`idle`](Self::idle).
    fn is_woken(&self, seen: u64, by: &str) {
        assert!(
            self.alarm.wait_after(seen, self.patience),
            "the waker was not called within {:?} for {by} after a poll that returned 0",
            self.patience
        );
    }

    /// Polls until the error that must come.
    fn error(&mut self, what: &str) -> Error {
        let begun = Instant::now();
        loop {
            let (seen, mut read) = (self.alarm.count(), Vec::new());
            match self.try_poll(10, &mut read) {
                Err(error) => return error,
                Ok(0) => {}
                Ok(_) => panic!("{what}: an error is expected, and records were delivered: {read:?}"),
            }
            let left = self.patience.saturating_sub(begun.elapsed());
            assert!(self.alarm.wait_after(seen, left), "{what}: no error came within {:?}", self.patience);
        }
    }
}

/// The status of both splits.
fn statuses<S: SourceSubject>(subject: &S) -> [SplitStatus; 2] {
    let ids = split_ids(subject);
    let splits = open(subject).splits(subject.patience()).expect("an input that exists has splits");
    let status = |id: SplitId| {
        let of_id: Vec<_> = splits.iter().filter(|status| status.split == id).collect();
        assert_eq!(of_id.len(), 1, "split '{id}' is named once among {splits:?}");
        of_id[0].clone()
    };
    assert_eq!(splits.len(), 2, "the input has two splits, and there are {splits:?}");
    ids.map(status)
}

/// Where a split begins and ends; it is available.
fn extent<S: SourceSubject>(subject: &S, split: u32) -> (u64, u64) {
    match &statuses(subject)[split as usize].availability {
        Availability::Available { earliest, end } => (earliest.0, end.0),
        Availability::Unavailable { why } => panic!("split {split} is unavailable: {why}"),
    }
}

fn earliest<S: SourceSubject>(subject: &S, split: u32) -> u64 {
    extent(subject, split).0
}

fn end<S: SourceSubject>(subject: &S, split: u32) -> u64 {
    extent(subject, split).1
}

/// What was read, without places.
fn records(read: &[Read]) -> Vec<TestRecord> {
    read.iter().map(|read| read.record.clone()).collect()
}

/// What must be read of these records.
fn as_read<S: SourceSubject>(subject: &S, records: &[TestRecord]) -> Vec<TestRecord> {
    let one = |record| subject.as_read(record).expect("a record with a key and a value in ASCII can be held");
    records.iter().map(one).collect()
}

/// Appends numbered records to a split, and returns what must be read of them.
fn append<S: SourceSubject>(subject: &mut S, split: u32, prefix: &str, count: usize) -> Vec<TestRecord> {
    let records = numbered(prefix, 0..count);
    subject.append(split, &records);
    as_read(subject, &records)
}

/// The description of a split contains its name, and is another for each split.
pub fn an_input_and_its_splits_can_be_described<S: SourceSubject>(subject: &mut S) {
    let source = open(subject);
    assert!(!source.describe().is_empty(), "an input has a description");
    let splits = split_ids(subject);
    let described = splits.each_ref().map(|split| source.describe_split(split));
    for (split, described) in splits.iter().zip(&described) {
        assert!(names(described, &split.0), "the description '{described}' does not name split '{split}'");
    }
    assert_ne!(described[0], described[1], "both splits have one description");
}

/// The error of `splits` has the kind that ends a job.
pub fn an_input_that_does_not_exist_is_a_configuration_error<S: SourceSubject>(subject: &mut S) {
    let error = subject.missing().splits(subject.patience()).expect_err("there is no such input");
    assert_eq!(error.kind, ErrorKind::Configuration, "the error is '{error}'");
}

/// Earliest and end of an empty, a filled and a truncated split; the other split keeps its status.
pub fn splits_tell_where_they_begin_and_end<S: SourceSubject>(subject: &mut S) {
    let empty = statuses(subject);
    for split in [0, 1] {
        let (first, end) = extent(subject, split);
        assert_eq!(first, end, "an empty split ends where it begins");
    }
    append(subject, 1, "a", 5);
    let (filled, (first, end)) = (statuses(subject), extent(subject, 1));
    assert_eq!(filled[0], empty[0], "the status of a split changed although nothing was appended to it");
    assert_eq!(filled[1].identity, empty[1].identity, "a split keeps its identity when records are appended");
    let read = Reading::from(subject, 1, first).exactly(5);
    assert!(first <= read[0].offset, "the first record has an offset before the earliest");
    assert!(read[4].offset < end, "the end {end} is not after the last record, at {}", read[4].offset);
    if subject.truncate(1, Offset(read[2].offset)) {
        let left = earliest(subject, 1);
        assert!(read[1].offset < left && left <= read[2].offset, "removed records count as readable: {left}");
    }
}

/// Read by two readers of two values of the source, from the beginning and from each record in the middle. An absent key
/// or value stays absent, an empty one empty, and bytes that are no text stay as they are.
pub fn reading_again_from_any_offset_gives_equal_records<S: SourceSubject>(subject: &mut S) {
    let mut all = numbered("k", 0..20);
    all[3].1 = None;
    all[4].1 = Some(Vec::new());
    all[5].0 = Some(Vec::new());
    all[6].0 = None;
    all[7].1 = Some(vec![0, b'\n', 0xff, b'"', b'\\', b'\r', b'\t']);
    all[8].0 = Some(vec![0xfe, 0, b'\n']);
    all.retain(|record| subject.as_read(record).is_some());
    let half = all.len() / 2;
    subject.append(0, &all[..half]);
    append(subject, 1, "other", 3);
    subject.append(0, &all[half..]);
    let first = earliest(subject, 0);
    let read = Reading::from(subject, 0, first).exactly(all.len());
    assert_eq!(records(&read), as_read(subject, &all), "the records are not read as they were appended");
    assert_eq!(Reading::from(subject, 0, first).exactly(all.len()), read, "a second reader reads something else");
    for (skipped, from) in read.iter().enumerate() {
        let again = Reading::from(subject, 0, from.offset).exactly(all.len() - skipped);
        assert_eq!(again, read[skipped..], "read from offset {}, the records are others", from.offset);
    }
}

/// Strictly, by any steps: a source's offsets may be those of bytes. All are less than the split's end.
pub fn offsets_ascend_within_a_split<S: SourceSubject>(subject: &mut S) {
    for round in 0..3 {
        append(subject, 0, &format!("round {round} "), 20);
        append(subject, 1, &format!("other {round} "), 20);
    }
    let mut reading = Reading::from_earliest(subject, 0);
    reading.start(1, earliest(subject, 1));
    let read = reading.exactly(120);
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    for Read { split, offset, .. } in &read {
        if let Some(before) = last.insert(*split, *offset) {
            assert!(before < *offset, "offset {offset} of split {split} comes after offset {before}");
        }
        assert!(*offset < end(subject, *split), "offset {offset} is not before the end of split {split}");
    }
}

/// With any number that it is asked for.
pub fn poll_hands_out_no_more_than_it_was_asked_for<S: SourceSubject>(subject: &mut S) {
    append(subject, 0, "a", 20);
    append(subject, 1, "b", 20);
    for most in [1, 2, 3, 1000] {
        let mut reading = Reading::from_earliest(subject, 0);
        reading.start(1, earliest(subject, 1));
        let (begun, mut read) = (Instant::now(), Vec::new());
        while read.len() < 40 {
            let seen = reading.alarm.count();
            if reading.poll(most, &mut read) == 0 {
                let left = reading.patience.saturating_sub(begun.elapsed());
                assert!(reading.alarm.wait_after(seen, left), "{} of 40 records came, {most} a poll", read.len());
            }
        }
    }
}

/// A poll that finds nothing returns.
pub fn poll_does_not_wait<S: SourceSubject>(subject: &mut S) {
    let (source, [split, _], from) = (open(subject), split_ids(subject), earliest(subject, 0));
    let polled = in_time("the poll of a split without records", subject.patience(), move || {
        let mut reader = source.reader(Waker::new(|| ())).expect("a reader can be created");
        reader.start(slot(0), &split, Offset(from)).expect("a split that exists can be started");
        reader.poll(10, &mut |_, _| ()).expect("nothing is wrong with the input")
    });
    assert_eq!(polled, 0, "there are no records");
}

/// The record is appended after the poll, so that nothing but the waker can tell of it; of each split, several times.
pub fn the_waker_is_called_for_records_that_come_after_an_empty_poll<S: SourceSubject>(subject: &mut S) {
    let mut reading = Reading::from_earliest(subject, 0);
    reading.start(1, earliest(subject, 1));
    for round in 0..3 {
        for split in [0, 1] {
            let seen = reading.idle();
            let appended = append(subject, split, &format!("round {round} "), 2);
            reading.is_woken(seen, "records that were appended");
            assert_eq!(records(&reading.exactly(2)), appended);
        }
    }
}

/// The records were there before the poll, but not committed.
pub fn the_waker_is_called_when_a_transaction_commits<S: SourceSubject>(subject: &mut S) -> Outcome {
    let open = numbered("open", 0..3);
    let mut reading = Reading::from_earliest(subject, 0);
    if !subject.append_open(0, &open) {
        return NO_TRANSACTIONS;
    }
    let seen = reading.idle();
    subject.end(Ending::Commit);
    reading.is_woken(seen, "a transaction that was committed");
    assert_eq!(records(&reading.exactly(3)), as_read(subject, &open));
    Outcome::Passed
}

/// Neither open nor aborted records come, and the end of the split is before those of an open transaction.
pub fn only_committed_records_are_delivered<S: SourceSubject>(subject: &mut S) -> Outcome {
    let first = append(subject, 0, "first", 2);
    let stable = end(subject, 0);
    let open = numbered("open", 0..3);
    if !subject.append_open(0, &open) {
        return NO_TRANSACTIONS;
    }
    assert_eq!(end(subject, 0), stable, "an open transaction moved the end of what is committed");
    let mut reading = Reading::from_earliest(subject, 0);
    assert_eq!(records(&reading.exactly(2)), first, "before an open transaction");
    subject.end(Ending::Commit);
    assert_eq!(records(&reading.exactly(3)), as_read(subject, &open), "of a transaction that was committed");
    assert!(subject.append_open(0, &numbered("aborted", 0..3)), "a second transaction can be opened");
    subject.end(Ending::Abort);
    let last = append(subject, 0, "last", 2);
    assert_eq!(records(&reading.exactly(2)), last, "after a transaction that was aborted");
    let all = Reading::from_earliest(subject, 0).exactly(7);
    assert_eq!(all[5..].iter().map(|read| read.record.clone()).collect::<Vec<_>>(), last, "read again");
    Outcome::Passed
}

/// It is no record before its last byte is there; then it comes once, and whole.
pub fn a_partly_written_record_is_not_delivered<S: SourceSubject>(subject: &mut S) -> Outcome {
    let first = append(subject, 0, "first", 2);
    let whole = end(subject, 0);
    let record = numbered("slow", 0..1);
    if !subject.append_part(0, &record[0]) {
        return Outcome::Skipped("the subject cannot write a part of a record");
    }
    assert_eq!(end(subject, 0), whole, "a part of a record moved the end of what is committed");
    let mut reading = Reading::from_earliest(subject, 0);
    assert_eq!(records(&reading.exactly(2)), first, "before a record of which a part is written");
    assert_eq!(reading.position(0), whole, "the position is where the record begins of which a part is written");
    let seen = reading.idle();
    subject.append_rest();
    reading.is_woken(seen, "the rest of a record");
    assert_eq!(records(&reading.exactly(1)), as_read(subject, &record), "the record comes whole");
    Outcome::Passed
}

/// The error names the split, the offset that was wanted and the first that there is; nothing is delivered before it.
pub fn an_offset_that_is_gone_is_a_data_error<S: SourceSubject>(subject: &mut S) -> Outcome {
    append(subject, 1, "k", 10);
    let all = Reading::from_earliest(subject, 1).exactly(10);
    let (wanted, left) = (all[2].offset, all[6].offset);
    if !subject.truncate(1, Offset(left)) {
        return NO_TRUNCATION;
    }
    let error = Reading::from(subject, 1, wanted).error("an offset that is gone");
    assert_eq!(error.kind, ErrorKind::Data, "the error is '{error}'");
    let available = earliest(subject, 1);
    for part in [&*subject.splits()[1], &*wanted.to_string(), &*available.to_string()] {
        assert!(names(&error.to_string(), part), "the error does not name '{part}': '{error}'");
    }
    assert_eq!(Reading::from(subject, 1, left).exactly(4), all[6..], "what is left can be read");
    Outcome::Passed
}

/// A split that ends before an offset that was read from it has lost records: to wait there would be to skip what comes.
pub fn an_offset_beyond_the_end_is_a_data_error<S: SourceSubject>(subject: &mut S) {
    append(subject, 1, "k", 3);
    let wanted = end(subject, 1) + 1000;
    let error = Reading::from(subject, 1, wanted).error("an offset beyond the end");
    assert_eq!(error.kind, ErrorKind::Data, "the error is '{error}'");
    for part in [&*subject.splits()[1], &*wanted.to_string()] {
        assert!(names(&error.to_string(), part), "the error does not name '{part}': '{error}'");
    }
}

/// After each poll another reader that starts at the position reads exactly what is left.
pub fn reading_goes_on_from_the_position<S: SourceSubject>(subject: &mut S) {
    append(subject, 0, "k", 10);
    let (first, end) = extent(subject, 0);
    let all = Reading::from(subject, 0, first).exactly(10);
    let mut reading = Reading::from(subject, 0, first);
    assert_eq!(reading.position(0), first, "a split that was started has its start as its position");
    for count in 1..=10 {
        let (begun, mut read) = (Instant::now(), Vec::new());
        while read.is_empty() {
            let seen = reading.alarm.count();
            if reading.poll(1, &mut read) == 0 {
                let left = reading.patience.saturating_sub(begun.elapsed());
                assert!(reading.alarm.wait_after(seen, left), "record {count} of 10 did not come");
            }
        }
        let position = reading.position(0);
        assert!(read[0].offset < position, "the position {position} is not past the record at {}", read[0].offset);
        let rest = Reading::from(subject, 0, position).exactly(10 - count);
        assert_eq!(rest, all[count..], "read from the position {position} after {count} records");
    }
    reading.until("the position reaches the end", |reading, _| reading.position(0) >= end);
    assert_eq!(reading.position(0), end, "the position is beyond the end");
}

/// A split that ends in control markers and aborted records is read to its end.
pub fn the_position_passes_what_is_never_delivered<S: SourceSubject>(subject: &mut S) -> Outcome {
    for ending in [Ending::Commit, Ending::Abort] {
        if !subject.append_open(0, &numbered("k", 0..3)) {
            return NO_TRANSACTIONS;
        }
        subject.end(ending);
        let end = end(subject, 0);
        let mut reading = Reading::from_earliest(subject, 0);
        let what = format!("the position reaches the end {end} after a transaction ended by {ending:?}");
        let read = reading.until(&what, |reading, _| reading.position(0) >= end);
        assert_eq!(reading.position(0), end, "the position is beyond the end");
        assert_eq!(read.len(), 3, "after {ending:?}");
    }
    Outcome::Passed
}

/// Nothing of a paused split comes, the other goes on, and after resuming nothing is missing or doubled.
pub fn a_paused_split_delivers_nothing_until_it_is_resumed<S: SourceSubject>(subject: &mut S) {
    let first = append(subject, 0, "a", 20);
    let end = end(subject, 0);
    let mut reading = Reading::from_earliest(subject, 0);
    reading.start(1, earliest(subject, 1));
    // Once in the middle of what is there, and once at its end.
    let mut read = reading.until("some records", |_, read| !read.is_empty());
    reading.set_paused(0, true);
    let position = reading.position(0);
    append(subject, 1, "b", 5);
    assert!(reading.exactly(5).iter().all(|read| read.split == 1), "a paused split delivered records");
    assert_eq!(reading.position(0), position, "the position of a paused split moved");
    reading.set_paused(0, false);
    read.extend(reading.until("the end of the split", |reading, _| reading.position(0) >= end));
    assert_eq!(records(&read), first, "of a split that was paused in its middle");

    reading.set_paused(0, true);
    let second = append(subject, 0, "c", 4);
    append(subject, 1, "d", 1);
    assert!(reading.exactly(1).iter().all(|read| read.split == 1), "a split paused at its end delivered records");
    reading.set_paused(0, false);
    assert_eq!(records(&reading.exactly(4)), second, "of a split that was paused at its end");
}

/// The same split under the same slot, from an earlier and from a later offset.
pub fn a_split_can_be_started_again<S: SourceSubject>(subject: &mut S) {
    append(subject, 0, "k", 30);
    let mut reading = Reading::from_earliest(subject, 0);
    let all = reading.exactly(30);
    for skip in [0, 12, 29] {
        reading.start(0, all[skip].offset);
        assert_eq!(reading.position(0), all[skip].offset, "the position of a split that was started again");
        assert_eq!(reading.exactly(30 - skip), all[skip..], "started again with {skip} records left out");
    }
}

/// Each split from an offset of its own, one from its beginning and one from its middle.
pub fn several_splits_of_one_reader_come_as_their_slots<S: SourceSubject>(subject: &mut S) {
    append(subject, 0, "a", 12);
    let other = append(subject, 1, "b", 9);
    let all = Reading::from_earliest(subject, 0).exactly(12);
    let mut reading = Reading::from(subject, 0, all[5].offset);
    reading.start(1, earliest(subject, 1));
    let read = reading.exactly(7 + 9);
    let (of_first, of_second): (Vec<_>, Vec<_>) = read.into_iter().partition(|read| read.split == 0);
    assert_eq!(of_first, all[5..], "of the split that was started in its middle");
    assert_eq!(records(&of_second), other, "of the split that was started at its beginning");
}

/// `start` fails, or a later poll does; in no case do records of another split come for it.
pub fn a_split_that_does_not_exist_delivers_nothing<S: SourceSubject>(subject: &mut S) {
    append(subject, 0, "a", 5);
    append(subject, 1, "b", 5);
    let (first, no_split) = (earliest(subject, 0), SplitId("7".to_owned()));
    let mut reading = Reading::of(subject);
    if reading.reader.start(slot(7), &no_split, Offset(first)).is_err() {
        return;
    }
    reading.start(1, earliest(subject, 1));
    let (begun, mut read) = (Instant::now(), Vec::new());
    while read.iter().filter(|read: &&Read| read.split == 1).count() < 5 {
        let seen = reading.alarm.count();
        match reading.try_poll(7, &mut read) {
            Err(_) => break,
            Ok(0) => {
                let left = reading.patience.saturating_sub(begun.elapsed());
                assert!(reading.alarm.wait_after(seen, left), "the records of the split that exists did not come");
            }
            Ok(_) => {}
        }
    }
    assert!(read.iter().all(|read| read.split == 1), "split '{no_split}' does not exist, and delivered {read:?}");
}

/// Two threads have a reader each, of one source and of a split each. Each is woken for its own split.
pub fn readers_on_several_threads_are_woken_each<S: SourceSubject>(subject: &mut S) {
    let (source, patience) = (open(subject), subject.patience());
    let (sender, receiver) = channel();
    std::thread::scope(|threads| {
        for split in [0, 1] {
            let (source, splits, from) = (source.clone(), split_ids(subject), earliest(subject, split));
            let sender = sender.clone();
            threads.spawn(move || {
                let mut reading = Reading::new(&*source, splits, patience);
                reading.start(split, from);
                let seen = reading.idle();
                sender.send((split, None)).expect("the check waits for its readers");
                reading.is_woken(seen, "records that were appended by another thread");
                let read = reading.exactly(2);
                sender.send((split, Some(records(&read)))).expect("the check waits for its readers");
            });
        }
        drop(sender);
        let next = || receiver.recv_timeout(patience * 2).expect("a reader on a thread of its own did not read");
        let idle = [next(), next()];
        assert!(idle.iter().all(|(_, read)| read.is_none()), "a reader read what was not appended");
        for split in [1, 0] {
            let appended = append(subject, split, "k", 2);
            assert_eq!(next(), (split, Some(appended)), "by the reader of split {split}");
        }
    });
}

/// It says that it is unavailable, the other split goes on, and its own records come afterwards.
pub fn an_unavailable_split_holds_up_no_other<S: SourceSubject>(subject: &mut S) -> Outcome {
    let first = append(subject, 0, "a", 3);
    let second = append(subject, 1, "b", 3);
    let (of_first, of_second) = (earliest(subject, 0), earliest(subject, 1));
    let before = statuses(subject);
    if !subject.set_available(0, false) {
        return Outcome::Skipped("the subject cannot make a split unavailable");
    }
    let meanwhile = statuses(subject);
    assert!(meanwhile[0].availability.why_not().is_some(), "a split that is unavailable says so");
    assert_eq!(meanwhile[0].identity, before[0].identity, "a split keeps its identity while it is unavailable");
    assert_eq!(meanwhile[1], before[1], "the status of the other split changed");
    let mut reading = Reading::from(subject, 0, of_first);
    reading.start(1, of_second);
    assert_eq!(records(&reading.exactly(3)), second, "the other split goes on");
    assert_eq!(reading.position(0), of_first, "the position of a split that is unavailable moved");
    assert!(subject.set_available(0, true), "a split can be made available again");
    assert_eq!(records(&reading.exactly(3)), first, "the records of the split come when it is available again");
    assert_eq!(statuses(subject), before, "the status is again what it was");
    Outcome::Passed
}

/// Or none, where the system cannot tell.
pub fn a_recreated_input_has_another_identity<S: SourceSubject>(subject: &mut S) -> Outcome {
    append(subject, 0, "k", 3);
    let before = statuses(subject);
    if !subject.recreate() {
        return Outcome::Skipped("the subject cannot recreate its input");
    }
    let after = statuses(subject);
    for (before, after) in before.iter().zip(&after) {
        let told = before.identity.is_empty() || before.identity != after.identity;
        assert!(told, "split '{}' has the identity '{}' before and after", before.split, before.identity);
    }
    Outcome::Passed
}

/// A report acknowledges nothing: all records can be read again, and a new reader begins where it is told.
pub fn reporting_committed_positions_changes_nothing<S: SourceSubject>(subject: &mut S) {
    append(subject, 0, "k", 6);
    let (first, end) = extent(subject, 0);
    let all = Reading::from(subject, 0, first).exactly(6);
    let (source, [split, _]) = (open(subject), split_ids(subject));
    // An error is for the engine's log.
    drop(source.report_committed("conformance", &[(split, Offset(end))]));
    assert_eq!(extent(subject, 0), (first, end), "a report changed what can be read");
    assert_eq!(Reading::from(subject, 0, first).exactly(6), all, "a report changed what is read");
}
