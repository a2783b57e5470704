//! A counter in a closure would be lost at a restart, and would depend on the order of the records.
use fluvial::Stream;

fn number(words: Stream<'_, String>) -> Stream<'_, (u64, String)> {
    let mut seen = 0;
    words.map(move |word| {
        seen += 1;
        (seen, word)
    })
}

fn main() {}
