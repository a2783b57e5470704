//! Topics as sources of a job: each partition is a split.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvial_connector::{
    Availability, Compaction, Error, ErrorKind, JobProcess, Offset, Record, Slot, Source, SplitId, SplitReader,
    SplitStatus, Waker,
};

use crate::failure;
use crate::identity::{BEGIN_ANOTHER, Identity};
use crate::kafka::Kafka;
use crate::native::{Bounds, Code, Isolation, Survey, Unavailable};
use crate::reading::Reading;

/// How long a reader that begins waits for the number of partitions. Without it, it waits for records as for a few.
const ASK_HOW_MANY: Duration = Duration::from_secs(5);
/// How long it is asked whether a topic is gone that could not be asked about.
const ASK_IF_GONE: Duration = Duration::from_secs(2);
/// How many partitions an idle job names in its fetches each second, at the most, up to a second for each fetch.
const PARTITIONS_FETCHED_A_SECOND: u32 = 2000;
/// How long a report of committed offsets may take, in milliseconds: the next one comes a few seconds later.
const REPORT_WITHIN_MS: i32 = 2_000;

/// A topic as a source, created by [`Kafka::source`]. A split is a partition, named by its number; its identity is the topic's
/// id.
#[derive(Clone, Debug)]
pub struct KafkaSource {
    kafka: Kafka,
    topic: String,
    identity: Arc<Identity>,
}

impl KafkaSource {
    pub(crate) fn new(kafka: Kafka, topic: String) -> Self {
        let identity = Arc::new(Identity::new(kafka.clone(), topic.clone()));
        Self { kafka, topic, identity }
    }

    /// Returns the name of the topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What a person can do about a question about the topic that was not answered. Where the topic has been there before,
    /// creating it is no way out: it would be another one.
    fn explain(&self, error: Error) -> Error {
        if error.kind == ErrorKind::Configuration && self.identity.is_known() && self.is_gone() {
            let (topic, brokers) = (&self.topic, self.kafka.brokers());
            let what = format!(
                "topic '{topic}' does not exist on {brokers} any more: it was deleted after this job had begun to \
                 read it. A recreated topic is another topic, and a job cannot continue with other input; \
                 {BEGIN_ANOTHER}"
            );
            return Error::new(ErrorKind::Configuration, what);
        }
        self.kafka.explain(&[&self.topic], error)
    }

    /// Whether the cluster says now that there is no such topic.
    fn is_gone(&self) -> bool {
        let found = self.kafka.questions().and_then(|asked| asked.find(&[&self.topic], Instant::now() + ASK_IF_GONE));
        found.is_ok_and(|found| found.iter().all(Option::is_none))
    }
}

impl Source for KafkaSource {
    fn describe(&self) -> String {
        format!("kafka topic '{}'", self.topic)
    }

    fn describe_split(&self, split: &SplitId) -> String {
        format!("{} partition {split}", self.describe())
    }

    fn as_output(&self) -> Option<(String, String)> {
        Some((self.kafka.identity(), self.topic.clone()))
    }

    fn used_by(&self, process: &JobProcess) {
        self.kafka.used_by(process);
    }

    fn splits(&self, patience: Duration) -> Result<Vec<SplitStatus>, Error> {
        let deadline = Instant::now() + patience;
        let questions = self.kafka.questions()?;
        let Survey { id, partitions } =
            questions.survey(&self.topic, Isolation::Committed, deadline).map_err(|error| self.explain(error))?;
        self.identity.is(&id);
        let status = |(number, found): (u32, Result<Bounds, Unavailable>)| SplitStatus {
            split: SplitId(number.to_string()),
            identity: id.clone(),
            availability: match found {
                Ok(Bounds { earliest, end }) => {
                    Availability::Available { earliest: Offset(earliest), end: Offset(end) }
                }
                Err(Unavailable { why, .. }) => Availability::Unavailable { why: format!("it {why}") },
            },
        };
        Ok((0..).zip(partitions).map(status).collect())
    }

