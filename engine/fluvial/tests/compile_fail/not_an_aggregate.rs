//! An aggregate of one's own could depend on the order of records.
//~ is not an aggregate of `String` values
//~ aggregates are `Count`, `Sum(|value| …)`, `Average(|value| …)` and tuples of them
use fluvial::{Collection, Stream};

pub fn longest(words: Stream<'_, (String, String)>) -> Collection<'_, (String, String)> {
    words.aggregate("longest", |a: &String, b: &String| if a.len() < b.len() { b } else { a })
}
