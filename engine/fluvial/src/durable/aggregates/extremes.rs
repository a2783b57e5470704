//! The least and the greatest value.

use std::fmt;

use differential_dataflow::ExchangeData;
use fluvial_connector::BoxError;

use super::maybe::Maybe;
use super::multiset::Multiset;
use super::{Aggregate, Overflow, Retract};
use crate::stream::Origin;

/// The least of the values that the closure returns for the records of a key.
///
/// On a stream, a key keeps one value. On a collection it keeps all of its distinct values in order, because the least can be
/// retracted; a change costs the logarithm of their number.
///
/// ```
/// use fluvial::harness::Dataflow;
/// use fluvial::{Max, Min};
///
/// let mut test = Dataflow::new(1, |scope| {
///     let prices = scope.input::<(String, i64)>("prices");
///     scope.output("range", prices.aggregate("range", (Min(|price: &i64| *price), Max(|price: &i64| *price))));
/// });
/// test.feed("prices", 1, [("tea".to_owned(), 5i64), ("tea".to_owned(), 3), ("tea".to_owned(), 4)]);
/// test.advance_past(1);
/// assert_eq!(test.table::<(String, (i64, i64))>("range"), [("tea".to_owned(), (3, 5))]);
/// ```
#[derive(Clone, Copy)]
pub struct Min<F>(pub F);

/// The greatest of the values that the closure returns for the records of a key. Costs the same as [`Min`], whose example
/// shows both.
#[derive(Clone, Copy)]
pub struct Max<F>(pub F);

macro_rules! extremes {
    ($($aggregate:ident: $name:literal, $is_better:tt, $of_rows:ident;)*) => {
        $(impl<F> fmt::Debug for $aggregate<F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($aggregate))
            }
        }

        impl<V, B, F> Aggregate<V> for $aggregate<F>
        where
            B: ExchangeData,
            F: Fn(&V) -> B + 'static,
        {
            type Total = Option<B>;
            type State = Maybe<B>;
            type Out = B;
            type Filtered = Option<B>;

            fn describe(&self) -> String {
                $name.to_owned()
            }

            #[inline]
            fn add(&self, total: &mut Option<B>, value: &V, _: Origin) {
                let value = self.0(value);
                if total.as_ref().is_none_or(|kept| value $is_better *kept) {
                    *total = Some(value);
                }
            }

            #[inline]
            fn settle(&self, state: &mut Maybe<B>, total: Option<B>) -> Result<(), Overflow> {
                if let Some(value) = total
                    && state.0.as_ref().is_none_or(|kept| value $is_better *kept)
                {
                    state.0 = Some(value);
                }
                Ok(())
            }

            #[inline]
            fn output(&self, state: &Maybe<B>) -> B {
                state.get()
            }

            fn filtered(&self, out: Option<B>) -> Option<B> {
                out
            }
        }

        impl<V, B, F> Retract<V> for $aggregate<F>
        where
            B: ExchangeData,
            F: Fn(&V) -> B + 'static,
        {
            type Change = Vec<(B, i64)>;
            type Index = Multiset<B>;

            #[inline]
            fn add_times(&self, change: &mut Self::Change, value: &V, times: i64) -> Result<(), Overflow> {
                change.push((self.0(value), times));
                Ok(())
            }

            fn apply(&self, index: &mut Multiset<B>, change: Self::Change) -> Result<(), BoxError> {
                index.apply(change)
            }

            fn result(&self, index: &Multiset<B>) -> B {
                index.$of_rows().clone()
            }
        })*
    };
}

extremes! {
    Min: "min", <, least;
    Max: "max", >, greatest;
}
