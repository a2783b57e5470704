//! The only way from a stream to differential dataflow is a durable operator.
//~ no method named `as_collection` found for struct `Stream
use fluvial::{Collection, Stream};

pub fn collect(words: Stream<'_, String>) -> Collection<'_, String> {
    words.as_collection()
}
