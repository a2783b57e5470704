//! A format reads what it can read.
//~ Bytes` cannot read `String`
use fluvial::connector::format::Bytes;
use fluvial::{Job, Stream};

pub fn words<'s>(job: &mut Job<'s>, source: impl fluvial::connector::Source) -> Stream<'s, String> {
    job.source("words", source).format(Bytes).stream::<String>()
}
