//! A whole job in a test: it runs the closure that `main` passes to `App`, and is fed with undecoded records.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use fluvial_connector::{Envelope, Offset, OutputRecord, Slot, SplitId};
use fluvial_protocol::TickRecords;
use fluvial_protocol::journal::SplitNumber;
use timely::worker::Worker;

use super::input_record::InputRecord;
use super::test::{SPLITS, Test};
use super::workers::{Fed, Site};
use crate::durable::Durables;
use crate::job::input::SourceInput;
use crate::job::output::OutputQueue;
use crate::job::{Declared, Job, OnMalformed, Situation};

/// The number of partitions of each output in a test.
const PARTITIONS: u32 = 4;

/// A job under test. The test feeds its sources with keys and values as a topic would hold them, and reads the messages that
/// its outputs would write. The job never connects to the systems of its sources and outputs.
///
/// Records are distributed over four splits in the order in which they are fed. Each tick that is passed is a checkpoint, from
/// which the job can be restarted with any number of workers.
///
/// ```
/// use fluvial::connector::format::Json;
/// use fluvial::harness::JobTest;
/// use fluvial_memory::Memory;
///
/// let mut test = JobTest::new(2, |job| {
///     let memory = Memory::new();
///     let words = job.source("words", memory.source("words")).format(Json).stream::<String>();
///     let counts = words.key_by(|word| word.clone()).aggregate("counts", fluvial::Count);
///     job.output(memory.upsert("counts", 4)).format(Json).write(counts);
///     Ok(())
/// });
/// test.feed("words", 1, [(None, Some(r#""to""#)), (None, Some(r#""be""#))]);
/// test.advance_past(1);
/// test.restart(1); // from the checkpoint of tick 1, on one worker
/// test.feed("words", 2, [(None, Some(r#""to""#))]);
/// test.advance_past(2);
/// assert_eq!(test.table("counts"), [(r#""be""#.into(), "1".into()), (r#""to""#.into(), "2".into())]);
/// assert_eq!(test.updates_at("counts", 2), [(r#""to""#.into(), Some("2".into()))]);
/// ```
pub type JobTest = Test<Message>;

/// A message that the job would write.
#[derive(Clone, Debug)]
pub struct Message {
    tick: u64,
    partition: u32,
    record: OutputRecord,
    envelope: Envelope,
}

