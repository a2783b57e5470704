//! Changes: what each key of a durable operator has become, once in a tick.

use std::fmt;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use super::context::{at_tick, in_operator};

/// What each key of a durable operator has become, once in each tick in which it changed: its new value, or `None` where it
/// is gone. Made by [`Stream::aggregate_changes`](crate::Stream::aggregate_changes) and
/// [`Stream::latest_changes`](crate::Stream::latest_changes), and written to an upsert output by
/// [`OutputBuilder::write_changes`](crate::OutputBuilder::write_changes).
///
/// It says what the operator's [`Collection`](crate::Collection) says, with less work: a collection changes by two updates,
/// one that takes the old value back and one that adds the new, and each passes through the closures that follow. So take
/// changes where a result goes to an upsert output as it is, or with its values mapped, and the collection for everything
/// else. The output's table is the same. Its records are too, except where values that differ are mapped to one: a key whose
/// mapped value has stayed what it was gets a record again.
///
/// ```
/// use fluvial::connector::format::{Json, Text};
/// use fluvial::harness::JobTest;
/// use fluvial::{Count, Sum};
/// use fluvial_memory::Memory;
///
/// let mut test = JobTest::new(1, |job| {
///     let memory = Memory::new();
///     let sales = job.source("sales", memory.source("sales")).format((Text, Json)).keyed::<String, i64>();
///     let sales = sales.map(|(region, cents)| (region, cents.unwrap_or(0)));
///     let totals = sales.aggregate_changes("totals", (Count, Sum(|cents: &i64| *cents)));
///     let averages = totals.map_values(|(count, sum)| sum / count as i64);
///     job.output(memory.upsert("averages", 1)).format((Text, Json)).write_changes(averages);
///     Ok(())
/// });
/// test.feed("sales", 1, [(Some("eu"), Some("250")), (Some("us"), Some("100")), (Some("eu"), Some("350"))]);
/// test.advance_past(1);
/// assert_eq!(test.updates_at("averages", 1), [("eu".into(), Some("300".into())), ("us".into(), Some("100".into()))]);
/// ```
pub struct Changes<'s, K: 'static, V: 'static> {
    inner: StreamVec<'s, u64, (K, Option<V>)>,
}

impl<'s, K: 'static, V: 'static> Changes<'s, K, V> {
    /// Makes the changes that a durable operator emits: for each key one in a tick, at the time of the tick.
    pub(crate) fn new(inner: StreamVec<'s, u64, (K, Option<V>)>) -> Self {
        Self { inner }
    }

    /// Takes the changes apart, for an output.
    pub(crate) fn into_inner(self) -> StreamVec<'s, u64, (K, Option<V>)> {
        self.inner
    }

    /// Turns each new value into another value. What is gone stays gone. The example of [`Changes`] shows it.
    #[must_use]
    pub fn map_values<W: 'static>(self, logic: impl Fn(V) -> W + 'static) -> Changes<'s, K, W> {
        self.map_values_with_key(move |_, value| logic(value))
    }

    /// As [`map_values`](Changes::map_values), for logic that looks at the key too.
    ///
    /// ```
    /// use fluvial::connector::format::{Json, Text};
    /// use fluvial::harness::JobTest;
    /// use fluvial_memory::Memory;
    ///
    /// let mut test = JobTest::new(1, |job| {
    ///     let memory = Memory::new();
    ///     let words = job.source("words", memory.source("words")).format(Json).stream::<String>();
    ///     let counts = words.key_by(|word| word.clone()).aggregate_changes("counts", fluvial::Count);
    ///     let lines = counts.map_values_with_key(|word, count| format!("{word}: {count}"));
    ///     job.output(memory.upsert("lines", 1)).format(Text).write_changes(lines);
    ///     Ok(())
    /// });
    /// test.feed("words", 1, [(None, Some(r#""to""#)), (None, Some(r#""to""#))]);
    /// test.advance_past(1);
    /// assert_eq!(test.table("lines"), [("to".into(), "to: 2".into())]);
    /// ```
    #[must_use]
    pub fn map_values_with_key<W: 'static>(self, logic: impl Fn(&K, V) -> W + 'static) -> Changes<'s, K, W> {
        let mapped = self.inner.unary::<CapacityContainerBuilder<Vec<(K, Option<W>)>>, _, _, _>(
            Pipeline,
            "map_values",
            |_, _| {
                move |input, output| {
                    input.for_each(|capability, batch| {
                        let batch = std::mem::take(batch).into_iter();
                        let mut mapped = in_operator("map_values", || {
                            if let Some(tick) = capability.least() {
                                at_tick(*tick);
                            }
                            let mapped = |(key, value): (K, Option<V>)| {
                                let value = value.map(|value| logic(&key, value));
                                (key, value)
                            };
                            batch.map(mapped).collect()
                        });
                        output.session(&capability).give_container(&mut mapped);
                    });
                }
            },
        );
        Changes { inner: mapped }
    }
}

