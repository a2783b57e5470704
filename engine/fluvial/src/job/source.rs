//! The builder with which a job declares a source.

use std::fmt;
use std::sync::Arc;

use fluvial_connector::format::{Decode, DecodeError, Formats};
use fluvial_connector::{Record, Source};
use fluvial_node::status::NodeKind;
use timely::dataflow::InputHandleVec;

use super::input::{SourceInput, TypedInput};
use super::{Job, NoFormat};
use crate::stream::{Changelog, Stream};

/// What to do with a record that cannot be decoded; see [`SourceBuilder::on_malformed`]. A job can offer it as a command-line
/// option, whose values are `fail` and `skip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnMalformed {
    /// End the job with an error that names topic, partition, offset and cause.
    #[default]
    Fail,
    /// Skip the record, count it and log it.
    Skip,
}

/// One source as the job declared it.
pub(crate) struct DeclaredSource {
    pub(crate) name: String,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) input: Box<dyn SourceInput>,
    pub(crate) on_malformed: OnMalformed,
    /// Whether only the newest record of each key counts, whatever the job makes of it.
    pub(crate) only_newest: bool,
}

/// Builds a source: set its options first, then end with one of the calls that read it. [`Job::source`] makes it.
///
/// | last call | result |
/// | --- | --- |
/// | [`stream`](Self::stream) | a stream of the records' values |
/// | [`keyed`](Self::keyed) | a stream of keys and values, where a record may delete its key |
/// | [`changelog`](Self::changelog) | the same as a [`Changelog`], where only the newest record of each key counts |
/// | [`stream_with`](Self::stream_with) | a stream of what a closure makes of each record |
///
/// ```
/// use fluvial::connector::format::Text;
/// use fluvial::harness::JobTest;
/// use fluvial::{Count, OnMalformed};
/// use fluvial_memory::Memory;
///
/// let mut test = JobTest::new(1, |job| {
///     let memory = Memory::new();
///     let rolls =
///         job.source("rolls", memory.source("rolls")).format(Text).on_malformed(OnMalformed::Fail).stream::<u8>();
///     let counts = rolls.key_by(|roll| *roll).aggregate("counts", Count);
///     job.output(memory.upsert("counts", 1)).format(Text).write(counts);
///     Ok(())
/// });
/// test.feed("rolls", 1, [(None, Some("6")), (None, Some("2")), (None, Some("6"))]);
/// test.advance_past(1);
/// assert_eq!(test.table("counts"), [("2".into(), "1".into()), ("6".into(), "2".into())]);
/// ```
#[must_use = "a source is read by the last call: `stream`, `keyed`, `changelog` or `stream_with`"]
pub struct SourceBuilder<'j, 's, F = NoFormat> {
    job: &'j mut Job<'s>,
    name: String,
    source: Arc<dyn Source>,
    formats: F,
    on_malformed: OnMalformed,
}

impl<'j, 's> SourceBuilder<'j, 's> {
    pub(super) fn new(job: &'j mut Job<'s>, name: &str, source: impl Source) -> Self {
        job.declared.begun.sources.push(name.to_owned());
        Self {
            job,
            name: name.to_owned(),
            source: Arc::new(source),
            formats: NoFormat,
            on_malformed: OnMalformed::default(),
        }
    }

    /// Sets the format of the records, for example `Json` ([`connector::format`](crate::connector::format) has all). A single
    /// format applies to keys and values; a pair, such as `(Text, Json)`, has one for each.
    pub fn format<F: Formats>(self, formats: F) -> SourceBuilder<'j, 's, F> {
        let Self { job, name, source, formats: NoFormat, on_malformed } = self;
        SourceBuilder { job, name, source, formats, on_malformed }
    }