impl JobTest {
    /// Starts a job on `workers` workers. `build` is called on each of them, as by [`App`](crate::App).
    #[must_use]
    pub fn new(
        workers: usize,
        build: impl for<'s> Fn(&mut Job<'s>) -> anyhow::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let build = move |worker: &mut Worker, durables: &Durables| {
            let site = worker.dataflow::<u64, _, _>(|scope| {
                let situation = Situation { partitions: Box::new(|_| PARTITIONS), skip_through: None };
                let mut job = Job::new(scope, durables.clone(), situation);
                build(&mut job)?;
                let declared = job.finish();
                declared.check(durables)?;
                anyhow::Ok(JobSite::of(declared))
            })?;
            Ok(Box::new(site) as Box<dyn Site<Message>>)
        };
        Self::start(workers, Arc::new(build), |what, before, now, tick| {
            // A restore does not bring back the messages that an upsert output's table was made of, only the table.
            let upsert = before.iter().any(|message| message.envelope == Envelope::Upsert);
            let through = |messages: &[Message]| table(messages.iter().filter(|m| m.tick <= tick));
            assert!(!upsert || through(before) == through(now), "{what}");
            assert_eq!(after(before, tick), after(now, tick), "{what}");
            // Of an output that is written from a stream, nothing is restored.
            let restored = |message: &&Message| message.envelope == Envelope::StreamWritten && message.tick <= tick;
            assert!(!now.iter().any(|message| restored(&message)), "{what}: it emits records of ticks before");
        })
    }

    /// Feeds records, as keys and values, to a source at a tick that has not been passed. It may be called several times for a
    /// tick.
    ///
    /// # Panics
    /// If the tick has been passed.
    pub fn feed<B: AsRef<[u8]>>(
        &mut self,
        source: &str,
        tick: u64,
        records: impl IntoIterator<Item = (Option<B>, Option<B>)>,
    ) {
        let record = |(key, value): (Option<B>, Option<B>)| {
            InputRecord::new(key.as_ref().map(AsRef::as_ref), value.as_ref().map(AsRef::as_ref))
        };
        self.feed_records(source, tick, records.into_iter().map(record));
    }

    /// Feeds records as [`feed`](Self::feed) does, with headers and timestamps.
    /// [`SourceBuilder::stream_with`](crate::SourceBuilder::stream_with) has an example.
    ///
    /// # Panics
    /// If the tick has been passed.
    pub fn feed_records(&mut self, source: &str, tick: u64, records: impl IntoIterator<Item = InputRecord>) {
        self.spread(source, tick, records);
    }

    /// Returns the table of an upsert output as of the last tick that was passed: keys and values, sorted.
    ///
    /// # Panics
    /// If keys or values are not UTF-8.
    #[must_use]
    pub fn table(&self, output: &str) -> Vec<(String, String)> {
        table(self.made(output).iter()).into_iter().map(|(key, value)| (text(key), text(value))).collect()
    }

    /// Returns the messages that an output would write at one tick: keys and values, sorted.
    ///
    /// ```
    /// use fluvial::connector::format::Text;
    /// use fluvial::harness::JobTest;
    /// use fluvial_memory::Memory;
    ///
    /// let mut test = JobTest::new(1, |job| {
    ///     let memory = Memory::new();
    ///     let prices = job.source("prices", memory.source("prices")).format(Text).changelog::<String, i64>();
    ///     job.output(memory.upsert("copy", 1)).format(Text).write(prices.latest("prices"));
    ///     Ok(())
    /// });
    /// test.feed("prices", 1, [(Some("tea"), Some("3")), (Some("jam"), Some("2"))]);
    /// test.feed("prices", 2, [(Some("tea"), Some("4")), (Some("jam"), None)]);
    /// test.advance_past(2);
    /// assert_eq!(test.updates_at("copy", 2), [("jam".into(), None), ("tea".into(), Some("4".into()))]);
    /// ```
    ///
    /// # Panics
    /// If keys or values are not UTF-8.
    #[must_use]
    pub fn updates_at(&self, output: &str, tick: u64) -> Vec<(String, Option<String>)> {
        let at = self.made(output).iter().filter(|message| message.tick == tick);
        let mut updates: Vec<_> = at.map(|m| (text(m.record.key.clone()), m.record.value.clone().map(text))).collect();
        updates.sort();
        updates
    }

    /// Returns the messages that an output would write at one tick: partition, key and value, by partition, and in the order
    /// in which they stand there. Each output has four partitions in a test.
    ///
    /// ```
    /// use fluvial::connector::format::Text;
    /// use fluvial::harness::JobTest;
    /// use fluvial_memory::Memory;
    ///
    /// let mut test = JobTest::new(1, |job| {
    ///     let memory = Memory::new();
    ///     let steps = job.source("steps", memory.source("steps")).format(Text).stream::<String>();
    ///     job.output(memory.append_to("log", 1)).format(Text).write_stream(steps.map(|step| ("ann", step)));
    ///     Ok(())
    /// });
    /// test.feed("steps", 1, [(None, Some("wake up")), (None, Some("eat")), (None, Some("sleep"))]);
    /// test.advance_past(1);
    /// let log: Vec<String> = test.messages_at("log", 1).into_iter().filter_map(|(_, _, step)| step).collect();
    /// assert_eq!(log, ["wake up", "eat", "sleep"]);
    /// ```
    ///
    /// # Panics
    /// If keys or values are not UTF-8.
    #[must_use]
    pub fn messages_at(&self, output: &str, tick: u64) -> Vec<(u32, String, Option<String>)> {
        let at = self.made(output).iter().filter(|message| message.tick == tick);
        let mut messages: Vec<_> =
            at.map(|m| (m.partition, text(m.record.key.clone()), m.record.value.clone().map(text))).collect();
        messages.sort_by_key(|(partition, ..)| *partition);
        messages
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| panic!("a message is not text: {error}"))
}

fn table<'a>(messages: impl Iterator<Item = &'a Message>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = BTreeMap::new();
    for Message { record: OutputRecord { key, value }, .. } in messages {
        match value {
            Some(value) => rows.insert(key.clone(), value.clone()),
            None => rows.remove(key),
        };
    }
    rows
}

/// The messages of ticks after `tick`, by tick and partition, and in the order of each partition, which does not depend on the
/// number of workers.
fn after(messages: &[Message], tick: u64) -> Vec<(u64, u32, &OutputRecord)> {
    let after = messages.iter().filter(|m| m.tick > tick).map(|m| (m.tick, m.partition, &m.record));
    let mut after: Vec<_> = after.collect();
    after.sort_by_key(|(tick, partition, _)| (*tick, *partition));
    after
}

/// A job on one worker.
struct JobSite {
    sources: BTreeMap<String, (Box<dyn SourceInput>, OnMalformed)>,
    outputs: Vec<(String, Envelope, Rc<RefCell<OutputQueue>>)>,
    failed: Option<anyhow::Error>,
}

impl JobSite {
    fn of(declared: Declared) -> Self {
        let sources = declared.sources.into_iter().map(|declared| {
            let mut input = declared.input;
            (0..SPLITS).for_each(|split| input.add_split(SplitNumber(split), &SplitId(split.to_string())));
            (declared.name, (input, declared.on_malformed))
        });
        let outputs = declared.outputs.into_iter();
        let outputs = outputs.map(|output| (output.spec.name, output.spec.envelope, output.queue));
        Self { sources: sources.collect(), outputs: outputs.collect(), failed: None }
    }
}

