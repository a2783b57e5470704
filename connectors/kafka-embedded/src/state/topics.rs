//! The topics: their names, ids, partitions and settings.
//!
//! Guarantees that an id is never used twice, so that a topic deleted and recreated under its name can be told from the
//! first. There is one broker, hence one replica of everything.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::ResponseError;
use uuid::Uuid;

use super::log::Log;
use super::settings::Settings;
use super::waiters::{Reach, Waiters};
use crate::Refusal;

/// More partitions than this in one topic are a mistake in a test.
const MOST_PARTITIONS: i32 = 10_000;

/// All topics.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    by_name: BTreeMap<String, Topic>,
    names: HashMap<Uuid, String>,
}

/// A topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) settings: Settings,
}

/// A partition: its log and who waits for it.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    pub(crate) log: Log,
    pub(crate) waiters: Waiters,
    /// Whether it exists and nobody serves it: a fault that a test asks for.
    pub(crate) leaderless: bool,
}

impl Partition {
    /// Changes the log, and wakes the readers for whom that makes a difference.
    pub(crate) fn change<T>(&mut self, change: impl FnOnce(&mut Log) -> T) -> T {
        let before = Reach::of(&self.log);
        let result = change(&mut self.log);
        self.waiters.wake(before, &self.log);
        result
    }
}

/// A request's way to name a topic: by its name, or by its id in newer versions.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Named<'a> {
    /// Its name.
    Name(&'a str),
    /// Its id.
    Id(Uuid),
}

impl Named<'_> {
    /// What to answer when there is no such topic.
    pub(crate) fn unknown(self) -> ResponseError {
        match self {
            Named::Name(_) => ResponseError::UnknownTopicOrPartition,
            Named::Id(_) => ResponseError::UnknownTopicId,
        }
    }
}

