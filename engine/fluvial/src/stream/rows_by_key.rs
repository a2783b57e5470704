//! The rows of a table by key, for operators that look them up.

use differential_dataflow::ExchangeData;
use differential_dataflow::consolidation::consolidate;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::durable::Held;
use crate::state::routing_hash;

/// The rows of a key, ascending, each with the number of times that it is in the table.
type Rows<W> = Vec<(W, isize)>;

/// The rows of a table on one worker, as of the end of a tick.
pub(super) struct RowsByKey<K, W> {
    keys: HashTable<(u64, K, Rows<W>)>,
    /// The number of rows that differ, and for how many the vectors have room.
    rows: usize,
    room: usize,
}

/// A row would be in the table a negative number of times.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Negative<K> {
    pub(super) key: K,
    pub(super) times: isize,
}

impl<K: ExchangeData, W: ExchangeData> RowsByKey<K, W> {
    pub(super) fn new() -> Self {
        Self { keys: HashTable::new(), rows: 0, room: 0 }
    }

    /// The rows of a key, ascending, each with the number of times that it is in the table.
    pub(super) fn of(&self, key: &K) -> &[(W, isize)] {
        let hash = routing_hash(key);
        self.keys.find(hash, |kept| kept.0 == hash && kept.1 == *key).map_or(&[], |kept| &kept.2)
    }

    /// Applies all updates of one tick, in any order.
    pub(super) fn apply(&mut self, mut updates: Vec<((K, W), isize)>) -> Result<(), Negative<K>> {
        consolidate(&mut updates);
        let mut updates = updates.into_iter().peekable();
        let mut changes = Vec::new();
        while let Some(((key, row), diff)) = updates.next() {
            changes.push((row, diff));
            while let Some(((_, row), diff)) = updates.next_if(|((next, _), _)| *next == key) {
                changes.push((row, diff));
            }
            let hash = routing_hash(&key);
            let entry = self.keys.entry(hash, |kept| kept.0 == hash && kept.1 == key, |kept| kept.0);
            let mut entry = match entry {
                Entry::Occupied(kept) => kept,
                Entry::Vacant(place) => place.insert((hash, key, Vec::with_capacity(changes.len()))),
            };
            let (_, key, rows) = entry.get_mut();
            let (before, room) = (rows.len(), if rows.is_empty() { 0 } else { rows.capacity() });
            merge(rows, &mut changes);
            self.rows = self.rows + rows.len() - before;
            if let Some((_, times)) = rows.iter().find(|(_, times)| *times < 0) {
                return Err(Negative { key: key.clone(), times: *times });
            }
            self.room = self.room + if rows.is_empty() { 0 } else { rows.capacity() } - room;
            if rows.is_empty() {
                entry.remove();
            }
        }
        Ok(())
    }

    /// Says how many rows there are, and how much memory they have.
    pub(super) fn tell(&self, held: &Held) {
        held.set(self.rows, self.keys.allocation_size() + self.room * size_of::<(W, isize)>());
    }
}

/// Applies changes, which are ascending and differ, to ascending rows.
fn merge<W: Ord>(rows: &mut Rows<W>, changes: &mut Rows<W>) {
    changes.retain(|(row, diff)| match rows.binary_search_by(|(kept, _)| kept.cmp(row)) {
        Ok(at) => {
            rows[at].1 += diff;
            false
        }
        Err(_) => true,
    });
    rows.retain(|(_, times)| *times != 0);
    if !changes.is_empty() {
        rows.append(changes);
        // Both parts are ascending, and the stable sort merges ascending parts in one pass.
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_rows_of_each_key_are_those_of_an_ordered_map(
            ticks in proptest::collection::vec(proptest::collection::vec((0..4_u8, 0..6_u8, 0..3_isize), 0..20), 1..10),
        ) {
            let mut rows = RowsByKey::new();
            let mut model: BTreeMap<(u8, u8), isize> = BTreeMap::new();
            for tick in ticks {
                // Each row gets to be there so many times. What comes in between cancels out.
                let mut updates = Vec::new();
                for (key, row, times) in tick {
                    let before = model.insert((key, row), times).unwrap_or(0);
                    updates.extend([((key, row), 7), ((key, row), times - before - 7)]);
                }
                updates.reverse();
                rows.apply(updates).unwrap();
                let there: Vec<_> = model.iter().filter(|(_, times)| **times > 0).collect();
                for key in 0..4 {
                    let expected: Vec<_> = there.iter().filter(|(row, _)| row.0 == key).map(|(row, n)| (row.1, **n)).collect();
                    prop_assert_eq!(rows.of(&key), expected.as_slice());
                }
                let keys = (0..4).filter(|key| !rows.of(key).is_empty()).count();
                let room: usize = rows.keys.iter().map(|kept| kept.2.capacity()).sum();
                prop_assert_eq!((rows.rows, rows.room, rows.keys.len()), (there.len(), room, keys));
            }
        }
    }

    #[test]
    fn a_row_that_is_retracted_more_often_than_it_was_added_is_named_by_its_key() {
        let mut rows = RowsByKey::new();
        rows.apply(vec![(('a', 1), 2), (('b', 1), 1)]).unwrap();
        assert_eq!(rows.apply(vec![(('b', 1), -2), (('a', 1), -1)]), Err(Negative { key: 'b', times: -1 }));
        let mut rows = RowsByKey::new();
        assert_eq!(rows.apply(vec![(('c', 1), -3)]), Err(Negative { key: 'c', times: -3 }));
    }
}
