//! The operator that aggregates the records of each key.

use differential_dataflow::ExchangeData;

use super::keyed::{Change, Fold, keyed, keyed_changes};
use super::{Aggregate, Overflow};
use crate::stream::{Changes, Collection, Origin, Stream};

impl<'s, K: ExchangeData, V: ExchangeData> Stream<'s, (K, V)> {
    /// Aggregates the records of each key, durably, as `name`. A key has a row from its first record on.
    ///
    /// The operator keeps one row for each key, which is small whatever the number of records, except for the aggregates whose
    /// docs say otherwise. The collection changes once in a tick. If a result does not fit its type, the job ends with an error
    /// that names the operator and the key. [`Aggregate`] lists the aggregates.
    ///
    /// ```
    /// use fluvial::durable::{Count, Sum};
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let sales = scope.input::<(String, i64)>("sales");
    ///     let totals = sales.aggregate("totals", (Count, Sum(|cents: &i64| *cents)));
    ///     scope.output("totals", totals);
    /// });
    /// test.feed("sales", 1, [("eu".to_owned(), 250i64), ("us".to_owned(), 100), ("eu".to_owned(), 499)]);
    /// test.advance_past(1);
    /// assert_eq!(
    ///     test.table::<(String, (u64, i64))>("totals"),
    ///     [("eu".to_owned(), (2, 749)), ("us".to_owned(), (1, 100))],
    /// );
    /// ```
    #[must_use]
    pub fn aggregate<A: Aggregate<V>>(self, name: &str, aggregate: A) -> Collection<'s, (K, A::Out)> {
        let operator = format!("aggregate {}", aggregate.describe());
        keyed(self, name, operator, Aggregated(aggregate, std::marker::PhantomData))
    }

    /// As [`aggregate`](Stream::aggregate), and returns the changes of the results, for an upsert output. [`Changes`] says when
    /// to use which. A job may switch between the two and keep its state.
    #[must_use]
    pub fn aggregate_changes<A: Aggregate<V>>(self, name: &str, aggregate: A) -> Changes<'s, K, A::Out> {
        let operator = format!("aggregate {}", aggregate.describe());
        keyed_changes(self, name, operator, Aggregated(aggregate, std::marker::PhantomData))
    }
}

struct Aggregated<V, A>(A, std::marker::PhantomData<V>);

impl<V: 'static, A: Aggregate<V>> Fold for Aggregated<V, A> {
    type Value = V;
    type Delta = A::Total;
    type Row = A::State;
    type Out = A::Out;

    #[inline]
    fn begin(&self, value: V, origin: Origin) -> A::Total {
        let mut total = A::Total::default();
        self.0.add(&mut total, &value, origin);
        total
    }

    #[inline]
    fn add(&self, total: &mut A::Total, value: V, origin: Origin) {
        self.0.add(total, &value, origin);
    }

    #[inline]
    fn first(&self, total: A::Total) -> Result<Option<A::State>, Overflow> {
        let mut state = A::State::default();
        self.0.settle(&mut state, total)?;
        Ok(Some(state))
    }

    #[inline]
    fn change(&self, state: &mut A::State, total: A::Total) -> Result<Change<A::Out>, Overflow> {
        let old = self.0.output(state);
        self.0.settle(state, total)?;
        let new = self.0.output(state);
        Ok(if old == new { Change::Same } else { Change::Other { old, new } })
    }

    #[inline]
    fn output(&self, state: &A::State) -> A::Out {
        self.0.output(state)
    }
}
