//! A source says how its records are decoded.
//~ `NoFormat` is not a format of keys and values
//~ a source and an output are told theirs by `.format(…)`
use fluvial::{Job, Stream};

pub fn words<'s>(job: &mut Job<'s>, source: impl fluvial::connector::Source) -> Stream<'s, String> {
    job.source("words", source).stream::<String>()
}