    /// Decodes each record with a closure instead of a format. The closure sees all that the source's system knows of the
    /// record: key, value, headers, timestamp, split (in Kafka the partition) and offset.
    ///
    /// ```
    /// use fluvial::Count;
    /// use fluvial::connector::format::{Json, Text};
    /// # use fluvial_memory::Memory;
    ///
    /// # let mut test = fluvial::harness::JobTest::new(1, |job| {
    /// # let memory = Memory::new();
    /// let sales = job
    ///     .source("sales", memory.source("sales"))
    ///     .stream_with(|record| Ok((record.decode_key::<String>(&Text)?, record.decode_value::<i64>(&Json)?)));
    /// job.output(memory.upsert("counts", 1)).format(Text).write(sales.aggregate("counts", Count));
    /// # Ok(())
    /// # });
    /// # test.feed("sales", 1, [(Some("tea"), Some("3")), (Some("tea"), Some("4"))]);
    /// # test.advance_past(1);
    /// # assert_eq!(test.table("counts"), [("tea".into(), "2".into())]);
    /// ```
    ///
    /// A job that reads what stands in headers:
    ///
    /// ```
    /// use fluvial::connector::format::{Format, Json, Text};
    /// use fluvial::harness::{InputRecord, JobTest};
    /// # use fluvial_memory::Memory;
    ///
    /// let mut test = JobTest::new(1, |job| {
    ///     let memory = Memory::new();
    ///     let calls = job.source("calls", memory.source("calls")).stream_with(|record| {
    ///         let tenant = record.headers.last("tenant").and_then(|header| header.value).unwrap_or(b"nobody");
    ///         let tenant = String::from_utf8_lossy(tenant).into_owned();
    ///         Ok((tenant, (record.partition(), record.offset.0, record.timestamp_ms)))
    ///     });
    ///     job.output(memory.append_to("by-tenant", 1)).format((Text, Json)).write_stream(calls);
    ///     Ok(())
    /// });
    /// let call = InputRecord::new(None, Some("GET /")).with_header("tenant", "acme").with_timestamp_ms(5);
    /// test.feed_records("calls", 1, [call, InputRecord::new(None, Some("GET /tea"))]);
    /// test.advance_past(1);
    /// assert_eq!(test.updates_at("by-tenant", 1), [
    ///     ("acme".into(), Some("[0,0,5]".into())), ("nobody".into(), Some("[1,0,null]".into())),
    /// ]);
    /// ```
    #[must_use]
    pub fn stream_with<D: Clone + 'static>(
        self,
        decode: impl Fn(&Record<'_>) -> Result<D, DecodeError> + 'static,
    ) -> Stream<'s, D> {
        self.declare(|_| decode, false)
    }
}

