//! The transaction coordinator: who may write under a transactional id, and what its open transaction has touched.
//!
//! Guarantees that of all producers with one transactional id only the newest can write or end a transaction, and that a
//! transaction ends once. A transaction ends in one step here, so there is no `CONCURRENT_TRANSACTIONS` and no prepared
//! state; in all else it follows Kafka's first transaction protocol (not KIP-890's second part). It holds no records and
//! no offsets: it says where the end must be written ([`Ending`]), and the state's owner writes it under the same lock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use uuid::Uuid;

/// A producer's id and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// All transactional ids, and the last producer id that was given out.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    by_id: BTreeMap<String, Transaction>,
    owners: HashMap<i64, String>,
    next_producer_id: i64,
}

#[derive(Debug)]
struct Transaction {
    producer: Producer,
    /// The producer before the last change of epoch, whose repeated request is answered as the first was.
    previous: Option<Producer>,
    timeout: Duration,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// None was open under this producer.
    Empty,
    Ongoing(Ongoing),
    /// The last one was committed or aborted: the same request again is answered as the first was.
    Ended {
        committed: bool,
    },
}

#[derive(Debug)]
struct Ongoing {
    deadline: Instant,
    partitions: BTreeSet<(Uuid, i32)>,
    groups: BTreeSet<String>,
}

/// The end of a transaction, to be written where it says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// The markers' producer and epoch.
    pub(crate) producer: Producer,
    pub(crate) committed: bool,
    pub(crate) partitions: BTreeSet<(Uuid, i32)>,
    /// The groups that have offsets of this transaction.
    pub(crate) groups: BTreeSet<String>,
}

impl Transactions {
    /// A producer that is idempotent only.
    pub(crate) fn new_producer(&mut self) -> Producer {
        let id = self.next_producer_id;
        self.next_producer_id += 1;
        Producer { id, epoch: 0 }
    }

    /// Gives the transactional id to a new producer, and fences the older ones. `expected` is what the caller believes
    /// to be, when it only wants a higher epoch. The ending of a transaction that was open must be written at once.
    ///
    /// # Errors
    ///
    /// `PRODUCER_FENCED` when the caller is not what it believes to be.
    pub(crate) fn init(
        &mut self,
        id: &str,
        timeout: Duration,
        expected: Option<Producer>,
    ) -> Result<(Producer, Option<Ending>), ResponseError> {
        let Some(transaction) = self.by_id.get_mut(id) else {
            let producer = self.new_producer();
            self.owners.insert(producer.id, id.to_owned());
            let transaction = Transaction { producer, previous: None, timeout, phase: Phase::Empty };
            self.by_id.insert(id.to_owned(), transaction);
            return Ok((producer, None));
        };
        if let Some(expected) = expected
            && expected != transaction.producer
        {
            let repeated = transaction.previous == Some(expected) && !matches!(transaction.phase, Phase::Ongoing(_));
            return if repeated { Ok((transaction.producer, None)) } else { Err(ResponseError::ProducerFenced) };
        }
        transaction.timeout = timeout;
        transaction.previous = expected;
        let ending = transaction.fence();
        if transaction.producer.epoch == i16::MAX {
            let next = Producer { id: self.next_producer_id, epoch: 0 };
            self.next_producer_id += 1;
            self.owners.insert(next.id, id.to_owned());
            transaction.producer = next;
        }
        transaction.phase = Phase::Empty;
        Ok((transaction.producer, ending))
    }

    /// Adds partitions to the producer's transaction, which begins with this if it has not yet.
    ///
    /// # Errors
    ///
    /// `INVALID_PRODUCER_ID_MAPPING` or `PRODUCER_FENCED`.
    pub(crate) fn add_partitions(
        &mut self,
        id: &str,
        producer: Producer,
        partitions: impl IntoIterator<Item = (Uuid, i32)>,
        now: Instant,
    ) -> Result<Instant, ResponseError> {
        let ongoing = self.owned(id, producer)?.ongoing(now);
        ongoing.partitions.extend(partitions);
        Ok(ongoing.deadline)
    }

    /// Adds a consumer group to the producer's transaction.
    ///
    /// # Errors
    ///
    /// As [`add_partitions`](Self::add_partitions).
    pub(crate) fn add_group(
        &mut self,
        id: &str,
        producer: Producer,
        group: &str,
        now: Instant,
    ) -> Result<Instant, ResponseError> {
        let ongoing = self.owned(id, producer)?.ongoing(now);
        ongoing.groups.insert(group.to_owned());
        Ok(ongoing.deadline)
    }

