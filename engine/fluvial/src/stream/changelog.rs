//! Changelogs: sources in which only the newest record of each key counts.

use std::fmt;

use differential_dataflow::ExchangeData;
use fluvial_connector::BoxError;

use super::{Changes, Collection, Stream};

/// The records of a source under the keys that they have in the source's system, of which only the newest of each key
/// counts: an upsert topic of Kafka. Made by [`SourceBuilder::changelog`](crate::SourceBuilder::changelog).
///
/// It is less than a [`Stream`] on purpose: nothing can be made of it that an older record of a key could change, other than
/// what [`Stream::join_now`] has looked up. So its system may compact it while the job runs or stands still. Where records
/// that have to be read again are gone, the job goes on with what is left and corrects its outputs, if all of them are upsert
/// outputs and the binary is the same.
///
/// ```
/// use fluvial::Job;
/// use fluvial::connector::format::{Json, Text};
/// # fn source() -> impl fluvial::connector::Source { fluvial_memory::Memory::new().source("prices") }
/// # fn output() -> impl fluvial::connector::Output { fluvial_memory::Memory::new().upsert("in-cents", 1) }
///
/// fn build(job: &mut Job<'_>) -> anyhow::Result<()> {
///     let prices = job.source("prices", source()).format((Text, Json)).changelog::<String, i64>();
///     let in_cents = prices.map_values(|price| price * 100).latest("prices");
///     job.output(output()).format(Json).write(in_cents);
///     Ok(())
/// }
/// # let mut test = fluvial::harness::JobTest::new(1, build);
/// # test.feed("prices", 1, [(Some("tea"), Some("3")), (Some("jam"), Some("2"))]);
/// # test.feed("prices", 2, [(Some("tea"), Some("4")), (Some("jam"), None)]);
/// # test.advance_past(2);
/// # assert_eq!(test.table("in-cents"), [(r#""tea""#.into(), "400".into())]);
/// ```
pub struct Changelog<'s, K: 'static, V: 'static> {
    records: Stream<'s, (K, Option<V>)>,
}

impl<'s, K: 'static, V: 'static> Changelog<'s, K, V> {
    pub(crate) fn new(records: Stream<'s, (K, Option<V>)>) -> Self {
        Self { records }
    }

    /// Turns each value into another value, for example into the part of it that is to be kept. Deletions stay deletions.
    ///
    /// The example of [`Changelog`] shows it.
    #[must_use]
    pub fn map_values<W: 'static>(self, logic: impl Fn(V) -> W + 'static) -> Changelog<'s, K, W> {
        Changelog::new(self.records.map(move |(key, value)| (key, value.map(&logic))))
    }
}

impl<'s, K: ExchangeData, V: 'static> Changelog<'s, K, V> {
    /// Like [`Changelog::map_values`], with logic that may refuse a value. The first refusal ends the job with an error that
    /// names the operator, as `name`, and the key; see [`Stream::try_map`].
    ///
    /// ```
    /// use fluvial::Job;
    /// use fluvial::connector::format::{Json, Text};
    ///
    /// fn build(job: &mut Job<'_>) -> anyhow::Result<()> {
    /// #   let (source, output) = { let memory = fluvial_memory::Memory::new(); (memory.source("prices"), memory.upsert("in-cents", 1)) };
    ///     let prices = job.source("prices", source).format((Text, Json)).changelog::<String, i64>();
    ///     let in_cents = prices.try_map_values("to cents", |_, price| price.checked_mul(100).ok_or("too large"));
    ///     job.output(output).format((Text, Json)).write(in_cents.latest("prices"));
    ///     Ok(())
    /// }
    ///
    /// let mut test = fluvial::harness::JobTest::new(1, build);
    /// test.feed("prices", 1, [(Some("tea"), Some("9223372036854775807"))]);
    /// let error = test.try_advance_past(1).unwrap_err();
    /// assert!(error.contains("operator 'to cents'") && error.contains(r#"key "tea": too large"#), "{error}");
    /// ```
    #[must_use]
    pub fn try_map_values<W: 'static, E: Into<BoxError>>(
        self,
        name: &str,
        logic: impl Fn(&K, V) -> Result<W, E> + 'static,
    ) -> Changelog<'s, K, W> {
        let logic = move |key: &K, value: Option<V>| value.map(|value| logic(key, value)).transpose();
        Changelog::new(self.records.try_map(name, logic))
    }
}

impl<'s, K: ExchangeData, V: ExchangeData> Changelog<'s, K, V> {
    /// Keeps the newest value of each key, durably, as `name`; see [`Stream::latest`]. The example of [`Changelog`] shows it.
    #[must_use]
    pub fn latest(self, name: &str) -> Collection<'s, (K, V)> {
        self.records.latest(name)
    }

    /// Keeps the newest value of each key, as [`latest`](Changelog::latest) does, and emits `map(&value)`; see
    /// [`Stream::latest_map`].
    #[must_use]
    pub fn latest_map<O: ExchangeData>(self, name: &str, map: impl Fn(&V) -> O + 'static) -> Collection<'s, (K, O)> {
        self.records.latest_map(name, map)
    }

    /// Keeps the newest value of each key, as [`latest`](Changelog::latest) does, and returns the changes of the values, for an
    /// upsert output; see [`Stream::latest_changes`].
    #[must_use]
    pub fn latest_changes(self, name: &str) -> Changes<'s, K, V> {
        self.records.latest_changes(name)
    }
}

impl<K: Clone + 'static, V: Clone + 'static> Clone for Changelog<'_, K, V> {
    fn clone(&self) -> Self {
        Self { records: self.records.clone() }
    }
}

impl<K: 'static, V: 'static> fmt::Debug for Changelog<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Changelog<{}, {}>", std::any::type_name::<K>(), std::any::type_name::<V>())
    }
}
