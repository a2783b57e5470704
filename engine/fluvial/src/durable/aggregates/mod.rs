//! Linear aggregates of the records of a key in a stream ([`Stream::aggregate`](crate::Stream::aggregate)), or of its rows
//! in a collection ([`Table::aggregate`](crate::Table::aggregate)), which can be retracted.
//!
//! **Guarantees** that a result depends on nothing but which records there were: totals are exact while they are added
//! up, in wider types than the values, and are fitted into the result's type only at the end of a tick. A total that
//! does not fit is an error, never a wrong figure. A retraction is exact, for floats as well.
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

/// A linear aggregate of values of type `V`: [`Count`], [`Sum`], [`Average`], and tuples of up to six of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate of `{V}` values",
    note = "aggregates are `Count`, `Sum(|value| …)`, `Average(|value| …)` and tuples of them",
    note = "the closures of `Sum` and `Average` return integers, `Decimal` or `ExactFloat`: a plain float's sum would \
            depend on the order of the records"
)]
pub trait Aggregate<V>: sealed::Linear + 'static {
    /// What the records of one tick add up to, exactly.
    type Total: Default + 'static;
    /// What is kept for a key.
    type State: Default + Clone + PartialEq + Send + Serialize + DeserializeOwned + 'static;
    /// The result.
    type Out: ExchangeData;

    /// The aggregate and its types, as a checkpoint writes them down.
    fn describe(&self) -> String;

    /// Takes a value in.
    fn add(&self, total: &mut Self::Total, value: &V);

    /// Brings the state to the end of a tick.
    ///
    /// # Errors
    /// The result does not fit its type.
    fn settle(&self, state: &mut Self::State, total: Self::Total) -> Result<(), Overflow>;

    /// The result.
    fn output(&self, state: &Self::State) -> Self::Out;
}

/// An aggregate from which values can be retracted, which collections need because their rows can be retracted. All current
/// aggregates are such.
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
    /// Keeps [`Aggregate`](super::Aggregate) to what is known not to depend on order.
    #[allow(unreachable_pub)]
    pub trait Linear {}
}

/// An exact total that does not fit the result's type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sum of {values} values does not fit {into}: {cure}")]
pub struct Overflow {
    /// The type of the values.
    pub values: Cow<'static, str>,
    /// What it does not fit.
    pub into: &'static str,
    /// What to do.
    pub cure: &'static str,
}
