//! What every source does.
//!
//! | contract of [`Source`] and [`SplitReader`] | check |
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

mod delivery;
mod position;
mod splits;
mod waking;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Alarm, Check, Outcome, Report, SourceSubject, TestRecord, checks, numbered, run_all};
use crate::{Availability, Error, JobProcess, Offset, Slot, Source, SplitId, SplitReader, SplitStatus};

pub use delivery::*;
pub use position::*;
pub use splits::*;
pub use waking::*;

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
#[derive(Clone, PartialEq, Eq)]
struct Read {
    split: u32,
    offset: u64,
    record: TestRecord,
}

/// `split 0 offset 12: k1 = Some(value 1)`, so that a person can read what a check found.
impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| bytes.escape_ascii().to_string());
        let (key, value) = (text(&self.record.0), text(&self.record.1));
        write!(f, "split {} offset {}: {key:?} = {value:?}", self.split, self.offset)
    }
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
