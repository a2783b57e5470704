//! The way out: topics, and the progress topic beside them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvial_connector::{
    Error, Offset, OutputPartition, OutputSpec, OutputStatus, Progress, ReadEnd, Record, Sink, SinkContext,
    SinkSession, SinkStatus, Transactor, WriterId,
};

use crate::failure;
use crate::kafka::Kafka;
use crate::limits::Limits;
use crate::native::{Bounds, Code, Failed, Isolation, NewTopic, Producer, TopicMetadata, TopicSettings};
use crate::permission::{Resource, denied, is_denied};
use crate::progress::{self, progress_topic};
use crate::reading::Reading;
use crate::refusal::Refusals;
use crate::transactor::KafkaTransactor;
use crate::upkeep::Kept;
use crate::writers;

/// How long it is asked how far an output can be read, when it cannot be read to its end, and how often.
const ASK_WHAT_IS_READABLE: Duration = Duration::from_secs(5);

/// The offset to read from if only the end of a partition is wanted. Any other offset is known to be committed.
const ONLY_THE_END: Offset = Offset(u64::MAX);

/// The topics of one cluster, which share transactions.
pub(crate) struct KafkaSink {
    kafka: Kafka,
}

impl KafkaSink {
    pub(crate) fn new(kafka: Kafka) -> Self {
        Self { kafka }
    }

    /// The topics of the job, its outputs and last the progress topic, that do not exist, as they are to be made.
    fn missing(&self, topics: Vec<NewTopic>, deadline: Instant) -> Result<Vec<NewTopic>, Error> {
        let names: Vec<&str> = topics.iter().map(|topic| &*topic.name).collect();
        let found = self.kafka.questions()?.find(&names, deadline);
        let found = found.map_err(|error| self.kafka.explain(&names, error))?;
        Ok(topics.into_iter().zip(found).filter(|(_, found)| found.is_none()).map(|(topic, _)| topic).collect())
    }

    fn topics(&self, context: &SinkContext, outputs: &[OutputSpec]) -> Vec<NewTopic> {
        let progress = progress::new_topic(&self.kafka, &context.process.job);
        outputs.iter().map(|output| self.new_topic(output)).chain([progress]).collect()
    }

    fn make_missing(&self, context: &SinkContext, outputs: &[OutputSpec]) -> Result<(), Error> {
        let deadline = Instant::now() + context.patience;
        let topics = self.topics(context, outputs);
        let missing = self.missing(topics.clone(), deadline)?;
        if missing.is_empty() {
            return Ok(());
        }
        for topic in &missing {
            tracing::info!(topic = %topic.name, partitions = topic.partitions, "creating topic");
        }
        let questions = self.kafka.questions()?;
        let created = questions.create_topics(&missing.iter().collect::<Vec<_>>(), deadline);
        created.map_err(|(topic, error)| self.kafka.explain_denied("Create", &[&topic], error))?;
        questions.appear(&topics.iter().map(|topic| &*topic.name).collect::<Vec<_>>(), deadline)
    }

    /// A session with the topics of the job, of which these are missing.
    fn session(
        &self,
        context: &SinkContext,
        outputs: &[OutputSpec],
        missing: Vec<NewTopic>,
    ) -> Result<Arc<dyn SinkSession>, Error> {
        let progress = progress_topic(&context.process.job);
        let kept = outputs.iter().map(|output| (output.name.clone(), Kept::from(output.envelope)));
        let kept = kept.chain([(progress.clone(), Kept::Progress)]);
        let kept: Vec<_> = kept.filter(|(topic, _)| missing.iter().all(|missing| missing.name != *topic)).collect();
        let progress_partitions = match missing.iter().find(|missing| missing.name == progress) {
            Some(missing) => missing.partitions,
            None => self.kafka.partitions(&[&progress], Instant::now() + context.patience)?[0],
        };
        let limits = Limits::default();
        limits.read(&self.kafka, &kept.iter().map(|(topic, _)| topic.as_str()).collect::<Vec<_>>());
        Ok(Arc::new(KafkaSession {
            kafka: self.kafka.clone(),
            context: context.clone(),
            kept,
            missing,
            progress_partitions,
            limits: Arc::new(limits),
        }))
    }

