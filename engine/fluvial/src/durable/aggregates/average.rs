//! Averages of exact sums.

use std::fmt;

use fluvial_connector::BoxError;

use super::count::{Count, counted};
use super::{Aggregate, Overflow, Retract, Summand};
use crate::stream::Origin;

/// Averages the value that the closure returns for each record of a key. The exact sum is divided once, so that the result
/// does not depend on the order of the records.
///
/// ```
/// use fluvial::durable::Float;
/// use fluvial::harness::Dataflow;
/// use fluvial::Average;
///
/// let mut test = Dataflow::new(1, |scope| {
///     let ratings = scope.input::<(String, u8)>("ratings");
///     scope.output("ratings", ratings.aggregate("ratings", Average(|stars: &u8| *stars)));
/// });
/// test.feed("ratings", 1, [("tea".to_owned(), 5u8), ("tea".to_owned(), 4)]);
/// test.advance_past(1);
/// assert_eq!(test.table::<(String, Float)>("ratings"), [("tea".to_owned(), Float::from(4.5))]);
/// ```
#[derive(Clone, Copy)]
pub struct Average<F>(pub F);

impl<F> fmt::Debug for Average<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Average")
    }
}

/// The state of an average: the exact sum, and how many values it has.
#[derive(Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[allow(unreachable_pub)]
pub struct Mean<K> {
    sum: K,
    count: u64,
}

impl<V, S, F> Aggregate<V> for Average<F>
where
    S: Summand,
    F: Fn(&V) -> S + 'static,
{
    type Total = (S::Total, i64);
    type State = Mean<S::Kept>;
    type Out = S::Mean;
    type Filtered = Option<S::Mean>;

    fn describe(&self) -> String {
        format!("average of {}", S::NAME)
    }

    #[inline]
    fn add(&self, (total, count): &mut Self::Total, value: &V, _: Origin) {
        self.0(value).add_to(total);
        *count += 1;
    }

    #[inline]
    fn settle(&self, state: &mut Self::State, (total, count): Self::Total) -> Result<(), Overflow> {
        S::settle(&mut state.sum, total)?;
        state.count = counted(state.count, count)?;
        Ok(())
    }

    #[inline]
    fn output(&self, state: &Self::State) -> S::Mean {
        S::mean(&state.sum, state.count)
    }

    fn filtered(&self, out: Option<S::Mean>) -> Option<S::Mean> {
        out
    }
}

impl<V, S, F> Retract<V> for Average<F>
where
    S: Summand,
    F: Fn(&V) -> S + 'static,
{
    type Change = (S::Total, i64);
    type Index = Mean<S::Kept>;

    #[inline]
    fn add_times(&self, (total, count): &mut Self::Change, value: &V, times: i64) -> Result<(), Overflow> {
        self.0(value).add_times_to(total, times)?;
        Count.add_times(count, value, times)
    }

    fn apply(&self, index: &mut Self::Index, change: Self::Change) -> Result<(), BoxError> {
        Ok(Aggregate::<V>::settle(self, index, change)?)
    }

    fn result(&self, index: &Self::Index) -> S::Mean {
        S::mean(&index.sum, index.count)
    }
}
