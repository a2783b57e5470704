//! The operators whose output has at most one record for each record of their input.

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::generic::operator::Operator;

use super::context::{at_record, in_operator};
use super::origin::MOST_BRANCHES;
use super::{Origin, Stream};

type Batch<D> = Vec<(D, Origin)>;

impl<'s, D: 'static> Stream<'s, D> {
    /// Turns each record into another record.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let lengths = scope.input::<String>("words").map(|word| word.len());
    ///     scope.output("lengths", lengths.keep_all("lengths"));
    /// });
    /// test.feed("words", 1, ["to".to_owned(), "be".to_owned(), "not".to_owned()]);
    /// test.advance_past(1);
    /// assert_eq!(test.table::<usize>("lengths"), [2, 2, 3]);
    /// ```
    #[must_use]
    pub fn map<E: 'static>(self, logic: impl Fn(D) -> E + 'static) -> Stream<'s, E> {
        let inner = self.inner.unary::<CapacityContainerBuilder<Batch<E>>, _, _, _>(Pipeline, "map", |_, _| {
            move |input, output| {
                input.for_each(|capability, batch| {
                    // The batch itself is iterated, not drained, because `collect` can then reuse the batch's allocation for
                    // the result if the sizes of the records allow it.
                    let batch = std::mem::take(batch).into_iter();
                    let each = batch.map(|(record, origin)| {
                        at_record(origin);
                        (logic(record), origin)
                    });
                    let mut mapped = in_operator("map", || each.collect());
                    output.session(&capability).give_container(&mut mapped);
                });
            }
        });
        Stream { inner, branches: self.branches, durables: self.durables }
    }

    /// Pairs each record with its key, as the keyed durable operators ([`aggregate`](Stream::aggregate),
    /// [`latest`](Stream::latest)) require.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    /// use fluvial::Count;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let by_length = scope.input::<String>("words").key_by(|word| word.len());
    ///     scope.output("words by length", by_length.aggregate("by-length", Count));
    /// });
    /// test.feed("words", 1, ["to".to_owned(), "be".to_owned(), "not".to_owned()]);
    /// test.advance_past(1);
    /// assert_eq!(test.table::<(usize, u64)>("words by length"), [(2, 2), (3, 1)]);
    /// ```
    #[must_use]
    pub fn key_by<K: 'static>(self, key: impl Fn(&D) -> K + 'static) -> Stream<'s, (K, D)> {
        self.map(move |record| (key(&record), record))
    }

    /// Keeps the records for which `logic` returns `true`.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let large = scope.input::<u64>("amounts").filter(|amount| *amount >= 100);
    ///     scope.output("large", large.keep_all("large"));
    /// });
    /// test.feed("amounts", 1, [7u64, 100, 250]);
    /// test.advance_past(1);
    /// assert_eq!(test.table::<u64>("large"), [100, 250]);
    /// ```
    #[must_use]
    pub fn filter(self, logic: impl Fn(&D) -> bool + 'static) -> Self {
        self.in_place("filter", move |batch| {
            batch.retain(|(record, origin)| {
                at_record(*origin);
                logic(record)
            });
        })
    }

    /// Calls `logic` with each record, for logging and measuring. `logic` is called again for the same records at each replay,
    /// so that it must not be used to write output.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    ///
    /// use fluvial::harness::Dataflow;
    ///
    /// let seen = Arc::new(AtomicUsize::new(0));
    /// let counter = Arc::clone(&seen);
    /// let mut test = Dataflow::new(1, move |scope| {
    ///     let counter = Arc::clone(&counter);
    ///     let words = scope.input::<String>("words").inspect(move |_| {
    ///         counter.fetch_add(1, Ordering::Relaxed);
    ///     });
    ///     scope.output("words", words.keep_all("words"));
    /// });
    /// test.feed("words", 1, ["to".to_owned(), "be".to_owned()]);
    /// test.advance_past(1);
    /// assert_eq!(seen.load(Ordering::Relaxed), 2);
    /// ```
    #[must_use]
    pub fn inspect(self, logic: impl Fn(&D) + 'static) -> Self {
        self.in_place("inspect", move |batch| {
            batch.iter().for_each(|(record, origin)| {
                at_record(*origin);
                logic(record);
            });
        })
    }

    /// Merges the records of two streams into one. If both contain records that were made of the same input record, those of
    /// `self` come first in the order of the tick.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    /// use fluvial::Sum;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     // Each transfer (from, to, amount) is a debit of one account and a credit of another.
    ///     let transfers = scope.input::<(u32, u32, i64)>("transfers");
    ///     let debits = transfers.clone().map(|(from, _, amount)| (from, -amount));
    ///     let credits = transfers.map(|(_, to, amount)| (to, amount));
    ///     let balances = debits.union(credits).aggregate("balances", Sum(|amount: &i64| *amount));
    ///     scope.output("balances", balances);
    /// });
    /// test.feed("transfers", 1, [(1u32, 2u32, 30i64), (2, 3, 10)]);
    /// test.advance_past(1);
    /// assert_eq!(test.table::<(u32, i64)>("balances"), [(1, -30), (2, 20), (3, 10)]);
    /// ```
    ///
    /// # Panics
    /// If more than 256 streams are merged into one.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        let (shift, branches) = (self.branches.count, self.branches.and(other.branches));
        assert!(branches.count <= MOST_BRANCHES, "a stream is a union of at most {MOST_BRANCHES} others");
        let other = other.in_place("union", move |batch| {
            batch.iter_mut().for_each(|(_, origin)| *origin = origin.shifted(shift));
        });
        Stream { inner: self.inner.concat(other.inner), branches, durables: self.durables }
    }

    fn in_place(self, name: &'static str, logic: impl Fn(&mut Batch<D>) + 'static) -> Self {
        let inner = self.inner.unary::<CapacityContainerBuilder<Batch<D>>, _, _, _>(Pipeline, name, |_, _| {
            move |input, output| {
                input.for_each(|capability, batch| {
                    in_operator(name, || logic(batch));
                    if !batch.is_empty() {
                        output.session(&capability).give_container(batch);
                    }
                });
            }
        });
        Stream { inner, ..self }
    }
}