    fn new_topic(&self, output: &OutputSpec) -> NewTopic {
        let options = self.kafka.options();
        let mut settings = options.topic_config.clone();
        if !settings.iter().any(|(name, _)| name == "cleanup.policy") {
            let policy = Kept::from(output.envelope).cleanup_policy();
            settings.push(("cleanup.policy".to_owned(), policy.to_owned()));
        }
        NewTopic {
            name: output.name.clone(),
            partitions: options.output_partitions,
            replication_factor: options.replication_factor,
            settings,
        }
    }
}

impl Sink for KafkaSink {
    fn identity(&self) -> String {
        self.kafka.identity()
    }

    fn connect(&self, context: &SinkContext, outputs: &[OutputSpec]) -> Result<Arc<dyn SinkSession>, Error> {
        self.kafka.used_by(&context.process);
        self.make_missing(context, outputs)?;
        self.session(context, outputs, Vec::new())
    }

    fn look(&self, context: &SinkContext, outputs: &[OutputSpec]) -> Result<Arc<dyn SinkSession>, Error> {
        self.kafka.used_by(&context.process);
        let deadline = Instant::now() + context.patience;
        let missing = self.missing(self.topics(context, outputs), deadline)?;
        if !missing.is_empty() {
            let would = self.kafka.questions()?.check_new_topics(&missing.iter().collect::<Vec<_>>(), deadline);
            would.map_err(|(topic, error)| self.kafka.explain_denied("Create", &[&topic], error))?;
        }
        self.session(context, outputs, missing)
    }
}

/// The transactional id of a writer. It begins with the job's name, so that Kafka's tools say whose a transaction is, and
/// that one prefix is what the job must be allowed to use.
fn transactional_id(job: &str, id: &WriterId) -> String {
    format!("{job}-{id}")
}

/// One job's use of a cluster's topics.
struct KafkaSession {
    kafka: Kafka,
    context: SinkContext,
    /// What is kept in each topic that the job writes: its outputs, and last the progress topic.
    kept: Vec<(String, Kept)>,
    /// Those of them that do not exist, and are not in `kept`: only in a session that looks.
    missing: Vec<NewTopic>,
    progress_partitions: u32,
    limits: Arc<Limits>,
}

impl KafkaSession {
    /// The topics that the job writes: its outputs, and last the progress topic.
    fn topics(&self) -> Vec<&str> {
        self.kept.iter().map(|(topic, _)| topic.as_str()).collect()
    }

    /// Whether a record that no reader of committed records sees is there all the same, and not compacted or deleted.
    fn was_aborted(&self, at: &OutputPartition, offset: u64) -> Result<bool, Error> {
        let settings = self.kafka.uncommitted_consumer("read-back");
        let mut reading = Reading::new(&settings, "an output, read with aborted records", None)?;
        let place = reading.start(&at.output, at.partition, offset)?;
        let deadline = Instant::now() + self.context.patience;
        let mut found = false;
        while reading.position(place) <= offset {
            let slice = Duration::from_millis(500);
            reading.poll(usize::MAX, slice, &mut |_, record| found |= record.offset.0 == offset)?;
            if Instant::now() >= deadline {
                let what = format!("read back output {at} at offset {offset}, aborted records included");
                return Err(failure::error(Code::OperationTimedOut, what));
            }
        }
        Ok(found)
    }

    /// What holds up an output that is not readable to its end, and is being read after its progress; and what a person
    /// can do about it.
    fn held_up(&self, at: &OutputPartition, progress: Offset, readable: u64, end: u64) -> String {
        let what = format!(
            "read back output {at}: it is readable up to offset {readable} and was written up to {end}: an open \
             transaction holds it up, or the cluster is unavailable"
        );
        let deadline = Instant::now() + ASK_WHAT_IS_READABLE;
        let stable = self.kafka.bounds(&[(&at.output, at.partition)], Isolation::Committed, deadline);
        match stable.map(|bounds| bounds[0].end) {
            Ok(stable) => {
                what + &failure::how_to_end_a_hanging_transaction(&at.output, at.partition, stable, progress.0)
            }
            Err(_) => what,
        }
    }
}

