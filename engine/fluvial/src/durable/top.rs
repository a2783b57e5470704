//! The operators that keep the greatest records of each key.
//!
//! A key's row is the list of its greatest records, the greatest first. The records of a tick are folded into such a list too,
//! and the two are merged when the tick has closed, so that a record which is not one of the greatest costs one comparison.
//! With `n` = 1 row and delta are single records, as those of `latest` are.

#[cfg(test)]
mod tests;

use std::marker::PhantomData;

use differential_dataflow::ExchangeData;

use super::aggregates::ranking::{compare, place};
use super::keyed::{Change, Fold, keyed, keyed_rows};
use super::{Durables, Overflow};
use crate::state::StateError;
use crate::stream::{Collection, Origin, Stream};

impl<'s, K: ExchangeData, V: ExchangeData> Stream<'s, (K, V)> {
    /// Keeps the `n` records of each key for which `by` returns the greatest values, durably, as `name`. A record that is no
    /// longer one of them leaves the collection.
    ///
    /// Records for which `by` returns the same are in their own order ([`Ord`]), never in that of their arrival; equal records
    /// are separate records. For the least ones, return a [`Reverse`](std::cmp::Reverse).
    ///
    /// The operator keeps up to `n` records for each key. A record that is not one of the greatest costs one comparison, and
    /// any other one the logarithm of `n`. [`ranked`](Stream::ranked) also says which place a record has. A job may go over
    /// from one to the other and keep its state; with another `n` it is another operator.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let bids = scope.input::<(String, (u64, String))>("bids"); // item, (price, bidder)
    ///     scope.output("best", bids.top("best", 2, |(price, _)| *price));
    /// });
    /// let bid = |price: u64, bidder: &str| ("tea".to_owned(), (price, bidder.to_owned()));
    /// test.feed("bids", 1, [bid(5, "Ann"), bid(7, "Bob")]);
    /// test.feed("bids", 2, [bid(9, "Eve"), bid(3, "Ann")]);
    /// test.advance_past(2);
    /// assert_eq!(test.table::<(String, (u64, String))>("best"), [bid(7, "Bob"), bid(9, "Eve")]);
    /// assert_eq!(test.updates_at::<(String, (u64, String))>("best", 2), [(bid(5, "Ann"), -1), (bid(9, "Eve"), 1)]);
    /// ```
    #[must_use]
    pub fn top<B: Ord + 'static>(self, name: &str, n: usize, by: impl Fn(&V) -> B + 'static) -> Collection<'s, (K, V)> {
        match at_least_one(n, name, self.durables()) {
            1 => keyed(self, name, operator(1), Greatest { by, values: PhantomData }),
            n => keyed_rows(self, name, operator(n), Top { n, by, values: PhantomData }),
        }
    }

    /// Keeps the `n` records of each key for which `by` returns the greatest values, as [`top`](Stream::top) does, each with its
    /// place: 1 is that of the greatest.
    ///
    /// A record that gets in moves all that follow it, so a change of the list costs up to `n` changes of the collection.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let bids = scope.input::<(String, u64)>("bids");
    ///     scope.output("best", bids.ranked("best", 2, |price| *price));
    /// });
    /// test.feed("bids", 1, [5, 7].map(|price: u64| ("tea".to_owned(), price)));
    /// test.feed("bids", 2, [("tea".to_owned(), 9u64)]);
    /// test.advance_past(2);
    /// let [first, second] = [(1, 9), (2, 7)].map(|place| ("tea".to_owned(), place));
    /// assert_eq!(test.table::<(String, (u32, u64))>("best"), [first, second]);
    /// ```
    #[must_use]
    pub fn ranked<B: Ord + 'static>(
        self,
        name: &str,
        n: usize,
        by: impl Fn(&V) -> B + 'static,
    ) -> Collection<'s, (K, (u32, V))> {
        match at_least_one(n, name, self.durables()) {
            1 => keyed(self, name, operator(1), Greatest { by, values: PhantomData })
                .map(|(key, record)| (key, (1, record))),
            n => keyed_rows(self, name, operator(n), Ranked(Top { n, by, values: PhantomData })),
        }
    }
}

/// Refuses an operator that keeps no record of a key.
pub(crate) fn at_least_one(n: usize, name: &str, durables: &Durables) -> usize {
    if n == 0 {
        durables.refuse(StateError::KeepsNothing { operator: name.to_owned() });
    }
    n.max(1)
}

/// The operator as a checkpoint names it.
fn operator(n: usize) -> String {
    format!("top {n}")
}

/// Keeps the greatest record.
struct Greatest<V, F> {
    by: F,
    values: PhantomData<V>,
}

impl<V: ExchangeData, B: Ord + 'static, F: Fn(&V) -> B + 'static> Fold for Greatest<V, F> {
    type Value = V;
    type Delta = V;
    type Row = V;
    type Out = V;

    #[inline]
    fn begin(&self, value: V, _: Origin) -> V {
        value
    }

