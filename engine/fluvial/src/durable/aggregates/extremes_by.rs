//! The whole record that has the least or the greatest value.

use std::fmt;

use differential_dataflow::ExchangeData;
use fluvial_connector::BoxError;

use super::maybe::Maybe;
use super::multiset::Multiset;
use super::ranking::compare;
use super::{Aggregate, Overflow, Retract};
use crate::stream::Origin;

/// The record of a key for which the closure returns the least value. Of several such records it is the one that is least in
/// their own order ([`Ord`]), never the one that arrived first.
///
/// On a stream, a key keeps one record. On a collection it keeps all of its distinct rows in order, because the least can be
/// retracted; a change costs the logarithm of their number.
///
/// ```
/// use fluvial::MaxBy;
/// use fluvial::harness::Dataflow;
///
/// let mut test = Dataflow::new(1, |scope| {
///     let bids = scope.input::<(String, (u64, String))>("bids"); // item, (price, bidder)
///     scope.output("best", bids.aggregate("best", MaxBy(|(price, _): &(u64, String)| *price)));
/// });
/// let bid = |price: u64, bidder: &str| ("tea".to_owned(), (price, bidder.to_owned()));
/// test.feed("bids", 1, [bid(5, "Ann"), bid(7, "Eve"), bid(7, "Bob")]);
/// test.advance_past(1);
/// // Of the two bids at 7, Eve's is the greater one in the order of tuples.
/// assert_eq!(test.table::<(String, (u64, String))>("best"), [bid(7, "Eve")]);
/// ```
#[derive(Clone, Copy)]
pub struct MinBy<F>(pub F);

/// The record of a key for which the closure returns the greatest value. Of several such records it is the one that is greatest
/// in their own order ([`Ord`]). Costs the same as [`MinBy`], whose example shows it.
#[derive(Clone, Copy)]
pub struct MaxBy<F>(pub F);

macro_rules! extremes_by {
    ($($aggregate:ident: $name:literal, $is_better:ident, $of_rows:ident;)*) => {
        $(impl<F> fmt::Debug for $aggregate<F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($aggregate))
            }
        }

        impl<V, B, F> Aggregate<V> for $aggregate<F>
        where
            V: ExchangeData,
            B: Ord + 'static,
            F: Fn(&V) -> B + 'static,
        {
            type Total = Option<V>;
            type State = Maybe<V>;
            type Out = V;
            type Filtered = Option<V>;

            fn describe(&self) -> String {
                $name.to_owned()
            }

            #[inline]
            fn add(&self, total: &mut Option<V>, value: &V, _: Origin) {
                if total.as_ref().is_none_or(|kept| compare(&self.0, value, kept).$is_better()) {
                    *total = Some(value.clone());
                }
            }

            #[inline]
            fn settle(&self, state: &mut Maybe<V>, total: Option<V>) -> Result<(), Overflow> {
                if let Some(value) = total
                    && state.0.as_ref().is_none_or(|kept| compare(&self.0, &value, kept).$is_better())
                {
                    state.0 = Some(value);
                }
                Ok(())
            }

            #[inline]
            fn output(&self, state: &Maybe<V>) -> V {
                state.get()
            }

            fn filtered(&self, out: Option<V>) -> Option<V> {
                out
            }
        }

        impl<V, B, F> Retract<V> for $aggregate<F>
        where
            V: ExchangeData,
            B: Ord + 'static,
            F: Fn(&V) -> B + 'static,
        {
            type Change = Vec<((B, V), i64)>;
            type Index = Multiset<(B, V)>;

            #[inline]
            fn add_times(&self, change: &mut Self::Change, value: &V, times: i64) -> Result<(), Overflow> {
                change.push(((self.0(value), value.clone()), times));
                Ok(())
            }

            fn apply(&self, index: &mut Self::Index, change: Self::Change) -> Result<(), BoxError> {
                index.apply(change)
            }

            fn result(&self, index: &Self::Index) -> V {
                index.$of_rows().1.clone()
            }
        })*
    };
}

extremes_by! {
    MinBy: "min by", is_lt, least;
    MaxBy: "max by", is_gt, greatest;
}