impl<K: Clone + 'static, V: Clone + 'static> Clone for Changes<'_, K, V> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K: 'static, V: 'static> fmt::Debug for Changes<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Changes<{}, {}>", std::any::type_name::<K>(), std::any::type_name::<V>())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use fluvial_connector::format::{Format, Json, Text};
    use fluvial_connector::{BoxError, format};
    use fluvial_memory::Memory;
    use proptest::prelude::*;

    use crate::harness::JobTest;
    use crate::{Count, Job, Sum};

    /// Writes what is computed both ways, each to an output of its own.
    fn both_ways(job: &mut Job<'_>) -> anyhow::Result<()> {
        let memory = Memory::new();
        let rows = job.source("rows", memory.source("rows")).format(Json).keyed::<String, i64>();
        let amounts = rows.clone().map(|(key, value)| (key.len(), value.unwrap_or(-1)));
        let totals = (Count, Sum(|value: &i64| *value));
        let [collected, changed] = [(); 2].map(|()| amounts.clone());
        let collected =
            collected.aggregate("totals", totals).map(|(key, (count, sum))| (key, 1000 * sum + count as i64));
        let changed =
            changed.aggregate_changes("totals-of-changes", totals).map_values(|(count, sum)| 1000 * sum + count as i64);
        job.output(memory.upsert("totals", 3)).format(Json).write(collected);
        job.output(memory.upsert("totals-of-changes", 3)).format(Json).write_changes(changed);
        job.output(memory.upsert("latest", 3)).format(Json).write(rows.clone().latest("latest"));
        let latest = rows.latest_changes("latest-of-changes");
        job.output(memory.upsert("latest-of-changes", 3)).format(Json).write_changes(latest);
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(25))]

        #[test]
        fn the_records_are_those_of_the_collection(
            ticks in proptest::collection::vec(
                proptest::collection::vec(("[ab]{0,3}", proptest::option::of(0..4_i64)), 0..12), 1..6),
            workers in 1..4_usize,
            restart in proptest::option::of((1..6_u64, 1..4_usize)),
        ) {
            let mut test = JobTest::new(workers, both_ways);
            let last = ticks.len() as u64;
            for (tick, records) in (1..).zip(&ticks) {
                let text = |(key, value): &(String, Option<i64>)| (Some(format!("\"{key}\"")), value.map(|v| v.to_string()));
                test.feed("rows", tick, records.iter().map(text));
            }
            (1..=last).for_each(|tick| test.advance_past(tick));
            // It is compared with what it was before.
            if let Some((tick, workers)) = restart {
                test.restart_at(tick.min(last), workers);
            }
            for tick in 1..=last {
                for name in ["totals", "latest"] {
                    prop_assert_eq!(test.updates_at(name, tick), test.updates_at(&format!("{name}-of-changes"), tick));
                }
            }
        }
    }

    #[test]
    fn a_job_goes_over_from_the_collection_to_the_changes_of_an_operator_and_keeps_its_rows() {
        let by_changes = Arc::new(AtomicBool::new(false));
        let chosen = Arc::clone(&by_changes);
        let mut test = JobTest::new(2, move |job| {
            let memory = Memory::new();
            let rows = job.source("rows", memory.source("rows")).format(Json).keyed::<u32, i64>();
            let output = job.output(memory.upsert("latest", 1)).format(Json);
            if chosen.load(Ordering::Relaxed) {
                output.write_changes(rows.latest_changes("rows"));
            } else {
                output.write(rows.latest("rows"));
            }
            Ok(())
        });
        test.feed("rows", 1, [(Some("1"), Some("5")), (Some("2"), Some("6"))]);
        test.feed("rows", 2, [(Some("1"), None), (Some("2"), Some("6"))]);
        test.advance_past(2);
        by_changes.store(true, Ordering::Relaxed);
        test.restart_at(1, 2);
        assert_eq!(test.updates_at("latest", 2), [("1".into(), None)]);
    }

    #[test]
    fn a_key_gets_a_record_again_where_its_mapped_value_has_stayed_what_it_was() {
        let mut test = JobTest::new(1, |job| {
            let memory = Memory::new();
            let rows = job.source("rows", memory.source("rows")).format(Json).keyed::<u32, i64>();
            let tens = rows.latest_changes("rows").map_values(|value| value / 10);
            job.output(memory.upsert("tens", 1)).format(Json).write_changes(tens);
            Ok(())
        });
        test.feed("rows", 1, [(Some("1"), Some("11"))]);
        test.feed("rows", 2, [(Some("1"), Some("12"))]);
        test.feed("rows", 3, [(Some("1"), Some("12"))]);
        test.advance_past(3);
        assert_eq!(test.updates_at("tens", 2), [("1".into(), Some("1".into()))]);
        assert_eq!(test.updates_at("tens", 3), []);
    }

    #[test]
    fn an_append_output_takes_no_changes() {
        let mut test = JobTest::new(1, |job| {
            let memory = Memory::new();
            let rows = job.source("rows", memory.source("rows")).format(Json).keyed::<u32, i64>();
            job.output(memory.append_to("log", 1)).format(Json).write_changes(rows.latest_changes("rows"));
            Ok(())
        });
        let error = test.try_advance_past(1).unwrap_err();
        assert!(
            error.contains("output 'log' is an append output, and `write_changes` writes what replaces"),
            "{error}"
        );
    }

    /// Writes each key that is even, and no other.
    struct Even;

    impl Format for Even {}

    impl format::Encode<u32> for Even {
        fn encode(&self, key: &u32, into: &mut Vec<u8>) -> Result<(), BoxError> {
            into.extend_from_slice(key.to_string().as_bytes());
            if key.is_multiple_of(2) { Ok(()) } else { Err("it is odd".into()) }
        }
    }

    #[test]
    fn what_cannot_be_written_ends_the_job_and_nothing_of_its_tick_is_complete() {
        for workers in [1, 3] {
            let mut test = JobTest::new(workers, |job| {
                let memory = Memory::new();
                let rows = job.source("rows", memory.source("rows")).format(Json).keyed::<u32, i64>();
                job.output(memory.upsert("out", 4)).format((Even, Text)).write_changes(rows.latest_changes("rows"));
                Ok(())
            });
            test.feed("rows", 1, [(Some("2"), Some("1")), (Some("4"), Some("1"))]);
            test.advance_past(1);
            test.feed("rows", 2, [(Some("2"), Some("2")), (Some("3"), Some("2")), (Some("4"), Some("2"))]);
            let error = test.try_advance_past(2).unwrap_err();
            assert!(
                error.contains("a row of output 'out' cannot be encoded") && error.contains("it is odd"),
                "{error}"
            );
        }
    }
}
