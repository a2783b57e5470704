//! A Kafka cluster, from which sources, outputs, and readers of consistent cuts are created.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use fluvial_connector::{Envelope, Error, ErrorKind, JobProcess};

use crate::config;
use crate::failure;
use crate::native::{Bounds, Client, Code, Isolation, Role, TopicMetadata, check_settings};
use crate::options::KafkaOptions;
use crate::output::KafkaOutput;
use crate::permission::{Resource, denied, is_denied};
use crate::settings::Settings;
use crate::source::KafkaSource;

/// A Kafka cluster. It is cheap to clone, and clones share one client for metadata requests.
///
/// ```
/// use std::time::Duration;
///
/// use fluvial_connector::{Envelope, Output, Source};
/// use fluvial_kafka::KafkaOptions;
/// # use fluvial_kafka_embedded::{Broker, Config};
///
/// # let broker = Broker::start(Config::default())?;
/// # broker.create_topic("orders", 3)?;
/// # let brokers = broker.bootstrap();
/// let kafka = KafkaOptions::new(brokers).connect()?;
///
/// // Sources and outputs of a job:
/// let orders = kafka.source("orders");
/// let revenue = kafka.upsert("revenue");
/// let alerts = kafka.append("alerts");
///
/// assert_eq!(orders.splits(Duration::from_secs(10))?.len(), 3); // the partitions of the topic
/// assert_eq!(revenue.spec().envelope, Envelope::Upsert);
/// assert_eq!(alerts.spec().envelope, Envelope::Append);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Kafka(Arc<Inner>);

struct Inner {
    options: KafkaOptions,
    brokers: String,
    settings: Settings,
    /// The process of the job that uses the cluster, for the names of its clients.
    process: OnceLock<JobProcess>,
    /// The clients of readers, by the time that their fetches wait.
    readers: Mutex<BTreeMap<u32, Arc<Client>>>,
    questions: Mutex<Option<Arc<Client>>>,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("brokers", &self.0.brokers).finish_non_exhaustive()
    }
}

impl Kafka {
    pub(crate) fn new(options: KafkaOptions) -> Result<Self, Error> {
        let given = config::read(options.kafka_config.as_deref(), &options.settings)?;
        let named = given.get("bootstrap.servers").map(|(brokers, origin)| (brokers, origin.of("bootstrap.servers")));
        let named = options.brokers.as_ref().map(|brokers| (brokers, "--brokers".to_owned())).or(named);
        let Some((brokers, origin)) = named else {
            let what = "no brokers are configured: set --brokers, or bootstrap.servers in the file of --kafka-config";
            return Err(Error::new(ErrorKind::Configuration, what));
        };
        let brokers = crate::options::brokers(brokers)
            .map_err(|why| Error::new(ErrorKind::Configuration, format!("{origin}: {why}")))?;
        let settings = Settings::of_user(&brokers, given)?;
        check_settings(&settings.consumer())?;
        check_settings(&settings.producer("check"))?;
        Ok(Self(Arc::new(Inner {
            options,
            brokers,
            settings,
            process: OnceLock::new(),
            readers: Mutex::default(),
            questions: Mutex::new(None),
        })))
    }

    /// Returns a source of the records of one topic. The topic must exist when the job starts.
    #[must_use]
    pub fn source(&self, topic: impl Into<String>) -> KafkaSource {
        KafkaSource::new(self.clone(), topic.into())
    }

    /// Returns a topic as an upsert output: the newest record of a key is its row, and a record without value deletes the row. If
    /// the topic does not exist, the job creates it with `cleanup.policy=compact`.
    #[must_use]
    pub fn upsert(&self, topic: impl Into<String>) -> KafkaOutput {
        KafkaOutput::new(self.clone(), topic.into(), Envelope::Upsert)
    }

    /// Returns a topic as an append output, which keeps every record. If the topic does not exist, the job creates it with
    /// `cleanup.policy=delete`.
    #[must_use]
    pub fn append(&self, topic: impl Into<String>) -> KafkaOutput {
        KafkaOutput::new(self.clone(), topic.into(), Envelope::Append)
    }

    /// Returns the options that the cluster was created from.
    #[must_use]
    pub fn options(&self) -> &KafkaOptions {
        &self.0.options
    }

    /// The bootstrap brokers.
    pub(crate) fn brokers(&self) -> &str {
        &self.0.brokers
    }

    /// Identifies the cluster by the addresses of its bootstrap brokers.
    pub(crate) fn identity(&self) -> String {
        let mut brokers: Vec<&str> = self.brokers().split(',').map(str::trim).collect();
        brokers.sort_unstable();
        format!("kafka {}", brokers.join(","))
    }

