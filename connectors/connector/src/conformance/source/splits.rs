//! What a source says of itself and of its splits.

use std::time::Instant;

use super::{Read, Reading, append, earliest, extent, open, records, slot, split_ids, statuses};
use crate::conformance::{Outcome, SourceSubject, names};
use crate::{ErrorKind, Offset, SplitId};

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
