//! Streams: sequences of records that pass through stateless operators and are not kept.
//!
//! ```text
//!   source ──► Stream ──map, try_map, filter, flat_map, key_by, union, inspect, join_now──► Stream ──► output
//!                                                                      │  ▲
//!                              another durable operator, by its name   │  └── dedup, join
//!                                                                      ▼
//!                                                     Collection ──all of differential dataflow──► output
//! ```
//!
//! **Owns** what happens to records before and between durable operators. **Guarantees** that closures keep no state: they are
//! `Fn`, and the timely stream is not accessible. Without `join_now`, the output at a tick depends only on the records of that
//! tick; with it, also on the table as of that tick, which is held in memory and rebuilt after a restart. The order of the
//! records of a tick is that of their [`Origin`], whatever batches they arrive in. **Does not** store anything: state needs a
//! durable operator ([`crate::durable`]).

mod branches;
mod changelog;
mod changes;
mod checked;
pub(crate) mod context;
mod flat_map;
mod gather;
mod join_now;
mod operators;
mod origin;
mod rows_by_key;
mod table;
mod table_joins;
mod top;
mod totals;

use std::fmt;

use differential_dataflow::{ExchangeData, VecCollection};
use timely::dataflow::StreamVec;

pub(crate) use branches::Branches;
pub use changelog::Changelog;
pub use changes::Changes;
pub(crate) use join_now::{AsOf, pair_each};
pub use origin::Origin;
pub use table::Table;

use crate::durable::Durables;

/// Differential dataflow's collection, a table that changes over time, with a job's ticks as its timestamps. All operators of
/// differential dataflow are available on it; [`crate::differential`] re-exports that crate. [`Table`] adds operators that
/// check their results.
///
/// ```
/// use fluvial::harness::Dataflow;
///
/// let mut test = Dataflow::new(1, |scope| {
///     let prices = scope.input::<(String, Option<i64>)>("prices").latest("prices");
///     let stock = scope.input::<(String, Option<i64>)>("stock").latest("stock");
///     // `join` is differential dataflow's; the result is kept up to date when a price or a stock changes.
///     scope.output("worth", prices.join(stock).map(|(item, (price, pieces))| (item, price * pieces)));
/// });
/// test.feed("prices", 1, [("tea".to_owned(), Some(3i64))]);
/// test.feed("stock", 1, [("tea".to_owned(), Some(10i64))]);
/// test.feed("stock", 2, [("tea".to_owned(), Some(8i64))]);
/// test.advance_past(1);
/// assert_eq!(test.table::<(String, i64)>("worth"), [("tea".to_owned(), 30)]);
/// test.advance_past(2);
/// assert_eq!(test.table::<(String, i64)>("worth"), [("tea".to_owned(), 24)]);
/// ```
pub type Collection<'s, D, R = isize> = VecCollection<'s, u64, D, R>;

/// A stream of records that are not kept: each record passes through the operators at its tick and is then dropped. A
/// durable operator, such as [`aggregate`](Stream::aggregate), makes a [`Collection`] of a stream. A stream of keys and values
/// can also be written as it is, without any state ([`OutputBuilder::write_stream`](crate::OutputBuilder::write_stream)).
///
/// Operators take the stream by value; clone the stream to use it twice.
///
/// ```
/// use fluvial::harness::Dataflow;
///
/// let mut test = Dataflow::new(1, |scope| {
///     let words = scope.input::<String>("lines").flat_map(|line| {
///         line.split(' ').map(str::to_owned).collect::<Vec<_>>()
///     });
///     let counts = words.key_by(|word| word.clone()).aggregate("words", fluvial::durable::Count);
///     scope.output("counts", counts);
/// });
/// test.feed("lines", 1, ["to be or".to_owned(), "not to be".to_owned()]);
/// test.advance_past(1);
/// assert_eq!(test.table::<(String, u64)>("counts"), [
///     ("be".to_owned(), 2), ("not".to_owned(), 1), ("or".to_owned(), 1), ("to".to_owned(), 2),
/// ]);
/// ```
pub struct Stream<'s, D: 'static> {
    inner: StreamVec<'s, u64, (D, Origin)>,
    branches: Branches,
    durables: Durables,
}

impl<'s, D: 'static> Stream<'s, D> {
    /// Creates the stream of a source's records.
    pub(crate) fn from_source(inner: StreamVec<'s, u64, (D, Origin)>, durables: &Durables) -> Self {
        Self { inner, branches: Branches::of_source(), durables: durables.clone() }
    }

    /// Creates the stream of records that an operator has distributed by key. They have the origins that they had in a stream
    /// with these branches.
    pub(crate) fn by_key(inner: StreamVec<'s, u64, (D, Origin)>, branches: Branches, durables: Durables) -> Self
    where
        D: ExchangeData,
    {
        let stream = Self { inner, branches, durables };
        if branches.several { stream.gathered() } else { stream }
    }

    pub(crate) fn branches(&self) -> Branches {
        self.branches
    }

    /// The durable operators of the job.
    pub(crate) fn durables(&self) -> &Durables {
        &self.durables
    }

    /// Takes the stream apart, for a durable operator that is built on it.
    pub(crate) fn into_parts(self) -> (StreamVec<'s, u64, (D, Origin)>, Durables) {
        (self.inner, self.durables)
    }
}

#[cfg(test)]
impl<'s, D: 'static> Stream<'s, D> {
    /// Pairs each record with its origin, for tests.
    pub(crate) fn with_origins(self) -> Stream<'s, (D, Origin)> {
        use timely::dataflow::operators::vec::Map;
        let inner = self.inner.map(|(record, origin)| ((record, origin), origin));
        Stream { inner, branches: self.branches, durables: self.durables }
    }
}

impl<D: Clone + 'static> Clone for Stream<'_, D> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), branches: self.branches, durables: self.durables.clone() }
    }
}

impl<D: 'static> fmt::Debug for Stream<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream<{}>", std::any::type_name::<D>())
    }
}
