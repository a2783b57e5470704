//! Aggregates of the records of a key in a stream ([`Stream::aggregate`](crate::Stream::aggregate)), or of its rows in a
//! collection ([`Table::aggregate`](crate::Table::aggregate)), which can be retracted.
//!
//! **Guarantees** that a result depends only on which records there were, and not on their order. For that, sums are exact:
//! they are added up in a wider type than that of the values, and converted to the result's type only at the end of a tick. A
//! sum that does not fit is an error, never a wrong number. Of records that are equal in what an aggregate compares, their own
//! order decides. A retraction is exact, for floats as well. **Requires** that values which are equal are also serialised
//! equally, as everything that compares rows does: call `Decimal::normalize` where a job reads decimals, because 1.0 and 1.00 are
//! equal and are written differently.
//!
//! The page of [`durable`](super) has a table of them. The values that have sums and averages are
//!
//! | values | exact total | sum |
//! | --- | --- | --- |
//! | `i8`…`i64`, `isize` | `i128` | `i64` |
//! | `u8`…`u64`, `usize` | `i128` | `u64` |
//! | `i128` | 256 bits | `i128` |
//! | `Decimal` | 256 bits | `Decimal`, without trailing zeros |
//! | [`ExactFloat`] | as many bits as it takes | [`Float`], rounded once |

mod average;
mod collect;
mod count;
mod decimal;
mod ends;
mod exact_float;
mod extremes;
mod extremes_by;
mod integers;
mod maybe;
mod multiset;
mod of;
mod overflow;
pub(super) mod ranking;
mod sum;
#[cfg(test)]
mod tests;
mod top;
mod tuples;
mod when;

use differential_dataflow::ExchangeData;
use fluvial_connector::BoxError;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use average::Average;
pub use collect::{Collect, CountDistinct};
pub use count::Count;
pub use ends::{First, Last};
pub use exact_float::{ExactFloat, Float};
pub use extremes::{Max, Min};
pub use extremes_by::{MaxBy, MinBy};
pub use of::{Of, of};
pub use overflow::Overflow;
pub(crate) use overflow::TOO_MANY_ROWS;
pub use sum::{Sum, Summand};
pub use top::Top;
pub use when::When;

use crate::stream::Origin;