impl SinkSession for KafkaSession {
    fn status(&self) -> Result<SinkStatus, Error> {
        let deadline = Instant::now() + self.context.patience;
        let topics = self.topics();
        let described = self.kafka.questions()?.describe(&topics, true, deadline);
        let described = described.map_err(|error| self.kafka.explain(&topics, error))?;
        let exists =
            |metadata: TopicMetadata| OutputStatus { partitions: metadata.partitions(), identity: metadata.id };
        let not_yet = |topic: &NewTopic| {
            let identity = OutputStatus::NOT_YET.to_owned();
            (topic.name.clone(), OutputStatus { partitions: topic.partitions, identity })
        };
        let exist = topics.iter().map(|topic| (*topic).to_owned()).zip(described.into_iter().map(exists));
        let mut outputs: BTreeMap<_, _> = exist.chain(self.missing.iter().map(not_yet)).collect();
        let progress = progress_topic(&self.context.process.job);
        let progress_identity = outputs.remove(&progress).unwrap_or_default().identity;
        Ok(SinkStatus { outputs, progress_identity, progress_name: format!("the progress topic '{progress}'") })
    }

    fn warnings(&self) -> Result<Vec<String>, Error> {
        let deadline = Instant::now() + self.context.patience;
        let (questions, brokers) = (self.kafka.questions()?, self.kafka.brokers());
        let settings = questions.settings(&self.topics(), deadline)?;
        let warning =
            |((topic, kept), settings): (&(String, Kept), TopicSettings)| kept.warning(topic, &settings.ok()?, brokers);
        Ok(self.kept.iter().zip(settings).filter_map(warning).collect())
    }

    fn writers(&self, output: &str) -> Result<Vec<String>, Error> {
        writers::of_output(&self.kafka, &self.context.process.job, output, self.context.patience)
    }

    fn fence(&self, id: &WriterId) -> Result<Box<dyn Transactor>, Error> {
        let name = transactional_id(&self.context.process.job, id);
        let what = format!("initialise the kafka transactional id '{name}'");
        let deadline = Instant::now() + self.context.patience;
        let wait = self.context.waits.begin(what.clone());
        let settings = self.kafka.producer(&name, id.turn);
        let message_bytes = settings.bytes("message.max.bytes")?;
        let batch_bytes = self.limits.smallest(settings.bytes("batch.size")?.min(message_bytes));
        let settings = settings.and(&[("batch.size", &batch_bytes.to_string())]);
        let mut producer = Producer::new(&settings, &format!("the producer '{name}'"))?;
        let topics = self.topics();
        // A producer that asks for a topic creates it: the other client looks first. And the producer must know all
        // partitions before it writes, or the first records of one key could be sent out of order.
        self.kafka.partitions(&topics, deadline)?;
        for topic in &topics {
            producer.open_topic(topic)?;
            producer.client().describe(&[topic], false, deadline)?;
        }
        // A call that timed out is made again to go on with it.
        let mut refused = None;
        let taken = producer.client().until(deadline, &what, &[], |wait_ms| match producer.init(wait_ms) {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::debug!(id = name, fatal = error.fatal, retriable = error.retriable, "{}", error.reason);
                wait.says(format!("{what}: {}", error.reason));
                refused = refused.or(Some(error.code).filter(|code| is_denied(*code)));
                Err(Failed::Code(error.code))
            }
        });
        let principal = self.kafka.settings().principal();
        let denied = |resource| denied(&what, "Write", &resource, principal.as_deref());
        taken.map_err(|error| match refused {
            Some(Code::ClusterAuthorizationFailed) => denied(Resource::Cluster),
            Some(_) => denied(Resource::TransactionalId { id: name.clone(), job: self.context.process.job.clone() }),
            None => error,
        })?;
        let refusals = Refusals {
            kafka: self.kafka.clone(),
            limits: Arc::clone(&self.limits),
            progress_topic: progress_topic(&self.context.process.job),
            batch_bytes,
            message_bytes,
        };
        Ok(Box::new(KafkaTransactor::new(producer, name, refusals, self.progress_partitions, &self.context)))
    }

    fn progress(&self) -> Result<BTreeMap<OutputPartition, Progress>, Error> {
        let progress = progress_topic(&self.context.process.job);
        if self.missing.iter().any(|topic| topic.name == progress) {
            return Ok(BTreeMap::new());
        }
        progress::read(&self.kafka, &self.context)
    }

    fn read_all_committed(
        &self,
        from: &[(OutputPartition, Offset)],
        take: &mut dyn FnMut(usize, Record<'_>),
    ) -> Result<Vec<ReadEnd>, Error> {
        let wait = self.context.waits.begin(match from {
            [(at, _)] => format!("read back output {at}"),
            _ => format!("read back {} partitions of the outputs", from.len()),
        });
        let deadline = Instant::now() + self.context.patience;
        // Not the last stable offset: a commit is answered before it moves.
        let committed = |from: Offset| if from == ONLY_THE_END { 0 } else { from.0 };
        let asked: Vec<_> = from.iter().map(|(at, from)| ((&*at.output, at.partition), committed(*from))).collect();
        let bounds = self.kafka.bounds_beyond(&asked, Isolation::Uncommitted, deadline)?;
        let found = |bounds: &Bounds| ReadEnd { earliest: Offset(bounds.earliest), ..ReadEnd::at(Offset(bounds.end)) };
        let mut ends: Vec<ReadEnd> = bounds.iter().map(found).collect();
        // The record before the end may be held up as well, or not committed any more.
        let is_due = |from: u64, Bounds { earliest, end }: &Bounds| from < *end || from == *end && from > *earliest;
        let left = from.iter().zip(bounds).enumerate().filter(|(_, ((_, from), bounds))| is_due(from.0, bounds));
        // By place in `reading`: what is read there.
        let mut back: Vec<ReadBack> =
            left.map(|(number, ((_, from), bounds))| ReadBack::new(number, *from, bounds)).collect();
        if back.is_empty() {
            return Ok(ends);
        }
        let mut reading = Reading::new(&self.kafka.consumer("read-back"), "outputs, read back", None)?;
        for ReadBack { number, begin, .. } in &back {
            let at = &from[*number].0;
            reading.start(&at.output, at.partition, *begin)?;
        }
        let count = back.len();
        let read = |reading: &Reading| -> u64 { (0..count).map(|place| reading.position(place)).sum() };
        let (mut quiet_since, mut asked_at) = (Instant::now(), Instant::now());
        while let Some(first) = (0..count).find(|place| reading.position(*place) < back[*place].end) {
            let before = read(&reading);
            let mut one = |place: usize, record: Record<'_>| back[place].take(record, take);
            reading.poll(usize::MAX, Duration::from_millis(500), &mut one)?;
            let (at, progress) = &from[back[first].number];
            let held_up = |reading: &Reading| self.held_up(at, *progress, reading.position(first), back[first].end);
            if read(&reading) != before {
                quiet_since = Instant::now();
            } else if quiet_since.elapsed() >= self.context.patience {
                return Err(failure::error(Code::OperationTimedOut, held_up(&reading)));
            } else if asked_at.elapsed() >= ASK_WHAT_IS_READABLE {
                wait.says(held_up(&reading));
                asked_at = Instant::now();
            }
        }
        for ReadBack { number, before, is_there, .. } in back {
            let at = &from[number].0;
            if let Some(before) = before.filter(|_| !is_there)
                && self.was_aborted(at, before)?
            {
                // Whoever goes on from this end must not find the aborted record before it again. An abort that was waited
                // for has moved the end by its marker.
                let end = self.kafka.bounds(&[(&at.output, at.partition)], Isolation::Uncommitted, deadline)?[0].end;
                ends[number] = ReadEnd { end: Offset(end), aborted: Some(Offset(before)), ..ends[number] };
            }
        }
        Ok(ends)
    }
}

