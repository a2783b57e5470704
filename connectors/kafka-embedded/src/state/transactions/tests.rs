#![allow(clippy::unwrap_used)]
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn began(transactions: &mut Transactions, producer: Producer, now: Instant) -> (Uuid, i32) {
    let partition = (Uuid::from_u128(1), 0);
    transactions.add_partitions("x", producer, [partition], now).unwrap();
    transactions.check_write(producer, partition).unwrap();
    partition
}

#[test]
fn a_new_producer_aborts_and_fences_the_old_one() {
    let (mut transactions, now) = (Transactions::default(), Instant::now());
    let (old, _) = transactions.init("x", SECOND, None).unwrap();
    let partition = began(&mut transactions, old, now);
    let (new, ending) = transactions.init("x", SECOND, None).unwrap();
    assert_eq!((new.id, new.epoch), (old.id, old.epoch + 1));
    let ending = ending.unwrap();
    assert_eq!((ending.producer, ending.committed), (new, false));
    assert!(ending.partitions.contains(&partition));
    assert_eq!(transactions.check_write(old, partition), Err(ResponseError::InvalidProducerEpoch));
    assert_eq!(transactions.end("x", old, true), Err(ResponseError::ProducerFenced));
    assert_eq!(transactions.add_partitions("x", old, [partition], now), Err(ResponseError::ProducerFenced));
}

#[test]
fn a_transaction_ends_once_and_its_end_can_be_repeated() {
    let (mut transactions, now) = (Transactions::default(), Instant::now());
    let (producer, _) = transactions.init("x", SECOND, None).unwrap();
    assert_eq!(transactions.end("x", producer, true), Err(ResponseError::InvalidTxnState));
    let partition = began(&mut transactions, producer, now);
    assert!(transactions.end("x", producer, true).unwrap().unwrap().committed);
    assert_eq!(transactions.end("x", producer, true), Ok(None));
    assert_eq!(transactions.end("x", producer, false), Err(ResponseError::InvalidTxnState));
    assert_eq!(transactions.check_write(producer, partition), Err(ResponseError::InvalidTxnState));
}

#[test]
fn a_transaction_open_too_long_is_aborted_and_its_producer_fenced() {
    let (mut transactions, now) = (Transactions::default(), Instant::now());
    let (producer, _) = transactions.init("x", SECOND, None).unwrap();
    began(&mut transactions, producer, now);
    let (none, next) = transactions.expire(now);
    assert_eq!((none.len(), next), (0, Some(now + SECOND)));
    let (endings, next) = transactions.expire(now + SECOND);
    assert_eq!((endings.len(), next), (1, None));
    assert_eq!(endings[0].1.producer.epoch, producer.epoch + 1);
    assert_eq!(transactions.end("x", producer, true), Err(ResponseError::ProducerFenced));
}

#[test]
fn a_producer_raises_its_own_epoch_and_may_ask_twice() {
    let mut transactions = Transactions::default();
    let (first, _) = transactions.init("x", SECOND, None).unwrap();
    let (second, _) = transactions.init("x", SECOND, Some(first)).unwrap();
    assert_eq!(second.epoch, first.epoch + 1);
    assert_eq!(transactions.init("x", SECOND, Some(first)).unwrap().0, second, "the answer was lost");
    let (third, _) = transactions.init("x", SECOND, None).unwrap();
    assert_eq!(transactions.init("x", SECOND, Some(second)), Err(ResponseError::ProducerFenced));
    assert_eq!(third.epoch, second.epoch + 1);
}

#[test]
fn an_exhausted_epoch_goes_on_under_another_producer_id() {
    let mut transactions = Transactions::default();
    let (first, _) = transactions.init("x", SECOND, None).unwrap();
    transactions.by_id.get_mut("x").unwrap().producer.epoch = i16::MAX - 1;
    let (next, _) = transactions.init("x", SECOND, None).unwrap();
    assert_ne!(next.id, first.id);
    assert_eq!(next.epoch, 0);
}

#[test]
fn a_stranger_is_refused() {
    let (mut transactions, now) = (Transactions::default(), Instant::now());
    let stranger = Producer { id: 99, epoch: 0 };
    transactions.init("x", SECOND, None).unwrap();
    let partition = (Uuid::from_u128(1), 0);
    assert_eq!(transactions.check_write(stranger, partition), Err(ResponseError::InvalidProducerIdMapping));
    let added = transactions.add_partitions("x", stranger, [partition], now);
    assert_eq!(added, Err(ResponseError::InvalidProducerIdMapping));
    assert_eq!(transactions.end("y", stranger, true), Err(ResponseError::InvalidProducerIdMapping));
}
