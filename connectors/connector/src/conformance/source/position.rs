//! Where a reader stands, and how it is stopped and started.

use std::time::Instant;

use super::{NO_TRANSACTIONS, Read, Reading, append, earliest, end, extent, records};
use crate::conformance::{Ending, Outcome, SourceSubject, numbered};

/// A reader that starts at the position after any poll of another one reads exactly what that had left.
pub fn reading_goes_on_from_the_position<S: SourceSubject>(subject: &mut S) {
    append(subject, 0, "k", 10);
    let (first, end) = extent(subject, 0);
    let all = Reading::from(subject, 0, first).exactly(10);
    let mut reading = Reading::from(subject, 0, first);
    assert_eq!(reading.position(0), first, "a split that was started has its start as its position");
    let mut positions = Vec::new();
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
        positions.push((count, position));
    }
    reading.until("the position reaches the end", |reading, _| reading.position(0) >= end);
    assert_eq!(reading.position(0), end, "the position is beyond the end");
    // One reader at a time reads a split.
    drop(reading);
    for (count, position) in positions {
        let rest = Reading::from(subject, 0, position).exactly(10 - count);
        assert_eq!(rest, all[count..], "read from the position {position} after {count} records");
    }
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
    let of_second = |read: &[Read]| read.iter().filter(|read| read.split == 1).count();
    let meanwhile = reading.until("the records of the other split", |_, read| of_second(read) >= 5);
    assert!(meanwhile.iter().all(|read| read.split == 1), "a paused split delivered records: {meanwhile:?}");
    assert_eq!(reading.position(0), position, "the position of a paused split moved");
    reading.set_paused(0, false);
    read.extend(reading.until("the end of the split", |reading, _| reading.position(0) >= end));
    assert_eq!(records(&read), first, "of a split that was paused in its middle");

    reading.set_paused(0, true);
    let second = append(subject, 0, "c", 4);
    append(subject, 1, "d", 1);
    let meanwhile = reading.until("the record of the other split", |_, read| of_second(read) >= 1);
    assert!(meanwhile.iter().all(|read| read.split == 1), "a split paused at its end delivered {meanwhile:?}");
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
