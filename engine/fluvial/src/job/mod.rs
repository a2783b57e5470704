//! What a job's closure is handed: the way from sources through the dataflow to outputs.

pub(crate) mod input;
pub(crate) mod output;
pub(crate) mod source;

use std::cell::RefCell;
use std::fmt;
use std::hash::Hash;
use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::ExchangeData;
use fluvial_connector::format::{Decode, Encode};
use fluvial_connector::{BoxError, Offset, Output, OutputSpec, Record, Sink, Source, Tick};
use timely::dataflow::{InputHandleVec, Scope};

use crate::durable::Durables;
use crate::state::StateError;
use crate::stream::Collection;
use crate::stream::{self, Changelog, Stream};
use input::TypedInput;
use output::OutputQueue;
use source::DeclaredSource;
pub use source::OnMalformed;

/// A job under construction. The closure that builds it runs once on every worker, and must build the same each time.
///
/// ```no_run
/// use fluvial::connector::format::json;
/// use fluvial::{Count, Job};
/// # fn source() -> impl fluvial::connector::Source { fluvial_memory::Memory::new().source("words") }
/// # fn output() -> impl fluvial::connector::Output { fluvial_memory::Memory::new().upsert("counts", 1) }
///
/// fn build(job: &mut Job<'_>) -> anyhow::Result<()> {
///     let words = job.source("words", source(), json::value::<String>());
///     let counts = words.key_by(|word| word.clone()).aggregate("counts", Count);
///     job.write(&output(), json::Json, counts);
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
}

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

    /// The records of `source`, decoded. `name` is stable across versions of the job: the journal keeps offsets under
    /// it. A record that cannot be decoded ends the job; see [`Job::source_with`].
    pub fn source<D>(&mut self, name: &str, source: impl Source, decode: D) -> Stream<'s, D::Item>
    where
        D: Decode<Item: Clone>,
    {
        self.source_with(name, source, decode, OnMalformed::Fail)
    }

    /// As [`Job::source`]; says what to do with a record that cannot be decoded.
    pub fn source_with<D>(
        &mut self,
        name: &str,
        source: impl Source,
        decode: D,
        on_malformed: OnMalformed,
    ) -> Stream<'s, D::Item>
    where
        D: Decode<Item: Clone>,
    {
        self.declare(name, source, decode, on_malformed, false)
    }

    /// The records of `source` as a changelog: of each key only the newest record counts, and one without a value deletes
    /// the key. `key` is shown a record's key alone, so that a key here is one in the source's system. A record that
    /// cannot be decoded ends the job; see [`Job::changelog_with`].
    pub fn changelog<K: Clone + 'static, V: Clone + 'static>(
        &mut self,
        name: &str,
        source: impl Source,
        key: impl Decode<Item = K>,
        value: impl Decode<Item = Option<V>>,
    ) -> Changelog<'s, K, V> {
        self.changelog_with(name, source, key, value, OnMalformed::Fail)
    }

    /// As [`Job::changelog`]; says what to do with a record that cannot be decoded.
    ///
    /// With [`OnMalformed::Skip`] a malformed record leaves the older one of its key in place. Compaction does not, so
    /// where compacted records have to be read again the job then ends with an error, as one that reads a
    /// [`Stream`](crate::Stream) does.
    pub fn changelog_with<K: Clone + 'static, V: Clone + 'static>(
        &mut self,
        name: &str,
        source: impl Source,
        key: impl Decode<Item = K>,
        value: impl Decode<Item = Option<V>>,
        on_malformed: OnMalformed,
    ) -> Changelog<'s, K, V> {
        let decode = move |record: &Record<'_>| {
            let bare = Record { offset: Offset(0), value: None, timestamp_ms: None, key: record.key };
            Ok((key.decode(&bare)?, value.decode(record)?))
        };
        Changelog::new(self.declare(name, source, decode, on_malformed, on_malformed == OnMalformed::Fail))
    }

    fn declare<D: Decode<Item: Clone>>(
        &mut self,
        name: &str,
        source: impl Source,
        decode: D,
        on_malformed: OnMalformed,
        only_newest: bool,
    ) -> Stream<'s, D::Item> {
        let mut handle = InputHandleVec::new();
        let stream = handle.to_stream(self.scope);
        self.declared.sources.push(DeclaredSource {
            name: name.to_owned(),
            source: Arc::new(source),
            input: Box::new(TypedInput::new(decode, handle)),
            on_malformed,
            only_newest,
        });
        Stream::from_source(stream, &self.durables)
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

    /// Writes a collection of keys and values to an output, which nothing else of the job writes.
    ///
    /// An *upsert* output says of each key that changed in a tick what it has become: its row, or a null value when it
    /// has none. An *append* output gets each new row, and cannot take one back.
    pub fn write<K, V>(&mut self, output: &impl Output, encode: impl Encode<K, V>, collection: Collection<'s, (K, V)>)
    where
        K: ExchangeData,
        V: ExchangeData,
    {
        let spec = output.spec();
        let queue = Rc::new(RefCell::new(OutputQueue::default()));
        let partitions = (self.situation.partitions)(&spec.name);
        let skip_through = self.situation.skip_through.map(|t| t.0);
        output::collect(collection, &spec, partitions, encode, skip_through, Rc::clone(&queue));
        self.declared.outputs.push(DeclaredOutput { spec, sink: output.sink(), queue });
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
    #[error("the job writes to '{first}' and to '{second}': all outputs of a job lie in one system")]
    TwoSinks {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// The job writes nothing.
    #[error("the job writes nothing: end at least one collection with `job.write`")]
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
