//! Joins of collections by key, on differential dataflow's arrangements.
//!
//! A row without a partner is one of the rows, less those whose key the other side has. Differential dataflow's updates of one
//! tick say this exactly once they are added up: within a tick a row may appear and go again, at its end it has not.

use std::hash::Hash;

use differential_dataflow::ExchangeData;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::implementations::{KeyBuilder, KeySpine, ValSpine};

use super::Collection;

#[cfg(test)]
mod tests;

/// The rows of both sides of a full join.
pub(super) type Sides<V, W> = (Option<V>, Option<W>);

/// The keys of a collection, each once.
type Keys<'s, K> = Arranged<'s, TraceAgent<KeySpine<K, u64, isize>>>;
/// The rows of a collection by key.
type ByKey<'s, K, V> = Arranged<'s, TraceAgent<ValSpine<K, V, u64, isize>>>;

pub(super) fn left<'s, K, V, W>(
    left: Collection<'s, (K, V)>,
    right: Collection<'s, (K, W)>,
) -> Collection<'s, (K, (V, Option<W>))>
where
    K: ExchangeData + Hash,
    V: ExchangeData,
    W: ExchangeData,
{
    let (left, right) = (left.arrange_by_key(), right.arrange_by_key());
    let pairs = left
        .clone()
        .join_core(right.clone(), |key, left, right| Some((key.clone(), (left.clone(), Some(right.clone())))));
    let alone = without(left, keys(right.as_collection(|key, _| key.clone())));
    pairs.concat(alone.map(|(key, left)| (key, (left, None))))
}

pub(super) fn full<'s, K, V, W>(
    left: Collection<'s, (K, V)>,
    right: Collection<'s, (K, W)>,
) -> Collection<'s, (K, Sides<V, W>)>
where
    K: ExchangeData + Hash,
    V: ExchangeData,
    W: ExchangeData,
{
    let (left, right) = (left.arrange_by_key(), right.arrange_by_key());
    let pairs = left
        .clone()
        .join_core(right.clone(), |key, left, right| Some((key.clone(), (Some(left.clone()), Some(right.clone())))));
    let keys_of_left = keys(left.clone().as_collection(|key, _| key.clone()));
    let keys_of_right = keys(right.clone().as_collection(|key, _| key.clone()));
    let left = without(left, keys_of_right).map(|(key, left)| (key, (Some(left), None)));
    let right = without(right, keys_of_left).map(|(key, right)| (key, (None, Some(right))));
    pairs.concat(left).concat(right)
}

pub(super) fn semi<'s, K, V, W>(rows: Collection<'s, (K, V)>, other: Collection<'s, (K, W)>) -> Collection<'s, (K, V)>
where
    K: ExchangeData + Hash,
    V: ExchangeData,
    W: ExchangeData,
{
    with(rows.arrange_by_key(), keys(other.map(|(key, _)| key)))
}

pub(super) fn anti<'s, K, V, W>(rows: Collection<'s, (K, V)>, other: Collection<'s, (K, W)>) -> Collection<'s, (K, V)>
where
    K: ExchangeData + Hash,
    V: ExchangeData,
    W: ExchangeData,
{
    without(rows.arrange_by_key(), keys(other.map(|(key, _)| key)))
}

/// Each key once. Counting keys apart from their rows keeps a change of one row of a key that has many cheap.
fn keys<K: ExchangeData + Hash>(keys: Collection<'_, K>) -> Keys<'_, K> {
    keys.arrange_by_self_named("keys").reduce_abelian::<_, KeyBuilder<K, u64, isize>, _, _, _>(
        "keys",
        |_, _, once| once.push(((), 1)),
        |made, key, changes| {
            made.clear();
            made.extend(changes.drain(..).map(|((), tick, diff)| ((key.clone(), ()), tick, diff)));
        },
    )
}

/// The rows whose key is one of `keys`.
fn with<'s, K, V>(rows: ByKey<'s, K, V>, keys: Keys<'s, K>) -> Collection<'s, (K, V)>
where
    K: ExchangeData + Hash,
    V: ExchangeData,
{
    rows.join_core(keys, |key, row, ()| Some((key.clone(), row.clone())))
}

/// The rows whose key is none of `keys`.
fn without<'s, K, V>(rows: ByKey<'s, K, V>, keys: Keys<'s, K>) -> Collection<'s, (K, V)>
where
    K: ExchangeData + Hash,
    V: ExchangeData,
{
    let all = rows.clone().as_collection(|key, row| (key.clone(), row.clone()));
    all.concat(with(rows, keys).negate())
}
