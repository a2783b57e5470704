#![allow(clippy::unwrap_used)]
use super::super::batch::samples::{batch, plain};
use super::*;

fn append(log: &mut Log, (header, bytes): (Header, Bytes)) -> i64 {
    assert_eq!(log.judge(&header), Ok(Verdict::Append));
    log.append(&header, &bytes)
}

fn offsets(read: &Read) -> Vec<i64> {
    read.batches.iter().map(|b| i64::from_be_bytes(b[..8].try_into().unwrap())).collect()
}

#[test]
fn offsets_go_on_from_batch_to_batch() {
    let mut log = Log::default();
    assert_eq!(append(&mut log, plain(3)), 0);
    assert_eq!(append(&mut log, plain(2)), 3);
    assert_eq!(log.end(), 5);
    let read = log.read(4, Isolation::Uncommitted, 1 << 20, true).unwrap();
    assert_eq!(offsets(&read), [3], "the batch that holds the offset comes whole");
}

#[test]
fn a_read_outside_the_log_is_an_error_and_at_its_end_is_empty() {
    let mut log = Log::default();
    append(&mut log, plain(3));
    assert!(log.read(3, Isolation::Uncommitted, 1 << 20, true).unwrap().batches.is_empty());
    assert_eq!(log.read(4, Isolation::Uncommitted, 1, true).unwrap_err(), ResponseError::OffsetOutOfRange);
    log.delete_before(2).unwrap();
    assert_eq!(log.read(1, Isolation::Uncommitted, 1, true).unwrap_err(), ResponseError::OffsetOutOfRange);
}

#[test]
fn only_the_first_batch_may_be_larger_than_asked() {
    let mut log = Log::default();
    append(&mut log, plain(3));
    append(&mut log, plain(3));
    assert_eq!(offsets(&log.read(0, Isolation::Uncommitted, 1, true).unwrap()), [0]);
    assert!(log.read(0, Isolation::Uncommitted, 1, false).unwrap().batches.is_empty());
}

#[test]
fn an_open_transaction_holds_back_committed_readers() {
    let mut log = Log::default();
    append(&mut log, plain(1));
    append(&mut log, batch((7, 0), 0, 2, true));
    append(&mut log, plain(1));
    assert_eq!((log.last_stable(), log.end()), (1, 4));
    assert_eq!(offsets(&log.read(0, Isolation::Committed, 1 << 20, true).unwrap()), [0]);
    assert_eq!(offsets(&log.read(0, Isolation::Uncommitted, 1 << 20, true).unwrap()), [0, 1, 3]);
    log.end_transaction(7, 0, true, 0);
    assert_eq!((log.last_stable(), log.end()), (5, 5), "the marker takes an offset");
    let read = log.read(0, Isolation::Committed, 1 << 20, true).unwrap();
    assert_eq!(offsets(&read), [0, 1, 3, 4]);
    assert!(read.aborted.is_empty());
}

#[test]
fn aborted_transactions_are_named_where_their_records_are_read() {
    let mut log = Log::default();
    append(&mut log, batch((7, 0), 0, 2, true)); // 0, 1
    append(&mut log, batch((8, 0), 0, 1, true)); // 2
    log.end_transaction(8, 0, false, 0); // 3
    log.end_transaction(7, 0, false, 0); // 4
    append(&mut log, plain(1)); // 5
    let read = |from| log.read(from, Isolation::Committed, 1 << 20, true).unwrap().aborted;
    let (eight, seven) =
        (Aborted { producer_id: 8, first: 2, marker: 3 }, Aborted { producer_id: 7, first: 0, marker: 4 });
    assert_eq!(read(0), [eight, seven]);
    assert_eq!(read(4), [seven]);
    assert_eq!(read(5), []);
    let first = log.read(0, Isolation::Committed, 1, true).unwrap();
    assert_eq!(first.aborted, [seven], "the other one begins after what was read");
}

#[test]
fn a_marker_without_records_before_it_aborts_nothing() {
    let mut log = Log::default();
    log.end_transaction(7, 0, false, 0);
    append(&mut log, plain(1));
    assert!(log.read(0, Isolation::Committed, 1 << 20, true).unwrap().aborted.is_empty());
    assert_eq!(log.end(), 2);
}

#[test]
fn deleting_records_frees_whole_batches_and_moves_the_start() {
    let mut log = Log::default();
    append(&mut log, plain(3));
    append(&mut log, plain(3));
    let full = log.bytes();
    log.delete_before(4).unwrap();
    assert_eq!((log.start(), log.end(), log.bytes()), (4, 6, full / 2));
    assert_eq!(log.delete_before(7), Err(ResponseError::OffsetOutOfRange));
    log.delete_before(6).unwrap();
    assert_eq!((log.start(), log.bytes()), (6, 0));
}

#[test]
fn a_record_is_found_by_its_timestamp() {
    let mut log = Log::default();
    append(&mut log, plain(2));
    assert_eq!(log.find(1_001, Isolation::Uncommitted), None);
    assert_eq!(log.find(999, Isolation::Uncommitted), Some(Found { offset: 0, timestamp: 1_000 }));
    assert_eq!(log.newest(), Some(Found { offset: 0, timestamp: 1_000 }));
    log.end_transaction(7, 0, true, 2_000);
    assert_eq!(log.newest(), Some(Found { offset: 2, timestamp: 2_000 }));
}
