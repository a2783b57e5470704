//! Exact sums.

use std::fmt;

use differential_dataflow::ExchangeData;
use fluvial_connector::BoxError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::sealed::Linear;
use super::{Aggregate, Overflow, Retract};
use crate::stream::Origin;

/// Adds up the value that the closure returns for each record of a key.
///
/// ```
/// use fluvial::harness::Dataflow;
/// use fluvial::Sum;
///
/// let mut test = Dataflow::new(1, |scope| {
///     let sales = scope.input::<(String, (i64, i64))>("sales"); // region, (pieces, cents)
///     scope.output("revenue", sales.aggregate("revenue", Sum(|(_, cents): &(i64, i64)| *cents)));
/// });
/// test.feed("sales", 1, [("eu".to_owned(), (1i64, 250i64)), ("eu".to_owned(), (2, 499))]);
/// test.advance_past(1);
/// assert_eq!(test.table::<(String, i64)>("revenue"), [("eu".to_owned(), 749)]);
/// ```
///
/// The sum is exact. If it does not fit the type of the result (see [`Summand`]), the job ends with an error
/// that names the operator and the key.
///
/// Plain floats do not compile, because their sum would depend on the order of the records; wrap them in
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

/// A type whose values can be summed exactly, whatever their order: the integers, `rust_decimal::Decimal` and
/// [`ExactFloat`](super::ExactFloat). [`Sum`] and [`Average`](super::Average) take a closure that returns one.
#[diagnostic::on_unimplemented(
    message = "values of type `{Self}` cannot be summed exactly",
    label = "the sum of these would depend on their order, or is not defined",
    note = "sum integers, `rust_decimal::Decimal`, or floats as `ExactFloat::from(value)`"
)]
pub trait Summand: Linear + 'static {
    /// The type of an exact total of the values of one tick.
    type Total: Default + 'static;
    /// The type of the state that is kept for a key.
    type Kept: Default + Clone + PartialEq + Send + Serialize + DeserializeOwned + 'static;
    /// The type of the sum.
    type Sum: ExchangeData;
    /// The type of the average.
    type Mean: ExchangeData;

    /// The name of the type. A checkpoint stores it to recognise a changed aggregate.
    const NAME: &'static str;

    /// Adds the value to a total.
    fn add_to(self, total: &mut Self::Total);

    /// Adds the value to a total `times` times, or retracts it if `times` is negative.
    ///
    /// # Errors
    /// The total does not fit.
    fn add_times_to(self, total: &mut Self::Total, times: i64) -> Result<(), Overflow>;

    /// Adds the total of a tick to the state.
    ///
    /// # Errors
    /// [`Overflow`] if the sum does not fit its type.
    fn settle(kept: &mut Self::Kept, total: Self::Total) -> Result<(), Overflow>;

    /// Returns the sum for a state.
    fn sum(kept: &Self::Kept) -> Self::Sum;

    /// Returns the average for a state of `count` values; `count` is not 0.
    fn mean(kept: &Self::Kept, count: u64) -> Self::Mean;
}

impl<F> fmt::Debug for Sum<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sum")
    }
}

impl<V, S, F> Aggregate<V> for Sum<F>
where
    S: Summand,
    F: Fn(&V) -> S + 'static,
{
    type Total = S::Total;
    type State = S::Kept;
    type Out = S::Sum;
    type Filtered = S::Sum;

    fn describe(&self) -> String {
        format!("sum of {}", S::NAME)
    }

    #[inline]
    fn add(&self, total: &mut S::Total, value: &V, _: Origin) {
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

    fn filtered(&self, out: Option<S::Sum>) -> S::Sum {
        out.unwrap_or_else(|| S::sum(&S::Kept::default()))
    }
}

impl<V, S, F> Retract<V> for Sum<F>
where
    S: Summand,
    F: Fn(&V) -> S + 'static,
{
    type Change = S::Total;
    type Index = S::Kept;

    #[inline]
    fn add_times(&self, total: &mut S::Total, value: &V, times: i64) -> Result<(), Overflow> {
        self.0(value).add_times_to(total, times)
    }

    fn apply(&self, index: &mut S::Kept, change: S::Total) -> Result<(), BoxError> {
        Ok(S::settle(index, change)?)
    }

    fn result(&self, index: &S::Kept) -> S::Sum {
        S::sum(index)
    }
}
