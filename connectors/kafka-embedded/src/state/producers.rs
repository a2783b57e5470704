//! What one partition knows of the producers that number their records.
//!
//! Guarantees that each batch of an idempotent producer enters the log once and in order, and that an older epoch never
//! writes after a newer one. Does not know whether a transaction may write to the partition: that is the coordinator's.

use std::collections::{HashMap, VecDeque};

use kafka_protocol::ResponseError;

use super::batch::{Header, sequence_after};

/// As many batches as a client may have under way: a retry of any of them is recognised.
const REMEMBERED: usize = 5;

/// The producers of one partition, by id.
#[derive(Debug, Default)]
pub(crate) struct Producers(HashMap<i64, Producer>);

#[derive(Debug)]
struct Producer {
    epoch: i16,
    /// The newest batches of this epoch, oldest first.
    recent: VecDeque<Written>,
    /// The first offset of its open transaction here.
    open_from: Option<i64>,
}

#[derive(Debug)]
struct Written {
    base_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new and in order.
    Append,
    /// It was written before, at this offset: answer as then.
    Duplicate(i64),
}

impl Producers {
    /// Judges a batch; changes nothing.
    ///
    /// # Errors
    ///
    /// `INVALID_PRODUCER_EPOCH` for an old epoch, `OUT_OF_ORDER_SEQUENCE_NUMBER` for a gap.
    pub(crate) fn judge(&self, header: &Header) -> Result<Verdict, ResponseError> {
        if !header.is_idempotent() {
            return Ok(Verdict::Append);
        }
        // A producer that the partition does not know, its records having been deleted perhaps, begins where it likes.
        let Some(producer) = self.0.get(&header.producer_id) else { return Ok(Verdict::Append) };
        if header.producer_epoch < producer.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if header.producer_epoch > producer.epoch {
            return in_order(header.base_sequence == 0);
        }
        let repeated = producer
            .recent
            .iter()
            .find(|w| w.base_sequence == header.base_sequence && w.last_sequence == header.last_sequence());
        if let Some(written) = repeated {
            return Ok(Verdict::Duplicate(written.base_offset));
        }
        in_order(match producer.recent.back() {
            Some(last) => header.base_sequence == sequence_after(last.last_sequence, 1),
            None => header.base_sequence == 0,
        })
    }

    /// Notes a batch that was appended at `base_offset`. Returns the first offset of the transaction that it opened.
    pub(crate) fn wrote(&mut self, header: &Header, base_offset: i64) -> Option<i64> {
        if !header.is_idempotent() {
            return None;
        }
        let producer = self.of_epoch(header.producer_id, header.producer_epoch);
        if producer.recent.len() == REMEMBERED {
            producer.recent.pop_front();
        }
        producer.recent.push_back(Written {
            base_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset,
        });
        if !header.is_transactional() || producer.open_from.is_some() {
            return None;
        }
        producer.open_from = Some(base_offset);
        producer.open_from
    }

    /// Notes the end of a producer's transaction, by a marker of this epoch. Returns where the transaction began, if it
    /// wrote anything here.
    pub(crate) fn ended(&mut self, producer_id: i64, epoch: i16) -> Option<i64> {
        self.of_epoch(producer_id, epoch).open_from.take()
    }

    fn of_epoch(&mut self, producer_id: i64, epoch: i16) -> &mut Producer {
        let producer =
            self.0.entry(producer_id).or_insert_with(|| Producer { epoch, recent: VecDeque::new(), open_from: None });
        if epoch > producer.epoch {
            producer.epoch = epoch;
            producer.recent.clear();
        }
        producer
    }
}

fn in_order(yes: bool) -> Result<Verdict, ResponseError> {
    if yes { Ok(Verdict::Append) } else { Err(ResponseError::OutOfOrderSequenceNumber) }
}

#[cfg(test)]
mod tests {
    use super::super::batch::samples::batch;
    use super::*;

    fn wrote(producers: &mut Producers, producer: (i64, i16), sequence: i32, records: i32, offset: i64) {
        let (header, _) = batch(producer, sequence, records, false);
        assert_eq!(producers.judge(&header), Ok(Verdict::Append));
        producers.wrote(&header, offset);
    }

    fn judge(
        producers: &Producers,
        producer: (i64, i16),
        sequence: i32,
        records: i32,
    ) -> Result<Verdict, ResponseError> {
        producers.judge(&batch(producer, sequence, records, false).0)
    }

    #[test]
    fn a_repeated_batch_is_recognised_while_it_is_one_of_the_newest_five() {
        let mut producers = Producers::default();
        for i in 0..6 {
            wrote(&mut producers, (1, 0), i * 10, 10, i64::from(i) * 10);
        }
        assert_eq!(judge(&producers, (1, 0), 10, 10), Ok(Verdict::Duplicate(10)));
        assert_eq!(judge(&producers, (1, 0), 50, 10), Ok(Verdict::Duplicate(50)));
        assert_eq!(judge(&producers, (1, 0), 0, 10), Err(ResponseError::OutOfOrderSequenceNumber));
    }

    #[test]
    fn a_gap_is_refused() {
        let mut producers = Producers::default();
        wrote(&mut producers, (1, 0), 0, 3, 0);
        assert_eq!(judge(&producers, (1, 0), 4, 1), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(judge(&producers, (1, 0), 3, 1), Ok(Verdict::Append));
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_shuts_out_the_old_one() {
        let mut producers = Producers::default();
        wrote(&mut producers, (1, 0), 0, 3, 0);
        assert_eq!(judge(&producers, (1, 1), 3, 1), Err(ResponseError::OutOfOrderSequenceNumber));
        wrote(&mut producers, (1, 1), 0, 1, 3);
        assert_eq!(judge(&producers, (1, 0), 3, 1), Err(ResponseError::InvalidProducerEpoch));
    }

    #[test]
    fn a_marker_of_a_newer_epoch_fences_the_old_one() {
        let mut producers = Producers::default();
        let (header, _) = batch((1, 0), 0, 1, true);
        assert_eq!(producers.wrote(&header, 8), Some(8));
        assert_eq!(producers.ended(1, 1), Some(8));
        assert_eq!(judge(&producers, (1, 0), 1, 1), Err(ResponseError::InvalidProducerEpoch));
        assert_eq!(judge(&producers, (1, 1), 0, 1), Ok(Verdict::Append));
    }
}
