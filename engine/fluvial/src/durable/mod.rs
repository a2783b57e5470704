//! Durable operators: the operators that keep state, and the only way from a [`Stream`](crate::Stream) to a
//! [`Collection`](crate::Collection).
//!
//! | operator | from | to | keeps |
//! | --- | --- | --- | --- |
//! | [`keep_all`](crate::Stream::keep_all) | `Stream<D>` | `Collection<D>` | nothing in memory; every record in its state files |
//! | [`latest`](crate::Stream::latest) | `Stream<(K, Option<V>)>` | `Collection<(K, V)>` | the newest value of each key |
//! | [`latest_map`](crate::Stream::latest_map) | `Stream<(K, Option<V>)>` | `Collection<(K, O)>` | the newest value of each key |
//! | [`aggregate`](crate::Stream::aggregate) | `Stream<(K, V)>` | `Collection<(K, A::Out)>` | one row for each key, which is small for most aggregates |
//! | [`top`](crate::Stream::top) | `Stream<(K, V)>` | `Collection<(K, V)>` | the `n` greatest records of each key |
//! | [`ranked`](crate::Stream::ranked) | `Stream<(K, V)>` | `Collection<(K, (u32, V))>` | the `n` greatest records of each key |
//! | [`dedup`](crate::Stream::dedup) | `Stream<(K, V)>` | `Stream<(K, V)>` | the keys that it has seen |
//! | [`join`](crate::Stream::join) | two, `Stream<(K, V)>` and `Stream<(K, W)>` | `Stream<(K, (V, W))>` | every record of both, in memory and in its state files |
//!
//! Where a result goes to an upsert output, `latest_changes` and `aggregate_changes` give its [`Changes`](crate::Changes) with less
//! work.
//!
//! The aggregates, what they cost, and what a key keeps for them:
//!
//! | aggregate | result | a key of a stream keeps | a key of a collection keeps |
//! | --- | --- | --- | --- |
//! | [`Count`] | `u64` | a number | a number |
//! | [`Sum`] | `i64`, `u64`, `i128`, `Decimal` or [`Float`] | the sum | the sum |
//! | [`Average`] | [`Float`]; `Decimal` for decimals | the sum and a count | the sum and a count |
//! | [`Min`], [`Max`] | the value | one value | its distinct values |
//! | [`MinBy`], [`MaxBy`] | the record | one record | its distinct rows |
//! | [`First`], [`Last`] | the value | one value | does not compile |
//! | [`Top`] | `Vec` of records | `n` records | its distinct rows |
//! | [`Collect`] | `Vec` of values | its values | its distinct values, with counts |
//! | [`CountDistinct`] | `u64` | its distinct values | its distinct values, with counts |
//! | [`When`], any of them for some of the records | [`Aggregate::Filtered`] | as without | as without |
//! | tuples of up to twelve | tuple | as each of them | as each of them |
//! | one of the job's own: [`Aggregate`], and [`Retract`] for collections | | | |
//!
//! Each operator has a name, which must stay the same across versions of a job because checkpoints store the operator's rows
//! under it.
//!
//! **Guarantees**: a collection changes once in a tick, to what each key has become by the end of the tick, whatever the order
//! and the batches of the tick's records and whatever the number of workers. After a restart the rows of the checkpoint appear
//! at its tick, and all later changes are those that would have followed without the restart. A stream has no rows: what
//! `dedup` and `join` have emitted is not emitted again. **Does not** write to the store: the runtime takes what `Durables` has
//! frozen, and writes it.

mod aggregate;
mod aggregates;
mod context;
mod dedup;
mod error;
mod frozen;
mod join;
mod keep_all;
mod keeper;
mod keyed;
mod latest;
mod nodes;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod top;

pub use crate::state::routing_hash;
pub use crate::stream::Origin;
pub(crate) use aggregates::TOO_MANY_ROWS;
pub use aggregates::{
    Aggregate, Average, Collect, Count, CountDistinct, ExactFloat, First, Float, Last, Max, MaxBy, Min, MinBy, Of,
    Overflow, Retract, Sum, Summand, Top, When, of,
};
pub(crate) use context::{Durables, Restore};
pub(crate) use error::DataflowError;
pub(crate) use frozen::Frozen;
pub(crate) use nodes::{Held, NamedNode};
pub(crate) use top::{at_least_one, moved};
