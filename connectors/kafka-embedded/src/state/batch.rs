//! Record batches of magic 2, as bytes.
//!
//! Owns what the broker needs to know of a batch's header, the check of its checksum, and the control batches that end
//! transactions. A batch keeps the bytes that its producer sent: only base offset and leader epoch, which the checksum
//! leaves out, are rewritten when it takes its place in the log. It does not look inside the records.
//!
//! The layout is Kafka's "Record Batch" (<https://kafka.apache.org/documentation/#recordbatch>).

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;

/// The bytes of a batch's header.
pub(crate) const HEADER_BYTES: usize = 61;

/// Where the part that the checksum covers begins.
const CHECKED_FROM: usize = 21;

const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// No producer, epoch or sequence.
pub(crate) const NONE: i64 = -1;

/// The fields of a batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) records: i32,
}

impl Header {
    /// Whether the batch belongs to a transaction.
    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch is a control batch, which only a broker may write.
    pub(crate) fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether the batch numbers its records.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.producer_id != NONE
    }

    /// The sequence of the last record; sequences wrap to 0 after `i32::MAX`.
    pub(crate) fn last_sequence(&self) -> i32 {
        sequence_after(self.base_sequence, self.last_offset_delta)
    }
}

/// The sequence `steps` after `from`.
pub(crate) fn sequence_after(from: i32, steps: i32) -> i32 {
    match from.checked_add(steps) {
        Some(sequence) => sequence,
        None => steps - (i32::MAX - from) - 1,
    }
}

/// Reads and checks the one batch that a producer sends to a partition.
///
/// # Errors
///
/// `CORRUPT_MESSAGE` for a wrong length or checksum, `INVALID_RECORD` for anything that only a broker may write, more
/// than one batch, an older magic or none at all.
pub(crate) fn check(bytes: &[u8]) -> Result<Header, ResponseError> {
    if bytes.len() < HEADER_BYTES {
        return Err(ResponseError::CorruptMessage);
    }
    let length = i32_at(bytes, 8) as usize;
    let header = header(bytes);
    if bytes[16] != 2 {
        return Err(ResponseError::InvalidRecord);
    }
    match (length + 12).cmp(&bytes.len()) {
        std::cmp::Ordering::Less => return Err(ResponseError::InvalidRecord),
        std::cmp::Ordering::Greater => return Err(ResponseError::CorruptMessage),
        std::cmp::Ordering::Equal => {}
    }
    if crc32c::crc32c(&bytes[CHECKED_FROM..]) != i32_at(bytes, 17) as u32 {
        return Err(ResponseError::CorruptMessage);
    }
    let counted = header.records >= 1 && header.last_offset_delta == header.records - 1;
    let numbered = !header.is_idempotent() || (header.producer_epoch >= 0 && header.base_sequence >= 0);
    let owned = !header.is_transactional() || header.is_idempotent();
    if !counted || !numbered || !owned || header.is_control() {
        return Err(ResponseError::InvalidRecord);
    }
    Ok(header)
}

/// What stands in the header of a batch that has at least [`HEADER_BYTES`].
pub(super) fn header(bytes: &[u8]) -> Header {
    Header {
        attributes: i16_at(bytes, 21),
        last_offset_delta: i32_at(bytes, 23),
        base_timestamp: i64_at(bytes, 27),
        max_timestamp: i64_at(bytes, 35),
        producer_id: i64_at(bytes, 43),
        producer_epoch: i16_at(bytes, 51),
        base_sequence: i32_at(bytes, 53),
        records: i32_at(bytes, 57),
    }
}

/// The batch's bytes as they stand in the log: a copy, so that the request's buffer is not kept alive by it.
pub(crate) fn place(bytes: &[u8], base_offset: i64) -> Bytes {
    let mut placed = BytesMut::from(bytes);
    placed[0..8].copy_from_slice(&base_offset.to_be_bytes());
    placed[12..16].copy_from_slice(&super::LEADER_EPOCH.to_be_bytes());
    placed.freeze()
}

