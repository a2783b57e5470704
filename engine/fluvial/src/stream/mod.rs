//! Streams: records that arrive, are looked at, and are forgotten.
//!
//! ```text
//!   source ──► Stream ──map, try_map, filter, flat_map, key_by, union, inspect──► Stream
//!                                                                          │ a durable operator, by name
//!                                                                          ▼
//!                                                        Collection ──all of differential dataflow──► output
//! ```
//!
//! **Owns** the records' way from a source to the first state. **Guarantees** that what comes out at a tick depends on
//! the records of that tick alone: closures are `Fn`, and the raw timely stream stays inside, so nothing here can
//! remember. The order of the records of a tick is that of their [`Origin`], however they are batched.
//! **Does not** keep anything: the only way to state is a durable operator ([`crate::durable`]).

mod changelog;
mod checked;
pub(crate) mod context;
mod exact;
mod flat_map;
mod operators;
mod origin;

use std::fmt;

use differential_dataflow::VecCollection;
use timely::dataflow::StreamVec;

pub use changelog::Changelog;
pub(crate) use checked::try_map;
pub use exact::ExactInt;
pub(crate) use origin::Origin;

use crate::durable::Durables;

/// Differential dataflow's own collection, at the times of a job's ticks.
pub type Collection<'s, D, R = isize> = VecCollection<'s, u64, D, R>;

/// Records that arrive and are forgotten.
///
/// Operators take the stream by value; clone it to use it twice.
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
    /// How many branches unions have joined: the branches of its records' origins are less than this.
    branches: u32,
    durables: Durables,
}

impl<'s, D: 'static> Stream<'s, D> {
    /// The stream of a source's records.
    pub(crate) fn from_source(inner: StreamVec<'s, u64, (D, Origin)>, durables: &Durables) -> Self {
        Self { inner, branches: 1, durables: durables.clone() }
    }

    /// What a durable operator is built from.
    pub(crate) fn into_parts(self) -> (StreamVec<'s, u64, (D, Origin)>, Durables) {
        (self.inner, self.durables)
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
