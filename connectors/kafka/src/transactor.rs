//! One transaction after the other: records, their reports, progress, its reports, commit.
//!
//! ```text
//!   begin ─► touch the progress partition ─► records ─► reports: offsets ─► progress ─► reports │ commit
//!     └──────────────────── no request may end without an answer ─────────────────────────────────┘
//! ```
//!
//! **Guarantee.** A commit that returns well is committed, and no request of it is still on its way. librdkafka sends
//! again what was lost; that heals a connection and not a transaction (see `Watch`), so a transactor that has lost a
//! request is of no further use, whatever became of the request.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fluvial_connector::{
    CommitError, Error, ErrorKind, Offset, PartitionWrite, SinkContext, Transaction, Transactor, Wait,
};

use crate::failure;
use crate::flight::Flight;
use crate::native::{Code, Failed, Message, Producer, TransactionError};
use crate::permission::{Resource, is_denied};
use crate::progress::{self, touch_key};
use crate::refusal::Refusals;

/// How long one blocking call may last before the fate of the requests is looked at.
const SLICE: Duration = Duration::from_millis(250);

/// How long records may stay unacknowledged before the cluster is asked why, and asked again.
const ASK_WHY: Duration = Duration::from_secs(4);

/// How long to wait for the report of the message that a transaction failed of.
const REPORTS_OF_A_FAILURE: Duration = Duration::from_secs(2);

/// The header that tells a record's tick, in decimal digits.
const TICK_HEADER: &std::ffi::CStr = c"fluvial-tick";

/// How many bytes that header takes in a record: its name and value, each with its length, of up to 20 digits.
pub(crate) const TICK_HEADER_BYTES: usize = 1 + 12 + 1 + 20;

/// A transactional producer of one id.
pub(crate) struct KafkaTransactor {
    producer: Producer,
    id: String,
    refusals: Refusals,
    progress_partitions: u32,
    context: SinkContext,
    /// How many requests had been lost when the transaction that is prepared began.
    prepared: Option<u64>,
}

impl KafkaTransactor {
    pub(crate) fn new(
        producer: Producer,
        id: String,
        refusals: Refusals,
        progress_partitions: u32,
        context: &SinkContext,
    ) -> Self {
        let context = context.clone();
        Self { producer, id, refusals, progress_partitions, context, prepared: None }
    }

    fn what(&self, doing: &str) -> String {
        format!("{doing} of kafka transactional id '{}'", self.id)
    }

    /// Fails if a request has ended without an answer since there were `lost` such.
    fn nothing_lost_since(&self, lost: u64, doing: &str) -> Result<(), CommitError> {
        if self.producer.client().watch().lost() == lost {
            return Ok(());
        }
        let why = self.producer.client().watch().last().map_or(String::new(), |reason| format!(": {reason}"));
        let what = format!("{}: a request got no answer{why}", self.what(doing));
        Err(CommitError::Unknown(Error::new(ErrorKind::Restart, what)))
    }

