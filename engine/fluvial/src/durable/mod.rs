//! Durable operators: the operators that keep state, and the only way from a [`Stream`](crate::Stream) to a
//! [`Collection`](crate::Collection).
//!
//! | operator | from | to | keeps |
//! | --- | --- | --- | --- |
//! | [`keep_all`](crate::Stream::keep_all) | `Stream<D>` | `Collection<D>` | nothing in memory; every record in its state files |
//! | [`latest`](crate::Stream::latest) | `Stream<(K, Option<V>)>` | `Collection<(K, V)>` | the newest value of each key |
//! | [`latest_map`](crate::Stream::latest_map) | `Stream<(K, Option<V>)>` | `Collection<(K, O)>` | the newest value of each key |
//! | [`aggregate`](crate::Stream::aggregate) | `Stream<(K, V)>` | `Collection<(K, A::Out)>` | one small row for each key |
//! | [`dedup`](crate::Stream::dedup) | `Stream<(K, V)>` | `Stream<(K, V)>` | the keys that it has seen |
//! | [`join`](crate::Stream::join) | two, `Stream<(K, V)>` and `Stream<(K, W)>` | `Stream<(K, (V, W))>` | every record of both |
//!
//! Where a result goes to an upsert output, `latest_changes` and `aggregate_changes` give its [`Changes`](crate::Changes) with less
//! work.
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

pub use crate::state::routing_hash;
pub use aggregates::{Aggregate, Average, Count, ExactFloat, Float, Overflow, Retract, Sum, Summand};
pub(crate) use context::{Durables, Restore};
pub(crate) use error::DataflowError;
pub(crate) use frozen::Frozen;
pub(crate) use nodes::{Held, NamedNode};