    fn reader(&self, waker: Waker) -> Result<Box<dyn SplitReader>, Error> {
        let partitions = self.kafka.partitions(&[&self.topic], Instant::now() + ASK_HOW_MANY);
        let partitions = partitions.ok().and_then(|counts| counts.first().copied());
        let wait_ms = fetch_wait_ms(partitions.unwrap_or_default());
        let (client, settings) = (self.kafka.readers(wait_ms)?, self.kafka.settings());
        let reading = Reading::sharing(client, settings, Arc::clone(&self.identity), waker);
        Ok(Box::new(KafkaReader { topic: self.topic.clone(), reading, slots: Vec::new(), numbers: BTreeMap::new() }))
    }

    fn warnings(&self, window: Duration, patience: Duration) -> Result<Vec<String>, Error> {
        let settings = self.kafka.questions()?.settings_of(&self.topic, Instant::now() + patience)?;
        Ok(compaction_warning(&self.topic, &settings, window).into_iter().collect())
    }

    fn compaction(&self, patience: Duration) -> Result<Option<Compaction>, Error> {
        let settings = self.kafka.questions()?.settings_of(&self.topic, Instant::now() + patience)?;
        Ok(compaction(&self.topic, &settings))
    }

    fn report_committed(&self, job: &str, positions: &[(SplitId, Offset)]) -> Result<(), Error> {
        let group = self.kafka.options().group.as_deref().unwrap_or(job);
        if group.is_empty() || positions.is_empty() {
            return Ok(());
        }
        let offsets = positions
            .iter()
            .map(|(split, offset)| Ok((partition(&self.topic, split)?, offset.0)))
            .collect::<Result<Vec<_>, Error>>()?;
        let questions = self.kafka.questions()?;
        questions.note_errors();
        questions.commit_offsets(group, &self.topic, &offsets, REPORT_WITHIN_MS).map_err(|code| {
            let cure = match code {
                Code::GroupAuthorizationFailed => " (`--group ''` reports nothing)",
                _ => "",
            };
            let what = format!("report committed offsets of topic '{}' under the group '{group}'{cure}", self.topic);
            failure::error(code, what)
        })
    }
}

/// How long a fetch waits for records. librdkafka names all partitions in each, so that it is by this time that an idle
/// topic of many partitions costs less. It is also how late the end of a partition may be known.
fn fetch_wait_ms(partitions: u32) -> u32 {
    (partitions * 1000 / PARTITIONS_FETCHED_A_SECOND).clamp(100, 1000)
}

/// What the settings of a topic say of its compaction; `None` where it is not compacted.
fn compaction(topic: &str, settings: &BTreeMap<String, String>) -> Option<Compaction> {
    // A broker that does not say how long it keeps deletions may have removed them at once.
    let deletions_kept = millis(settings, "delete.retention.ms").unwrap_or_default();
    is_compacted(settings).then(|| Compaction {
        deletions_kept,
        cure: format!(
            "set min.compaction.lag.ms of topic '{topic}' to several checkpoint intervals, so that it keeps records \
             for as long as a restart may read them again; delete.retention.ms (now {}) keeps deletions, and must \
             exceed the time for which a job may be stopped",
            deletions_kept.as_millis()
        ),
    })
}

fn is_compacted(settings: &BTreeMap<String, String>) -> bool {
    settings.get("cleanup.policy").is_some_and(|policies| policies.split(',').any(|policy| policy.trim() == "compact"))
}

fn millis(settings: &BTreeMap<String, String>, name: &str) -> Option<Duration> {
    Some(Duration::from_millis(settings.get(name)?.parse().ok()?))
}

/// What to say of a topic that may be compacted before `window` is over.
fn compaction_warning(topic: &str, settings: &BTreeMap<String, String>, window: Duration) -> Option<String> {
    let lag = millis(settings, "min.compaction.lag.ms")?;
    (is_compacted(settings) && lag < window).then(|| {
        format!(
            "the input topic '{topic}' is compacted with min.compaction.lag.ms={}: a restart that has to read \
             compacted records again cannot repeat the output of their ticks, and is refused unless the job reads \
             the topic as a changelog and writes upsert outputs only, which it then corrects; set it to at least {}, \
             several checkpoint intervals",
            lag.as_millis(),
            window.as_millis()
        )
    })
}

