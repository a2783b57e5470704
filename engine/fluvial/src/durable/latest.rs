//! The operator that keeps the newest value of each key.

use differential_dataflow::ExchangeData;

use super::Overflow;
use super::keyed::{Change, Fold, keyed, keyed_changes};
use crate::stream::{Changes, Collection, Origin, Stream};

impl<'s, K: ExchangeData, V: ExchangeData> Stream<'s, (K, Option<V>)> {
    /// Keeps the newest value of each key, durably, as `name`. The result is the table of which the stream is the changelog;
    /// the value `None` deletes the key.
    ///
    /// The newest value is the last one in the order of tick, source, split and offset, not the one that arrived last. The
    /// collection changes once in a tick, to the value that each key has at the end of the tick.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let prices = scope.input::<(String, Option<i64>)>("prices").latest("prices");
    ///     scope.output("prices", prices);
    /// });
    /// test.feed("prices", 1, [("tea".to_owned(), Some(3i64)), ("tea".to_owned(), Some(4))]);
    /// test.feed("prices", 2, [("tea".to_owned(), None), ("jam".to_owned(), Some(2i64))]);
    /// test.advance_past(1);
    /// assert_eq!(test.table::<(String, i64)>("prices"), [("tea".to_owned(), 4)]);
    /// test.advance_past(2);
    /// assert_eq!(test.table::<(String, i64)>("prices"), [("jam".to_owned(), 2)]);
    /// ```
    #[must_use]
    pub fn latest(self, name: &str) -> Collection<'s, (K, V)> {
        keyed(self, name, "latest".to_owned(), Latest(std::marker::PhantomData))
    }

    /// Like [`latest`](Stream::latest), but emits `map(&value)` instead of the value, and does not copy the value. If `map` returns the
    /// same for the old and the new value, nothing is emitted. `map` must be deterministic: it is called again on the old value to
    /// retract it. A job may switch between the two and keep its state.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let tariffs = scope.input::<(String, Option<(String, i64)>)>("tariffs");
    ///     let prices = tariffs.latest_map("tariffs", |(_, price)| *price);
    ///     scope.output("prices", prices);
    /// });
    /// test.feed("tariffs", 1, [("tea".to_owned(), Some(("green".to_owned(), 3i64)))]);
    /// test.feed("tariffs", 2, [("tea".to_owned(), Some(("black".to_owned(), 3i64)))]);
    /// test.advance_past(2);
    /// assert_eq!(test.table::<(String, i64)>("prices"), [("tea".to_owned(), 3)]);
    /// ```
    #[must_use]
    pub fn latest_map<O: ExchangeData>(self, name: &str, map: impl Fn(&V) -> O + 'static) -> Collection<'s, (K, O)> {
        keyed(self, name, "latest".to_owned(), LatestMap { latest: Latest(std::marker::PhantomData), map })
    }

    /// As [`latest`](Stream::latest), and returns the changes of the values, for an upsert output. [`Changes`] says when to take
    /// which. A job may go over from one to the other and keep its state.
    #[must_use]
    pub fn latest_changes(self, name: &str) -> Changes<'s, K, V> {
        keyed_changes(self, name, "latest".to_owned(), Latest(std::marker::PhantomData))
    }
}

struct Latest<V>(std::marker::PhantomData<V>);

impl<V: ExchangeData> Fold for Latest<V> {
    type Value = Option<V>;
    type Delta = (Origin, Option<V>);
    type Row = V;
    type Out = V;

    fn begin(&self, value: Option<V>, origin: Origin) -> Self::Delta {
        (origin, value)
    }

    fn add(&self, delta: &mut Self::Delta, value: Option<V>, origin: Origin) {
        if origin >= delta.0 {
            *delta = (origin, value);
        }
    }

    fn first(&self, (_, value): Self::Delta) -> Result<Option<V>, Overflow> {
        Ok(value)
    }

    fn change(&self, row: &mut V, (_, value): Self::Delta) -> Result<Change<V>, Overflow> {
        Ok(match value {
            None => Change::Gone { old: row.clone() },
            Some(value) if value == *row => Change::Unchanged,
            Some(value) => Change::Other { new: value.clone(), old: std::mem::replace(row, value) },
        })
    }

    fn output(&self, row: &V) -> V {
        row.clone()
    }
}

/// Keeps whole values, as [`Latest`] does, and emits what a closure returns for them.
struct LatestMap<V, M> {
    latest: Latest<V>,
    map: M,
}

impl<V: ExchangeData, O: ExchangeData, M: Fn(&V) -> O + 'static> Fold for LatestMap<V, M> {
    type Value = Option<V>;
    type Delta = (Origin, Option<V>);
    type Row = V;
    type Out = O;

    fn begin(&self, value: Option<V>, origin: Origin) -> Self::Delta {
        self.latest.begin(value, origin)
    }

    fn add(&self, delta: &mut Self::Delta, value: Option<V>, origin: Origin) {
        self.latest.add(delta, value, origin);
    }

    fn first(&self, delta: Self::Delta) -> Result<Option<V>, Overflow> {
        self.latest.first(delta)
    }

    fn change(&self, row: &mut V, (_, value): Self::Delta) -> Result<Change<O>, Overflow> {
        let old = (self.map)(row);
        let Some(value) = value else { return Ok(Change::Gone { old }) };
        let new = (self.map)(&value);
        *row = value;
        Ok(if old == new { Change::Same } else { Change::Other { old, new } })
    }

    fn output(&self, row: &V) -> O {
        (self.map)(row)
    }
}