    /// Sets the process after which clients that are created from now on are named. Only the first call has an effect.
    pub(crate) fn used_by(&self, process: &JobProcess) {
        let _ = self.0.process.set(process.clone());
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The settings of a consumer of committed records. `role` says what it is there for: brokers' logs, metrics and
    /// quotas know it by that, by the job and by the process.
    pub(crate) fn consumer(&self, role: &str) -> Settings {
        self.named(role).consumer()
    }

    /// As [`Kafka::consumer`], of records whose transaction is open or aborted as well.
    pub(crate) fn uncommitted_consumer(&self, role: &str) -> Settings {
        self.named(role).uncommitted_consumer()
    }

    /// The settings of the transactional producer of one of the process's turns.
    pub(crate) fn producer(&self, transactional_id: &str, turn: u32) -> Settings {
        self.named(&format!("writer-{turn}")).producer(transactional_id)
    }

    /// Names a client by its role, unless the user has set `client.id`, because quotas apply to all clients of one id.
    fn named(&self, role: &str) -> Settings {
        let id = match self.0.process.get() {
            Some(process) => format!("{process}-{role}"),
            None => format!("fluvial-{role}"),
        };
        self.0.settings.clone().or(&[("client.id", &id)])
    }

    /// The client that the readers of all sources share whose fetches wait for so long. Made when it is first needed.
    pub(crate) fn readers(&self, wait_ms: u32) -> Result<Arc<Client>, Error> {
        let bug = |_| Error::new(ErrorKind::Bug, "take the client of the readers: a thread panicked");
        let mut kept = self.0.readers.lock().map_err(bug)?;
        if let Some(client) = kept.get(&wait_ms) {
            return Ok(client.clone());
        }
        let settings = self.named("reader").consumer_that_waits(&wait_ms.to_string());
        let client = Arc::new(Client::new(Role::Consumer, &settings, "the readers of sources")?);
        kept.insert(wait_ms, client.clone());
        Ok(client)
    }

    /// The client for questions about topics; it reads nothing. Made when it is first needed.
    pub(crate) fn questions(&self) -> Result<Arc<Client>, Error> {
        let bug = |_| Error::new(ErrorKind::Bug, "take the client for questions about topics: a thread panicked");
        let mut kept = self.0.questions.lock().map_err(bug)?;
        if let Some(client) = &*kept {
            return Ok(client.clone());
        }
        let client = Arc::new(Client::new(Role::Consumer, &self.consumer("questions"), "questions about topics")?);
        *kept = Some(client.clone());
        Ok(client)
    }

    /// How many partitions each of these topics has, all of which must exist.
    pub(crate) fn partitions(&self, topics: &[&str], deadline: Instant) -> Result<Vec<u32>, Error> {
        let described = self.questions()?.describe(topics, false, deadline).map_err(|e| self.explain(topics, e))?;
        Ok(described.iter().map(TopicMetadata::partitions).collect())
    }

    /// Where partitions, all different, begin and end, in their order; waits for those that are not available.
    pub(crate) fn bounds(
        &self,
        asked: &[(&str, u32)],
        isolation: Isolation,
        deadline: Instant,
    ) -> Result<Vec<Bounds>, Error> {
        let asked: Vec<_> = asked.iter().map(|at| (*at, 0)).collect();
        self.bounds_beyond(&asked, isolation, deadline)
    }

    /// As [`Kafka::bounds`], for partitions of which each has been committed up to the offset beside it: a smaller end
    /// is believed only when it is still so after some seconds.
    pub(crate) fn bounds_beyond(
        &self,
        asked: &[((&str, u32), u64)],
        isolation: Isolation,
        deadline: Instant,
    ) -> Result<Vec<Bounds>, Error> {
        let bounds = self.questions()?.bounds_beyond(asked, isolation, deadline);
        bounds.map_err(|error| {
            let topics: BTreeSet<&str> = asked.iter().map(|((topic, _), _)| *topic).collect();
            self.explain(&topics.into_iter().collect::<Vec<_>>(), error)
        })
    }

    /// What a person can do about a question about these topics that was not answered.
    pub(crate) fn explain(&self, topics: &[&str], error: Error) -> Error {
        self.unreachable(self.explain_denied("Describe", topics, error))
    }

    /// The same error, unless it says that this client is not authorized for an operation on one of these topics: then
    /// that is said in full.
    pub(crate) fn explain_denied(&self, operation: &str, topics: &[&str], error: Error) -> Error {
        if !code_of(&error).is_some_and(is_denied) {
            return error;
        }
        let topics = Resource::Topics(topics.iter().map(|topic| (*topic).to_owned()).collect());
        denied(&error.to_string(), operation, &topics, self.settings().principal().as_deref())
    }

    /// Says what a person can do where the cluster does not answer, or does not let this client in.
    pub(crate) fn unreachable(&self, error: Error) -> Error {
        let brokers = self.brokers();
        let what = match (error.kind, code_of(&error)) {
            (ErrorKind::Retry, Some(_)) => format!(
                "kafka at {brokers} cannot be reached: check --brokers, that a broker is running there, and that its \
                 port expects the configured security.protocol"
            ),
            // A connection that is closed at once, or answered by what is no answer, is a matter of settings, too.
            (ErrorKind::Configuration | ErrorKind::Restart, Some(code))
                if failure::is_not_let_in(code) || matches!(code, Code::BrokerTransportFailure | Code::BadMessage) =>
            {
                format!(
                    "kafka at {brokers} rejects this client: check security.protocol, sasl.mechanism, sasl.username, \
                     sasl.password and ssl.ca.location in --kafka-config and -X"
                )
            }
            _ => return error,
        };
        Error::caused(error.kind, what, error)
    }
}

/// What librdkafka or the cluster called the error.
fn code_of(error: &Error) -> Option<Code> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref::<Code>()).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn clients_are_named_by_job_process_and_role_unless_the_user_names_them() {
        let process = JobProcess { job: "orders".to_owned(), index: 3 };
        let mut options = KafkaOptions::new("b:1");
        let kafka = options.connect().unwrap();
        assert_eq!(kafka.consumer("cuts").get("client.id"), Some("fluvial-cuts"));
        kafka.used_by(&process);
        assert_eq!(kafka.consumer("reader").get("client.id"), Some("orders-3-reader"));
        let writer = kafka.producer("orders-id-3-1", 1);
        assert_eq!(writer.get("client.id"), Some("orders-3-writer-1"));
        assert_eq!(writer.get("transactional.id"), Some("orders-id-3-1"));
        options.settings = vec![crate::config::Setting::new("client.id", "billing")];
        let kafka = options.connect().unwrap();
        kafka.used_by(&process);
        assert_eq!(kafka.consumer("reader").get("client.id"), Some("billing"));
    }
}
