//! What every sink does.
//!
//! | contract of [`Output`](crate::Output) and [`Sink`](crate::Sink) | check |
//! | --- | --- |
//! | `partition_of`: less than the number of partitions, and always the same for a key | [`every_key_has_its_partition`] |
//! | `identity`: sinks of one system have one identity | [`sinks_of_one_system_have_one_identity`] |
//! | `connect`: creates what is missing | [`connecting_creates_what_is_missing`] |
//! | `look`: creates nothing, and says what would be created | [`looking_creates_nothing`] |
//! | `connect`: what is there stays | [`a_reopened_sink_has_everything_that_was_committed`] |
//! | [`SinkContext::process`]: progress is kept under the job's name | [`jobs_do_not_share_progress`], [`the_processes_of_a_job_share_its_progress`] |
//! | [`SinkContext::waits`]: what calls wait for, while they do | [`a_call_that_returned_waits_for_nothing`] |
//! | [`Source::as_output`](crate::Source::as_output): the identity of the sink, and the name | [`an_output_that_is_read_as_an_input_names_its_sink`] |
//!
//! | contract of [`SinkSession`] | check |
//! | --- | --- |
//! | several threads may call at once | [`several_threads_share_a_session`] |
//! | `status`: what outputs and progress are now; identities | [`an_output_that_is_recreated_has_another_identity`] |
//! | `writers`: other jobs, as far as the system tells | [`other_jobs_that_write_an_output_are_named`] |
//! | `fence`: aborts what an earlier writer of that id left open | [`fencing_aborts_what_was_left_open`] |
//! | `fence`: every later call of an earlier writer fails | [`a_fenced_writer_can_neither_prepare_nor_commit`], [`fencing_reaches_other_sessions_and_threads`] |
//! | `fence`: of that id alone | [`fencing_leaves_other_writers_alone`] |
//! | `progress`: what was committed before is seen while other transactions are open, within the patience | [`progress_is_seen_while_another_transaction_is_open`] |
//! | `progress`: of each partition, whichever writer wrote it | [`the_newest_progress_wins_whichever_writer_wrote_it`] |
//! | `read_all_committed`: what was committed before is seen, within the patience | [`records_are_seen_behind_an_open_transaction`] |
//! | `read_all_committed`: several partitions, each from its offset, in the order that was asked for | [`several_partitions_are_read_side_by_side`] |
//! | `read_all_committed`: from any offset | [`an_output_can_be_read_from_any_offset`] |
//! | [`ReadEnd`](crate::ReadEnd): an aborted record before the offset is told, or that records are lost | [`an_aborted_record_before_the_offset_is_told`] |
//! | `end`: every earlier record has a smaller offset, and no later one | [`the_end_is_between_earlier_and_later_records`] |
//!
//! | contract of [`Transactor`] | check |
//! | --- | --- |
//! | `prepare`: nothing is visible before the commit | [`what_is_prepared_is_invisible`] |
//! | `prepare` and `commit`: records and progress in one step | [`records_and_progress_are_committed_in_one_step`], [`an_observer_never_sees_one_without_the_other`] |
//! | `prepare`: the end of each partition, in the order of the writes | [`ends_come_in_the_order_of_the_writes`] |
//! | records are kept as they are: deletions, empty and binary keys and values | [`every_record_is_read_back_as_it_was_written`] |
//! | records stay in order; transactions may be large | [`many_records_keep_their_order`] |
//! | [`Progress`]: everything that the write says, and where each tick ended | [`progress_says_what_was_written`] |
//! | [`Position`](crate::Position): how much of a tick is committed | [`a_tick_may_be_committed_in_parts`] |
//! | [`PartitionWrite`]: progress without records | [`progress_may_come_without_records`] |
//! | [`PartitionWrite::progress_at`]: the ticks that the write brings along come before those of its own records | [`earlier_ticks_come_first`] |
//! | [`WriterId::turn`]: writers of a process take turns | [`writers_take_turns`] |
//! | dropped with an open transaction: does not wait | [`a_writer_that_is_dropped_is_gone_at_once`] |
//! | a crash at any step leaves all of a transaction or nothing | [`a_crash_leaves_all_of_a_transaction_or_nothing`] |
//!
//! Offsets are compared and passed back, and nothing is computed from them: a sink's offsets may grow by any steps.
//! [`SinkSession::warnings`] is for people, and a connector tests it itself.

mod commit;
mod content;
mod fencing;
mod reading;
mod system;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{Check, Report, SinkSubject, checks, in_time, run_all};
use crate::{
    Digest, Error, ErrorKind, Generation, Incarnation, JobProcess, Offset, OutputPartition, OutputRecord,
    PartitionWrite, Progress, Record, SinkContext, SinkSession, Tick, TickCount, Transaction, Transactor, WriterId,
};

