//! Forgetting the last call of a builder does not go unnoticed.
//~ unused `SourceBuilder` that must be used
//~ unused `OutputBuilder` that must be used
#![deny(unused_must_use)]
use fluvial::Job;
use fluvial::connector::format::Json;

pub fn build(job: &mut Job<'_>, source: impl fluvial::connector::Source, output: impl fluvial::connector::Output) {
    job.source("words", source).format(Json);
    job.output(output).format(Json);
}
