//! The rows that a durable operator keeps: a hash table, and for each row one bit that says whether the row has changed since
//! the last checkpoint.
//!
//! Hashes are handed in ([`routing_hash`](crate::state::routing_hash)), so that a key is hashed once on its way. There is no
//! second copy of a row: a checkpoint finds the rows that it writes by their bits. Deleted keys are kept in a list until the
//! next checkpoint.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// The rows by key, with a bit for each row that tells whether it has changed.
///
/// Bits are stored by bucket, so the underlying table must never rehash by itself. Whenever the next insertion could make it
/// rehash, [`Table::make_room`] first moves all rows, together with their bits.
pub(crate) struct Table<K, V> {
    rows: HashTable<(K, V)>,
    changed: Vec<u64>,
    deleted: HashTable<K>,
}

impl<K: Eq, V> Table<K, V> {
    pub(crate) fn new() -> Self {
        Self { rows: HashTable::new(), changed: Vec::new(), deleted: HashTable::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns the memory of the tables, without what the rows point to.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.allocation_size() + self.deleted.allocation_size() + size_of_val(self.changed.as_slice())
    }

    /// Returns the number of places for rows; see [`Table::row_at`].
    pub(crate) fn places(&self) -> usize {
        self.rows.num_buckets()
    }

    /// Returns the row at a place, if there is one. A row keeps its place until the table is written to.
    pub(crate) fn row_at(&self, place: usize) -> Option<&(K, V)> {
        self.rows.get_bucket(place)
    }

    /// Returns the place of a key's row. It stays valid until a row is added for which no room was made.
    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &K) -> Option<usize> {
        self.rows.find_bucket_index(hash, |row| row.0 == *key)
    }

    /// Returns the row at a place for a change, and marks it as changed.
    #[inline]
    pub(crate) fn change_at(&mut self, place: usize) -> Option<&mut (K, V)> {
        self.mark(place);
        self.row_at_mut(place)
    }

    /// Returns the row at a place. The caller must [`mark`](Table::mark) it if it changes the row.
    #[inline]
    pub(crate) fn row_at_mut(&mut self, place: usize) -> Option<&mut (K, V)> {
        self.rows.get_bucket_mut(place)
    }

    /// Marks the row at a place as changed.
    #[inline]
    pub(crate) fn mark(&mut self, place: usize) {
        self.changed[place / 64] |= 1 << (place % 64);
    }

