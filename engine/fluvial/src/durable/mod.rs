//! Durable operators: the only way from a [`Stream`](crate::Stream) to state.
//!
//! | operator | from | to | keeps |
//! | --- | --- | --- | --- |
//! | [`keep_all`](crate::Stream::keep_all) | `Stream<D>` | `Collection<D>` | nothing in memory; every record in its state files |
//! | [`latest`](crate::Stream::latest) | `Stream<(K, Option<V>)>` | `Collection<(K, V)>` | the newest value of each key |
//! | [`aggregate`](crate::Stream::aggregate) | `Stream<(K, V)>` | `Collection<(K, A::Out)>` | one small row a key |
//!
//! Each has a name, which must stay the same across versions of a job: a checkpoint keeps rows under it.
//!
//! **Guarantees**: a collection changes once a tick, to what each key has become by its end, whatever the order and
//! the batching of the tick's records and whatever the number of workers. After a restart the rows of the checkpoint
//! appear at its tick, and everything goes on as if nothing had happened. **Does not** store anything itself: the
//! runtime takes what `Durables` has frozen.

mod aggregate;
mod aggregates;
mod context;
mod error;
mod frozen;
mod keep_all;
mod keeper;
mod keyed;
mod latest;
mod table;
#[cfg(test)]
mod tests;

pub use crate::state::routing_hash;
pub use aggregates::{Aggregate, Average, Count, ExactFloat, Float, Overflow, Sum, Summand};
pub(crate) use context::{Durables, Restore};
pub(crate) use error::DataflowError;
pub(crate) use frozen::Frozen;
