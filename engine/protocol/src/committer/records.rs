//! A tick's records of one output partition.

use fluvial_connector::{Digest, OutputBlock, OutputRecordRef, output_digest};

/// The records of one tick in one output partition, in their order, and the sum of their digests. The sum is taken by the
/// worker that encodes the records: workers do it side by side, and the committer of their process is one.
#[derive(Debug, Default)]
pub struct TickRecords {
    records: OutputBlock,
    sum: Digest,
}

impl TickRecords {
    /// These records.
    pub fn new(records: impl Into<OutputBlock>) -> Self {
        let records = records.into();
        let sum = sum(records.iter());
        Self { records, sum }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The records.
    pub fn block(&self) -> &OutputBlock {
        &self.records
    }

    /// The sum of their digests.
    pub fn sum(&self) -> Digest {
        self.sum
    }

    /// The records, to keep.
    pub fn into_block(self) -> OutputBlock {
        self.records
    }
}

/// The sum of the digests of some records.
pub(super) fn sum<'a>(records: impl IntoIterator<Item = OutputRecordRef<'a>>) -> Digest {
    let mut sum = Digest::default();
    records.into_iter().for_each(|record| sum.add(output_digest(Some(record.key), record.value)));
    sum
}
