//! The builder that declares an output.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::ExchangeData;
use fluvial_connector::format::{Encode, Formats};
use fluvial_connector::{Envelope, Output, OutputSpec, Sink};

use super::output::{self, End, OutputQueue};
use super::{DeclaredOutput, Job, NoFormat};
use crate::stream::{Changes, Collection};

/// Builds an output: set its options first, then end with [`write`](Self::write) or [`write_changes`](Self::write_changes). [`Job::output`] makes it.
///
/// ```
/// use fluvial::connector::format::{Json, Text};
/// use fluvial::harness::JobTest;
/// use fluvial_memory::Memory;
///
/// #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
/// struct Price { cents: i64 }
///
/// let mut test = JobTest::new(1, |job| {
///     let memory = Memory::new();
///     let prices = job.source("prices", memory.source("prices")).format((Text, Json)).changelog::<String, i64>();
///     let rows = prices.map_values(|cents| Price { cents }).latest("prices");
///     job.output(memory.upsert("rows", 1)).format((Text, Json)).write(rows);
///     Ok(())
/// });
/// test.feed("prices", 1, [(Some("tea"), Some("250"))]);
/// test.advance_past(1);
/// assert_eq!(test.table("rows"), [("tea".into(), r#"{"cents":250}"#.into())]);
/// ```
#[must_use = "an output is written by the last call, `write` or `write_changes`"]
pub struct OutputBuilder<'j, 's, F = NoFormat> {
    job: &'j mut Job<'s>,
    spec: OutputSpec,
    sink: Arc<dyn Sink>,
    formats: F,
}

impl<'j, 's> OutputBuilder<'j, 's> {
    pub(super) fn new(job: &'j mut Job<'s>, output: &impl Output) -> Self {
        let spec = output.spec();
        job.declared.begun.outputs.push(spec.name.clone());
        Self { job, spec, sink: output.sink(), formats: NoFormat }
    }

    /// Sets the format of the records, for example `Json` ([`connector::format`](crate::connector::format) has all). A single
    /// format applies to keys and values; a pair, such as `(Text, Json)`, has one for each.
    pub fn format<F: Formats>(self, formats: F) -> OutputBuilder<'j, 's, F> {
        let Self { job, spec, sink, formats: NoFormat } = self;
        OutputBuilder { job, spec, sink, formats }
    }
}

impl<'s, F> OutputBuilder<'_, 's, F> {
    /// Writes a collection of keys and values to the output. A job writes each output once.
    ///
    /// For each key that changed in a tick, an *upsert* output gets one record with the key's row at the end of the tick, or
    /// with a null value if the key has no row any more. An *append* output gets a record for each new row; a row that is
    /// retracted ends the job with an error, because a record cannot be taken back.
    ///
    /// ```
    /// use fluvial::connector::format::Text;
    /// use fluvial::harness::JobTest;
    /// use fluvial_memory::Memory;
    ///
    /// let mut test = JobTest::new(1, |job| {
    ///     let memory = Memory::new();
    ///     let prices = job.source("prices", memory.source("prices")).format(Text).changelog::<String, i64>();
    ///     job.output(memory.upsert("current", 1)).format(Text).write(prices.clone().latest("current"));
    ///     job.output(memory.append_to("history", 1)).format(Text).write(prices.latest("history"));
    ///     Ok(())
    /// });
    /// test.feed("prices", 1, [(Some("tea"), Some("3"))]);
    /// test.advance_past(1);
    /// assert_eq!(test.updates_at("current", 1), [("tea".into(), Some("3".into()))]);
    /// assert_eq!(test.updates_at("history", 1), [("tea".into(), Some("3".into()))]);
    ///
    /// // A new price replaces the row of an upsert output. It would have to retract that of an append output.
    /// test.feed("prices", 2, [(Some("tea"), Some("4"))]);
    /// let error = test.try_advance_past(2).unwrap_err();
    /// assert!(error.contains("output 'history' would have to retract a record of key tea at tick 2"), "{error}");
    /// ```
    pub fn write<K, V>(self, collection: Collection<'s, (K, V)>)
    where
        F: Formats<Key: Encode<K>, Value: Encode<V>>,
        K: ExchangeData,
        V: ExchangeData,
    {
        self.collect(|end, formats| output::collect(collection, end, formats));
    }

    /// Writes the changes of a durable operator's rows to an upsert output: for each key that changed in a tick its row at the
    /// end of the tick, or a null value if it has none. The table is the one that [`write`](Self::write) makes of the
    /// operator's collection, for less work. [`Changes`] has an example.
    pub fn write_changes<K, V>(self, changes: Changes<'s, K, V>)
    where
        F: Formats<Key: Encode<K>, Value: Encode<V>>,
        K: 'static,
        V: 'static,
    {
        if self.spec.envelope == Envelope::Append {
            self.job.declared.changes_appended.push(self.spec.name.clone());
        }
        self.collect(|end, formats| output::collect_changes(changes, end, formats));
    }

    fn collect(self, collect: impl FnOnce(End<'_>, F)) {
        let Self { job, spec, sink, formats } = self;
        let queue = Rc::new(RefCell::new(OutputQueue::default()));
        let end = End {
            spec: &spec,
            partitions: (job.situation.partitions)(&spec.name),
            skip_through: job.situation.skip_through.map(|tick| tick.0),
            queue: Rc::clone(&queue),
            durables: &job.durables,
        };
        collect(end, formats);
        // The builder borrows the job exclusively, so the output that was begun last is this one.
        job.declared.begun.outputs.pop();
        job.declared.outputs.push(DeclaredOutput { spec, sink, queue });
    }
}

impl<F> fmt::Debug for OutputBuilder<'_, '_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutputBuilder({})", self.spec.name)
    }
}