fn partition(topic: &str, split: &SplitId) -> Result<u32, Error> {
    split.0.parse().map_err(|_| {
        Error::new(
            ErrorKind::Data,
            format!(
                "split '{split}' is not a partition of topic '{topic}': it must be a \
             number"
            ),
        )
    })
}

/// Reads partitions of one topic.
struct KafkaReader {
    topic: String,
    reading: Reading,
    /// By place in `reading`: the engine's name.
    slots: Vec<Slot>,
    numbers: BTreeMap<Slot, usize>,
}

impl KafkaReader {
    fn number(&self, slot: Slot) -> Result<usize, Error> {
        self.numbers.get(&slot).copied().ok_or_else(|| {
            Error::new(ErrorKind::Bug, format!("slot {} of topic '{}' was never started", slot.0, self.topic))
        })
    }
}

impl SplitReader for KafkaReader {
    fn start(&mut self, slot: Slot, split: &SplitId, from: Offset) -> Result<(), Error> {
        let number = self.reading.start(&self.topic, partition(&self.topic, split)?, from.0)?;
        if self.slots.len() <= number {
            self.slots.resize(number + 1, slot);
        }
        self.slots[number] = slot;
        self.numbers.insert(slot, number);
        Ok(())
    }

    fn set_paused(&mut self, slot: Slot, paused: bool) -> Result<(), Error> {
        let number = self.number(slot)?;
        self.reading.set_paused(number, paused);
        Ok(())
    }

    fn poll(&mut self, most: usize, take: &mut dyn FnMut(Slot, Record<'_>)) -> Result<usize, Error> {
        let slots = &self.slots;
        self.reading.poll(most, Duration::ZERO, &mut |number, record| take(slots[number], record))
    }

    fn position(&self, slot: Slot) -> Offset {
        Offset(self.numbers.get(&slot).map_or(0, |number| self.reading.position(*number)))
    }

    fn answers(&self) -> Option<u64> {
        Some(self.reading.answers())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetches_of_many_partitions_wait_longer() {
        for (partitions, wait_ms) in [(0, 100), (4, 100), (200, 100), (1000, 500), (2000, 1000), (100_000, 1000)] {
            assert_eq!(fetch_wait_ms(partitions), wait_ms, "{partitions}");
        }
    }

    #[test]
    fn a_topic_that_may_be_compacted_too_soon_is_warned_of() {
        let check = |policy: &str, lag: &str, warned: bool| {
            let settings = [("cleanup.policy", policy), ("min.compaction.lag.ms", lag)];
            let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let warning = compaction_warning("orders", &settings, Duration::from_secs(50));
            assert_eq!(warning.is_some(), warned, "{policy} {lag}");
            assert!(warning.is_none_or(|said| said.contains("'orders'") && said.contains("at least 50000")));
        };
        check("compact", "0", true);
        check("delete, compact", "49999", true);
        check("compact", "50000", false);
        check("delete", "0", false);
        assert_eq!(compaction_warning("orders", &BTreeMap::new(), Duration::MAX), None);
    }

    #[test]
    fn only_a_topic_with_the_policy_to_compact_is_compacted() {
        let check = |policy: &str, kept: Option<&str>, expected: Option<u64>| {
            let mut settings = BTreeMap::from([("cleanup.policy".to_owned(), policy.to_owned())]);
            settings.extend(kept.map(|kept| ("delete.retention.ms".to_owned(), kept.to_owned())));
            let compaction = compaction("orders", &settings);
            assert_eq!(compaction.map(|c| c.deletions_kept), expected.map(Duration::from_millis), "{policy}");
        };
        check("delete", Some("7"), None);
        check("compact", Some("7"), Some(7));
        check("delete,compact", Some("86400000"), Some(86_400_000));
        check("compact", None, Some(0));
    }
}
