//! The timely stream inside a stream is not to be had: operators on it could remember.
//~ field `inner` of struct
use fluvial::Stream;

pub fn raw(words: Stream<'_, String>) {
    let _ = words.inner;
}