impl Site<Message> for JobSite {
    fn feed(&mut self, _: u64, Fed { input, split, records }: &Fed) {
        let (source, on_malformed) =
            self.sources.get_mut(input).unwrap_or_else(|| panic!("the job has no source '{input}'"));
        let Some(records) = records.downcast_ref::<Vec<(Offset, InputRecord)>>() else {
            panic!("source '{input}' was fed something else")
        };
        let slot = Slot(*split);
        for (offset, record) in records {
            if let Err(error) = source.take(slot, &record.at(*offset))
                && *on_malformed == OnMalformed::Fail
            {
                let context = format!("cannot decode the record at offset {offset} of source '{input}' split {split}");
                self.failed.get_or_insert(anyhow::Error::from(error).context(context));
            }
        }
        let end = records.last().map_or(Offset(0), |(last, _)| Offset(last.0 + 1));
        source.cut(slot, end);
        source.release(slot, end);
    }

    fn close(&mut self, tick: u64) {
        self.sources.values_mut().for_each(|(source, _)| source.send(tick));
    }

    fn is_past(&self, tick: u64) -> bool {
        self.failed.is_some()
            || self.outputs.iter().all(|(_, _, queue)| {
                let queue = queue.borrow();
                queue.failed.is_some() || queue.upper.is_none_or(|upper| upper > tick)
            })
    }

    fn take(&mut self) -> anyhow::Result<Vec<(String, Vec<Message>)>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut made = Vec::new();
        for (output, envelope, queue) in &self.outputs {
            let mut queue = queue.borrow_mut();
            if let Some(error) = queue.failed.take() {
                return Err(error.into());
            }
            let messages = queue.ready.drain(..).flat_map(|complete| {
                let tick = complete.tick.0;
                let of_partition = move |(partition, records): (u32, TickRecords)| {
                    let records: Vec<_> = records.block().iter().map(|record| record.to_record()).collect();
                    records.into_iter().map(move |record| Message { tick, partition, record, envelope: *envelope })
                };
                complete.partitions.into_iter().flat_map(of_partition)
            });
            made.push((output.clone(), messages.collect()));
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use fluvial_connector::format::Json;
    use fluvial_memory::Memory;

    use super::*;

    fn latest(workers: usize) -> JobTest {
        JobTest::new(workers, |job| {
            let memory = Memory::new();
            let rows = job.source("rows", memory.source("rows")).format(Json).keyed::<u32, i64>();
            job.output(memory.upsert("latest", 4)).format(Json).write(rows.latest("rows"));
            Ok(())
        })
    }

    #[test]
    fn a_job_says_the_same_with_any_number_of_workers_and_after_any_restart() {
        let mut tests = [latest(1), latest(3)];
        for test in &mut tests {
            test.feed("rows", 1, (0..20).map(|n| (Some((n % 7).to_string()), Some(n.to_string()))));
            test.feed("rows", 3, [(Some("2".to_owned()), None), (Some("3".to_owned()), Some("-1".to_owned()))]);
            test.advance_past(4);
            for (tick, workers) in [(4, 2), (1, 3), (2, 1), (3, 2)] {
                test.restart_at(tick, workers);
            }
            let changes = [("2".to_owned(), None), ("3".to_owned(), Some("-1".to_owned()))];
            assert_eq!(test.updates_at("latest", 3), changes);
        }
        let [one, three] = tests.map(|test| test.table("latest"));
        assert_eq!(one, three);
        assert_eq!(one.len(), 6);
    }

    #[test]
    fn mistakes_in_how_the_job_is_put_together_fail_the_test() {
        let mut test = JobTest::new(2, |job| {
            let rows = job.source("rows", Memory::new().source("rows")).format(Json).keyed::<u32, i64>();
            let _ = rows.latest("rows");
            Ok(())
        });
        let error = test.try_advance_past(1).expect_err("the job has no output");
        assert!(error.contains("the job writes nothing"), "{error}");
    }

    #[test]
    fn a_record_that_does_not_decode_fails_the_test_by_name() {
        let mut test = latest(2);
        test.feed("rows", 1, [(Some("1"), Some("2")), (Some("x"), Some("3"))]);
        let error = test.try_advance_past(1).expect_err("'x' is no number");
        assert!(error.contains("source 'rows' split 1"), "{error}");
    }

    #[test]
    #[should_panic(expected = "output 'latest', restored as of tick 1 on 2 workers, is not what it was")]
    fn a_job_that_is_not_deterministic_fails_the_test_when_it_is_started_again() {
        let read = Arc::new(AtomicI64::new(0));
        let build = move |job: &mut Job<'_>| {
            let memory = Memory::new();
            let rows = job.source("rows", memory.source("rows")).format(Json).keyed::<u32, i64>();
            let read = Arc::clone(&read);
            let numbered = rows.map(move |(key, _)| (key, Some(read.fetch_add(1, Ordering::Relaxed))));
            job.output(memory.upsert("latest", 4)).format(Json).write(numbered.latest("rows"));
            Ok(())
        };
        let mut test = JobTest::new(1, build);
        test.feed("rows", 1, [(Some("1"), Some("2"))]);
        test.feed("rows", 2, [(Some("1"), Some("2"))]);
        test.advance_past(2);
        test.restart_at(1, 2);
    }
}
