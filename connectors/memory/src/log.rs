//! One partition: its records, and the state of the transactions that wrote them.

use std::collections::BTreeMap;

use fluvial_connector::{Headers, Offset, Record};

use crate::store::Metadata;

/// A transaction in one store.
pub(crate) type TransactionId = u64;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

#[derive(Debug)]
enum Entry {
    Record {
        key: Option<Box<[u8]>>,
        value: Option<Box<[u8]>>,
        metadata: Metadata,
        transaction: Option<TransactionId>,
    },
    /// A transaction ended here. Never delivered.
    Marker,
}

/// A partition that records are appended to.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The offset of the first entry.
    first: u64,
    entries: std::collections::VecDeque<Entry>,
    transactions: BTreeMap<TransactionId, Fate>,
    /// Where each open transaction began here.
    open: BTreeMap<TransactionId, u64>,
}

impl Log {
    pub(crate) fn earliest(&self) -> u64 {
        self.first
    }

    /// The offset after the last entry.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The offset up to which everything is decided.
    pub(crate) fn stable_end(&self) -> u64 {
        self.open.values().min().copied().unwrap_or_else(|| self.end())
    }

    pub(crate) fn append(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        transaction: Option<TransactionId>,
    ) -> u64 {
        self.append_with(key, value, Metadata::default(), transaction)
    }

    pub(crate) fn append_with(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        metadata: Metadata,
        transaction: Option<TransactionId>,
    ) -> u64 {
        let offset = self.end();
        if let Some(id) = transaction {
            self.open.entry(id).or_insert(offset);
            self.transactions.entry(id).or_insert(Fate::Open);
        }
        let (key, value) = (key.map(Into::into), value.map(Into::into));
        self.entries.push_back(Entry::Record { key, value, metadata, transaction });
        offset
    }

    /// Ends a transaction that wrote here.
    pub(crate) fn finish(&mut self, transaction: TransactionId, commit: bool) {
        if self.open.remove(&transaction).is_some() {
            let fate = if commit { Fate::Committed } else { Fate::Aborted };
            self.transactions.insert(transaction, fate);
            self.entries.push_back(Entry::Marker);
        }
    }

    /// Whether a record is there whose transaction was aborted.
    pub(crate) fn is_aborted(&self, offset: u64) -> bool {
        let place = offset.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let entry = place.and_then(|place| self.entries.get(place));
        let Some(Entry::Record { transaction: Some(id), .. }) = entry else { return false };
        self.transactions.get(id) == Some(&Fate::Aborted)
    }

    /// Forgets all entries before `offset`.
    pub(crate) fn truncate(&mut self, offset: u64) {
        while self.first < offset && self.entries.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// Hands out up to `most` committed records from `from`, and returns how many there were and the next offset to
    /// read: past everything that is never delivered.
    pub(crate) fn read(&self, from: u64, most: usize, mut take: impl FnMut(Record<'_>)) -> (usize, u64) {
        let stable = self.stable_end();
        let mut at = from.max(self.first);
        let mut count = 0;
        while at < stable {
            let entry = &self.entries[usize::try_from(at - self.first).expect("the entries are in memory")];
            if let Entry::Record { key, value, metadata, transaction } = entry
                && transaction.is_none_or(|id| self.transactions.get(&id) == Some(&Fate::Committed))
            {
                if count == most {
                    break;
                }
                count += 1;
                let (key, value) = (key.as_deref(), value.as_deref());
                let (timestamp_ms, headers) = (metadata.timestamp_ms, Headers::of(&metadata.headers));
                take(Record { offset: Offset(at), key, value, timestamp_ms, headers, split: None });
            }
            at += 1;
        }
        (count, at.max(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(log: &Log, from: u64) -> (Vec<u64>, u64) {
        let mut offsets = Vec::new();
        let (_, next) = log.read(from, usize::MAX, |r| offsets.push(r.offset.0));
        (offsets, next)
    }

    #[test]
    fn an_open_transaction_hides_what_comes_after_it() {
        let mut log = Log::default();
        log.append(None, None, None);
        log.append(None, None, Some(1));
        log.append(None, None, None);
        assert_eq!(read(&log, 0), (vec![0], 1));
        log.finish(1, true);
        assert_eq!(read(&log, 0), (vec![0, 1, 2], 4));
    }

    #[test]
    fn aborted_records_are_passed_over() {
        let mut log = Log::default();
        log.append(None, None, Some(1));
        log.finish(1, false);
        log.append(None, None, Some(2));
        assert_eq!([0, 1, 2, 3].map(|offset| log.is_aborted(offset)), [true, false, false, false]);
        log.finish(2, true);
        assert_eq!(read(&log, 0), (vec![2], 4));
        log.truncate(1);
        assert!(!log.is_aborted(0), "it is gone");
    }

    #[test]
    fn truncation_moves_the_beginning() {
        let mut log = Log::default();
        for _ in 0..5 {
            log.append(None, None, None);
        }
        log.truncate(3);
        assert_eq!((log.earliest(), log.end()), (3, 5));
        assert_eq!(read(&log, 3).0, [3, 4]);
    }
}
