//! Corrects upsert outputs: compares what the job computes now with what the outputs hold.
//!
//! ```text
//!   all output through the tick of the reconciliation ──apply──► whole table ─┐
//!   the output, read back ───────────────────────────────────────► held table ┴─► missing, changed, or to be deleted
//! ```
//!
//! The table that an output should hold is made up of everything that the dataflow puts out through the tick of the
//! reconciliation, the restored state included. The corrections are the output of that tick. Append outputs, and upsert
//! outputs that are written from a stream ([`Envelope::StreamWritten`](fluvial_connector::Envelope::StreamWritten)), are not corrected.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasherDefault, DefaultHasher};

use fluvial_connector::{OutputPartition, OutputRecord, OutputRecordRef, Tick};

use crate::TickRecords;
use crate::committer::HeldRecords;
use crate::journal::SinkStart;

/// The rows of an output partition. Tables of a million rows are made and compared while the output pauses, so that each row is
/// looked up by its hash and not by comparing keys.
#[expect(clippy::disallowed_types, reason = "nothing depends on its order, and this hash takes nothing at random")]
pub(super) type Table = std::collections::HashMap<Vec<u8>, Vec<u8>, BuildHasherDefault<DefaultHasher>>;

/// The output of one tick in one partition.
pub type PartitionOutput = (OutputPartition, TickRecords);

/// A reconciliation under way in one process.
#[derive(Debug)]
pub(super) struct Reconciling {
    at: Tick,
    /// The names of the outputs that the reconciliation does not correct.
    left: BTreeSet<String>,
    whole: BTreeMap<OutputPartition, Table>,
    held: BTreeMap<OutputPartition, Option<Table>>,
    asked: bool,
}

impl Reconciling {
    /// A reconciliation at the tick `at`.
    pub(super) fn new(at: Tick, sinks: &[SinkStart]) -> Self {
        let left = sinks.iter().filter(|sink| !sink.envelope.can_be_corrected()).map(|sink| sink.output.clone());
        Self { at, left: left.collect(), whole: BTreeMap::new(), held: BTreeMap::new(), asked: false }
    }

    /// The tick of the reconciliation.
    pub(super) fn at(&self) -> Tick {
        self.at
    }

    /// Takes the output of a tick at or before the reconciliation; ticks ascend. Returns the part that belongs to
    /// outputs that the reconciliation does not correct.
    pub(super) fn take(&mut self, output: Vec<PartitionOutput>) -> Vec<PartitionOutput> {
        let (left, corrected): (Vec<_>, Vec<_>) =
            output.into_iter().partition(|(at, _)| self.left.contains(&at.output));
        for (at, records) in corrected {
            apply(self.whole.entry(at).or_default(), records.block().iter());
        }
        left
    }

    /// Whether the outputs have been asked for.
    pub(super) fn is_asked(&self) -> bool {
        self.asked
    }

    /// Takes note that these partitions are being read back.
    pub(super) fn ask(&mut self, partitions: impl Iterator<Item = OutputPartition>) {
        self.asked = true;
        self.held = partitions.map(|at| (at, None)).collect();
    }

    /// Takes the records that an output partition holds.
    pub(super) fn found(&mut self, HeldRecords { at, records, .. }: HeldRecords) {
        if let Some(held @ None) = self.held.get_mut(&at) {
            let table = held.insert(Table::default());
            records.into_iter().for_each(|(_, OutputRecord { key, value })| set(table, key, value));
        }
    }

    /// The corrections of each partition, in key order, once all have been read back.
    pub(super) fn corrections(&mut self) -> Option<Vec<PartitionOutput>> {
        if !self.asked || self.held.values().any(Option::is_none) {
            return None;
        }
        let held = std::mem::take(&mut self.held);
        Some(
            held.into_iter()
                .map(|(at, held)| {
                    let whole = self.whole.remove(&at).unwrap_or_default();
                    let corrections = difference(held.unwrap_or_default(), whole);
                    (at, TickRecords::new(corrections))
                })
                .collect(),
        )
    }
}

/// Applies the records of an upsert output to a table.
pub(super) fn apply<'a>(table: &mut Table, records: impl IntoIterator<Item = OutputRecordRef<'a>>) {
    records.into_iter().for_each(|record| set(table, record.key.to_vec(), record.value.map(<[u8]>::to_vec)));
}

fn set(table: &mut Table, key: Vec<u8>, value: Option<Vec<u8>>) {
    match value {
        Some(value) => table.insert(key, value),
        None => table.remove(&key),
    };
}

/// The records that turn `held` into `wanted`, in key order.
fn difference(held: Table, mut wanted: Table) -> Vec<OutputRecord> {
    let changed = |(key, value): (Vec<u8>, Vec<u8>)| match wanted.remove(&key) {
        Some(same) if same == value => None,
        wanted => Some(OutputRecord { key, value: wanted }),
    };
    let mut corrections: Vec<OutputRecord> = held.into_iter().filter_map(changed).collect();
    corrections.extend(wanted.into_iter().map(|(key, value)| OutputRecord { key, value: Some(value) }));
    corrections.sort();
    corrections
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_connector::{Envelope, Offset};

    use super::*;

    fn record(key: &str, value: Option<&str>) -> OutputRecord {
        OutputRecord { key: key.as_bytes().to_vec(), value: value.map(|v| v.as_bytes().to_vec()) }
    }

    fn sink(output: &str, envelope: Envelope) -> SinkStart {
        SinkStart {
            output: output.to_owned(),
            partitions: 4,
            envelope,
            tick: Tick(0),
            identity: String::new(),
            progress: String::new(),
        }
    }

    #[test]
    fn corrections_are_what_is_missing_changed_or_gone() {
        let at = OutputPartition { output: "out".to_owned(), partition: 0 };
        let mut reconciling = Reconciling::new(
            Tick(9),
            &[sink("out", Envelope::Upsert), sink("log", Envelope::Append), sink("copy", Envelope::StreamWritten)],
        );
        let first = vec![record("a", Some("1")), record("b", Some("2")), record("x", Some("0"))];
        assert!(reconciling.take(vec![(at.clone(), TickRecords::new(first))]).is_empty());
        let log = OutputPartition { output: "log".to_owned(), partition: 3 };
        let of_log = (log.clone(), TickRecords::new(vec![record("a", Some("9"))]));
        let second = vec![record("b", Some("3")), record("c", Some("4")), record("x", None)];
        let copy = OutputPartition { output: "copy".to_owned(), partition: 0 };
        let of_copy = (copy.clone(), TickRecords::new(vec![record("a", None)]));
        let left = reconciling.take(vec![of_log, (at.clone(), TickRecords::new(second)), of_copy]);
        assert_eq!(left.into_iter().map(|(at, _)| at).collect::<Vec<_>>(), [log, copy]);
        reconciling.ask([at.clone()].into_iter());
        assert!(reconciling.corrections().is_none());
        let held = vec![
            (Offset(0), record("a", Some("1"))),
            (Offset(1), record("b", Some("2"))),
            (Offset(3), record("d", Some("5"))),
        ];
        reconciling.found(HeldRecords { at: at.clone(), earliest: Offset(0), records: held });
        let corrections = reconciling.corrections().unwrap();
        let expected = vec![record("b", Some("3")), record("c", Some("4")), record("d", None)];
        assert_eq!(corrections.len(), 1);
        assert_eq!((&corrections[0].0, corrections[0].1.block()), (&at, &expected.into()));
    }
}
