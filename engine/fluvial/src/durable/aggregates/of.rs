//! Aggregates whose closures need no types.

use std::fmt;
use std::marker::PhantomData;

use differential_dataflow::ExchangeData;

use super::{
    Aggregate, Average, Collect, Count, CountDistinct, First, Last, Max, MaxBy, Min, MinBy, Sum, Summand, Top, When,
};

/// Makes aggregates of records of type `V`. Each of its methods makes the aggregate of its name; the closures need no types.
///
/// ```
/// use fluvial::harness::Dataflow;
/// use fluvial::of;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
/// struct Bid { price: u64, bidder: u32 }
///
/// let mut test = Dataflow::new(1, |scope| {
///     let bids = scope.input::<(String, Bid)>("bids");
///     let bid = of::<Bid>();
///     let all = (
///         bid.max(|bid| bid.price),
///         bid.count_distinct(|bid| bid.bidder),
///         bid.when(|bid| bid.price < 10, bid.count()),
///     );
///     scope.output("bids", bids.aggregate("bids", all));
/// });
/// test.feed("bids", 1, [(5, 1), (12, 2), (7, 1)].map(|(price, bidder)| ("tea".to_owned(), Bid { price, bidder })));
/// test.advance_past(1);
/// assert_eq!(test.table::<(String, (u64, u64, u64))>("bids"), [("tea".to_owned(), (12, 2, 2))]);
/// ```
#[must_use]
pub fn of<V>() -> Of<V> {
    Of(PhantomData)
}

/// What [`of`] returns.
pub struct Of<V>(PhantomData<fn(&V)>);

impl<V> Clone for Of<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Of<V> {}

impl<V> fmt::Debug for Of<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Of<{}>", std::any::type_name::<V>())
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $method:ident, $aggregate:ident, $value:ident: $($bound:path),+;)*) => {
        impl<V: 'static> Of<V> {
            $($(#[$doc])*
            pub fn $method<$value, F>(self, value: F) -> $aggregate<F>
            where
                $value: $($bound +)+ 'static,
                F: Fn(&V) -> $value + 'static,
            {
                $aggregate(value)
            })*
        }
    };
}

constructors! {
    /// The [`Sum`] of what the closure returns.
    sum, Sum, S: Summand;
    /// The [`Average`] of what the closure returns.
    average, Average, S: Summand;
    /// The least ([`Min`]) of what the closure returns.
    min, Min, B: ExchangeData;
    /// The greatest ([`Max`]) of what the closure returns.
    max, Max, B: ExchangeData;
    /// The record with the least ([`MinBy`]) of what the closure returns.
    min_by, MinBy, B: Ord;
    /// The record with the greatest ([`MaxBy`]) of what the closure returns.
    max_by, MaxBy, B: Ord;
    /// The [`First`] of what the closure returns.
    first, First, B: ExchangeData;
    /// The [`Last`] of what the closure returns.
    last, Last, B: ExchangeData;
    /// All ([`Collect`]) of what the closure returns.
    collect, Collect, B: ExchangeData;
    /// The number of distinct values ([`CountDistinct`]) of what the closure returns.
    count_distinct, CountDistinct, B: ExchangeData;
}

impl<V: 'static> Of<V> {
    /// The number ([`Count`]) of the records.
    pub fn count(self) -> Count {
        Count
    }

    /// The `n` records with the greatest ([`Top`]) of what the closure returns.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn top<B: Ord + 'static, F: Fn(&V) -> B + 'static>(self, n: usize, by: F) -> Top<F> {
        Top::new(n, by)
    }

    /// The aggregate of the records for which `passes` returns `true`; see [`Aggregate::when`].
    pub fn when<A: Aggregate<V>, P: Fn(&V) -> bool + 'static>(self, passes: P, aggregate: A) -> When<A, P> {
        aggregate.when(passes)
    }
}