impl<'s, F> SourceBuilder<'_, 's, F> {
    /// Sets what happens to a record that cannot be decoded. By default, such a record ends the job.
    ///
    /// ```
    /// use fluvial::connector::format::Text;
    /// use fluvial::harness::JobTest;
    /// use fluvial::{Count, OnMalformed};
    /// use fluvial_memory::Memory;
    ///
    /// let test = |on_malformed| {
    ///     let mut test = JobTest::new(1, move |job| {
    ///         let memory = Memory::new();
    ///         let rolls = job.source("rolls", memory.source("rolls")).format(Text).on_malformed(on_malformed).stream::<u8>();
    ///         job.output(memory.upsert("counts", 1)).format(Text).write(rolls.key_by(|roll| *roll).aggregate("counts", Count));
    ///         Ok(())
    ///     });
    ///     test.feed("rolls", 1, [(None, Some("6")), (None, Some("six"))]);
    ///     test
    /// };
    ///
    /// let mut skips = test(OnMalformed::Skip);
    /// skips.advance_past(1);
    /// assert_eq!(skips.table("counts"), [("6".into(), "1".into())]);
    ///
    /// let error = test(OnMalformed::Fail).try_advance_past(1).unwrap_err();
    /// assert!(error.contains("cannot decode the record at offset 0 of source 'rolls'"), "{error}");
    /// ```
    ///
    /// With [`OnMalformed::Skip`], a malformed record of a [`changelog`](Self::changelog) leaves the older record of its key
    /// in effect. Compaction removes the older record all the same, so a job that has to read compacted records again then
    /// ends with an error, as one that reads a [`stream`](Self::stream) does.
    pub fn on_malformed(self, on_malformed: OnMalformed) -> Self {
        Self { on_malformed, ..self }
    }

    /// Reads the records' values and ignores their keys. A record without a value is malformed.
    #[must_use]
    pub fn stream<V: Clone + 'static>(self) -> Stream<'s, V>
    where
        F: Formats<Value: Decode<V>>,
    {
        self.declare(|formats| move |record: &Record<'_>| record.decode_value(formats.value()), false)
    }

    /// Reads keys and values. The value is `None` if the record deletes its key, because it has no value, or one that is a
    /// deletion in its format, such as JSON's `null`. A record without a key is malformed.
    ///
    /// ```
    /// use fluvial::Count;
    /// use fluvial::connector::format::Text;
    /// use fluvial::harness::JobTest;
    /// use fluvial_memory::Memory;
    ///
    /// // Counts all records of each key, deletions included.
    /// let mut test = JobTest::new(1, |job| {
    ///     let memory = Memory::new();
    ///     let changes = job.source("prices", memory.source("prices")).format(Text).keyed::<String, i64>();
    ///     job.output(memory.upsert("changes", 1)).format(Text).write(changes.aggregate("changes", Count));
    ///     Ok(())
    /// });
    /// test.feed("prices", 1, [(Some("tea"), Some("3")), (Some("tea"), None)]);
    /// test.advance_past(1);
    /// assert_eq!(test.table("changes"), [("tea".into(), "2".into())]);
    /// ```
    ///
    /// For a compacted topic, use [`changelog`](Self::changelog) instead, which works whenever the topic is compacted.
    #[must_use]
    pub fn keyed<K: Clone + 'static, V: Clone + 'static>(self) -> Stream<'s, (K, Option<V>)>
    where
        F: Formats<Key: Decode<K>, Value: Decode<V>>,
    {
        self.declare(key_and_change, false)
    }

    /// Reads keys and values as a changelog, where only the newest record of each key counts. Deletions are recognised as by
    /// [`keyed`](Self::keyed). Keys are decoded from the records' keys alone, so equal keys here are equal keys in the
    /// source's system, which is what compaction compares.
    #[must_use]
    pub fn changelog<K: Clone + 'static, V: Clone + 'static>(self) -> Changelog<'s, K, V>
    where
        F: Formats<Key: Decode<K>, Value: Decode<V>>,
    {
        let only_newest = self.on_malformed == OnMalformed::Fail;
        Changelog::new(self.declare(key_and_change, only_newest))
    }

    fn declare<D, T>(self, decode: impl FnOnce(F) -> D, only_newest: bool) -> Stream<'s, T>
    where
        D: Fn(&Record<'_>) -> Result<T, DecodeError> + 'static,
        T: Clone + 'static,
    {
        let Self { job, name, source, formats, on_malformed } = self;
        let mut handle = InputHandleVec::new();
        let stream = handle.to_stream(job.scope);
        job.durables.note_node(&stream, NodeKind::Source, &name, None);
        let input = Box::new(TypedInput::new(decode(formats), handle));
        // The builder borrows the job exclusively, so the source that was begun last is this one.
        job.declared.begun.sources.pop();
        job.declared.sources.push(DeclaredSource { name, source, input, on_malformed, only_newest });
        Stream::from_source(stream, &job.durables)
    }
}

/// Returns the function that decodes a record's key, and its value or deletion.
fn key_and_change<F, K, V>(formats: F) -> impl Fn(&Record<'_>) -> Result<(K, Option<V>), DecodeError> + 'static
where
    F: Formats<Key: Decode<K>, Value: Decode<V>>,
{
    move |record: &Record<'_>| Ok((record.decode_key(formats.key())?, record.decode_change(formats.value())?))
}

impl<F> fmt::Debug for SourceBuilder<'_, '_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceBuilder({})", self.name)
    }
}
