//! Checked operators on collections of keys and values.

use std::hash::Hash;

use differential_dataflow::ExchangeData;
use fluvial_connector::BoxError;

use super::table_joins::Sides;
use super::{Collection, checked, table_joins, top, totals};
use crate::durable::{Durables, Retract};

/// Operators on a collection of keys and values, in addition to differential dataflow's own. Joins other than the inner one,
/// which is differential dataflow's `join`; and checked operators: a result that does not fit its type, or that the job's logic
/// refuses, ends the job with an error that names operator and key.
///
/// | rows with a partner by key | the others too |
/// | --- | --- |
/// | `join` (of differential dataflow) | [`left_join`](Table::left_join), [`right_join`](Table::right_join), [`full_join`](Table::full_join) |
/// | [`semi_join`](Table::semi_join): without the partner | [`anti_join`](Table::anti_join): only the others |
///
/// Differential dataflow's `count`, `count_total` and `explode` add up in `isize`, which wraps around. Its `semijoin` and
/// `antijoin` take keys that are there once.
///
/// **Guarantees**: the result of a key changes at most once in a tick, to the aggregate of the rows that the key has at
/// the end of the tick. Rows that are added and retracted within a tick, as joins do, do not change results. **Does
/// not** store anything: after a restart, results are computed again from the rows that the durable operators have
/// restored.
pub trait Table<'s, K, V> {
    /// Aggregates the rows of each key, as [`Stream::aggregate`](crate::Stream::aggregate) does with the records of a
    /// stream. A retraction is exact: the result is that of the rows that are left. A key has a result as long as it has rows. Error messages name the
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

    /// Pairs each row with every row of `other` that has the same key, and a row without a partner with `None`. The result
    /// follows all changes of both sides, and changes once in a tick: no `None` is there in between while a partner is
    /// replaced within a tick.
    ///
    /// ```
    /// use fluvial::Table;
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let prices = scope.input::<(String, Option<i64>)>("prices").latest("prices");
    ///     let stock = scope.input::<(String, Option<i64>)>("stock").latest("stock");
    ///     scope.output("items", prices.left_join(stock));
    /// });
    /// test.feed("prices", 1, [("tea".to_owned(), Some(3i64))]);
    /// test.feed("stock", 2, [("tea".to_owned(), Some(10i64)), ("jam".to_owned(), Some(5))]);
    /// test.advance_past(1);
    /// assert_eq!(test.table::<(String, (i64, Option<i64>))>("items"), [("tea".to_owned(), (3, None))]);
    /// test.advance_past(2);
    /// assert_eq!(test.table::<(String, (i64, Option<i64>))>("items"), [("tea".to_owned(), (3, Some(10)))]);
    /// ```
    #[must_use]
    fn left_join<W: ExchangeData>(self, other: Collection<'s, (K, W)>) -> Collection<'s, (K, (V, Option<W>))>
    where
        K: Hash;

    /// Pairs each row of `other` with every row of this collection that has the same key, and a row of `other` without a
    /// partner with `None`: [`left_join`](Table::left_join) with the sides exchanged.
    ///
    /// ```
    /// use fluvial::Table;
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let prices = scope.input::<(String, Option<i64>)>("prices").latest("prices");
    ///     let stock = scope.input::<(String, Option<i64>)>("stock").latest("stock");
    ///     scope.output("items", prices.right_join(stock));
    /// });
    /// test.feed("stock", 1, [("jam".to_owned(), Some(5i64))]);
    /// test.advance_past(1);
    /// assert_eq!(test.table::<(String, (Option<i64>, i64))>("items"), [("jam".to_owned(), (None, 5))]);
    /// ```
    #[must_use]
    fn right_join<W: ExchangeData>(self, other: Collection<'s, (K, W)>) -> Collection<'s, (K, (Option<V>, W))>
    where
        K: Hash;

    /// Pairs each row with every row of `other` that has the same key, and rows without a partner, of either side, with
    /// `None`. See [`left_join`](Table::left_join).
    ///
    /// ```
    /// use fluvial::Table;
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let credits = scope.input::<(u32, Option<i64>)>("credits").latest("credits");
    ///     let debits = scope.input::<(u32, Option<i64>)>("debits").latest("debits");
    ///     let balance = |(account, (credit, debit)): (u32, (Option<i64>, Option<i64>))| {
    ///         (account, credit.unwrap_or(0) - debit.unwrap_or(0))
    ///     };
    ///     scope.output("balances", credits.full_join(debits).map(balance));
    /// });
    /// test.feed("credits", 1, [(1u32, Some(100i64)), (2, Some(20))]);
    /// test.feed("debits", 1, [(2u32, Some(30i64)), (3, Some(5))]);
    /// test.advance_past(1);
    /// assert_eq!(test.table::<(u32, i64)>("balances"), [(1, 100), (2, -10), (3, -5)]);
    /// ```
    #[must_use]
    fn full_join<W: ExchangeData>(self, other: Collection<'s, (K, W)>) -> Collection<'s, (K, Sides<V, W>)>
    where
        K: Hash;

    /// Keeps the rows whose key has a row in `other`, each as often as it is in this collection, however many rows `other`
    /// has for the key.
    ///
    /// ```
    /// use fluvial::Table;
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let names = scope.input::<(u32, Option<String>)>("names").latest("names");
    ///     let orders = scope.input::<(u32, i64)>("orders").keep_all("orders");
    ///     scope.output("buyers", names.clone().semi_join(orders.clone()));
    ///     scope.output("others", names.anti_join(orders));
    /// });
    /// test.feed("names", 1, [(1u32, Some("Ann".to_owned())), (2, Some("Bob".to_owned()))]);
    /// test.feed("orders", 1, [(1u32, 250i64), (1, 100)]);
    /// test.advance_past(1);
    /// assert_eq!(test.table::<(u32, String)>("buyers"), [(1, "Ann".to_owned())]);
    /// assert_eq!(test.table::<(u32, String)>("others"), [(2, "Bob".to_owned())]);
    /// ```
    #[must_use]
    fn semi_join<W: ExchangeData>(self, other: Collection<'s, (K, W)>) -> Self
    where
        K: Hash;

    /// Keeps the rows whose key has no row in `other`. The example of [`semi_join`](Table::semi_join) shows it.
    #[must_use]
    fn anti_join<W: ExchangeData>(self, other: Collection<'s, (K, W)>) -> Self
    where
        K: Hash;
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

    fn left_join<W: ExchangeData>(self, other: Collection<'s, (K, W)>) -> Collection<'s, (K, (V, Option<W>))>
    where
        K: Hash,
    {
        table_joins::left(self, other)
    }

    fn right_join<W: ExchangeData>(self, other: Collection<'s, (K, W)>) -> Collection<'s, (K, (Option<V>, W))>
    where
        K: Hash,
    {
        table_joins::left(other, self).map(|(key, (right, left))| (key, (left, right)))
    }

    fn full_join<W: ExchangeData>(self, other: Collection<'s, (K, W)>) -> Collection<'s, (K, Sides<V, W>)>
    where
        K: Hash,
    {
        table_joins::full(self, other)
    }

    fn semi_join<W: ExchangeData>(self, other: Collection<'s, (K, W)>) -> Self
    where
        K: Hash,
    {
        table_joins::semi(self, other)
    }

    fn anti_join<W: ExchangeData>(self, other: Collection<'s, (K, W)>) -> Self
    where
        K: Hash,
    {
        table_joins::anti(self, other)
    }
}
