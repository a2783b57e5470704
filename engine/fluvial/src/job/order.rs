//! The order of the records of a tick within a partition of an output: that of their bytes, key before value, for what a
//! collection or a durable operator has become, and that of the records' origins for a stream.
//!
//! # Why
//!
//! *The order must be the same whenever the tick is computed*, with any number of workers, because progress counts records
//! within a tick. A collection has no order; a stream has that of its input, which is what a consumer expects of records that
//! were only mapped.
//!
//! *The order does not depend on how the keys' type compares*, so it stays the same where that changes, and a replay by
//! another build gives the same records at the same places. Progress counts records within a tick.
//!
//! *Records are sorted by eight bytes of their keys, as one integer.* The keys of a topic often begin with the same bytes:
//! the eight that are taken follow what all keys of the tick have in common. Only records that agree in these are compared
//! as bytes, which lie elsewhere in memory.

use std::collections::BTreeSet;

use fluvial_connector::{Envelope, OutputBlock, OutputRecordRef};

use crate::stream::Origin;

/// A record to be sorted: eight bytes of its key, its block, and its place there.
type Entry = (u64, u32, u32);

/// Puts the records of all blocks into their order. For an upsert output, of records with one key a deletion is replaced by
/// the row that follows it.
///
/// # Errors
/// The key for which an upsert output has two rows.
pub(super) fn in_order(mut blocks: Vec<OutputBlock>, envelope: Envelope) -> Result<OutputBlock, Vec<u8>> {
    let common = in_common(&blocks);
    let mut entries: Vec<Entry> = Vec::with_capacity(blocks.iter().map(OutputBlock::len).sum());
    for (number, block) in (0..).zip(&blocks) {
        entries.extend((0..).zip(block.iter()).map(|(place, record)| (eight_bytes(record.key, common), number, place)));
    }
    let record = |(_, block, place): &Entry| blocks[*block as usize].get(*place as usize);
    let is_sorted = |one: &Entry, other: &Entry| one.0 < other.0 || one.0 == other.0 && record(one) < record(other);
    if blocks.len() == 1 && entries.is_sorted_by(is_sorted) {
        // No two of them have one key and value. Two of one key must still be looked at.
        let has_twice = |pair: &[Entry]| key_of(record(&pair[0])) == key_of(record(&pair[1]));
        if envelope == Envelope::Append || !entries.windows(2).any(has_twice) {
            return Ok(blocks.swap_remove(0));
        }
    }
    entries.sort_unstable_by(|one, other| one.0.cmp(&other.0).then_with(|| record(one).cmp(&record(other))));
    let mut sorted = OutputBlock::with_capacity(entries.len(), blocks.iter().map(OutputBlock::bytes).sum());
    let mut records = entries.iter().filter_map(record).peekable();
    while let Some(mut one) = records.next() {
        if envelope == Envelope::Upsert {
            // Keys that differ as values but not as bytes are one key of the output. Of its records, a deletion sorts first.
            while let Some(next) = records.next_if(|next| next.key == one.key) {
                if one.value.is_some() {
                    return Err(one.key.to_vec());
                }
                one = next;
            }
        }
        sorted.push(one.key, one.value);
    }
    Ok(sorted)
}

/// Puts the records of all blocks, each with its origin, into the order of their origins. Of an output in which records
/// replace each other, only the last record of each key stays.
pub(super) fn in_order_of_origin(mut blocks: Vec<(OutputBlock, Vec<Origin>)>, envelope: Envelope) -> OutputBlock {
    if envelope == Envelope::Append
        && let [(_, origins)] = &blocks[..]
        && origins.is_sorted_by(|one, other| one < other)
    {
        return blocks.swap_remove(0).0;
    }
    let mut entries: Vec<(Origin, u32, u32)> =
        Vec::with_capacity(blocks.iter().map(|(_, origins)| origins.len()).sum());
    for (number, (_, origins)) in (0..).zip(&blocks) {
        entries.extend((0..).zip(origins).map(|(place, origin)| (*origin, number, place)));
    }
    let record = |(_, block, place): &(Origin, u32, u32)| blocks[*block as usize].0.get(*place as usize);
    // The records of a split come in their order, which a stable sort makes use of. No two records of a stream have one origin;
    // if they had, blocks would come in any order, so the bytes decide.
    entries.sort_by(|one, other| one.0.cmp(&other.0).then_with(|| record(one).cmp(&record(other))));
    if envelope != Envelope::Append {
        let mut later = BTreeSet::new();
        let mut last_of_key: Vec<_> =
            entries.iter().rev().filter(|entry| later.insert(key_of(record(entry)))).copied().collect();
        last_of_key.reverse();
        entries = last_of_key;
    }
    let mut sorted = OutputBlock::with_capacity(entries.len(), blocks.iter().map(|(block, _)| block.bytes()).sum());
    entries.iter().filter_map(record).for_each(|record| sorted.push(record.key, record.value));
    sorted
}

