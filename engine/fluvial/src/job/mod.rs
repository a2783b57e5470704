//! What a job's closure is handed: the way from sources through the dataflow to outputs.

pub(crate) mod input;
mod mistakes;
pub(crate) mod output;
mod output_builder;
pub(crate) mod source;

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

/// A job under construction. The closure that builds it runs once on every worker, and must build the same each time.
///
/// ```no_run
/// use fluvial::connector::format::Json;
/// use fluvial::{Count, Job};
/// # fn source() -> impl fluvial::connector::Source { fluvial_memory::Memory::new().source("words") }
/// # fn output() -> impl fluvial::connector::Output { fluvial_memory::Memory::new().upsert("counts", 1) }
///
/// fn build(job: &mut Job<'_>) -> anyhow::Result<()> {
///     let words = job.source("words", source()).format(Json).stream::<String>();
///     let counts = words.key_by(|word| word.clone()).aggregate("counts", Count);
///     job.output(output()).format(Json).write(counts);
///     Ok(())
/// }
/// ```
pub struct Job<'s> {
    scope: Scope<'s, u64>,
    durables: Durables,
    declared: Declared,
    situation: Situation,
}

/// What a job's closure has declared.
#[derive(Default)]
pub(crate) struct Declared {
    pub(crate) sources: Vec<DeclaredSource>,
    pub(crate) outputs: Vec<DeclaredOutput>,
    pub(crate) begun: Begun,
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

/// What a worker knows of the run when it builds the dataflow.
pub(crate) struct Situation {
    /// How many partitions an output has.
    pub(crate) partitions: Box<dyn Fn(&str) -> u32>,
    /// Output at or before this tick is out already.
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

    /// Writes to `output`. Set a format, and end with [`OutputBuilder::write`].
    pub fn output(&mut self, output: impl Output) -> OutputBuilder<'_, 's> {
        OutputBuilder::new(self, &output)
    }
}
