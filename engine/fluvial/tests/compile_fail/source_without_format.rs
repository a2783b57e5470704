//! A source says how its records are decoded.
//~ `NoFormat` is not a format of keys and values
//~ set the format of a source or an output with `.format(…)`
use fluvial::{Job, Stream};

pub fn words<'s>(job: &mut Job<'s>, source: impl fluvial::connector::Source) -> Stream<'s, String> {
    job.source("words", source).stream::<String>()
}
