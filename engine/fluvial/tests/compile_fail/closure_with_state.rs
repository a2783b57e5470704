//! A counter in a closure would be lost at a restart, and would depend on the order of the records.
//~ cannot assign to `seen`, as it is a captured variable in a `Fn` closure
use fluvial::Stream;

pub fn number(words: Stream<'_, String>) -> Stream<'_, (u64, String)> {
    let mut seen = 0;
    words.map(move |word| {
        seen += 1;
        (seen, word)
    })
}