fn key_of<'a>(record: Option<OutputRecordRef<'a>>) -> Option<&'a [u8]> {
    record.map(|record| record.key)
}

/// How many bytes at the beginning of the keys are the same in all of them.
fn in_common(blocks: &[OutputBlock]) -> usize {
    let mut keys = blocks.iter().flat_map(OutputBlock::iter).map(|record| record.key);
    let Some(first) = keys.next() else { return 0 };
    keys.fold(first.len(), |common, key| {
        let common = common.min(key.len());
        if key[..common] == first[..common] {
            return common;
        }
        first.iter().zip(key).take_while(|(one, other)| one == other).count()
    })
}

/// The eight bytes of a key that follow the first `common`, as a number that compares as they do. A key that ends before has
/// zeros for what is missing, so keys may be equal here that are not.
fn eight_bytes(key: &[u8], common: usize) -> u64 {
    let rest = &key[common.min(key.len())..];
    match rest.first_chunk() {
        Some(eight) => u64::from_be_bytes(*eight),
        None => {
            let mut eight = [0; 8];
            eight[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(eight)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_connector::{Offset, OutputRecord};
    use fluvial_protocol::journal::SplitNumber;
    use proptest::prelude::*;

    use super::*;

    /// Keys with and without bytes in common, of all lengths, some of them several times.
    fn records() -> impl Strategy<Value = Vec<OutputRecord>> {
        let prefix = prop_oneof![Just(&b""[..]), Just(&b"customer-"[..]), Just(&b"k\0\0"[..])];
        let rest = proptest::collection::vec(prop_oneof![Just(0), Just(1), Just(b'a'), Just(255)], 0..11);
        let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..3));
        proptest::collection::vec((prefix, rest, value), 0..40).prop_map(|records| {
            let record =
                |(prefix, rest, value): (&[u8], Vec<u8>, _)| OutputRecord { key: [prefix, &rest].concat(), value };
            records.into_iter().map(record).collect()
        })
    }

    proptest! {
        #[test]
        fn the_order_of_a_stream_is_that_of_its_input_however_its_splits_come_in_blocks(
            records in records(),
            splits in proptest::collection::vec(0..3_u32, 40),
            blocks in proptest::collection::vec(0..4_usize, 40),
        ) {
            // Origins rise with the records of each split; each record goes to one of four blocks.
            let origin = |at: usize| Origin::read(SplitNumber(splits[at]), Offset(at as u64));
            let mut cut: Vec<(Vec<OutputRecord>, Vec<Origin>)> = vec![Default::default(); 4];
            for (at, record) in records.iter().enumerate() {
                let (records, origins) = &mut cut[blocks[at]];
                records.push(record.clone());
                origins.push(origin(at));
            }
            let cut: Vec<_> = cut.into_iter().map(|(records, origins)| (OutputBlock::from(records), origins)).collect();
            let mut expected: Vec<(Origin, OutputRecord)> =
                records.into_iter().enumerate().map(|(at, record)| (origin(at), record)).collect();
            expected.sort_by_key(|(origin, _)| *origin);
            let all: Vec<OutputRecord> = expected.iter().map(|(_, record)| record.clone()).collect();
            prop_assert_eq!(&in_order_of_origin(cut.clone(), Envelope::Append), &all.clone().into());

            let is_last = |(at, record): (usize, &OutputRecord)| {
                all[at + 1..].iter().all(|later| later.key != record.key).then(|| record.clone())
            };
            let rows: Vec<OutputRecord> = all.iter().enumerate().filter_map(is_last).collect();
            prop_assert_eq!(&in_order_of_origin(cut, Envelope::StreamWritten), &rows.into());
        }

        #[test]
        fn the_order_is_that_of_the_bytes_however_they_come_in_blocks(
            records in records(),
            cuts in proptest::collection::vec(0..40_usize, 0..4),
            comes_sorted: bool,
        ) {
            let mut expected = records.clone();
            expected.sort();
            let records = if comes_sorted { expected.clone() } else { records };
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(records.len())).collect();
            cuts.extend([0, records.len()]);
            cuts.sort_unstable();
            let blocks = || cuts.windows(2).map(|cut| OutputBlock::from(records[cut[0]..cut[1]].to_vec())).collect();
            prop_assert_eq!(&in_order(blocks(), Envelope::Append).unwrap(), &expected.clone().into());

            // For an upsert output the last record of each key stays, which deletes it only if no other does not.
            let mut rows: Vec<OutputRecord> = Vec::new();
            let mut twice = false;
            for record in expected {
                match rows.last_mut().filter(|last| last.key == record.key) {
                    Some(last) => {
                        twice |= last.value.is_some();
                        last.value = record.value;
                    }
                    None => rows.push(record),
                }
            }
            match in_order(blocks(), Envelope::Upsert) {
                Ok(block) => prop_assert!(!twice && block == rows.into()),
                Err(_) => prop_assert!(twice),
            }
        }
    }
}