    /// Whether the producer may write to the partition in its transaction.
    ///
    /// # Errors
    ///
    /// `INVALID_PRODUCER_ID_MAPPING`, `INVALID_PRODUCER_EPOCH`, or `INVALID_TXN_STATE` when it did not add the partition.
    pub(crate) fn check_write(&self, producer: Producer, partition: (Uuid, i32)) -> Result<(), ResponseError> {
        let ongoing = self.writing(producer)?;
        if ongoing.partitions.contains(&partition) { Ok(()) } else { Err(ResponseError::InvalidTxnState) }
    }

    /// Whether the producer may commit offsets of the group in its transaction.
    ///
    /// # Errors
    ///
    /// As [`check_write`](Self::check_write).
    pub(crate) fn check_offsets(&self, producer: Producer, group: &str) -> Result<(), ResponseError> {
        let ongoing = self.writing(producer)?;
        if ongoing.groups.contains(group) { Ok(()) } else { Err(ResponseError::InvalidTxnState) }
    }

    fn writing(&self, producer: Producer) -> Result<&Ongoing, ResponseError> {
        let owner = self.owners.get(&producer.id).ok_or(ResponseError::InvalidProducerIdMapping)?;
        let transaction = self.by_id.get(owner).ok_or(ResponseError::InvalidProducerIdMapping)?;
        if transaction.producer != producer {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        match &transaction.phase {
            Phase::Ongoing(ongoing) => Ok(ongoing),
            _ => Err(ResponseError::InvalidTxnState),
        }
    }

    /// Ends the producer's transaction. `None`: it had ended so before.
    ///
    /// # Errors
    ///
    /// `INVALID_PRODUCER_ID_MAPPING`, `PRODUCER_FENCED`, or `INVALID_TXN_STATE` when none is open or it ended otherwise.
    pub(crate) fn end(&mut self, id: &str, producer: Producer, commit: bool) -> Result<Option<Ending>, ResponseError> {
        let transaction = self.owned(id, producer)?;
        match transaction.phase {
            Phase::Ongoing(_) => Ok(transaction.finish(commit)),
            Phase::Ended { committed } if committed == commit => Ok(None),
            _ => Err(ResponseError::InvalidTxnState),
        }
    }

    /// Fences the producers whose transactions have been open too long: their endings, and the next deadline.
    pub(crate) fn expire(&mut self, now: Instant) -> (Vec<(String, Ending)>, Option<Instant>) {
        let mut endings = Vec::new();
        let mut next: Option<Instant> = None;
        for (id, transaction) in &mut self.by_id {
            let Phase::Ongoing(ongoing) = &transaction.phase else { continue };
            if ongoing.deadline <= now {
                endings.extend(transaction.fence().map(|ending| (id.clone(), ending)));
            } else {
                next = Some(next.map_or(ongoing.deadline, |n| n.min(ongoing.deadline)));
            }
        }
        (endings, next)
    }

    fn owned(&mut self, id: &str, producer: Producer) -> Result<&mut Transaction, ResponseError> {
        let transaction = self.by_id.get_mut(id).ok_or(ResponseError::InvalidProducerIdMapping)?;
        if transaction.producer.id != producer.id {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        if transaction.producer.epoch != producer.epoch {
            return Err(ResponseError::ProducerFenced);
        }
        Ok(transaction)
    }
}

impl Transaction {
    fn ongoing(&mut self, now: Instant) -> &mut Ongoing {
        if !matches!(self.phase, Phase::Ongoing(_)) {
            self.phase = Phase::Ongoing(Ongoing {
                deadline: now + self.timeout,
                partitions: BTreeSet::new(),
                groups: BTreeSet::new(),
            });
        }
        match &mut self.phase {
            Phase::Ongoing(ongoing) => ongoing,
            _ => unreachable!("it was just made ongoing"),
        }
    }

    /// Raises the epoch, and aborts what is open with the raised one, so that no partition takes the older one again.
    fn fence(&mut self) -> Option<Ending> {
        self.producer.epoch = self.producer.epoch.saturating_add(1);
        self.finish(false)
    }

    fn finish(&mut self, committed: bool) -> Option<Ending> {
        match std::mem::replace(&mut self.phase, Phase::Ended { committed }) {
            Phase::Ongoing(ongoing) => Some(Ending {
                producer: self.producer,
                committed,
                partitions: ongoing.partitions,
                groups: ongoing.groups,
            }),
            other => {
                self.phase = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