    /// Adds the row of a key that has no row.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, key: K, value: V, hash_of: impl Fn(&K) -> u64) {
        self.make_room(1, &hash_of);
        if !self.deleted.is_empty()
            && let Ok(found) = self.deleted.find_entry(hash, |other| *other == key)
        {
            found.remove();
        }
        let place = self.rows.insert_unique(hash, (key, value), |row| hash_of(&row.0)).bucket_index();
        self.changed[place / 64] |= 1 << (place % 64);
    }

    /// Removes the row at a place, and adds its key to the deleted ones.
    pub(crate) fn remove_at(&mut self, place: usize, hash: u64, hash_of: impl Fn(&K) -> u64) -> Option<V> {
        let found = self.rows.get_bucket_entry(place).ok()?;
        let ((key, value), _) = found.remove();
        self.changed[place / 64] &= !(1 << (place % 64));
        if let Entry::Vacant(vacant) = self.deleted.entry(hash, |other| *other == key, &hash_of) {
            vacant.insert(key);
        }
        Some(value)
    }

    /// Returns the number of rows that were changed or deleted since the last checkpoint.
    pub(crate) fn changes(&self) -> usize {
        let changed: u32 = self.changed.iter().map(|word| word.count_ones()).sum();
        changed as usize + self.deleted.len()
    }

    /// Passes all changes since the last call to the caller: changed rows, and deleted keys.
    pub(crate) fn take_changes(&mut self, mut show: impl FnMut(&K, Option<&V>)) {
        for (index, word) in self.changed.iter_mut().enumerate() {
            let mut rest = std::mem::take(word);
            while rest != 0 {
                let place = index * 64 + rest.trailing_zeros() as usize;
                rest &= rest - 1;
                if let Some((key, value)) = self.rows.get_bucket(place) {
                    show(key, Some(value));
                }
            }
        }
        for key in std::mem::take(&mut self.deleted) {
            show(&key, None);
        }
    }

    /// Marks all rows as unchanged, because after a restore they are those of the checkpoint.
    pub(crate) fn settle(&mut self) {
        self.changed.fill(0);
        self.deleted = HashTable::new();
    }

    /// Makes sure that the next `more` insertions move no row. If there is not enough room, it moves all rows, with their bits,
    /// into a larger table.
    #[inline]
    pub(crate) fn make_room(&mut self, more: usize, hash_of: &impl Fn(&K) -> u64) {
        if self.rows.capacity() - self.rows.len() < more {
            self.rebuild(more, hash_of);
        }
    }

    #[cold]
    fn rebuild(&mut self, more: usize, hash_of: &impl Fn(&K) -> u64) {
        // The capacity counts the places of removed rows as taken, so a table that churns is rebuilt at its own size.
        let len = self.rows.len();
        let mut rows = HashTable::with_capacity(len + len / 2 + more);
        let mut changed = vec![0u64; rows.num_buckets().div_ceil(64)];
        for place in 0..self.rows.num_buckets() {
            let Ok(found) = self.rows.get_bucket_entry(place) else { continue };
            let (row, _) = found.remove();
            let moved = rows.insert_unique(hash_of(&row.0), row, |row| hash_of(&row.0)).bucket_index();
            if self.changed[place / 64] & 1 << (place % 64) != 0 {
                changed[moved / 64] |= 1 << (moved % 64);
            }
        }
        self.rows = rows;
        self.changed = changed;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::state::routing_hash;

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u32),
        Remove(u8),
        Checkpoint,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (any::<u8>(), any::<u32>()).prop_map(|(k, v)| Step::Put(k, v)),
            4 => any::<u8>().prop_map(Step::Remove),
            1 => Just(Step::Checkpoint),
        ];
        proptest::collection::vec(step, 0..2_000)
    }

    proptest! {
        #[test]
        fn the_changes_of_a_checkpoint_turn_the_last_one_into_the_table(steps in steps()) {
            let mut table = Table::<u8, u32>::new();
            let mut model = BTreeMap::new();
            let mut stored = BTreeMap::new();
            let mut touched = BTreeSet::new();
            for step in steps.into_iter().chain([Step::Checkpoint]) {
                match step {
                    Step::Put(key, value) => {
                        let hash = routing_hash(&key);
                        match table.find(hash, &key) {
                            Some(place) => table.change_at(place).unwrap().1 = value,
                            None => table.insert(hash, key, value, routing_hash),
                        }
                        model.insert(key, value);
                        touched.insert(key);
                    }
                    Step::Remove(key) => {
                        let hash = routing_hash(&key);
                        let place = table.find(hash, &key);
                        let removed = place.and_then(|place| table.remove_at(place, hash, routing_hash));
                        prop_assert_eq!(removed, model.remove(&key));
                        touched.insert(key);
                    }
                    Step::Checkpoint => {
                        let count = table.changes();
                        let mut changes = Vec::new();
                        table.take_changes(|k, v| changes.push((*k, v.copied())));
                        prop_assert_eq!(count, changes.len());
                        let keys: BTreeSet<u8> = changes.iter().map(|(k, _)| *k).collect();
                        prop_assert_eq!(keys.len(), changes.len());
                        prop_assert!(keys.is_subset(&touched));
                        for (key, value) in changes {
                            match value {
                                Some(value) => stored.insert(key, value),
                                None => stored.remove(&key),
                            };
                        }
                        prop_assert_eq!(&stored, &model);
                        touched.clear();
                    }
                }
                prop_assert_eq!(table.len(), model.len());
            }
            let rows: BTreeMap<u8, u32> = (0..table.places()).filter_map(|p| table.row_at(p).copied()).collect();
            prop_assert_eq!(rows, model);
        }
    }
}
