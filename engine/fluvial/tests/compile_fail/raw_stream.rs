//! The timely stream inside a stream is not to be had: operators on it could remember.
use fluvial::Stream;
use timely::dataflow::operators::vec::Map;

fn raw(words: Stream<'_, String>) {
    words.inner.map(|(word, _)| word);
}

fn main() {}
