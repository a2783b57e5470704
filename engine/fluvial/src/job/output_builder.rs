//! The builder that declares an output.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::ExchangeData;
use fluvial_connector::format::{Encode, Formats};
use fluvial_connector::{Envelope, Output, OutputSpec, Sink};

use super::output::{self, End, OutputQueue};
use super::{DeclaredOutput, Job, NoFormat, encoded};
use crate::stream::{Changes, Collection, Stream};

/// Builds an output: set its options first, then end with one of the calls that write it. [`Job::output`] makes it.
///
/// | last call | what is written |
/// | --- | --- |
/// | [`write`](Self::write) | a collection: what each key has become in a tick |
/// | [`write_changes`](Self::write_changes) | the same of a durable operator, for less work |
/// | [`write_stream`](Self::write_stream) | the records of a stream, in their order; it needs no state |
/// | [`write_changelog`](Self::write_changelog) | a stream of keys with new values and deletions; it needs no state |
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
#[must_use = "an output is written by the last call: `write`, `write_changes`, `write_stream` or `write_changelog`"]
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
            self.job.declared.changes_appended.push((self.spec.name.clone(), "write_changes"));
        }
        self.collect(|end, formats| encoded::collect_changes(changes, end, formats));
    }

    /// Writes the records of a stream, without keeping any state: each record becomes one record of an append output, in the
    /// order of the input.
    ///
    /// The order within a tick and an output partition is that of the input's splits, and within a split that of its offsets;
    /// it does not depend on the number of workers. A stream may be cloned, filtered and written to several outputs:
    ///
    /// ```
    /// use fluvial::connector::format::{Json, Text};
    /// use fluvial::harness::JobTest;
    /// use fluvial_memory::Memory;
    ///
    /// let mut test = JobTest::new(2, |job| {
    ///     let memory = Memory::new();
    ///     let payments = job.source("payments", memory.source("payments")).format((Text, Json)).keyed::<String, i64>();
    ///     let payments = payments.filter(|(_, cents)| cents.is_some()).map(|(by, cents)| (by, cents.unwrap_or_default()));
    ///     let large = payments.clone().filter(|(_, cents)| *cents >= 100_000);
    ///     let small = payments.filter(|(_, cents)| *cents < 100_000);
    ///     job.output(memory.append_to("audited", 4)).format((Text, Json)).write_stream(large);
    ///     job.output(memory.append_to("settled", 4)).format((Text, Json)).write_stream(small);
    ///     Ok(())
    /// });
    /// test.feed("payments", 1, [(Some("ann"), Some("700")), (Some("bob"), Some("250000")), (Some("ann"), Some("30"))]);
    /// test.advance_past(1);
    /// assert_eq!(test.updates_at("audited", 1), [("bob".into(), Some("250000".into()))]);
    /// assert_eq!(test.updates_at("settled", 1), [("ann".into(), Some("30".into())), ("ann".into(), Some("700".into()))]);
    /// ```
    ///
    /// In an *upsert* output each record is the new row of its key. Of several records of one key in a tick the last one is
    /// written. [`write_changelog`](Self::write_changelog) can delete rows as well.
    ///
    /// # What the job cannot write again
    ///
    /// The job does not keep what it has written, so a restart emits only what the input that is read again becomes, and no
    /// operator can emit the rows of such an upsert output again. The job therefore never deletes or corrects what such an output
    /// holds: it may hold rows already when the job begins, and these stay, unless records of the stream replace them.
    /// `--reconcile` and `--upgrade` leave the output as it is, which has to be accepted by `--leave-append-outputs`, as for
    /// an append output, and a warning names the output. If the topic is deleted and recreated, what it held cannot be written
    /// again: the job ends with an error that says so, and with both options it goes on with the records to come. A new output of
    /// a job that has run before begins with the records to come. A job with such an output cannot go back to a savepoint.
    ///
    /// If the rows have to be correctable, keep them: write [`latest`](Stream::latest) or
    /// [`latest_changes`](Stream::latest_changes) of the stream instead.
    pub fn write_stream<K, V>(self, stream: Stream<'s, (K, V)>)
    where
        F: Formats<Key: Encode<K>, Value: Encode<V>>,
        K: 'static,
        V: 'static,
    {
        self.collect_stream(stream, |(key, value)| (key, Some(value)));
    }

    /// Writes a stream of keys with their new values, or `None` where a key is deleted, to an upsert output, without keeping
    /// any state. Of several records of one key in a tick the last one is written.
    ///
    /// What [`write_stream`](Self::write_stream) says about order, and about what the job cannot write again, applies here too.
    ///
    /// ```
    /// use fluvial::connector::format::{Json, Text};
    /// use fluvial::harness::JobTest;
    /// use fluvial_memory::Memory;
    ///
    /// let mut test = JobTest::new(1, |job| {
    ///     let memory = Memory::new();
    ///     let prices = job.source("prices", memory.source("prices")).format((Text, Json)).keyed::<String, i64>();
    ///     let in_cents = prices.map(|(item, price)| (item, price.map(|price| price * 100)));
    ///     job.output(memory.upsert("in-cents", 1)).format((Text, Json)).write_changelog(in_cents);
    ///     Ok(())
    /// });
    /// test.feed("prices", 1, [(Some("tea"), Some("3")), (Some("jam"), Some("2")), (Some("tea"), Some("4"))]);
    /// test.feed("prices", 2, [(Some("jam"), None)]);
    /// test.advance_past(2);
    /// assert_eq!(test.updates_at("in-cents", 1), [("jam".into(), Some("200".into())), ("tea".into(), Some("400".into()))]);
    /// assert_eq!(test.table("in-cents"), [("tea".into(), "400".into())]);
    /// ```
    pub fn write_changelog<K, V>(self, stream: Stream<'s, (K, Option<V>)>)
    where
        F: Formats<Key: Encode<K>, Value: Encode<V>>,
        K: 'static,
        V: 'static,
    {
        if self.spec.envelope == Envelope::Append {
            self.job.declared.changes_appended.push((self.spec.name.clone(), "write_changelog"));
        }
        self.collect_stream(stream, |record| record);
    }

    /// Writes a stream, whose records `parts` takes apart. An upsert output becomes one of which the job has no table.
    fn collect_stream<D, K, V>(mut self, stream: Stream<'s, D>, parts: impl Fn(D) -> (K, Option<V>) + 'static)
    where
        F: Formats<Key: Encode<K>, Value: Encode<V>>,
        D: 'static,
        K: 'static,
        V: 'static,
    {
        if self.spec.envelope == Envelope::Upsert {
            self.spec.envelope = Envelope::StreamWritten;
        }
        self.collect(|end, formats| encoded::collect_stream(stream, end, formats, parts));
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
