//! A simulated transactor: a producer that writes a transaction request by request.

use std::collections::{BTreeSet, VecDeque};

use fluvial_connector::{Offset, Position, Transaction};

use super::kafka::{Body, Id, Kafka, Partition, Producer, Refusal};
use super::{OUTPUT_PARTITIONS, PROGRESS_PARTITIONS};
use crate::Failure;
use crate::rules::{Rule, Rules};

/// One of a worker's writers.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) producer: Option<Producer>,
    /// The producer that was dropped, for a client that would go on with it.
    pub(super) old: Option<Producer>,
    work: Option<Work>,
}

struct Work {
    transaction: Transaction,
    steps: VecDeque<Step>,
    added: BTreeSet<Partition>,
    /// The offsets of each write's records, as far as they are written.
    offsets: Vec<Vec<u64>>,
}

#[derive(Clone, Copy)]
enum Step {
    Add(Partition),
    Touch,
    Records { write: usize, from: usize, to: usize },
    Progress,
}

impl Turn {
    /// Whether it has never had a producer.
    pub(super) fn is_new(&self) -> bool {
        self.producer.is_none() && self.old.is_none()
    }

    /// Drops the producer.
    pub(super) fn drop_producer(&mut self) {
        *self = Self { old: self.producer.take(), ..Self::default() };
    }

    /// Plans the requests of a transaction.
    pub(super) fn begin(&mut self, transaction: Transaction, rules: Rules) {
        let progress = progress_partition(transaction.slot);
        let mut steps = VecDeque::new();
        if transaction.writes.iter().any(|write| !write.records.is_empty()) {
            steps.extend([Step::Add(progress), Step::Touch]);
        }
        if !rules.has(Rule::ProgressAfterRecords) {
            steps.extend([Step::Add(progress), Step::Progress]);
        }
        for (write, content) in transaction.writes.iter().enumerate().filter(|(_, write)| !write.records.is_empty()) {
            let (records, half) = (content.records.len(), content.records.len().div_ceil(2));
            steps.push_back(Step::Add(content.at.partition as usize));
            steps.push_back(Step::Records { write, from: 0, to: half });
            if half < records {
                steps.push_back(Step::Records { write, from: half, to: records });
            }
        }
        if rules.has(Rule::ProgressAfterRecords) {
            steps.extend([Step::Add(progress), Step::Progress]);
        }
        let offsets = vec![Vec::new(); transaction.writes.len()];
        self.work = Some(Work { transaction, steps, added: BTreeSet::new(), offsets });
    }

    /// Makes the next request; `None` while there are more to make.
    pub(super) fn step(&mut self, id: Id, kafka: &mut Kafka, now: u64) -> Option<Result<Vec<Offset>, Failure>> {
        let (Some(work), Some(producer)) = (&mut self.work, self.producer) else {
            return Some(Err(Failure::Unknown(String::new())));
        };
        let Some(step) = work.steps.front().copied() else {
            let writes = work.transaction.writes.iter().enumerate();
            let ends = writes.map(|(write, content)| content.progress_at(|index| work.end_of(write, index, kafka)).end);
            let ends = ends.collect();
            self.work = None;
            return Some(Ok(ends));
        };
        let slot = work.transaction.slot;
        let result = match step {
            // A client adds a partition once in a transaction.
            Step::Add(partition) if work.added.contains(&partition) => Ok(()),
            Step::Add(partition) => kafka.add(id, producer, partition, now).map(|()| {
                work.added.insert(partition);
            }),
            Step::Touch => kafka.produce(id, producer, progress_partition(slot), vec![Body::Touch]).map(drop),
            Step::Records { write, from, to } => {
                let content = &work.transaction.writes[write];
                let records = content.records.iter().skip(from).take(to - from);
                let bodies = records.map(|record| Body::Record(record.to_record())).collect();
                kafka.produce(id, producer, content.at.partition as usize, bodies).map(|first| {
                    work.offsets[write].extend((first.0..).take(to - from));
                })
            }
            Step::Progress => {
                let bodies = (0..work.offsets.len()).map(|write| work.progress(write, kafka)).collect();
                kafka.produce(id, producer, progress_partition(slot), bodies).map(drop)
            }
        };
        match result {
            Ok(()) => {
                work.steps.pop_front();
                None
            }
            Err(Refusal::Busy) => None,
            Err(Refusal::Fenced) => Some(Err(Failure::Fenced(String::new()))),
            Err(Refusal::Invalid) => Some(Err(self.fail())),
        }
    }

    /// Gives the transaction up.
    pub(super) fn fail(&mut self) -> Failure {
        self.work = None;
        Failure::Unknown(String::new())
    }
}

impl Work {
    fn end_of(&self, write: usize, index: usize, kafka: &Kafka) -> Offset {
        let partition = self.transaction.writes[write].at.partition as usize;
        Offset(match self.offsets[write].get(index) {
            Some(offset) => offset + 1,
            // Progress before its records can only guess.
            None => (kafka.end(partition) + index) as u64 + 1,
        })
    }

    fn progress(&self, write: usize, kafka: &Kafka) -> Body {
        let content = &self.transaction.writes[write];
        let progress = content.progress_at(|index| self.end_of(write, index, kafka));
        debug_assert!(progress.position != Position::Records(0), "a part of nothing");
        Body::Progress(content.at.clone(), progress)
    }
}

/// Where a slot's progress goes.
fn progress_partition(slot: u32) -> Partition {
    OUTPUT_PARTITIONS + slot as usize % PROGRESS_PARTITIONS
}
