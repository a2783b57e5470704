//! The way out: topics, and the progress topic beside them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvial_connector::{
    Error, ErrorKind, Offset, OutputPartition, OutputSpec, OutputStatus, ProducerId, Progress, Record, Sink,
    SinkContext, SinkSession, SinkStatus, Transactor,
};

use crate::failure;
use crate::kafka::Kafka;
use crate::limits::Limits;
use crate::native::{Code, NewTopic, Producer};
use crate::permission::{Resource, denied, is_denied};
use crate::progress::{self, progress_topic};
use crate::reading::Reading;
use crate::refusal::Refusals;
use crate::transactor::{KafkaTransactor, TICK_HEADER_BYTES};
use crate::upkeep::Kept;
use crate::writers;

/// How long it is asked how far an output can be read, when it cannot be read to its end, and how often.
const ASK_WHAT_IS_READABLE: Duration = Duration::from_secs(5);

/// librdkafka's own value of `batch.size`, for producers whose user has set none.
const BATCH_SIZE: usize = 1_000_000;
/// librdkafka's own value of `message.max.bytes`.
const MESSAGE_MAX_BYTES: usize = 1_000_000;

/// The topics of one cluster, which share transactions.
pub(crate) struct KafkaSink {
    kafka: Kafka,
}

impl KafkaSink {
    pub(crate) fn new(kafka: Kafka) -> Self {
        Self { kafka }
    }

