//! The operators that find the greatest rows of each key of a collection.
//!
//! All rows of a key are kept in order, because the next greatest must be known when one is retracted. What changes among the
//! `n` greatest in a tick is emitted at its end.

use differential_dataflow::ExchangeData;
use differential_dataflow::consolidation::consolidate;

use super::Collection;
use super::totals::operator;
use crate::durable::{Durables, Top, at_least_one, moved};

pub(super) fn top<'s, K, V, B>(
    collection: Collection<'s, (K, V)>,
    name: &str,
    durables: &Durables,
    n: usize,
    by: impl Fn(&V) -> B + 'static,
) -> Collection<'s, (K, V)>
where
    K: ExchangeData,
    V: ExchangeData,
    B: Ord + 'static,
{
    let greatest = Top::new(at_least_one(n, name, durables), by);
    operator(collection, name, durables, greatest, |key: K, old: Option<Vec<V>>, new: Option<Vec<V>>, give| {
        let old = old.into_iter().flatten().map(|row| (row, -1));
        let new = new.into_iter().flatten().map(|row| (row, 1));
        let mut changes: Vec<(V, isize)> = old.chain(new).collect();
        consolidate(&mut changes);
        changes.into_iter().for_each(|(row, times)| give((key.clone(), row), times));
    })
}

pub(super) fn ranked<'s, K, V, B>(
    collection: Collection<'s, (K, V)>,
    name: &str,
    durables: &Durables,
    n: usize,
    by: impl Fn(&V) -> B + 'static,
) -> Collection<'s, (K, (u32, V))>
where
    K: ExchangeData,
    V: ExchangeData,
    B: Ord + 'static,
{
    let greatest = Top::new(at_least_one(n, name, durables), by);
    operator(collection, name, durables, greatest, |key: K, old: Option<Vec<V>>, new: Option<Vec<V>>, give| {
        let (old, new) = moved(&old.unwrap_or_default(), &new.unwrap_or_default(), 0);
        old.into_iter().for_each(|place| give((key.clone(), place), -1));
        new.into_iter().for_each(|place| give((key.clone(), place), 1));
    })
}
