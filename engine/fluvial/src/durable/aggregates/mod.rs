//! Linear aggregates of the records of a key in a stream ([`Stream::aggregate`](crate::Stream::aggregate)), or of its rows
//! in a collection ([`Table::aggregate`](crate::Table::aggregate)), which can be retracted.
//!
//! **Guarantees** that a result depends only on which records there were, and not on their order. For that, totals are exact:
//! they are added up in a wider type than that of the values, and converted to the result's type only at the end of a tick. A
//! total that does not fit is an error, never a wrong number. A retraction is exact, for floats as well.
//!
//! | aggregate | values | exact total | result |
//! | --- | --- | --- | --- |
//! | [`Count`] | any | `i64` | `u64` |
//! | [`Sum`] | `i8`…`i64`, `isize` | `i128` | `i64` |
//! | | `u8`…`u64`, `usize` | `i128` | `u64` |
//! | | `i128` | 256 bits | `i128` |
//! | | `Decimal` | 256 bits | `Decimal`, without trailing zeros |
//! | | [`ExactFloat`] | as many bits as it takes | [`Float`], rounded once |
//! | [`Average`] | as `Sum` | as `Sum`, with a count | [`Float`]; `Decimal` for decimals |
//! | tuples of them | | | tuples |

mod average;
mod count;
mod decimal;
mod exact_float;
mod integers;
mod sum;
mod tuples;

use std::borrow::Cow;

use differential_dataflow::ExchangeData;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use average::Average;
pub use count::Count;
pub use exact_float::{ExactFloat, Float};
pub use sum::{Sum, Summand};

/// An aggregate of values of type `V`: [`Count`], [`Sum`], [`Average`], or a tuple of up to six of these, whose result is the
/// tuple of their results. Pass it to [`Stream::aggregate`](crate::Stream::aggregate).
///
/// ```
/// use fluvial::harness::Dataflow;
/// use fluvial::{Average, Count, Sum};
///
/// let mut test = Dataflow::new(1, |scope| {
///     let sales = scope.input::<(String, i64)>("sales");
///     let all = (Count, Sum(|cents: &i64| *cents), Average(|cents: &i64| *cents));
///     scope.output("sales", sales.aggregate("sales", all).map(|(region, (n, sum, mean))| (region, n, sum, mean.to_string())));
/// });
/// test.feed("sales", 1, [("eu".to_owned(), 250i64), ("eu".to_owned(), 499)]);
/// test.advance_past(1);
/// assert_eq!(test.table::<(String, u64, i64, String)>("sales"), [("eu".to_owned(), 2, 749, "374.5".to_owned())]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate of `{V}` values",
    note = "aggregates are `Count`, `Sum(|value| …)`, `Average(|value| …)` and tuples of them",
    note = "the closures of `Sum` and `Average` return integers, `Decimal` or `ExactFloat`: a plain float's sum would \
            depend on the order of the records"
)]
pub trait Aggregate<V>: sealed::Linear + 'static {
    /// The exact total of the records of one tick.
    type Total: Default + 'static;
    /// The state that is kept for a key.
    type State: Default + Clone + PartialEq + Send + Serialize + DeserializeOwned + 'static;
    /// The type of the result.
    type Out: ExchangeData;

    /// The name of the aggregate with its types. A checkpoint stores it, and a job whose aggregate has another name cannot be
    /// restored from that checkpoint.
    fn describe(&self) -> String;

    /// Adds a value to the total of its tick.
    fn add(&self, total: &mut Self::Total, value: &V);

    /// Adds the total of a tick to the state.
    ///
    /// # Errors
    /// [`Overflow`] if the result does not fit its type.
    fn settle(&self, state: &mut Self::State, total: Self::Total) -> Result<(), Overflow>;

    /// Returns the result for a state.
    fn output(&self, state: &Self::State) -> Self::Out;
}

/// An aggregate from which values can be retracted, which collections need because their rows can be retracted. All current
/// aggregates are such. Pass it to [`Table::aggregate`](crate::Table::aggregate).
///
/// ```
/// use fluvial::durable::{Aggregate, Average, Float, Overflow, Retract};
///
/// let mean = Average(|value: &u8| *value);
/// let (mut total, mut state) = (Default::default(), Default::default());
/// mean.add(&mut total, &3u8);
/// mean.add(&mut total, &5u8);
/// mean.add_times(&mut total, &3u8, -1)?; // takes the first value back
/// Aggregate::<u8>::settle(&mean, &mut state, total)?;
/// assert_eq!(Aggregate::<u8>::output(&mean, &state), Float::from(5.0));
/// # Ok::<(), Overflow>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate of `{V}` values that supports retraction",
    note = "rows of a collection can be retracted: its aggregates are `Count`, `Sum(|value| …)`, `Average(|value| …)` and \
            tuples of them"
)]
pub trait Retract<V>: Aggregate<V> {
    /// Adds a value `times` times, or retracts it if `times` is negative.
    ///
    /// # Errors
    /// The total does not fit its type, which is wider than the result's.
    fn add_times(&self, total: &mut Self::Total, value: &V, times: i64) -> Result<(), Overflow>;
}

pub(crate) mod sealed {
    /// Limits the implementations of [`Aggregate`](super::Aggregate) to types that are known not to depend on the order of
    /// records.
    #[allow(unreachable_pub)]
    pub trait Linear {}
}

/// The error that an exact total does not fit the type of the result.
///
/// ```
/// use fluvial::durable::{Aggregate, Overflow, Sum};
///
/// let sum = Sum(|value: &i64| *value);
/// let (mut total, mut state) = (0, 0);
/// sum.add(&mut total, &i64::MAX);
/// sum.add(&mut total, &1);
/// let overflow: Overflow = Aggregate::<i64>::settle(&sum, &mut state, total).unwrap_err();
/// assert_eq!(overflow.to_string(), "the sum of i64 values does not fit i64: sum them as i128");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sum of {values} values does not fit {into}: {cure}")]
pub struct Overflow {
    /// The type of the values.
    pub values: Cow<'static, str>,
    /// The type that the total does not fit.
    pub into: &'static str,
    /// What the author of the job can do about it.
    pub cure: &'static str,
}