/// An aggregate of values of type `V`: [`Count`], [`Sum`], [`Average`], [`Min`], [`Max`], [`MinBy`], [`MaxBy`], [`First`],
/// [`Last`], [`Top`], [`Collect`], [`CountDistinct`], one of the job's own, or a tuple of up to twelve of these, whose result is
/// the tuple of their results. Pass it to [`Stream::aggregate`](crate::Stream::aggregate). The page of [`durable`](super) has a
/// table of them with their costs; [`of`] makes them without types in the closures.
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
///
/// # An aggregate of one's own
///
/// The records of a key in one tick are added to a total, in any order; at the end of the tick the total is settled into the
/// state, which checkpoints store. The answer may depend only on the records, so an aggregate must obey these laws:
///
/// 1. *Order*: totals to which the same records were added give the same state, in whatever order they were added. Each
///    record comes with its [`Origin`] for an aggregate that depends on the order of the job's input; the origin never
///    depends on arrival.
/// 2. *Ticks*: a state into which the totals of several ticks were settled, one after the other, gives the same output as one
///    into which the total of all their records was settled. In other words, adding is associative: the answer does not
///    depend on how the input is divided into ticks. (An aggregate that looks at origins may count a record of an earlier tick
///    as earlier, as [`First`] and [`Last`] do. The journal holds the ticks.)
/// 3. *Storage*: a state is read from a checkpoint as it was written, and continues as the one that was written.
/// 4. *Name*: [`describe`](Aggregate::describe) is always the same for aggregates whose states mean the same.
///
/// `fluvial::harness::check_aggregate` tries them. An implementation must not read clocks, random numbers or anything else that
/// is not in the records.
///
/// ```
/// use fluvial::durable::{Aggregate, Origin, Overflow};
/// use fluvial::harness::{Dataflow, check_aggregate};
/// # use serde::{Deserialize, Serialize};
///
/// /// The greatest number, and how many times it occurs.
/// struct MaxWithCount;
///
/// #[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
/// struct Greatest { value: u64, count: u64 }
///
/// impl Greatest {
///     fn add(&mut self, other: Greatest) {
///         match other.value.cmp(&self.value) {
///             std::cmp::Ordering::Less => {}
///             std::cmp::Ordering::Equal => self.count += other.count,
///             std::cmp::Ordering::Greater => *self = other,
///         }
///     }
/// }
///
/// impl Aggregate<u64> for MaxWithCount {
///     type Total = Greatest;
///     type State = Greatest;
///     type Out = (u64, u64);
///     type Filtered = (u64, u64);
///
///     fn describe(&self) -> String {
///         "maximum with count".to_owned()
///     }
///
///     fn add(&self, total: &mut Greatest, value: &u64, _: Origin) {
///         total.add(Greatest { value: *value, count: 1 });
///     }
///
///     fn settle(&self, state: &mut Greatest, total: Greatest) -> Result<(), Overflow> {
///         state.add(total);
///         Ok(())
///     }
///
///     fn output(&self, state: &Greatest) -> (u64, u64) {
///         (state.value, state.count)
///     }
///
///     fn filtered(&self, out: Option<(u64, u64)>) -> (u64, u64) {
///         out.unwrap_or_default()
///     }
/// }
///
/// check_aggregate(&MaxWithCount, [3, 0, 7, 7, 5]);
///
/// let mut test = Dataflow::new(1, |scope| {
///     let bids = scope.input::<(String, u64)>("bids");
///     scope.output("bids", bids.aggregate("bids", MaxWithCount));
/// });
/// test.feed("bids", 1, [7, 5, 7].map(|price: u64| ("tea".to_owned(), price)));
/// test.advance_past(1);
/// assert_eq!(test.table::<(String, (u64, u64))>("bids"), [("tea".to_owned(), (7, 2))]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate of `{V}` values",
    note = "aggregates are `Count`, `Sum(|value| …)`, `Average(|value| …)`, `Min(…)`, `Max(…)`, `MinBy(…)`, `MaxBy(…)`, \
            `First(…)`, `Last(…)`, `Collect(…)`, `CountDistinct(…)`, `Top::new(n, …)`, tuples of up to twelve of them, and \
            types of your own that implement `Aggregate`",
    note = "the closures of `Sum` and `Average` return integers, `Decimal` or `ExactFloat`: a plain float's sum would \
            depend on the order of the records"
)]
pub trait Aggregate<V>: 'static {
    /// What is known of the records of one tick.
    type Total: Default + 'static;
    /// The state that is kept for a key. Its default is the state of no records.
    type State: Default + Clone + PartialEq + Send + Serialize + DeserializeOwned + 'static;
    /// The type of the result.
    type Out: ExchangeData;
    /// The type of the result behind a filter, which may have let no record pass: `Option<Self::Out>`, or `Self::Out` if no
    /// records have a natural result, as the count 0.
    type Filtered: ExchangeData;

    /// The name of the aggregate. A checkpoint stores it, and a job whose aggregate has another name cannot be restored from
    /// that checkpoint.
    fn describe(&self) -> String;

    /// Adds a value to the total of its tick. `origin` is the place of its record in the order of the job's input.
    fn add(&self, total: &mut Self::Total, value: &V, origin: Origin);

    /// Adds the total of a tick to the state. Ticks are settled in order.
    ///
    /// # Errors
    /// [`Overflow`] if there is no result for these records.
    fn settle(&self, state: &mut Self::State, total: Self::Total) -> Result<(), Overflow>;

    /// Returns the result for a state into which at least one record was settled.
    fn output(&self, state: &Self::State) -> Self::Out;

    /// Returns the result behind a filter: that for `out`, or that for no records.
    fn filtered(&self, out: Option<Self::Out>) -> Self::Filtered;

    /// The aggregate of those records for which `passes` returns `true`. [`When`] shows it.
    #[must_use]
    fn when<P>(self, passes: P) -> When<Self, P>
    where
        Self: Sized,
        P: Fn(&V) -> bool + 'static,
    {
        When::new(self, passes)
    }
}

