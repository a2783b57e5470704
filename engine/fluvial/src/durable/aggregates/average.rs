//! Averages of exact sums.

use std::fmt;

use super::sealed::Linear;
use super::{Aggregate, Overflow, Summand};

/// Averages what the closure finds in each record: an exact sum, divided once.
#[derive(Clone, Copy)]
pub struct Average<F>(pub F);

impl<F> fmt::Debug for Average<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Average")
    }
}

impl<F> Linear for Average<F> {}

/// What is kept for an average.
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
    type Total = (S::Total, u64);
    type State = Mean<S::Kept>;
    type Out = S::Mean;

    fn describe(&self) -> String {
        format!("average of {}", S::NAME)
    }

    #[inline]
    fn add(&self, (total, count): &mut Self::Total, value: &V) {
        self.0(value).add_to(total);
        *count += 1;
    }

    #[inline]
    fn settle(&self, state: &mut Self::State, (total, count): Self::Total) -> Result<(), Overflow> {
        S::settle(&mut state.sum, total)?;
        state.count += count;
        Ok(())
    }

    #[inline]
    fn output(&self, state: &Self::State) -> S::Mean {
        S::mean(&state.sum, state.count)
    }
}
