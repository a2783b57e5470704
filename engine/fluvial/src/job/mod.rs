//! A job under construction: its sources, its outputs, and the dataflow between them.

mod encoded;
pub(crate) mod input;
mod mistakes;
mod order;
pub(crate) mod output;
mod output_builder;
pub(crate) mod source;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use fluvial_connector::{Output, OutputSpec, Sink, Source, Tick};
use timely::dataflow::Scope;

use crate::durable::Durables;
use output::OutputQueue;
pub use output_builder::OutputBuilder;
use source::DeclaredSource;
pub use source::{OnMalformed, SourceBuilder};

/// A job under construction. [`App`](crate::App) calls the closure that builds the job once on every worker; it must build the
/// same dataflow each time.
///
/// ```
/// use fluvial::connector::format::Json;
/// use fluvial::{Count, Job};
/// use fluvial::harness::JobTest;
/// use fluvial_memory::Memory;
///
/// fn build(job: &mut Job<'_>) -> anyhow::Result<()> {
///     let memory = Memory::new(); // in production, for example `KafkaOptions::connect` of fluvial-kafka
///     let words = job.source("words", memory.source("words")).format(Json).stream::<String>();
///     let counts = words.key_by(|word| word.clone()).aggregate("counts", Count);
///     job.output(memory.upsert("counts", 1)).format(Json).write(counts);
///     Ok(())
/// }
///
/// let mut test = JobTest::new(1, build);
/// test.feed("words", 1, [(None, Some(r#""to""#)), (None, Some(r#""be""#)), (None, Some(r#""to""#))]);
/// test.advance_past(1);
/// assert_eq!(test.table("counts"), [(r#""be""#.into(), "1".into()), (r#""to""#.into(), "2".into())]);
/// ```
pub struct Job<'s> {
    scope: Scope<'s, u64>,
    durables: Durables,
    declared: Declared,
    situation: Situation,
}

/// The sources and outputs that a job's closure has declared.
#[derive(Default)]
pub(crate) struct Declared {
    pub(crate) sources: Vec<DeclaredSource>,
    pub(crate) outputs: Vec<DeclaredOutput>,
    pub(crate) begun: Begun,
    /// The append outputs to which records are written that replace earlier ones, each with the call that does it.
    pub(crate) changes_appended: Vec<(String, &'static str)>,
}

/// The names of sources and outputs whose builder was not ended with its last call.
#[derive(Default)]
pub(crate) struct Begun {
    pub(crate) sources: Vec<String>,
    pub(crate) outputs: Vec<String>,
}

/// The format of a source or an output before [`SourceBuilder::format`] or [`OutputBuilder::format`] has set one.
#[derive(Clone, Copy, Debug)]
pub struct NoFormat;

/// One output as the job declared it.
pub(crate) struct DeclaredOutput {
    pub(crate) spec: OutputSpec,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) queue: Rc<RefCell<OutputQueue>>,
}

/// What the worker passes to the job when it builds the dataflow.
pub(crate) struct Situation {
    /// Returns the number of partitions of an output.
    pub(crate) partitions: Box<dyn Fn(&str) -> u32>,
    /// Output at or before this tick has been committed and is not emitted again.
    pub(crate) skip_through: Option<Tick>,
}

impl<'s> Job<'s> {
    pub(crate) fn new(scope: Scope<'s, u64>, durables: Durables, situation: Situation) -> Self {
        Self { scope, durables, declared: Declared::default(), situation }
    }

    pub(crate) fn finish(self) -> Declared {
        self.declared
    }

    /// Reads `source`. `name` must not change between versions of the job, because the journal stores offsets under it.
    ///
    /// Set a format, and end with one of the calls that [`SourceBuilder`] lists.
    pub fn source(&mut self, name: &str, source: impl Source) -> SourceBuilder<'_, 's> {
        SourceBuilder::new(self, name, source)
    }

    /// Writes to `output`. Set a format, and end with one of the calls that [`OutputBuilder`] lists.
    pub fn output(&mut self, output: impl Output) -> OutputBuilder<'_, 's> {
        OutputBuilder::new(self, &output)
    }
}
