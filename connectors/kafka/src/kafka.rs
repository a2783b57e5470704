//! A cluster, and what comes from it: sources, outputs, and readers of consistent cuts.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fluvial_connector::{Envelope, Error, ErrorKind};

use crate::failure;
use crate::native::{Client, Code, Role, check_settings};
use crate::options::KafkaOptions;
use crate::output::KafkaOutput;
use crate::permission::{Resource, denied, is_denied};
use crate::settings::Settings;
use crate::source::KafkaSource;

/// How long a topic that is said not to exist is asked for again: one that was just made is not known everywhere at
/// once.
const UNKNOWN_FOR: Duration = Duration::from_millis(1500);

/// A Kafka cluster. Cheap to clone; clones share one client for questions.
#[derive(Clone)]
pub struct Kafka(Arc<Inner>);

struct Inner {
    options: KafkaOptions,
    settings: Settings,
    questions: Mutex<Option<Arc<Client>>>,
    ends: Mutex<Option<Arc<Client>>>,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("brokers", &self.0.options.brokers).finish_non_exhaustive()
    }
}

impl Kafka {
    pub(crate) fn new(options: KafkaOptions) -> Result<Self, Error> {
        let settings = Settings::of_user(&options.brokers, &options.settings)?;
        check_settings(&settings.consumer())?;
        check_settings(&settings.producer("check"))?;
        Ok(Self(Arc::new(Inner { options, settings, questions: Mutex::new(None), ends: Mutex::new(None) })))
    }

    /// A source of the records of one topic.
    #[must_use]
    pub fn source(&self, topic: impl Into<String>) -> KafkaSource {
        KafkaSource::new(self.clone(), topic.into())
    }

    /// A topic that is to hold a table: the newest message of a key is its row, a null value deletes it. Where the
    /// topic does not exist it is made with `cleanup.policy=compact`.
    #[must_use]
    pub fn upsert(&self, topic: impl Into<String>) -> KafkaOutput {
        KafkaOutput::new(self.clone(), topic.into(), Envelope::Upsert)
    }

    /// A topic that each record is appended to.
    #[must_use]
    pub fn append(&self, topic: impl Into<String>) -> KafkaOutput {
        KafkaOutput::new(self.clone(), topic.into(), Envelope::Append)
    }

    /// The options that it was made of.
    #[must_use]
    pub fn options(&self) -> &KafkaOptions {
        &self.0.options
    }

    /// Which cluster it is, as far as its addresses tell.
    pub(crate) fn identity(&self) -> String {
        let mut brokers: Vec<&str> = self.options().brokers.split(',').map(str::trim).collect();
        brokers.sort_unstable();
        format!("kafka {}", brokers.join(","))
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The client for questions about topics; it reads nothing. Made when it is first needed.
    pub(crate) fn questions(&self) -> Result<Arc<Client>, Error> {
        let mut settings = self.settings().consumer();
        if let Some(group) = &self.options().group {
            settings = settings.and(&[("group.id", group)]);
        }
        client(&self.0.questions, &settings, "questions about topics")
    }

    /// The client for asking where partitions end, open transactions included. Made when it is first needed.
    pub(crate) fn ends(&self) -> Result<Arc<Client>, Error> {
        client(&self.0.ends, &self.settings().uncommitted_consumer(), "the ends of partitions")
    }

    /// How many partitions a topic has; `None` if it does not exist.
    pub(crate) fn find_topic(&self, topic: &str, patience: Duration) -> Result<Option<u32>, Error> {
        match self.questions()?.partitions(topic, Instant::now() + patience) {
            Ok(count) => Ok(Some(count)),
            Err(error) if is_unknown_topic(&error) => Ok(None),
            Err(error) if code_of(&error).is_some_and(is_denied) => Err(self.may_not("Describe", topic, &error)),
            Err(error) => Err(self.unreachable(error)),
        }
    }

    /// How many partitions a topic has that must exist.
    pub(crate) fn partitions(&self, topic: &str, patience: Duration) -> Result<u32, Error> {
        let begun = Instant::now();
        loop {
            if let Some(count) = self.find_topic(topic, patience)? {
                return Ok(count);
            }
            if begun.elapsed() >= UNKNOWN_FOR.min(patience) {
                return Err(Error::new(
                    ErrorKind::Configuration,
                    format!("topic '{topic}' does not exist on {}: make it, or check its name", self.options().brokers),
                ));
            }
            self.questions()?.pause(Duration::from_millis(100));
        }
    }

    /// The error of an operation on a topic that the cluster does not permit.
    pub(crate) fn may_not(&self, operation: &str, topic: &str, error: &Error) -> Error {
        denied(&error.to_string(), operation, &Resource::topic(topic), self.settings().principal().as_deref())
    }

    /// Says what a person can do where the cluster does not answer, or does not let this client in.
    pub(crate) fn unreachable(&self, error: Error) -> Error {
        let brokers = &self.options().brokers;
        let what = match (error.kind, code_of(&error)) {
            (ErrorKind::Retry, _) => format!(
                "kafka at {brokers} cannot be reached: check --brokers, that it runs, and that it asks for no other \
                 -X security.protocol"
            ),
            (_, Some(code)) if failure::is_not_let_in(code) => format!(
                "kafka at {brokers} does not let this job in: check -X security.protocol, sasl.mechanisms, \
                 sasl.username and sasl.password"
            ),
            _ => return error,
        };
        Error::caused(error.kind, what, error)
    }
}

fn client(kept: &Mutex<Option<Arc<Client>>>, settings: &Settings, describe: &str) -> Result<Arc<Client>, Error> {
    let mut kept = kept
        .lock()
        .map_err(|_| Error::new(ErrorKind::Bug, format!("take the client for {describe}: a thread panicked")))?;
    if let Some(client) = &*kept {
        return Ok(client.clone());
    }
    let client = Arc::new(Client::new(Role::Consumer, settings, describe)?);
    *kept = Some(client.clone());
    Ok(client)
}

/// Whether the cluster said that there is no such topic.
fn is_unknown_topic(error: &Error) -> bool {
    matches!(code_of(error), Some(Code::UnknownTopic | Code::UnknownTopicOrPartition))
}

/// What librdkafka or the cluster called the error.
fn code_of(error: &Error) -> Option<Code> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref::<Code>()).copied()
}
