//! The only way from a stream to differential dataflow is a durable operator.
use differential_dataflow::AsCollection;
use fluvial::{Collection, Stream};

fn collect(words: Stream<'_, String>) -> Collection<'_, String> {
    words.as_collection()
}

fn main() {}
