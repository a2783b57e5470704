//! Checked operators on collections of keys and values.

use std::hash::Hash;

use differential_dataflow::ExchangeData;
use fluvial_connector::BoxError;

use super::{Collection, checked, top, totals};
use crate::durable::{Durables, Retract};

/// Checked operators on a collection of keys and values, in addition to differential dataflow's own: a result that does not
/// fit its type, or that the job's logic refuses, ends the job with an error that names operator and key.
///
/// Differential dataflow's `count`, `count_total` and `explode` add up in `isize`, which wraps around.
///
/// **Guarantees**: the result of a key changes at most once in a tick, to the aggregate of the rows that the key has at
/// the end of the tick. Rows that are added and retracted within a tick, as joins do, do not change results. **Does
/// not** store anything: after a restart, results are computed again from the rows that the durable operators have
/// restored.
pub trait Table<'s, K, V> {
    /// Aggregates the rows of each key, as [`Stream::aggregate`](crate::Stream::aggregate) does with the records of a
    /// stream. A retracted row is subtracted exactly. A key has a result as long as it has rows. Error messages name the
    /// operator by `name`; nothing is stored under it.
    ///
    /// For counts, sums and averages the operator keeps one small state for each key. For all other aggregates it keeps the
    /// distinct values or rows of each key in order, in memory, and a change costs the logarithm of their number; the table of
    /// [`durable`](crate::durable) says which. Differential dataflow's `reduce` would evaluate all values of the key.
    ///
    /// The closures of the aggregate also see rows that are retracted within the tick, so they must not fail on them.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    /// use fluvial::{Count, Sum, Table};
    ///
    /// let mut test = Dataflow::new(2, |scope| {
    ///     // The newest region and price of each order.
    ///     let orders = scope.input::<(u64, Option<(String, i64)>)>("orders").latest("orders");
    ///     let revenue = orders.map(|(_, order)| order).aggregate("revenue", (Count, Sum(|cents: &i64| *cents)));
    ///     scope.output("revenue", revenue);
    /// });
    /// test.feed("orders", 1, [(7u64, Some(("eu".to_owned(), 250i64))), (8, Some(("eu".to_owned(), 499)))]);
    /// test.feed("orders", 2, [(7u64, Some(("us".to_owned(), 260i64))), (8, None)]);
    /// test.advance_past(1);
    /// assert_eq!(test.table::<(String, (u64, i64))>("revenue"), [("eu".to_owned(), (2, 749))]);
    /// test.advance_past(2);
    /// assert_eq!(test.table::<(String, (u64, i64))>("revenue"), [("us".to_owned(), (1, 260))]);
    /// ```
    ///
    /// # Panics
    /// Outside the closure that builds a job.
    #[must_use]
    fn aggregate<A: Retract<V>>(self, name: &str, aggregate: A) -> Collection<'s, (K, A::Out)>;

    /// The `n` rows of each key for which `by` returns the greatest values, as [`Stream::top`](crate::Stream::top) finds them
    /// among the records of a stream. When one of them is retracted, the next greatest takes its place. Error messages name the
    /// operator by `name`; nothing is stored under it.
    ///
    /// The operator keeps all distinct rows of each key in order, in memory. A change costs the logarithm of their number, and
    /// a tick in which a key changes costs `n` for that key.
    ///
    /// ```
    /// use fluvial::Table;
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     // The newest item and price of each offer.
    ///     let offers = scope.input::<(u32, Option<(String, u64)>)>("offers").latest("offers");
    ///     scope.output("best", offers.map(|(_, offer)| offer).top("best", 2, |price| *price));
    /// });
    /// let offer = |id: u32, price: u64| (id, Some(("tea".to_owned(), price)));
    /// test.feed("offers", 1, [offer(1, 5), offer(2, 9), offer(3, 7)]);
    /// test.feed("offers", 2, [(2u32, None::<(String, u64)>)]);
    /// test.advance_past(1);
    /// assert_eq!(test.table::<(String, u64)>("best"), [("tea".to_owned(), 7), ("tea".to_owned(), 9)]);
    /// test.advance_past(2);
    /// assert_eq!(test.table::<(String, u64)>("best"), [("tea".to_owned(), 5), ("tea".to_owned(), 7)]);
    /// ```
    ///
    /// # Panics
    /// Outside the closure that builds a job.
    #[must_use]
    fn top<B: Ord + 'static>(self, name: &str, n: usize, by: impl Fn(&V) -> B + 'static) -> Collection<'s, (K, V)>;

    /// The `n` rows of each key for which `by` returns the greatest values, as [`top`](Table::top) finds them, each with its
    /// place: 1 is that of the greatest. A row that comes or goes moves all that follow it.
    ///
    /// ```
    /// use fluvial::Table;
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let offers = scope.input::<(u32, Option<(String, u64)>)>("offers").latest("offers");
    ///     scope.output("best", offers.map(|(_, offer)| offer).ranked("best", 2, |price| *price));
    /// });
    /// let offer = |id: u32, price: u64| (id, Some(("tea".to_owned(), price)));
    /// test.feed("offers", 1, [offer(1, 5), offer(2, 9), offer(3, 7)]);
    /// test.advance_past(1);
    /// let [first, second] = [(1, 9), (2, 7)].map(|place| ("tea".to_owned(), place));
    /// assert_eq!(test.table::<(String, (u32, u64))>("best"), [first, second]);
    /// ```
    ///
    /// # Panics
    /// Outside the closure that builds a job.
    #[must_use]
    fn ranked<B: Ord + 'static>(
        self,
        name: &str,
        n: usize,
        by: impl Fn(&V) -> B + 'static,
    ) -> Collection<'s, (K, (u32, V))>;

    /// Replaces each row's value, or refuses the row, as [`Stream::try_map`](crate::Stream::try_map) does on streams. The
    /// first error ends the job; its message names the operator by `name`, and the key.
    ///
    /// `logic` sees only rows that are there at the end of a tick, or were at the end of an earlier one. It must give equal
    /// results for equal rows.
    ///
    /// ```
    /// use fluvial::Table;
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let amounts = scope.input::<(String, Option<i64>)>("amounts").latest("amounts");
    ///     let cents = amounts.try_map("cents", |_, euros| euros.checked_mul(100).ok_or("cents do not fit 64 bits"));
    ///     scope.output("cents", cents);
    /// });
    /// test.feed("amounts", 1, [("eu".to_owned(), Some(7i64))]);
    /// test.advance_past(1);
    /// assert_eq!(test.table::<(String, i64)>("cents"), [("eu".to_owned(), 700)]);
    /// test.feed("amounts", 2, [("eu".to_owned(), Some(i64::MAX))]);
    /// let error = test.try_advance_past(2).unwrap_err();
    /// assert!(error.contains("operator 'cents' cannot go on at tick 2, key \"eu\": cents do not fit"), "{error}");
    /// ```
    ///
    /// # Panics
    /// Outside the closure that builds a job.
    #[must_use]
    fn try_map<W, E>(self, name: &str, logic: impl Fn(&K, V) -> Result<W, E> + 'static) -> Collection<'s, (K, W)>
    where
        K: Hash,
        V: Hash,
        W: Clone + 'static,
        E: Into<BoxError>;
}

impl<'s, K: ExchangeData, V: ExchangeData> Table<'s, K, V> for Collection<'s, (K, V)> {
    fn aggregate<A: Retract<V>>(self, name: &str, aggregate: A) -> Collection<'s, (K, A::Out)> {
        totals::aggregate(self, name, &Durables::of_this_worker(), aggregate)
    }

    fn top<B: Ord + 'static>(self, name: &str, n: usize, by: impl Fn(&V) -> B + 'static) -> Collection<'s, (K, V)> {
        top::top(self, name, &Durables::of_this_worker(), n, by)
    }

    fn ranked<B: Ord + 'static>(
        self,
        name: &str,
        n: usize,
        by: impl Fn(&V) -> B + 'static,
    ) -> Collection<'s, (K, (u32, V))> {
        top::ranked(self, name, &Durables::of_this_worker(), n, by)
    }

    fn try_map<W, E>(self, name: &str, logic: impl Fn(&K, V) -> Result<W, E> + 'static) -> Collection<'s, (K, W)>
    where
        K: Hash,
        V: Hash,
        W: Clone + 'static,
        E: Into<BoxError>,
    {
        checked::try_map(self, name, &Durables::of_this_worker(), logic)
    }
}
