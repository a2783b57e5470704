//! Exact sums.

use std::fmt;

use differential_dataflow::ExchangeData;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::sealed::Linear;
use super::{Aggregate, Overflow, Retract};

/// Adds up what the closure finds in each record.
///
/// ```
/// # use fluvial::durable::{Aggregate, Sum};
/// struct Sale { cents: i64 }
/// let revenue = Sum(|sale: &Sale| sale.cents);
/// assert_eq!(revenue.describe(), "sum of i64");
/// ```
///
/// Plain floats are refused, since their sum depends on the order of the records; wrap them in
/// [`ExactFloat`](super::ExactFloat):
///
/// ```compile_fail
/// # use fluvial::durable::{Aggregate, Sum};
/// struct Sale { euros: f64 }
/// let revenue = Sum(|sale: &Sale| sale.euros);
/// revenue.describe();
/// ```
#[derive(Clone, Copy)]
pub struct Sum<F>(pub F);

/// A value that can be summed exactly, whatever the order.
#[diagnostic::on_unimplemented(
    message = "values of type `{Self}` cannot be summed exactly",
    label = "the sum of these would depend on their order, or is not defined",
    note = "sum integers, `rust_decimal::Decimal`, or floats as `ExactFloat::from(value)`"
)]
pub trait Summand: Linear + 'static {
    /// An exact total.
    type Total: Default + 'static;
    /// What is kept.
    type Kept: Default + Clone + PartialEq + Send + Serialize + DeserializeOwned + 'static;
    /// The sum.
    type Sum: ExchangeData;
    /// The average.
    type Mean: ExchangeData;

    /// The type, as a checkpoint writes it down.
    const NAME: &'static str;

    /// Adds the value to a total.
    fn add_to(self, total: &mut Self::Total);

    /// Adds the value to a total `times` times, or retracts it if `times` is negative.
    ///
    /// # Errors
    /// The total does not fit.
    fn add_times_to(self, total: &mut Self::Total, times: i64) -> Result<(), Overflow>;

    /// Adds a total to what is kept.
    ///
    /// # Errors
    /// The sum does not fit.
    fn settle(kept: &mut Self::Kept, total: Self::Total) -> Result<(), Overflow>;

    /// The sum of what is kept.
    fn sum(kept: &Self::Kept) -> Self::Sum;

    /// The average of what is kept; `count` is not 0.
    fn mean(kept: &Self::Kept, count: u64) -> Self::Mean;
}

impl<F> fmt::Debug for Sum<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sum")
    }
}

impl<F> Linear for Sum<F> {}

impl<V, S, F> Aggregate<V> for Sum<F>
where
    S: Summand,
    F: Fn(&V) -> S + 'static,
{
    type Total = S::Total;
    type State = S::Kept;
    type Out = S::Sum;

    fn describe(&self) -> String {
        format!("sum of {}", S::NAME)
    }

    #[inline]
    fn add(&self, total: &mut S::Total, value: &V) {
        self.0(value).add_to(total);
    }

    #[inline]
    fn settle(&self, state: &mut S::Kept, total: S::Total) -> Result<(), Overflow> {
        S::settle(state, total)
    }

    #[inline]
    fn output(&self, state: &S::Kept) -> S::Sum {
        S::sum(state)
    }
}

impl<V, S, F> Retract<V> for Sum<F>
where
    S: Summand,
    F: Fn(&V) -> S + 'static,
{
    fn add_times(&self, total: &mut S::Total, value: &V, times: i64) -> Result<(), Overflow> {
        self.0(value).add_times_to(total, times)
    }
}
