//! An aggregate of one's own could depend on the order of records.
use fluvial::{Collection, Stream};

fn longest(words: Stream<'_, (String, String)>) -> Collection<'_, (String, String)> {
    words.aggregate("longest", |a: &String, b: &String| if a.len() < b.len() { b } else { a })
}

fn main() {}
