//! Which records are delivered.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{NO_TRANSACTIONS, NO_TRUNCATION, Read, Reading, append, as_read, earliest, end, records};
use crate::conformance::{Ending, Outcome, SourceSubject, names, numbered};
use crate::{ErrorKind, Offset};

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
    // One reader at a time reads a split.
    drop(reading);
    let all = Reading::from_earliest(subject, 0).exactly(7);
    assert_eq!(records(&all[5..]), last, "read again");
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