/// The control batch that ends a transaction in one partition.
pub(crate) fn marker(producer_id: i64, producer_epoch: i16, committed: bool, timestamp: i64) -> (Header, Bytes) {
    let header = Header {
        attributes: TRANSACTIONAL | CONTROL,
        last_offset_delta: 0,
        base_timestamp: timestamp,
        max_timestamp: timestamp,
        producer_id,
        producer_epoch,
        base_sequence: -1,
        records: 1,
    };
    // One record: attributes, timestamp delta and offset delta 0; key (version 0, type), value (version 0, coordinator
    // epoch 0), no headers. Lengths are zigzag varints.
    let mut record = BytesMut::with_capacity(18);
    record.put_slice(&[0, 0, 0, 4 << 1]);
    record.put_i16(0);
    record.put_i16(committed.into());
    record.put_u8(6 << 1);
    record.put_i16(0);
    record.put_i32(0);
    record.put_u8(0);
    (header, seal(&header, &record))
}

/// One batch of a header and its records (each without its length), as [`marker`] and the tests write it.
fn seal(header: &Header, record: &[u8]) -> Bytes {
    let mut checked = BytesMut::with_capacity(HEADER_BYTES + record.len());
    checked.put_i16(header.attributes);
    checked.put_i32(header.last_offset_delta);
    checked.put_i64(header.base_timestamp);
    checked.put_i64(header.max_timestamp);
    checked.put_i64(header.producer_id);
    checked.put_i16(header.producer_epoch);
    checked.put_i32(header.base_sequence);
    checked.put_i32(header.records);
    for _ in 0..header.records {
        checked.put_u8((record.len() as u8) << 1);
        checked.put_slice(record);
    }
    let mut batch = BytesMut::with_capacity(CHECKED_FROM + checked.len());
    batch.put_i64(0);
    batch.put_i32((CHECKED_FROM - 12 + checked.len()) as i32);
    batch.put_i32(super::LEADER_EPOCH);
    batch.put_u8(2);
    batch.put_u32(crc32c::crc32c(&checked));
    batch.put_slice(&checked);
    batch.freeze()
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from(i32_at(bytes, at)) << 32 | i64::from(i32_at(bytes, at + 4) as u32)
}

/// Batches for tests.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    /// A batch of `records` equal records by a producer; `sequence` and the rest as a client would set them.
    pub(crate) fn batch(producer: (i64, i16), sequence: i32, records: i32, transactional: bool) -> (Header, Bytes) {
        let header = Header {
            attributes: if transactional { TRANSACTIONAL } else { 0 },
            last_offset_delta: records - 1,
            base_timestamp: 1_000,
            max_timestamp: 1_000,
            producer_id: producer.0,
            producer_epoch: producer.1,
            base_sequence: sequence,
            records,
        };
        // attributes, timestamp delta, offset delta (all 0 here: the broker never reads it), null key, "v", no headers
        (header, seal(&header, &[0, 0, 0, 1, 2, b'v', 0]))
    }

    /// A batch of a producer that does not number its records.
    pub(crate) fn plain(records: i32) -> (Header, Bytes) {
        batch((NONE, -1), -1, records, false)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use kafka_protocol::records::RecordBatchDecoder;

    #[test]
    fn a_batch_is_read_as_it_was_written() {
        let (header, bytes) = samples::batch((7, 3), 12, 5, true);
        assert_eq!(check(&bytes).unwrap(), header);
        assert_eq!(header.last_sequence(), 16);
    }

    #[test]
    fn damaged_and_forbidden_batches_are_refused() {
        let (_, bytes) = samples::plain(2);
        let mut flipped = bytes.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(check(&flipped), Err(ResponseError::CorruptMessage));
        assert_eq!(check(&bytes[..bytes.len() - 1]), Err(ResponseError::CorruptMessage));
        assert_eq!(check(b""), Err(ResponseError::CorruptMessage));
        let twice = [&bytes[..], &bytes[..]].concat();
        assert_eq!(check(&twice), Err(ResponseError::InvalidRecord));
        let (_, control) = marker(1, 0, true, 0);
        assert_eq!(check(&control), Err(ResponseError::InvalidRecord));
    }

    #[test]
    fn a_marker_is_a_control_record_that_clients_can_read() {
        let (_, bytes) = marker(9, 2, false, 55);
        let records = RecordBatchDecoder::decode(&mut place(&bytes, 41)).unwrap().records;
        assert_eq!(records.len(), 1);
        assert!(records[0].control && records[0].transactional);
        assert_eq!((records[0].offset, records[0].timestamp, records[0].producer_id), (41, 55, 9));
        assert_eq!(records[0].key.as_deref(), Some(&[0u8, 0, 0, 0][..]));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 3), 1);
        assert_eq!(sequence_after(5, 2), 7);
    }
}