    /// Queues all messages of a group for one partition, serving reports while librdkafka's queue is full.
    fn send<'a>(
        &mut self,
        group: usize,
        to: (&str, u32),
        mut messages: impl ExactSizeIterator<Item = Message<'a>> + Clone,
        flight: &mut Flight<'_>,
    ) -> Result<(), CommitError> {
        while messages.len() > 0 {
            let sent = self.producer.produce(to.0, to.1, messages.clone());
            let sent = sent.map_err(|(code, opaque)| self.refused(code, flight, group, opaque))?;
            flight.sent(group, sent);
            match sent.checked_sub(1) {
                Some(last) => drop(messages.nth(last)),
                None => self.make_room(flight)?,
            }
        }
        Ok(())
    }

    /// As [`KafkaTransactor::send`], with the tick of each record in a header and as its timestamp. That takes a call for
    /// each record: a batch's records have the time of the call.
    fn send_with_ticks(
        &mut self,
        write: &PartitionWrite,
        group: usize,
        flight: &mut Flight<'_>,
    ) -> Result<(), CommitError> {
        let to = (write.at.output.as_str(), write.at.partition);
        let mut records = write.records.iter().enumerate().peekable();
        // The last tick may be the part of one, which `ticks` need not end with.
        let ticks = write.ticks.iter().map(|tick| (tick.tick, tick.records));
        for (tick, through) in ticks.chain([(write.progress.tick, write.records.len())]) {
            let digits = tick.to_string();
            while let Some((index, record)) = records.peek().filter(|(index, _)| *index < through) {
                let opaque = Flight::opaque(group, *index);
                let message = Message { key: record.key, value: record.value, opaque };
                let header = (TICK_HEADER, digits.as_bytes());
                let sent = self.producer.produce_with_header(to.0, to.1, message, header, tick.0);
                if sent.map_err(|code| self.refused(code, flight, group, opaque))? {
                    flight.sent(group, 1);
                    records.next();
                } else {
                    self.make_room(flight)?;
                }
            }
        }
        Ok(())
    }

    /// Waits for reports, which make room in librdkafka's queue.
    fn make_room(&mut self, flight: &mut Flight<'_>) -> Result<(), CommitError> {
        self.producer.reports(SLICE, |report| flight.note(report));
        self.check(flight)
    }

    /// Why librdkafka took no message.
    fn refused(&self, code: Code, flight: &mut Flight<'_>, group: usize, opaque: usize) -> CommitError {
        if code == Code::State {
            // The transaction has failed since it began, and takes nothing more: what it failed of is what counts. It is
            // in the reports of earlier messages, or the transaction says it.
            self.producer.reports(Duration::ZERO, |report| flight.note(report));
            if let Some(cause) = self.check(flight).err().or_else(|| self.cause_of_failure(flight)) {
                return cause;
            }
        }
        match self.producer.fatal() {
            Some((code, reason)) => self.of_transaction(code, &reason, "write", flight.writes()),
            None => {
                let (write, index) = (flight.write(group), Flight::index(opaque));
                self.refusals.by_client(&self.what("write"), write, index, code)
            }
        }
    }

    /// Waits for all reports.
    fn settle(&mut self, flight: &mut Flight<'_>, wait: &Wait) -> Result<(), CommitError> {
        let mut pending = flight.pending;
        let mut quiet_since = Instant::now();
        while flight.pending > 0 {
            self.producer.reports(SLICE, |report| flight.note(report));
            self.check(flight)?;
            if flight.pending != pending {
                (pending, quiet_since) = (flight.pending, Instant::now());
            } else if quiet_since.elapsed() >= ASK_WHY {
                self.ask_why(flight, wait)?;
                quiet_since = Instant::now();
            }
        }
        Ok(())
    }

    /// Asks the cluster about the topics whose records it does not acknowledge: librdkafka waits for one that may not be
    /// written any more as for one that has no leader.
    fn ask_why(&self, flight: &Flight<'_>, wait: &Wait) -> Result<(), CommitError> {
        let mut said = format!("{}: {}", self.what("write"), flight.unacknowledged());
        let topics = flight.pending_groups().map(|group| match flight.write(group) {
            Some(write) => write.at.output.as_str(),
            None => self.refusals.progress_topic.as_str(),
        });
        // A producer that asks for a topic that is gone could make it: another client asks.
        if let Ok(questions) = self.refusals.kafka.questions() {
            for topic in topics.collect::<BTreeSet<_>>() {
                match questions.are_available(&[topic], 1000) {
                    Ok(()) => {}
                    Err(Failed::Code(code)) if is_denied(code) => {
                        return Err(self.refusals.denied(&self.what("write"), "Write", &Resource::topic(topic)));
                    }
                    Err(Failed::Code(code)) => said = format!("{said}; the cluster says of topic '{topic}': {code}"),
                    Err(Failed::Unavailable { why, .. }) => said = format!("{said}; {why}"),
                    Err(Failed::Missing(object)) => said = format!("{said}; {object} is not known to the cluster"),
                }
            }
        }
        if let Some(reason) = self.producer.client().watch().last() {
            said = format!("{said}; the client's last error: {reason}");
        }
        wait.says(said);
        Ok(())
    }

    /// Fails if the messages under way cannot all arrive any more.
    fn check(&self, flight: &mut Flight<'_>) -> Result<(), CommitError> {
        match &flight.failed {
            Some(failed) if failed.is_consequence() => {
                let code = failed.code;
                let unexplained = || failure::commit(code, self.what("write"));
                return Err(self.cause_of_failure(flight).unwrap_or_else(unexplained));
            }
            Some(failed) => {
                return Err(match self.producer.fatal() {
                    Some((code, reason)) => self.of_transaction(code, &reason, "write", flight.writes()),
                    None => {
                        self.refusals.by_broker(&self.what("write"), flight, failed, self.producer.client().watch())
                    }
                });
            }
            None => {}
        }
        self.nothing_lost_since(flight.lost, "write")?;
        if let Some((code, reason)) = self.producer.fatal() {
            return Err(self.of_transaction(code, &reason, "write", flight.writes()));
        }
        if flight.pending > 0 && Instant::now() >= flight.deadline {
            let what = format!("{}: {}", self.what("write"), flight.unacknowledged());
            return Err(failure::commit(Code::MessageTimedOut, what));
        }
        Ok(())
    }

    /// Why messages were dropped or are not taken: the transaction failed. The message that it failed of may be
    /// reported after those that were dropped for it; otherwise the transaction says why when it is asked for its
    /// commit. Only to be called where it has failed: one that has not would begin to commit.
    fn cause_of_failure(&self, flight: &mut Flight<'_>) -> Option<CommitError> {
        let until = Instant::now() + REPORTS_OF_A_FAILURE;
        let known = |flight: &Flight<'_>| flight.failed.clone().filter(|failed| !failed.is_consequence());
        while known(flight).is_none() && flight.pending > 0 && Instant::now() < until {
            self.producer.reports(SLICE, |report| flight.note(report));
        }
        if let Some((code, reason)) = self.producer.fatal() {
            return Some(self.of_transaction(code, &reason, "write", flight.writes()));
        }
        if let Some(failed) = known(flight) {
            let watch = self.producer.client().watch();
            return Some(self.refusals.by_broker(&self.what("write"), flight, &failed, watch));
        }
        let TransactionError { code, reason, .. } = self.producer.commit(1).err()?;
        Some(self.of_transaction(code, &reason, "write", flight.writes()))
    }

    /// What a failed step of the transaction with these writes means.
    fn of_transaction(&self, code: Code, reason: &str, doing: &str, writes: &[PartitionWrite]) -> CommitError {
        let what = self.what(doing);
        let (operation, resource) = match code {
            Code::TopicAuthorizationFailed => {
                let named = self.producer.client().watch().denied_topics();
                let all = writes.iter().map(|write| write.at.output.clone()).collect::<BTreeSet<_>>();
                let all = || all.into_iter().chain([self.refusals.progress_topic.clone()]).collect();
                ("Write", Resource::Topics(if named.is_empty() { all() } else { named }))
            }
            Code::TransactionalIdAuthorizationFailed => {
                let (id, job) = (self.id.clone(), self.context.process.job.clone());
                ("Write", Resource::TransactionalId { id, job })
            }
            Code::ClusterAuthorizationFailed => ("IdempotentWrite", Resource::Cluster),
            Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => {
                return self.refusals.some_batch_is_too_large(&format!("{what}: {reason}"), writes);
            }
            code => return failure::commit(code, format!("{what}: {reason}")),
        };
        self.refusals.denied(&what, operation, &resource)
    }
}