/// An aggregate from which values can be retracted, which collections need because their rows can be retracted: all but
/// [`First`] and [`Last`]. Pass it to [`Table::aggregate`](crate::Table::aggregate).
///
/// A collection's aggregate keeps other things than a stream's: the greatest value of a stream is one value, but in a
/// collection it can be retracted, and the next one must be known. Nothing of it is stored.
///
/// # An aggregate of one's own
///
/// In addition to the laws of [`Aggregate`],
///
/// 1. *Retraction*: a value that is added and retracted, in either order, in one tick or in several, leaves an index as if it
///    had never been there. An index without rows equals the default.
/// 2. *Result*: the result for an index is that of [`Aggregate::output`] for a state of the same values.
///
/// `fluvial::harness::check_retraction` tries them.
///
/// ```
/// use fluvial::connector::BoxError;
/// use fluvial::durable::{Aggregate, Origin, Overflow, Retract};
/// use fluvial::harness::{check_aggregate, check_retraction};
///
/// /// The exclusive or of all numbers, as a checksum.
/// struct Xor;
///
/// impl Aggregate<u64> for Xor {
///     type Total = u64;
///     type State = u64;
///     type Out = u64;
///     type Filtered = u64;
///
///     fn describe(&self) -> String {
///         "xor".to_owned()
///     }
///
///     fn add(&self, total: &mut u64, value: &u64, _: Origin) {
///         *total ^= value;
///     }
///
///     fn settle(&self, state: &mut u64, total: u64) -> Result<(), Overflow> {
///         *state ^= total;
///         Ok(())
///     }
///
///     fn output(&self, state: &u64) -> u64 {
///         *state
///     }
///
///     fn filtered(&self, out: Option<u64>) -> u64 {
///         out.unwrap_or(0)
///     }
/// }
///
/// impl Retract<u64> for Xor {
///     type Change = u64;
///     type Index = u64;
///
///     fn add_times(&self, change: &mut u64, value: &u64, times: i64) -> Result<(), Overflow> {
///         if times % 2 != 0 {
///             *change ^= value;
///         }
///         Ok(())
///     }
///
///     fn apply(&self, index: &mut u64, change: u64) -> Result<(), BoxError> {
///         *index ^= change;
///         Ok(())
///     }
///
///     fn result(&self, index: &u64) -> u64 {
///         *index
///     }
/// }
///
/// check_aggregate(&Xor, [3, 0, 7, 7, 5]);
/// check_retraction(&Xor, [3, 0, 7, 7, 5]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate of `{V}` values that supports retraction",
    note = "rows of a collection can be retracted: its aggregates are `Count`, `Sum(|value| …)`, `Average(|value| …)`, \
            `Min(…)`, `Max(…)`, `MinBy(…)`, `MaxBy(…)`, `Collect(…)`, `CountDistinct(…)`, `Top::new(n, …)`, tuples of them, \
            and types of your own that implement `Retract`",
    note = "rows of a collection have no order, so it has no `First` and no `Last`: use `MinBy` or `MaxBy` with the field \
            that says when a row came about"
)]
pub trait Retract<V>: Aggregate<V> {
    /// The combined change of the rows of a key in one tick.
    type Change: Default + 'static;
    /// What is kept in memory for a key. Its default is what is kept of no rows.
    type Index: Default + PartialEq + 'static;

    /// Adds a value `times` times to the change of a tick, or retracts it if `times` is negative. A value may be retracted
    /// before it is added, and may come and go within the tick.
    ///
    /// # Errors
    /// A total does not fit its type, which is wider than the result's.
    fn add_times(&self, change: &mut Self::Change, value: &V, times: i64) -> Result<(), Overflow>;

    /// Applies the change of a tick to what is kept.
    ///
    /// # Errors
    /// There is no result for these rows, or rows are retracted that were not there.
    fn apply(&self, index: &mut Self::Index, change: Self::Change) -> Result<(), BoxError>;

    /// Returns the result for an index that has at least one row.
    fn result(&self, index: &Self::Index) -> Self::Out;
}

pub(crate) mod sealed {
    /// Limits the implementations of [`Summand`](super::Summand) to types whose sums are exact.
    #[allow(unreachable_pub)]
    pub trait Linear {}
}
