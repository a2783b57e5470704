//! One partition's log: batches in offset order, what transactions are open in it and which were aborted.
//!
//! Guarantees offsets without gaps but for control markers, which take one each as in Kafka; a read never ends in the
//! middle of a batch; a `read_committed` read stops before the first open transaction. It is never compacted and keeps
//! everything until records are deleted by request: the broker's memory limit is what bounds it.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::records::RecordBatchDecoder;

use super::batch::{self, Header};
use super::producers::{Producers, Verdict};

/// What each batch costs beside its bytes; a generous guess, so that the memory limit also holds for tiny batches.
const BATCH_OVERHEAD_BYTES: usize = 160;

/// Which records a reader is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// All of them.
    Uncommitted,
    /// Those of no transaction or a finished one; the client drops the aborted.
    Committed,
}

impl From<i8> for Isolation {
    fn from(level: i8) -> Self {
        if level == 1 { Self::Committed } else { Self::Uncommitted }
    }
}

/// A partition's log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    start: i64,
    end: i64,
    bytes: usize,
    batches: VecDeque<Batch>,
    producers: Producers,
    /// First offset → producer, of each transaction that is open here.
    open: BTreeMap<i64, i64>,
    /// In the order of their markers.
    aborted: Vec<Aborted>,
}

#[derive(Debug)]
struct Batch {
    base: i64,
    last: i64,
    max_timestamp: i64,
    bytes: Bytes,
}

/// A transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    /// The offset of its first record here.
    pub(crate) first: i64,
    /// The offset of its marker.
    pub(crate) marker: i64,
}

/// What a read gives.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// Whole batches, in order.
    pub(crate) batches: Vec<Bytes>,
    /// Their length.
    pub(crate) bytes: usize,
    /// The aborted transactions that have records among them; only for `read_committed`.
    pub(crate) aborted: Vec<Aborted>,
}

/// A record found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
}

impl Log {
    /// The first offset that can be read.
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    /// The offset that the next record gets (Kafka's high watermark; there is one replica).
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// Where the first open transaction begins, or the end.
    pub(crate) fn last_stable(&self) -> i64 {
        self.open.keys().next().map_or(self.end, |first| self.start.max(*first))
    }

    /// How far such a reader may read.
    pub(crate) fn limit(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::Uncommitted => self.end,
            Isolation::Committed => self.last_stable(),
        }
    }

    /// The memory that the log takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The memory that a batch of this length takes.
    pub(crate) fn cost(batch_bytes: usize) -> usize {
        batch_bytes + BATCH_OVERHEAD_BYTES
    }

    /// Judges a producer's batch; changes nothing.
    ///
    /// # Errors
    ///
    /// Those of [`Producers::judge`].
    pub(crate) fn judge(&self, header: &Header) -> Result<Verdict, ResponseError> {
        self.producers.judge(header)
    }

    /// Appends a batch that [`judge`](Self::judge) let pass, and gives its base offset.
    pub(crate) fn append(&mut self, header: &Header, bytes: &[u8]) -> i64 {
        let base = self.push(header, bytes);
        if let Some(first) = self.producers.wrote(header, base) {
            self.open.insert(first, header.producer_id);
        }
        base
    }

    /// Ends a producer's transaction with a control batch.
    pub(crate) fn end_transaction(&mut self, producer_id: i64, epoch: i16, committed: bool, timestamp: i64) {
        let (header, bytes) = batch::marker(producer_id, epoch, committed, timestamp);
        let marker = self.push(&header, &bytes);
        if let Some(first) = self.producers.ended(producer_id, epoch) {
            self.open.remove(&first);
            if !committed {
                self.aborted.push(Aborted { producer_id, first, marker });
            }
        }
    }

    fn push(&mut self, header: &Header, bytes: &[u8]) -> i64 {
        let base = self.end;
        let last = base + i64::from(header.last_offset_delta);
        let bytes = batch::place(bytes, base);
        self.bytes += Self::cost(bytes.len());
        self.batches.push_back(Batch { base, last, max_timestamp: header.max_timestamp, bytes });
        self.end = last + 1;
        base
    }

    /// Reads whole batches from the one that holds `from`, at most `max_bytes` unless `oversize` allows the first to be
    /// larger.
    ///
    /// # Errors
    ///
    /// `OFFSET_OUT_OF_RANGE` when `from` is before the start or after the end.
    pub(crate) fn read(
        &self,
        from: i64,
        isolation: Isolation,
        max_bytes: usize,
        oversize: bool,
    ) -> Result<Read, ResponseError> {
        if from < self.start || from > self.end {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let limit = self.limit(isolation);
        let mut read = Read::default();
        let mut until = from;
        let first = self.batches.partition_point(|b| b.last < from);
        for batch in self.batches.range(first..).take_while(|b| b.base < limit) {
            let fits = read.bytes + batch.bytes.len() <= max_bytes || (oversize && read.bytes == 0);
            if !fits {
                break;
            }
            read.bytes += batch.bytes.len();
            read.batches.push(batch.bytes.clone());
            until = batch.last + 1;
        }
        if isolation == Isolation::Committed && !read.batches.is_empty() {
            let later = self.aborted.partition_point(|a| a.marker < from);
            read.aborted = self.aborted[later..].iter().filter(|a| a.first < until).copied().collect();
        }
        Ok(read)
    }

    /// The first record whose timestamp is not before `timestamp`, in offset order.
    pub(crate) fn find(&self, timestamp: i64, isolation: Isolation) -> Option<Found> {
        let limit = self.limit(isolation);
        self.batches
            .iter()
            .take_while(|b| b.base < limit)
            .filter(|b| b.max_timestamp >= timestamp)
            .find_map(|b| self.records(b).into_iter().find(|r| r.timestamp >= timestamp))
    }

    /// The record with the greatest timestamp, the first of equals.
    pub(crate) fn newest(&self) -> Option<Found> {
        let greatest = self.batches.iter().map(|b| b.max_timestamp).max()?;
        self.find(greatest, Isolation::Uncommitted)
    }

    /// The timestamps of a batch's records; for one that cannot be decoded, the header's own.
    fn records(&self, batch: &Batch) -> Vec<Found> {
        let found = match RecordBatchDecoder::decode(&mut BytesMut::from(&batch.bytes[..]).freeze()) {
            Ok(set) => set.records.iter().map(|r| Found { offset: r.offset, timestamp: r.timestamp }).collect(),
            Err(_) => vec![Found { offset: batch.base, timestamp: batch.max_timestamp }],
        };
        found.into_iter().filter(|f: &Found| f.offset >= self.start).collect()
    }

    /// Deletes the records before `offset`, and frees the batches that held none after it.
    ///
    /// # Errors
    ///
    /// `OFFSET_OUT_OF_RANGE` when `offset` is after the end.
    pub(crate) fn delete_before(&mut self, offset: i64) -> Result<(), ResponseError> {
        if offset < 0 || offset > self.end {
            return Err(ResponseError::OffsetOutOfRange);
        }
        self.start = self.start.max(offset);
        while self.batches.front().is_some_and(|b| b.last < self.start) {
            if let Some(batch) = self.batches.pop_front() {
                self.bytes -= Self::cost(batch.bytes.len());
            }
        }
        self.aborted.retain(|a| a.marker >= self.start);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