impl Transactor for KafkaTransactor {
    fn prepare(&mut self, transaction: &Transaction) -> Result<Vec<Offset>, CommitError> {
        let lost = self.producer.client().watch().lost();
        let began = Instant::now();
        let wait = self.context.waits.begin(format!("{}: records that are not acknowledged", self.what("write")));
        let begun = self.producer.begin();
        begun.map_err(|failed| self.of_transaction(failed.code, &failed.reason, "begin", &transaction.writes))?;
        let mut flight = Flight::new(&transaction.writes, lost, Instant::now() + self.context.patience);

        let topic = self.refusals.progress_topic.clone();
        let progress_to = (topic.as_str(), transaction.slot % self.progress_partitions);
        let (touch, touched) = (touch_key(transaction.slot), Flight::opaque(Flight::OTHER, 0));
        if transaction.writes.iter().any(|write| !write.records.is_empty()) {
            let touch = [Message { key: &touch, value: None, opaque: touched }];
            self.send(Flight::OTHER, progress_to, touch.into_iter(), &mut flight)?;
        }
        for (group, write) in transaction.writes.iter().enumerate() {
            if self.refusals.has_tick_headers() {
                self.send_with_ticks(write, group, &mut flight)?;
                continue;
            }
            let mut before = 0;
            for part in write.records.parts() {
                let len = part.len();
                let messages = part.enumerate().map(|(index, record)| Message {
                    key: record.key,
                    value: record.value,
                    opaque: Flight::opaque(group, before + index),
                });
                self.send(group, (&write.at.output, write.at.partition), messages, &mut flight)?;
                before += len;
            }
        }
        let handed = Instant::now();
        self.settle(&mut flight, &wait)?;
        let acknowledged = Instant::now();
        let us = |time: Duration| time.as_micros() as u64;
        // The fail point of the engine between data and progress is reached at this event, which it finds by its name.
        tracing::trace!(
            name: "acknowledged",
            target: "fluvial::stages",
            handed_us = us(handed - began),
            acknowledged_us = us(acknowledged - handed),
            "acknowledged"
        );
        let mut ends = Vec::with_capacity(transaction.writes.len());
        let mut entries = Vec::with_capacity(transaction.writes.len());
        for (write, offsets) in transaction.writes.iter().zip(&flight.groups) {
            let progress = write.progress_at(|index| offsets.end_of(index));
            ends.push(progress.end);
            entries.push((progress::encode_key(&write.at), progress::encode(progress)));
        }
        let messages = entries.iter().map(|(key, value)| Message { key, value: Some(value), opaque: touched });
        self.send(Flight::OTHER, progress_to, messages, &mut flight)?;
        self.settle(&mut flight, &wait)?;
        self.prepared = Some(lost);
        tracing::trace!(target: "fluvial::stages", progress_us = us(acknowledged.elapsed()), "written");
        Ok(ends)
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        let what = self.what("commit");
        let Some(lost) = self.prepared.take() else {
            return Err(CommitError::Unknown(Error::new(
                ErrorKind::Bug,
                format!("{what}: no transaction is prepared"),
            )));
        };
        let _wait = self.context.waits.begin(format!("{what}: the answer of the transaction's coordinator"));
        let deadline = Instant::now() + self.context.patience;
        let slice_ms = i32::try_from(SLICE.as_millis()).unwrap_or(i32::MAX);
        loop {
            let result = self.producer.commit(slice_ms);
            self.producer.client().note_errors();
            self.nothing_lost_since(lost, "commit")?;
            match result {
                Ok(()) => return Ok(()),
                Err(failed) if failed.retriable && !failed.fatal && Instant::now() < deadline => {}
                Err(failed) => return Err(self.of_transaction(failed.code, &failed.reason, "commit", &[])),
            }
        }
    }
}
