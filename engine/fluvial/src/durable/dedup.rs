//! The operator that passes the first record of each key.

use std::marker::PhantomData;

use differential_dataflow::ExchangeData;

use super::Overflow;
use super::keeper::Settled;
use super::keyed::{Change, Emits, Fold, built};
use crate::stream::{Origin, Stream};

#[cfg(test)]
mod tests;

impl<'s, K: ExchangeData, V: ExchangeData> Stream<'s, (K, V)> {
    /// Passes the first record of each key and drops all later ones, whenever they come. The keys that were seen are kept
    /// durably, as `name`; their number only grows.
    ///
    /// The first record is that of the earliest tick, and within a tick the first one in the order of source, split and offset,
    /// not the one that arrived first. The result is a stream: after a restart nothing is emitted again.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(2, |scope| {
    ///     let payments = scope.input::<(u64, i64)>("payments");
    ///     // A payment that a client sent again, with the same number, counts once.
    ///     let once = payments.dedup("payments-seen").map(|(_, cents)| ((), cents));
    ///     scope.output("total", once.aggregate("total", fluvial::Sum(|cents: &i64| *cents)));
    /// });
    /// test.feed("payments", 1, [(7u64, 250i64), (8, 100), (7, 250)]);
    /// test.feed("payments", 2, [(8u64, 100i64), (9, 1)]);
    /// test.advance_past(1);
    /// test.restart(1);
    /// test.advance_past(2);
    /// assert_eq!(test.table::<((), i64)>("total"), [((), 351)]);
    /// ```
    #[must_use]
    pub fn dedup(self, name: &str) -> Self {
        let (branches, durables) = (self.branches(), self.durables().clone());
        let firsts = built::<K, Dedup<V>, AsRecords>(self, name, "dedup".to_owned(), Dedup(PhantomData));
        Stream::by_key(firsts, branches, durables)
    }
}

/// A key that was seen has an empty row.
struct Dedup<V>(PhantomData<V>);

impl<V: Clone + 'static> Fold for Dedup<V> {
    type Value = V;
    type Delta = (Origin, V);
    type Row = ();
    /// The first record; nothing for a row that was restored, because its record has been emitted.
    type Out = Option<(Origin, V)>;

    fn begin(&self, value: V, origin: Origin) -> Self::Delta {
        (origin, value)
    }

    fn add(&self, delta: &mut Self::Delta, value: V, origin: Origin) {
        if origin < delta.0 {
            *delta = (origin, value);
        }
    }

    fn first(&self, _: Self::Delta) -> Result<Option<()>, Overflow> {
        Ok(Some(()))
    }

    fn first_and_output(&self, delta: Self::Delta) -> Result<Option<((), Self::Out)>, Overflow> {
        Ok(Some(((), Some(delta))))
    }

    fn change(&self, (): &mut (), _: Self::Delta) -> Result<Change<Self::Out>, Overflow> {
        Ok(Change::Unchanged)
    }

    fn output(&self, (): &()) -> Self::Out {
        None
    }
}

/// As records of a stream, with the origins that they had.
struct AsRecords;

impl<K: Clone + 'static, V: Clone + 'static> Emits<K, Option<(Origin, V)>> for AsRecords {
    type Update = ((K, V), Origin);

    #[inline]
    fn emit(settled: Settled<K, Option<(Origin, V)>>, _: u64, mut give: impl FnMut(Self::Update)) {
        if let Settled::New(key, Some((origin, value))) = settled {
            give(((key, value), origin));
        }
    }
}