pub use commit::*;
pub use content::*;
pub use fencing::*;
pub use reading::*;
pub use system::*;

/// Makes every check, each with a subject of its own.
///
/// # Panics
/// Checks failed; the message lists them.
pub fn all<S: SinkSubject>(fresh: impl FnMut() -> S) -> Report {
    run_all(&checks(), fresh)
}

/// The checks one by one.
#[must_use]
pub fn checks<S: SinkSubject>() -> Vec<Check<S>> {
    checks![
        every_key_has_its_partition
        sinks_of_one_system_have_one_identity
        connecting_creates_what_is_missing
        looking_creates_nothing
        a_reopened_sink_has_everything_that_was_committed
        jobs_do_not_share_progress
        the_processes_of_a_job_share_its_progress
        a_call_that_returned_waits_for_nothing
        an_output_that_is_read_as_an_input_names_its_sink
        several_threads_share_a_session
        an_output_that_is_recreated_has_another_identity
        other_jobs_that_write_an_output_are_named
        fencing_aborts_what_was_left_open
        a_fenced_writer_can_neither_prepare_nor_commit
        fencing_reaches_other_sessions_and_threads
        fencing_leaves_other_writers_alone
        progress_is_seen_while_another_transaction_is_open
        the_newest_progress_wins_whichever_writer_wrote_it
        records_are_seen_behind_an_open_transaction
        several_partitions_are_read_side_by_side
        an_output_can_be_read_from_any_offset
        an_aborted_record_before_the_offset_is_told
        the_end_is_between_earlier_and_later_records
        what_is_prepared_is_invisible
        records_and_progress_are_committed_in_one_step
        an_observer_never_sees_one_without_the_other
        ends_come_in_the_order_of_the_writes
        every_record_is_read_back_as_it_was_written
        many_records_keep_their_order
        progress_says_what_was_written
        a_tick_may_be_committed_in_parts
        progress_may_come_without_records
        earlier_ticks_come_first
        writers_take_turns
        a_writer_that_is_dropped_is_gone_at_once
        a_crash_leaves_all_of_a_transaction_or_nothing
    ]
}

/// How long a session waits in the checks in which a wait may come to its end.
const SHORT: Duration = Duration::from_secs(2);

/// A job with a session of its own.
#[derive(Clone)]
struct Job {
    session: Arc<dyn SinkSession>,
    /// Every partition; the first partitions of both outputs come first.
    places: Vec<OutputPartition>,
    outputs: [String; 2],
    incarnation: Incarnation,
    patience: Duration,
}

/// A session of the subject's job, which nothing of another session is shared with.
fn connect<S: SinkSubject>(subject: &S, context: &SinkContext) -> (Arc<dyn SinkSession>, [String; 2]) {
    let outputs = subject.outputs();
    let specs = outputs.each_ref().map(|output| output.spec());
    let session = outputs[0].sink().connect(context, &specs).expect("the sink can be connected to");
    (session, specs.map(|spec| spec.name))
}

impl Job {
    fn of<S: SinkSubject>(subject: &S) -> Self {
        Self::with(subject, &subject.context())
    }

    fn with<S: SinkSubject>(subject: &S, context: &SinkContext) -> Self {
        let (session, outputs) = connect(subject, context);
        let status = session.status().expect("the sink tells its status");
        let mut places = Vec::new();
        for output in &outputs {
            let of = status.outputs.get(output).unwrap_or_else(|| panic!("output '{output}' is missing in {status:?}"));
            assert!(of.partitions > 0, "output '{output}' has no partitions");
            places.extend((0..of.partitions).map(|partition| OutputPartition { output: output.clone(), partition }));
        }
        places.sort_by_key(|at| at.partition);
        let incarnation = Incarnation(Uuid::new_v4());
        Self { session, places, outputs, incarnation, patience: subject.context().patience }
    }

    /// The same job in another session, as after a restart.
    fn reopened<S: SinkSubject>(&self, subject: &S) -> Self {
        Self { incarnation: self.incarnation, ..Self::of(subject) }
    }

    /// The same job in another session that waits for a short time only.
    fn impatient<S: SinkSubject>(&self, subject: &S) -> Self {
        let context = SinkContext { patience: SHORT.min(self.patience / 2), ..subject.context() };
        Self { incarnation: self.incarnation, ..Self::with(subject, &context) }
    }

    fn id(&self, slot: u32, turn: u32) -> WriterId {
        WriterId { incarnation: self.incarnation, slot, turn }
    }

    fn fence(&self, slot: u32, turn: u32) -> Box<dyn Transactor> {
        self.session.fence(&self.id(slot, turn)).expect("a writer can be created")
    }

    /// A partition; different numbers up to 1 are different partitions.
    fn at(&self, number: usize) -> OutputPartition {
        self.places[number].clone()
    }

