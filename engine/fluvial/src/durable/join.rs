//! The join of two streams whose records are kept for ever.
//!
//! ```text
//!   left ──┬──keep_all──► every left record ────┐ as of the start of the tick
//!          └──────────────────────────────┐     ▼
//!   right ─┬──────────────────────────────┼──► right records with earlier left ones ──┐
//!          │                              ▼                                           ├──union──►
//!          └──keep_all──► right records ─► left records with all right ones ──────────┘
//!                         as of the end of the tick
//! ```
//!
//! So each pair is made once, in the tick of its later half, by the record of that half; of two records of one tick by the left
//! one. Records that were kept and restored make no pairs themselves: nothing is emitted again after a restart.

use differential_dataflow::ExchangeData;

use crate::stream::context::lasting;
use crate::stream::{AsOf, Stream, pair_each};

#[cfg(test)]
mod tests;

impl<'s, K: ExchangeData, V: ExchangeData> Stream<'s, (K, V)> {
    /// Pairs each record with every record of the other stream that has the same key, whichever comes first. A pair is emitted
    /// once, in the tick in which its later record comes. The result is a stream: it never changes afterwards, and nothing is
    /// emitted again after a restart.
    ///
    /// All records of both streams are kept durably, as `name.left` and `name.right`, and in memory: the state only grows. Where
    /// one side is a table of which the newest row of a key counts, [`join_now`](Stream::join_now) keeps less. For an outer
    /// join, make collections of both sides ([`Table::left_join`](crate::Table::left_join)): what has no partner now may get one
    /// later, and only a collection can take back what it has said.
    ///
    /// In the order of a tick, the pairs of a record come in the order of its partners' values.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(2, |scope| {
    ///     let orders = scope.input::<(u64, String)>("orders");
    ///     let payments = scope.input::<(u64, i64)>("payments");
    ///     scope.output("paid", orders.join("paid", payments).keep_all("pairs"));
    /// });
    /// test.feed("payments", 1, [(7u64, 250i64)]);
    /// test.feed("orders", 2, [(7u64, "tea".to_owned()), (8, "jam".to_owned())]);
    /// test.feed("payments", 3, [(8u64, 100i64), (8, 20)]);
    /// test.advance_past(2);
    /// test.restart(1);
    /// test.advance_past(3);
    /// let tea = (7u64, ("tea".to_owned(), 250i64));
    /// assert_eq!(test.updates_at::<(u64, (String, i64))>("paid", 2), [(tea, 1)]);
    /// let jam = |cents: i64| ((8u64, ("jam".to_owned(), cents)), 1);
    /// assert_eq!(test.updates_at::<(u64, (String, i64))>("paid", 3), [jam(20), jam(100)]);
    /// ```
    #[must_use]
    pub fn join<W: ExchangeData>(self, name: &str, other: Stream<'s, (K, W)>) -> Stream<'s, (K, (V, W))> {
        let called = lasting(name.to_owned());
        let left = self.clone().keep_all(&format!("{name}.left"));
        let right = other.clone().keep_all(&format!("{name}.right"));
        let of_left = self.look_up(called, right, AsOf::End, |(key, left), origin, rights, made| {
            pair_each(key, left, rights, |key, left, right| made.push(((key, (left, right.clone())), origin)));
        });
        let of_right = other.look_up(called, left, AsOf::Start, |(key, right), origin, lefts, made| {
            pair_each(key, right, lefts, |key, right, left| made.push(((key, (left.clone(), right)), origin)));
        });
        of_left.union(of_right)
    }
}
