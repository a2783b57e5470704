//! What the other cases get wrong, done right.
use fluvial::durable::ExactFloat;
use fluvial::{Collection, Count, Last, MaxBy, Stream, Sum, Table};

pub fn words(words: Stream<'_, String>) -> Collection<'_, (String, u64)> {
    words.filter(|word| !word.is_empty()).key_by(|word| word.clone()).aggregate("words", Count)
}

pub fn prices(changes: Stream<'_, (String, Option<i64>)>) -> Collection<'_, (String, i64)> {
    changes.latest("prices")
}

pub fn revenue(sales: Stream<'_, (String, i64)>) -> Collection<'_, (String, fluvial::durable::Float)> {
    sales.aggregate("revenue", Sum(|cents: &i64| ExactFloat::from(*cents as f64 / 100.0)))
}

pub fn newest<'s>(
    records: Stream<'s, (String, u64)>,
    rows: Collection<'s, (String, (i64, u64))>,
) -> (Collection<'s, (String, u64)>, Collection<'s, (String, (i64, u64))>) {
    let of_stream = records.aggregate("newest", Last(|value: &u64| *value));
    (of_stream, rows.aggregate("newest of rows", MaxBy(|(at, _): &(i64, u64)| *at)))
}