    #[inline]
    fn add(&self, delta: &mut V, value: V, _: Origin) {
        if compare(&self.by, &value, delta).is_gt() {
            *delta = value;
        }
    }

    #[inline]
    fn first(&self, delta: V) -> Result<Option<V>, Overflow> {
        Ok(Some(delta))
    }

    #[inline]
    fn change(&self, row: &mut V, delta: V) -> Result<Change<V>, Overflow> {
        Ok(if compare(&self.by, &delta, row).is_gt() {
            Change::Other { new: delta.clone(), old: std::mem::replace(row, delta) }
        } else {
            Change::Unchanged
        })
    }

    #[inline]
    fn output(&self, row: &V) -> V {
        row.clone()
    }
}

/// Keeps the `n` greatest records, and emits those that leave and those that get in.
struct Top<V, F> {
    n: usize,
    by: F,
    values: PhantomData<V>,
}

impl<V: ExchangeData, B: Ord + 'static, F: Fn(&V) -> B + 'static> Top<V, F> {
    /// The place of a record among the greatest, if it is one of them.
    #[inline]
    fn place(&self, greatest: &[V], record: &V) -> Option<usize> {
        place(greatest, self.n, &self.by, record)
    }

    /// Merges the greatest records of a tick into a row. Returns those that have left it, and those that have got in.
    fn merge(&self, row: &mut Vec<V>, delta: Vec<V>) -> (Vec<V>, Vec<V>) {
        let (mut left, mut got_in) = (Vec::new(), Vec::new());
        for record in delta {
            // All that follow are less, so they do not get in either, nor does any of them push out one before it.
            let Some(place) = self.place(row, &record) else { break };
            got_in.push(record.clone());
            row.insert(place, record);
            if row.len() > self.n {
                left.extend(row.pop());
            }
        }
        (left, got_in)
    }
}

impl<V: ExchangeData, B: Ord + 'static, F: Fn(&V) -> B + 'static> Fold for Top<V, F> {
    type Value = V;
    type Delta = Vec<V>;
    type Row = Vec<V>;
    type Out = Vec<V>;

    #[inline]
    fn begin(&self, value: V, _: Origin) -> Vec<V> {
        vec![value]
    }

    #[inline]
    fn add(&self, delta: &mut Vec<V>, value: V, _: Origin) {
        if let Some(place) = self.place(delta, &value) {
            delta.insert(place, value);
            delta.truncate(self.n);
        }
    }

    #[inline]
    fn first(&self, delta: Vec<V>) -> Result<Option<Vec<V>>, Overflow> {
        Ok(Some(delta))
    }

    #[inline]
    fn change(&self, row: &mut Vec<V>, delta: Vec<V>) -> Result<Change<Vec<V>>, Overflow> {
        let (old, new) = self.merge(row, delta);
        Ok(if new.is_empty() { Change::Unchanged } else { Change::Other { old, new } })
    }

    fn output(&self, row: &Vec<V>) -> Vec<V> {
        row.clone()
    }
}

/// Keeps the `n` greatest records, and emits those whose place changes.
struct Ranked<V, F>(Top<V, F>);

impl<V: ExchangeData, B: Ord + 'static, F: Fn(&V) -> B + 'static> Fold for Ranked<V, F> {
    type Value = V;
    type Delta = Vec<V>;
    type Row = Vec<V>;
    type Out = Places<V>;

    #[inline]
    fn begin(&self, value: V, origin: Origin) -> Vec<V> {
        self.0.begin(value, origin)
    }

    #[inline]
    fn add(&self, delta: &mut Vec<V>, value: V, origin: Origin) {
        self.0.add(delta, value, origin);
    }

    #[inline]
    fn first(&self, delta: Vec<V>) -> Result<Option<Vec<V>>, Overflow> {
        self.0.first(delta)
    }

    fn change(&self, row: &mut Vec<V>, delta: Vec<V>) -> Result<Change<Self::Out>, Overflow> {
        // The records before the first that gets in stay where they are.
        let Some(from) = delta.first().and_then(|greatest| self.0.place(row, greatest)) else {
            return Ok(Change::Unchanged);
        };
        let before = row[from..].to_vec();
        self.0.merge(row, delta);
        let (old, new) = moved(&before, &row[from..], from);
        Ok(Change::Other { old, new })
    }

    fn output(&self, row: &Vec<V>) -> Self::Out {
        (1..).zip(row.iter().cloned()).collect()
    }
}

/// Records with their places.
type Places<V> = Vec<(u32, V)>;

/// The records of two lists that are not at the same place in both, with their places; `from` records precede both lists.
pub(crate) fn moved<V: Clone + PartialEq>(before: &[V], now: &[V], from: usize) -> (Places<V>, Places<V>) {
    let missing = |list: &[V], other: &[V]| {
        let places = (from as u32 + 1..).zip(list).zip(0..);
        places
            .filter(|((_, record), at)| other.get(*at) != Some(record))
            .map(|((place, record), _)| (place, record.clone()))
            .collect()
    };
    (missing(before, now), missing(now, before))
}
