//! What a job's closure is handed: the way from sources through the dataflow to outputs.

pub(crate) mod input;
pub(crate) mod output;
mod output_builder;
pub(crate) mod source;

use std::cell::RefCell;
use std::fmt;
use std::hash::Hash;
use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::ExchangeData;
use fluvial_connector::{BoxError, Output, OutputSpec, Sink, Source, Tick};
use timely::dataflow::Scope;

use crate::durable::Durables;
use crate::state::StateError;
use crate::stream::{self, Collection};
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

/// The names of sources and outputs whose builder has not come to its last call.
#[derive(Default)]
pub(crate) struct Begun {
    pub(crate) sources: Vec<String>,
    pub(crate) outputs: Vec<String>,
}

/// A source or an output that has not been told its format.
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

    /// Reads `source`. `name` is stable across versions of the job: the journal keeps offsets under it.
    ///
    /// What is read is said by the builder's format and by its last call: see [`SourceBuilder`].
    pub fn source(&mut self, name: &str, source: impl Source) -> SourceBuilder<'_, 's> {
        SourceBuilder::new(self, name, source)
    }

    /// Writes to `output`, which nothing else of the job writes. How, and what, is said by the builder's format and by its
    /// last call: see [`OutputBuilder`].
    pub fn output(&mut self, output: impl Output) -> OutputBuilder<'_, 's> {
        OutputBuilder::new(self, &output)
    }

    /// Makes another value of each row's, or refuses the row, as [`Stream::try_map`] does on streams: the first error ends
    /// the job, and its message names the operator, as `name`, and the key.
    ///
    /// `logic` sees what the collection has become by the end of each tick. It must give equal results for equal rows.
    ///
    /// ```
    /// # use fluvial::{Collection, ExactInt, Job};
    /// # fn build<'s>(job: &mut Job<'s>, sums: Collection<'s, (String, ExactInt)>) {
    /// let revenue = job.try_map("revenue", sums, |_, sum: ExactInt| i64::try_from(sum));
    /// # let _ = revenue;
    /// # }
    /// ```
    pub fn try_map<K, V, W, E>(
        &mut self,
        name: &str,
        collection: Collection<'s, (K, V)>,
        logic: impl Fn(&K, V) -> Result<W, E> + 'static,
    ) -> Collection<'s, (K, W)>
    where
        K: ExchangeData + Hash,
        V: ExchangeData + Hash,
        W: Clone + 'static,
        E: Into<BoxError>,
    {
        stream::try_map(collection, name, &self.durables, logic)
    }
}

/// A mistake in how a job is put together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Mistake {
    /// Two collections go to one output.
    #[error("output '{output}' is written twice: concatenate the collections, or name another output")]
    OutputTwice {
        /// The output.
        output: String,
    },
    /// The job writes to two systems, which cannot commit together.
    #[error("the job writes to '{first}' and to '{second}': all outputs of a job must be in one system")]
    TwoSinks {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// The job writes nothing.
    #[error("the job writes nothing: end at least one collection with `job.output(…).format(…).write(…)`")]
    NoOutput,
    /// The job would read what it writes.
    #[error("the job reads {described} and writes it: give the output a topic of its own")]
    OwnInput {
        /// The source.
        described: String,
    },
    /// Two sources have one name.
    #[error("source '{source_name}' is declared twice: give each source a name of its own")]
    SourceTwice {
        /// The name.
        source_name: String,
    },
    /// A source's builder was left before its last call.
    #[error(
        "source '{source_name}' is not read: end it with `stream`, `keyed`, `changelog` or `stream_with`, or take it out"
    )]
    NotRead {
        /// Its name.
        source_name: String,
    },
    /// An output's builder was left before its last call.
    #[error("output '{output}' is not written: end it with `write`, or take it out")]
    NotWritten {
        /// Its name.
        output: String,
    },
    /// A durable operator cannot have its name.
    #[error(transparent)]
    Operator(#[from] StateError),
}

/// All mistakes in how a job is put together, found before anything is opened.
#[derive(Debug)]
pub(crate) struct Mistakes(pub(crate) Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = &self.0[..] {
            return only.fmt(f);
        }
        write!(f, "the job is put together with {} mistakes", self.0.len())?;
        self.0.iter().enumerate().try_for_each(|(place, mistake)| write!(f, "; ({}) {mistake}", place + 1))
    }
}

impl std::error::Error for Mistakes {}