    fn transaction(&self, slot: u32, writes: Vec<PartitionWrite>) -> Transaction {
        let of_job = |write: PartitionWrite| {
            let progress = Progress { incarnation: self.incarnation, ..write.progress };
            PartitionWrite { progress, ..write }
        };
        Transaction { slot, writes: writes.into_iter().map(of_job).collect() }
    }

    fn prepare(&self, writer: &mut Box<dyn Transactor>, writes: Vec<PartitionWrite>) -> Vec<Offset> {
        let count = writes.len();
        let ends = writer.prepare(&self.transaction(0, writes)).expect("a transaction can be prepared");
        assert_eq!(ends.len(), count, "each write has its end");
        ends
    }

    fn commit(&self, writer: &mut Box<dyn Transactor>, writes: Vec<PartitionWrite>) -> Vec<Offset> {
        let ends = self.prepare(writer, writes);
        writer.commit().expect("a prepared transaction can be committed");
        ends
    }

    fn try_read(&self, at: &OutputPartition, from: Offset) -> (Vec<(Offset, OutputRecord)>, Result<Offset, Error>) {
        let mut records = Vec::new();
        let end = self.session.read_committed(at, from, &mut |record| records.push(owned(record)));
        (records, end)
    }

    fn read(&self, at: &OutputPartition, from: Offset) -> Vec<(Offset, OutputRecord)> {
        let (records, end) = self.try_read(at, from);
        let end = end.expect("an output can be read back");
        for pair in records.windows(2) {
            assert!(pair[0].0 < pair[1].0, "in {at} offset {} comes before {}", pair[0].0, pair[1].0);
        }
        if let (Some((first, _)), Some((last, _))) = (records.first(), records.last()) {
            assert!(from <= *first, "{at} was read from {from}, and a record at {first} came");
            assert!(*last < end, "the end {end} of {at} is not after the last record, at {last}");
        }
        records
    }

    /// The committed records of a partition.
    fn committed(&self, at: &OutputPartition) -> Vec<OutputRecord> {
        just_records(self.read(at, Offset(0)))
    }

    fn progress(&self) -> BTreeMap<OutputPartition, Progress> {
        self.session.progress().expect("progress can be read")
    }

    /// The tick that a partition is committed through.
    fn tick(&self, at: &OutputPartition) -> Option<u64> {
        self.progress().get(at).map(|progress| progress.tick.0)
    }

    fn end(&self, at: &OutputPartition) -> Offset {
        self.session.end(at).expect("the end of an output can be read")
    }
}

fn owned(record: Record<'_>) -> (Offset, OutputRecord) {
    let key = record.key.expect("a record of an output has a key").to_vec();
    (record.offset, OutputRecord { key, value: record.value.map(<[u8]>::to_vec) })
}

/// A write of all records of one tick. [`Job::transaction`] sets which job and generation it belongs to.
fn write(at: &OutputPartition, records: &[OutputRecord], tick: u64, end_before: Offset) -> PartitionWrite {
    let ticks = vec![TickCount { tick: Tick(tick), records: records.len() }];
    PartitionWrite {
        at: at.clone(),
        records: records.to_vec().into(),
        ticks: if records.is_empty() { Vec::new() } else { ticks },
        progress: Progress {
            digest: Digest(u128::from(tick) * 1000),
            ..Progress::complete(Incarnation(Uuid::nil()), Generation(1), Tick(tick), end_before)
        },
    }
}

fn records(prefix: &str, count: usize) -> Vec<OutputRecord> {
    let record = |n| OutputRecord { key: format!("{prefix}{n}").into_bytes(), value: Some(vec![b'v'; n % 50]) };
    (0..count).map(record).collect()
}

fn just_records(committed: Vec<(Offset, OutputRecord)>) -> Vec<OutputRecord> {
    committed.into_iter().map(|(_, record)| record).collect()
}

/// The context of another job, or of another process.
fn context_of<S: SinkSubject>(subject: &S, suffix: &str, index: u32) -> SinkContext {
    let SinkContext { process, patience, .. } = subject.context();
    SinkContext {
        process: JobProcess { job: format!("{}{suffix}", process.job), index },
        ..SinkContext::new(process.job, patience)
    }
}

/// A result within the patience, which has everything, or the error that says that the wait was too long.
fn within_patience<T: Send + 'static>(
    job: &Job,
    what: &str,
    call: impl FnOnce(&Job) -> Result<T, Error> + Send + 'static,
) -> Option<T> {
    let job = job.clone();
    match in_time(what, job.patience * 2, move || call(&job)) {
        Ok(result) => Some(result),
        Err(error) => {
            assert_eq!(error.kind, ErrorKind::Retry, "{what}: the error of a wait that is too long is '{error}'");
            None
        }
    }
}
