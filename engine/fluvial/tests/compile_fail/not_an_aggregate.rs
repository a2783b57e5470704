//! What combines two values in the order of their arrival is not an aggregate; what is one implements `Aggregate`.
//~ is not an aggregate of `String` values
//~ aggregates are `Count`, `Sum(|value| …)`, `Average(|value| …)`, `Min(…)`
//~ types of your own that implement `Aggregate`
use fluvial::{Collection, Stream};

pub fn longest(words: Stream<'_, (String, String)>) -> Collection<'_, (String, String)> {
    words.aggregate("longest", |a: &String, b: &String| if a.len() < b.len() { b } else { a })
}