impl Topics {
    /// All topics by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Topic)> {
        self.by_name.iter()
    }

    /// The name of a topic.
    pub(crate) fn name(&self, id: Uuid) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// A topic.
    pub(crate) fn get(&self, named: Named<'_>) -> Result<&Topic, ResponseError> {
        let name = self.resolve(named)?;
        self.by_name.get(name).ok_or(named.unknown())
    }

    /// A topic, to change it.
    pub(crate) fn get_mut(&mut self, named: Named<'_>) -> Result<&mut Topic, ResponseError> {
        let name = match named {
            Named::Name(name) => name,
            Named::Id(id) => self.names.get(&id).ok_or(named.unknown())?,
        };
        self.by_name.get_mut(name).ok_or(named.unknown())
    }

    fn resolve<'a>(&'a self, named: Named<'a>) -> Result<&'a str, ResponseError> {
        match named {
            Named::Name(name) => Ok(name),
            Named::Id(id) => self.name(id).ok_or(named.unknown()),
        }
    }

    /// A partition.
    pub(crate) fn partition(&self, topic: Named<'_>, partition: i32) -> Result<&Partition, ResponseError> {
        let index = usize::try_from(partition).map_err(|_| ResponseError::UnknownTopicOrPartition)?;
        self.get(topic)?.partitions.get(index).ok_or(ResponseError::UnknownTopicOrPartition)
    }

    /// A partition, as its leader serves it.
    ///
    /// # Errors
    ///
    /// As [`partition`](Self::partition), and `NOT_LEADER_OR_FOLLOWER` where it has none.
    pub(crate) fn served(&self, topic: Named<'_>, partition: i32) -> Result<&Partition, ResponseError> {
        let found = self.partition(topic, partition)?;
        if found.leaderless { Err(ResponseError::NotLeaderOrFollower) } else { Ok(found) }
    }

    /// A partition, to change it.
    pub(crate) fn partition_mut(&mut self, topic: Named<'_>, partition: i32) -> Result<&mut Partition, ResponseError> {
        let index = usize::try_from(partition).map_err(|_| ResponseError::UnknownTopicOrPartition)?;
        self.get_mut(topic)?.partitions.get_mut(index).ok_or(ResponseError::UnknownTopicOrPartition)
    }

    /// Checks that a topic could be made.
    ///
    /// # Errors
    ///
    /// `INVALID_TOPIC_EXCEPTION`, `TOPIC_ALREADY_EXISTS`, `INVALID_PARTITIONS` or `POLICY_VIOLATION`.
    pub(crate) fn check_new(&self, name: &str, partitions: i32) -> Result<(), Refusal> {
        check_name(name)?;
        if self.by_name.contains_key(name) {
            return Err(Refusal::new(ResponseError::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
        }
        if partitions < 1 {
            return Err(Refusal::new(
                ResponseError::InvalidPartitions,
                format!("Number of partitions was set to an invalid non-positive value: {partitions}."),
            ));
        }
        check_count(partitions)
    }

    /// Makes a topic, and gives its id.
    ///
    /// # Errors
    ///
    /// Those of [`check_new`](Self::check_new).
    pub(crate) fn create(&mut self, name: &str, partitions: i32, settings: Settings) -> Result<Uuid, Refusal> {
        self.check_new(name, partitions)?;
        let id = Uuid::new_v4();
        let partitions = (0..partitions).map(|_| Partition::default()).collect();
        self.by_name.insert(name.to_owned(), Topic { id, partitions, settings });
        self.names.insert(id, name.to_owned());
        Ok(id)
    }

    /// Deletes a topic, and gives the memory that it took.
    pub(crate) fn delete(&mut self, name: &str) -> Result<usize, ResponseError> {
        let mut topic = self.by_name.remove(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
        self.names.remove(&topic.id);
        topic.partitions.iter_mut().for_each(|p| p.waiters.wake_all());
        Ok(topic.partitions.iter().map(|p| p.log.bytes()).sum())
    }

    /// Gives a topic more partitions.
    ///
    /// # Errors
    ///
    /// `UNKNOWN_TOPIC_OR_PARTITION`; `INVALID_PARTITIONS` when there would not be more.
    pub(crate) fn grow(&mut self, name: &str, count: i32, only_check: bool) -> Result<(), Refusal> {
        let topic = self
            .get_mut(Named::Name(name))
            .map_err(|error| Refusal::new(error, format!("The topic '{name}' does not exist.")))?;
        let now = topic.partitions.len();
        if usize::try_from(count).is_ok_and(|count| count > now) {
            check_count(count)?;
            if !only_check {
                topic.partitions.resize_with(count as usize, Partition::default);
            }
            return Ok(());
        }
        let why = format!("The topic {name} currently has {now} partition(s); {count} would not be an increase.");
        Err(Refusal::new(ResponseError::InvalidPartitions, why))
    }
}

fn check_count(partitions: i32) -> Result<(), Refusal> {
    if partitions <= MOST_PARTITIONS {
        return Ok(());
    }
    let why = format!("This embedded broker takes at most {MOST_PARTITIONS} partitions a topic.");
    Err(Refusal::new(ResponseError::PolicyViolation, why))
}

/// Checks a topic's name by Kafka's rules.
pub(crate) fn check_name(name: &str) -> Result<(), Refusal> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let why = match name {
        "" => "the empty string is not allowed".to_owned(),
        "." | ".." => format!("'{name}' is not allowed"),
        _ if name.len() > 249 => "the length must not be above 249".to_owned(),
        _ if !name.chars().all(legal) => {
            format!("'{name}' contains other characters than ASCII alphanumerics, '.', '_' and '-'")
        }
        _ => return Ok(()),
    };
    Err(Refusal::new(ResponseError::InvalidTopicException, format!("Topic name is invalid: {why}.")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn error(result: Result<impl std::fmt::Debug, Refusal>) -> ResponseError {
        result.unwrap_err().error
    }

    #[test]
    fn a_recreated_topic_has_another_id() {
        let mut topics = Topics::default();
        let first = topics.create("t", 1, Settings::default()).unwrap();
        assert_eq!(error(topics.create("t", 1, Settings::default())), ResponseError::TopicAlreadyExists);
        topics.delete("t").unwrap();
        let second = topics.create("t", 1, Settings::default()).unwrap();
        assert_ne!(first, second);
        assert!(topics.get(Named::Id(second)).is_ok());
        assert_eq!(topics.get(Named::Id(first)).unwrap_err(), ResponseError::UnknownTopicId);
    }

    #[test]
    fn wrong_names_and_counts_are_refused() {
        let mut topics = Topics::default();
        for name in ["", ".", "a b", "ü", &"x".repeat(250)] {
            assert_eq!(error(topics.create(name, 1, Settings::default())), ResponseError::InvalidTopicException);
        }
        assert_eq!(error(topics.create("t", 0, Settings::default())), ResponseError::InvalidPartitions);
        assert_eq!(error(topics.create("t", i32::MAX, Settings::default())), ResponseError::PolicyViolation);
    }

    #[test]
    fn partitions_only_grow() {
        let mut topics = Topics::default();
        topics.create("t", 2, Settings::default()).unwrap();
        assert_eq!(error(topics.grow("t", 2, false)), ResponseError::InvalidPartitions);
        topics.grow("t", 5, true).unwrap();
        assert_eq!(topics.get(Named::Name("t")).unwrap().partitions.len(), 2);
        topics.grow("t", 5, false).unwrap();
        assert_eq!(topics.get(Named::Name("t")).unwrap().partitions.len(), 5);
        assert_eq!(error(topics.grow("u", 5, false)), ResponseError::UnknownTopicOrPartition);
    }
}