    fn make_missing(&self, context: &SinkContext, outputs: &[OutputSpec]) -> Result<(), Error> {
        let deadline = Instant::now() + context.patience;
        let wanted = outputs.iter().map(|output| self.new_topic(output));
        for topic in wanted.chain([progress::new_topic(&self.kafka, &context.job)]) {
            if self.kafka.find_topic(&topic.name, remaining(deadline))?.is_some() {
                continue;
            }
            tracing::info!(topic = %topic.name, partitions = topic.partitions, "makes a topic that is missing");
            self.kafka.questions()?.create_topic(&topic, deadline)?;
            self.wait_for(&topic.name, deadline)?;
        }
        Ok(())
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

    /// A topic that was made is not known to all brokers at once.
    fn wait_for(&self, topic: &str, deadline: Instant) -> Result<(), Error> {
        while self.kafka.find_topic(topic, remaining(deadline))?.is_none() {
            if Instant::now() >= deadline {
                let what = format!("topic '{topic}' was made, but the cluster does not show it in time");
                return Err(Error::new(ErrorKind::Retry, what));
            }
            self.kafka.questions()?.pause(Duration::from_millis(20));
        }
        Ok(())
    }
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

impl Sink for KafkaSink {
    fn identity(&self) -> String {
        self.kafka.identity()
    }

    fn connect(&self, context: &SinkContext, outputs: &[OutputSpec]) -> Result<Arc<dyn SinkSession>, Error> {
        self.make_missing(context, outputs)?;
        let topic = progress_topic(&context.job);
        let progress_partitions = self.kafka.partitions(&topic, context.patience)?;
        let limits = Limits::default();
        limits.read(&self.kafka, outputs.iter().map(|output| output.name.as_str()).chain([topic.as_str()]));
        Ok(Arc::new(KafkaSession {
            kafka: self.kafka.clone(),
            context: context.clone(),
            outputs: outputs.iter().map(|output| output.name.clone()).collect(),
            kept: outputs
                .iter()
                .map(|output| (output.name.clone(), Kept::from(output.envelope)))
                .chain([(topic, Kept::Progress)])
                .collect(),
            progress_partitions,
            limits: Arc::new(limits),
        }))
    }
}

/// One job's use of a cluster's topics.
struct KafkaSession {
    kafka: Kafka,
    context: SinkContext,
    outputs: Vec<String>,
    /// What is kept in each topic that the job writes.
    kept: Vec<(String, Kept)>,
    progress_partitions: u32,
    limits: Arc<Limits>,
}

impl KafkaSession {
    /// Whether a record that no reader of committed records sees is there all the same, and not compacted or deleted.
    fn was_aborted(&self, at: &OutputPartition, offset: u64) -> Result<bool, Error> {
        let settings = self.kafka.settings().uncommitted_consumer();
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
        let stable = self.kafka.questions().and_then(|client| client.watermarks(&at.output, at.partition, deadline));
        match stable {
            Ok((_, stable)) => {
                what + &failure::how_to_end_a_hanging_transaction(&at.output, at.partition, stable, progress.0)
            }
            Err(_) => what,
        }
    }
}

impl SinkSession for KafkaSession {
    fn status(&self) -> Result<SinkStatus, Error> {
        let deadline = Instant::now() + self.context.patience;
        let questions = self.kafka.questions()?;
        let output = |output: &String| {
            let partitions = self.kafka.partitions(output, remaining(deadline))?;
            Ok((output.clone(), OutputStatus { partitions, identity: questions.topic_id(output, deadline)? }))
        };
        let topic = progress_topic(&self.context.job);
        Ok(SinkStatus {
            outputs: self.outputs.iter().map(output).collect::<Result<_, Error>>()?,
            progress_identity: questions.topic_id(&topic, deadline)?,
            progress_name: format!("the progress topic '{topic}'"),
        })
    }

    fn warnings(&self) -> Result<Vec<String>, Error> {
        let deadline = Instant::now() + self.context.patience;
        let (questions, brokers) = (self.kafka.questions()?, &self.kafka.options().brokers);
        let warning = |(topic, kept): &(String, Kept)| {
            let settings = questions.topic_settings(topic, deadline)?;
            Ok(kept.warning(topic, &settings, brokers))
        };
        Ok(self.kept.iter().map(warning).collect::<Result<Vec<_>, Error>>()?.into_iter().flatten().collect())
    }

    fn writers(&self, output: &str) -> Result<Vec<String>, Error> {
        writers::of_output(&self.kafka, &self.context.job, output, self.context.patience)
    }

    fn fence(&self, id: &ProducerId) -> Result<Box<dyn Transactor>, Error> {
        let what = format!("take over the kafka transactional id '{id}'");
        let deadline = Instant::now() + self.context.patience;
        let wait = self.context.waits.begin(what.clone());
        let settings = self.kafka.settings().producer(&id.to_string());
        let number = |name: &str, default| settings.get(name).and_then(|bytes| bytes.parse().ok()).unwrap_or(default);
        let message_bytes = number("message.max.bytes", MESSAGE_MAX_BYTES);
        let batch_bytes = self.limits.smallest(number("batch.size", BATCH_SIZE).min(message_bytes));
        let settings = settings.and(&[("batch.size", &batch_bytes.to_string())]);
        let mut producer = Producer::new(&settings, &format!("the producer '{id}'"))?;
        let progress = progress_topic(&self.context.job);
        for topic in self.outputs.iter().chain([&progress]) {
            // A producer that asks for a topic makes it: the other client looks first. And the producer must know all
            // partitions before it writes, or the first records of one key could be sent out of order.
            self.kafka.partitions(topic, remaining(deadline))?;
            producer.open_topic(topic)?;
            producer.client().partitions(topic, deadline)?;
        }
        // A call that timed out is made again to go on with it.
        let mut refused = None;
        let taken = producer.client().until(deadline, &what, |wait_ms| match producer.init(wait_ms) {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::debug!(%id, fatal = error.fatal, retriable = error.retriable, "{}", error.reason);
                wait.says(format!("{what}: {}", error.reason));
                refused = refused.or(Some(error.code).filter(|code| is_denied(*code)));
                Err(error.code)
            }
        });
        let principal = self.kafka.settings().principal();
        let denied = |resource| denied(&what, "Write", &resource, principal.as_deref());
        taken.map_err(|error| match refused {
            Some(Code::ClusterAuthorizationFailed) => denied(Resource::Cluster),
            Some(_) => denied(Resource::TransactionalId(id.to_string())),
            None => error,
        })?;
        let header_bytes = if self.kafka.options().tick_header { TICK_HEADER_BYTES } else { 0 };
        let refusals = Refusals {
            kafka: self.kafka.clone(),
            limits: Arc::clone(&self.limits),
            progress_topic: progress,
            batch_bytes,
            message_bytes,
            header_bytes,
        };
        Ok(Box::new(KafkaTransactor::new(
            producer,
            id,
            refusals,
            self.progress_partitions,
            self.kafka.options().tick_header,
            &self.context,
        )))
    }

    fn progress(&self) -> Result<BTreeMap<OutputPartition, Progress>, Error> {
        progress::read(&self.kafka, &self.context)
    }

    fn end(&self, at: &OutputPartition) -> Result<Offset, Error> {
        let deadline = Instant::now() + self.context.patience;
        let ends = self.kafka.ends()?.watermarks(&at.output, at.partition, deadline);
        ends.map(|(_, end)| Offset(end)).map_err(|error| self.kafka.unreachable(error))
    }

    fn read_committed(
        &self,
        at: &OutputPartition,
        from: Offset,
        take: &mut dyn FnMut(Record<'_>),
    ) -> Result<Offset, Error> {
        let wait = self.context.waits.begin(format!("read back output {at}"));
        let deadline = Instant::now() + self.context.patience;
        // Not the last stable offset: a commit is answered before it moves.
        let ends = self.kafka.ends()?.watermarks(&at.output, at.partition, deadline);
        let (low, end) = ends.map_err(|error| self.kafka.unreachable(error))?;
        if end <= from.0 {
            return Ok(Offset(end));
        }
        let mut reading = Reading::new(&self.kafka.settings().consumer(), "an output, read back", None)?;
        // What retention or deletion took from an output is not missing. The record before `from` is read with the others,
        // to see whether it is still committed.
        let before = from.0.checked_sub(1).filter(|before| *before >= low);
        let place = reading.start(&at.output, at.partition, before.unwrap_or(from.0.max(low)))?;
        let mut is_there = before.is_none();
        let (mut quiet_since, mut asked_at, mut held_up) = (Instant::now(), Instant::now(), false);
        while reading.position(place) < end {
            let readable = reading.position(place);
            let mut one = |_, record: Record<'_>| {
                if Some(record.offset.0) == before {
                    is_there = true;
                } else if record.offset.0 < end {
                    take(record);
                }
            };
            reading.poll(usize::MAX, Duration::from_millis(500), &mut one)?;
            if reading.position(place) != readable {
                quiet_since = Instant::now();
            } else if quiet_since.elapsed() >= self.context.patience {
                let what = self.held_up(at, from, readable, end);
                return Err(failure::error(Code::OperationTimedOut, what));
            } else if asked_at.elapsed() >= ASK_WHAT_IS_READABLE {
                wait.says(self.held_up(at, from, readable, end));
                (asked_at, held_up) = (Instant::now(), true);
            }
        }
        if let Some(before) = before.filter(|_| !is_there)
            && self.was_aborted(at, before)?
        {
            let what = format!(
                "output {at}: the record at offset {before}, which this job had committed, was aborted: `run --reconcile` \
                 writes the rows of an upsert output again"
            );
            // Who waited for it has seen how it was aborted; who comes later takes it for an output that ends there.
            if held_up {
                return Err(Error::new(ErrorKind::Data, what));
            }
            tracing::warn!("{what}");
            return Ok(Offset(before));
        }
        Ok(Offset(end))
    }
}
