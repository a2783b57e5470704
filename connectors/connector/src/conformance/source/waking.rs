//! Polls that find nothing, and what wakes a reader after them.

use std::sync::mpsc::channel;

use super::{NO_TRANSACTIONS, Reading, append, as_read, earliest, open, records, slot, split_ids};
use crate::conformance::{Ending, Outcome, SourceSubject, in_time, numbered};
use crate::{Offset, Waker};

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

/// Two threads have a reader each, of one source and of a split each. Each is woken for its own split.
pub fn readers_on_several_threads_are_woken_each<S: SourceSubject>(subject: &mut S) {
    let (source, patience) = (open(subject), subject.patience());
    let (sender, receiver) = channel();
    std::thread::scope(|threads| {
        let mut ends = Vec::new();
        for split in [0, 1] {
            let (end, ended) = channel::<()>();
            ends.push(end);
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
                // Both readers live until both have read.
                let _ = ended.recv();
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
        drop(ends);
    });
}