/// An output partition that is being read back.
struct ReadBack {
    /// Its place in what was asked for.
    number: usize,
    /// The first offset that is read.
    begin: u64,
    /// The offset after the last.
    end: u64,
    /// The record before the first that was asked for, which is read to see whether it is still committed.
    before: Option<u64>,
    /// Whether that is so.
    is_there: bool,
}

impl ReadBack {
    fn new(number: usize, from: Offset, Bounds { earliest, end }: Bounds) -> Self {
        // What retention or deletion took from an output is not missing.
        let before = from.0.checked_sub(1).filter(|before| *before >= earliest);
        let begin = before.unwrap_or(from.0.max(earliest));
        Self { number, begin, end, before, is_there: before.is_none() }
    }

    fn take(&mut self, record: Record<'_>, take: &mut dyn FnMut(usize, Record<'_>)) {
        if Some(record.offset.0) == self.before {
            self.is_there = true;
        } else if record.offset.0 < self.end {
            take(self.number, record);
        }
    }
}

#[cfg(test)]
mod tests {
    use fluvial_connector::Incarnation;

    use super::*;

    #[test]
    fn a_transactional_id_begins_with_the_jobs_name_and_names_one_writer() {
        let id = WriterId { incarnation: Incarnation(uuid::Uuid::nil()), slot: 2, turn: 1 };
        assert_eq!(transactional_id("orders", &id), "orders-00000000-0000-0000-0000-000000000000-2-1");
    }
}
