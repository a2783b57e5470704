//! What every sink does.
//!
//! | contract of [`Output`](crate::Output) and [`Sink`](crate::Sink) | check |
//! | --- | --- |
//! | `partition_of`: less than the number of partitions, and always the same for a key | [`every_key_has_its_partition`] |
//! | `identity`: sinks of one system have one identity | [`sinks_of_one_system_have_one_identity`] |
//! | `connect`: creates what is missing | [`connecting_creates_what_is_missing`] |
//! | `connect`: what is there stays | [`a_reopened_sink_has_everything_that_was_committed`] |
//! | [`SinkContext::process`]: progress is kept under the job's name | [`jobs_do_not_share_progress`], [`the_processes_of_a_job_share_its_progress`] |
//! | [`SinkContext::between_records_and_progress`]: called in each `prepare` | [`the_hook_between_records_and_progress_is_called`] |
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
//! | [`Position`]: how much of a tick is committed | [`a_tick_may_be_committed_in_parts`] |
//! | [`PartitionWrite`]: progress without records | [`progress_may_come_without_records`] |
//! | [`PartitionWrite::earlier`]: goes before the transaction's own ticks | [`earlier_ticks_come_first`] |
//! | [`ProducerId::turn`]: writers of a process take turns | [`writers_take_turns`] |
//! | dropped with an open transaction: does not wait | [`a_writer_that_is_dropped_is_gone_at_once`] |
//! | a crash at any step leaves all of a transaction or nothing | [`a_crash_leaves_all_of_a_transaction_or_nothing`] |
//!
//! Offsets are compared and passed back, and nothing is computed from them: a sink's offsets may grow by any steps.
//! [`SinkSession::warnings`] is for people, and a connector tests it itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{Check, Outcome, Report, SinkSubject, checks, in_time, names, run_all};
use crate::{
    CommitError, Digest, Error, ErrorKind, Generation, Incarnation, JobProcess, Offset, OutputPartition,
    OutputRecord, OutputRecords, PartitionWrite, Position, ProducerId, Progress, Record, SinkContext, SinkSession,
    SinkStatus, Tick, TickCount, TickEnd, Transaction, Transactor, Waits,
};

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
        a_reopened_sink_has_everything_that_was_committed
        jobs_do_not_share_progress
        the_processes_of_a_job_share_its_progress
        the_hook_between_records_and_progress_is_called
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

    fn id(&self, slot: u32, turn: u32) -> ProducerId {
        ProducerId { incarnation: self.incarnation, slot, turn }
    }

    fn fence(&self, slot: u32, turn: u32) -> Box<dyn Transactor> {
        self.session.fence(&self.id(slot, turn)).expect("a writer can be created")
    }

    /// A partition; different numbers up to 1 are different partitions.
    fn at(&self, number: usize) -> OutputPartition {
        self.places[number].clone()
    }

    fn transaction(&self, slot: u32, writes: Vec<PartitionWrite>) -> Transaction {
        Transaction { incarnation: self.incarnation, generation: Generation(1), slot, writes }
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

/// All of one tick.
fn write(at: &OutputPartition, records: &[OutputRecord], tick: u64, end_before: Offset) -> PartitionWrite {
    let ticks = vec![TickCount { tick: Tick(tick), records: records.len() }];
    PartitionWrite {
        at: at.clone(),
        records: records.to_vec().into(),
        ticks: if records.is_empty() { Vec::new() } else { ticks },
        tick: Tick(tick),
        position: Position::Complete,
        digest: Digest(u128::from(tick) * 1000),
        begin: end_before,
        end_before,
        earlier: Vec::new(),
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

/// For any number of partitions, and for keys of any bytes.
pub fn every_key_has_its_partition<S: SinkSubject>(subject: &mut S) {
    for (output, again) in subject.outputs().iter().zip(subject.outputs()) {
        let (spec, again) = (output.spec(), again.spec());
        assert_eq!(spec.name, again.name, "an output keeps its name");
        for partitions in [1, 2, 3, 12, 1000] {
            for n in 0..500u32 {
                let key = n.to_be_bytes();
                let key = &key[(n as usize % 5).min(4)..];
                let partition = (spec.partition_of)(key, partitions);
                assert!(partition < partitions, "key {key:?} has partition {partition} of {partitions}");
                assert_eq!(partition, (again.partition_of)(key, partitions), "key {key:?} changed its partition");
            }
        }
    }
}

/// Of both outputs, and of each value.
pub fn sinks_of_one_system_have_one_identity<S: SinkSubject>(subject: &mut S) {
    let first = subject.outputs()[0].sink().identity();
    assert!(!first.is_empty(), "a sink has an identity");
    for output in subject.outputs() {
        assert_eq!(output.sink().identity(), first, "two sinks of one system have different identities");
    }
}

/// What a job finds that starts for the first time.
pub fn connecting_creates_what_is_missing<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let status = job.session.status().expect("the sink tells its status");
    let outputs: Vec<_> = status.outputs.keys().cloned().collect();
    let mut expected = job.outputs.clone();
    expected.sort();
    assert_eq!(outputs, expected, "the status has the outputs that were connected to");
    assert!(!status.progress_name.is_empty(), "the place where progress is kept has a name");
    assert!(job.progress().is_empty(), "a job that has not committed has progress");
    for at in &job.places {
        let read = job.session.read_committed(at, Offset(0), &mut |record| panic!("{record:?} was not written"));
        assert_eq!(read.expect("an empty output can be read"), job.end(at), "of an empty output");
    }
    assert_eq!(job.session.status().expect("the sink tells its status"), status, "nothing changed");
    let again = Job::of(subject).session.status().expect("the sink tells its status");
    assert_eq!(again, status, "connecting again changed what exists");
}

/// A session of new values sees the records, the progress, the ends and the identities, while the first still lives and
/// after it is gone. The job goes on from there.
pub fn a_reopened_sink_has_everything_that_was_committed<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let (at, other, all) = (job.at(0), job.at(1), records("k", 5));
    let status = job.session.status().expect("the sink tells its status");
    let mut writer = job.fence(0, 0);
    let ends = job.commit(&mut writer, vec![write(&at, &all, 3, job.end(&at)), write(&other, &all[..2], 3, job.end(&other))]);
    let seen = |job: &Job| (job.read(&at, Offset(0)), job.read(&other, Offset(0)), job.progress(), job.end(&at));
    let before = seen(&job);
    let beside = job.reopened(subject);
    assert_eq!(seen(&beside), before, "a second session sees something else");
    drop((writer, beside));
    let incarnation = job.incarnation;
    drop(job);
    let job = Job { incarnation, ..Job::of(subject) };
    assert_eq!(seen(&job), before, "a session that came later sees something else");
    assert_eq!(job.session.status().expect("the sink tells its status"), status, "reopening changed what exists");
    assert_eq!(just_records(before.0), all);
    let mut writer = job.fence(0, 0);
    assert!(ends[0] <= job.end(&at), "the end is before that of a committed transaction");
    job.commit(&mut writer, vec![write(&at, &records("next", 1), 4, job.end(&at))]);
    assert_eq!(job.committed(&at), [all, records("next", 1)].concat(), "a job goes on after it was reopened");
}

/// Two jobs that write the same outputs have their own progress each.
pub fn jobs_do_not_share_progress<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let other = Job::with(subject, &context_of(subject, "-other", 0));
    let (first, second) = (job.at(0), job.at(1));
    let mut writer = job.fence(0, 0);
    job.commit(&mut writer, vec![write(&first, &records("k", 2), 5, job.end(&first))]);
    assert!(other.progress().is_empty(), "a job that has not committed has the progress of another");
    let mut others = other.fence(0, 0);
    let writes = vec![
        write(&first, &records("o", 2), 8, other.end(&first)),
        write(&second, &records("o", 2), 8, other.end(&second)),
    ];
    other.commit(&mut others, writes);
    assert_eq!(other.tick(&first), Some(8), "a job does not have its own progress");
    assert_eq!(job.tick(&first), Some(5), "a job's progress was replaced by another's");
    assert_eq!(job.tick(&second), None, "a job has the progress of another");
    job.commit(&mut writer, vec![write(&first, &records("k", 2), 6, job.end(&first))]);
    assert_eq!((job.tick(&first), other.tick(&first)), (Some(6), Some(8)), "each job goes on with its own progress");
}

/// Whichever process of a job asks.
pub fn the_processes_of_a_job_share_its_progress<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let sibling = Job::with(subject, &context_of(subject, "", 1));
    let mut writer = job.fence(0, 0);
    job.commit(&mut writer, vec![write(&job.at(0), &records("k", 2), 5, job.end(&job.at(0)))]);
    assert_eq!(sibling.progress(), job.progress(), "another process of the job has another progress");
    let sibling = Job { incarnation: job.incarnation, ..sibling };
    let mut writer = sibling.fence(1, 0);
    sibling.commit(&mut writer, vec![write(&job.at(1), &records("k", 2), 5, job.end(&job.at(1)))]);
    assert_eq!(job.progress().len(), 2, "progress that another process committed is missing");
}

/// How often the hook was called, by whichever sink; the check has it to itself while it holds the lock.
static HOOK: Mutex<()> = Mutex::new(());
static HOOK_CALLS: AtomicU64 = AtomicU64::new(0);

/// Once in each `prepare`, and not in `commit`.
pub fn the_hook_between_records_and_progress_is_called<S: SinkSubject>(subject: &mut S) {
    let _alone = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let between_records_and_progress = || {
        HOOK_CALLS.fetch_add(1, Ordering::SeqCst);
    };
    let job = Job::with(subject, &SinkContext { between_records_and_progress, ..subject.context() });
    let mut writer = job.fence(0, 0);
    for tick in 1..=2 {
        let before = HOOK_CALLS.load(Ordering::SeqCst);
        job.prepare(&mut writer, vec![write(&job.at(0), &records("k", 2), tick, job.end(&job.at(0)))]);
        assert_eq!(HOOK_CALLS.load(Ordering::SeqCst), before + 1, "calls of the hook in one prepare");
        writer.commit().expect("a prepared transaction can be committed");
        assert_eq!(HOOK_CALLS.load(Ordering::SeqCst), before + 1, "calls of the hook after the commit");
    }
}

/// A wait that was noted ends with its call, or the engine would report it for ever.
pub fn a_call_that_returned_waits_for_nothing<S: SinkSubject>(subject: &mut S) {
    let waits = Waits::default();
    let job = Job::with(subject, &SinkContext { waits: waits.clone(), ..subject.context() });
    let nothing = |after: &str| assert_eq!(waits.now(), Vec::<String>::new(), "is still waited for after {after}");
    nothing("connect");
    let mut writer = job.fence(0, 0);
    nothing("fence");
    job.prepare(&mut writer, vec![write(&job.at(0), &records("k", 2), 1, job.end(&job.at(0)))]);
    nothing("prepare");
    writer.commit().expect("a prepared transaction can be committed");
    nothing("commit");
    job.progress();
    nothing("progress");
    job.committed(&job.at(0));
    nothing("read_committed");
}

/// What the engine knows a job by that reads what it writes. What is committed arrives there.
pub fn an_output_that_is_read_as_an_input_names_its_sink<S: SinkSubject>(subject: &mut S) -> Outcome {
    let job = Job::of(subject);
    let at = job.at(0);
    let Some(input) = subject.input(&at.output) else {
        return Outcome::Skipped("the subject cannot read its outputs as inputs");
    };
    let identity = subject.outputs()[0].sink().identity();
    assert_eq!(input.as_output(), Some((identity, at.output.clone())), "the sink's identity and the output's name");
    let mut writer = job.fence(0, 0);
    job.commit(&mut writer, vec![write(&at, &records("k", 2), 1, job.end(&at))]);
    let splits = input.splits(job.patience).expect("an output can be read as an input");
    let extent = |split: &crate::SplitStatus| Some((split.availability.earliest()?, split.availability.end()?));
    let filled = splits.iter().filter_map(extent).filter(|(earliest, end)| earliest < end);
    assert_eq!(filled.count(), 1, "one split has what was committed to one partition: {splits:?}");
    Outcome::Passed
}

/// Threads write to different places at once, and others ask meanwhile; nothing is lost.
pub fn several_threads_share_a_session<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let rounds = 6u64;
    let begin = std::sync::Barrier::new(3);
    std::thread::scope(|threads| {
        for number in 0..2u32 {
            let (job, begin) = (&job, &begin);
            threads.spawn(move || {
                let (at, mut writer) = (job.at(number as usize), job.fence(number, 0));
                begin.wait();
                let mut end = job.end(&at);
                for tick in 1..=rounds {
                    let one = write(&at, &records(&format!("{tick} "), 3), tick, end);
                    end = writer.prepare(&job.transaction(number, vec![one])).expect("a transaction can be prepared")[0];
                    writer.commit().expect("a prepared transaction can be committed");
                }
            });
        }
        let (job, begin) = (&job, &begin);
        threads.spawn(move || {
            begin.wait();
            for _ in 0..rounds {
                job.session.status().expect("the sink tells its status");
                job.progress();
                job.committed(&job.at(0));
            }
        });
    });
    for number in 0..2 {
        let expected: Vec<_> = (1..=rounds).flat_map(|tick| records(&format!("{tick} "), 3)).collect();
        assert!(job.committed(&job.at(number)) == expected, "what two threads wrote at once is not what was committed");
        assert_eq!(job.tick(&job.at(number)), Some(rounds), "progress that two threads committed at once");
    }
}

/// All else keeps its own.
pub fn an_output_that_is_recreated_has_another_identity<S: SinkSubject>(subject: &mut S) -> Outcome {
    let job = Job::of(subject);
    let before = job.session.status().expect("the sink tells its status");
    if !subject.recreate(&job.outputs[0]) {
        return Outcome::Skipped("the subject cannot recreate an output");
    }
    let after = job.session.status().expect("the sink tells its status");
    let identity = |status: &SinkStatus, output: usize| status.outputs[&job.outputs[output]].identity.clone();
    let told = identity(&before, 0).is_empty() || identity(&before, 0) != identity(&after, 0);
    assert!(told, "output '{}' has the identity '{}' before and after", job.outputs[0], identity(&before, 0));
    assert_eq!(identity(&before, 1), identity(&after, 1), "the output that was not recreated");
    assert_eq!(before.progress_identity, after.progress_identity, "the place where progress is kept");
    Outcome::Passed
}

/// As soon as they have progress for it. A job is not named to itself.
pub fn other_jobs_that_write_an_output_are_named<S: SinkSubject>(subject: &mut S) -> Outcome {
    let job = Job::of(subject);
    let copy = Job::with(subject, &context_of(subject, "-copy", 0));
    let writers = |job: &Job, number: usize| {
        job.session.writers(&job.at(number).output).expect("the sink tells what it knows of an output's writers")
    };
    let mut writer = job.fence(0, 0);
    job.commit(&mut writer, vec![write(&job.at(0), &records("k", 1), 5, job.end(&job.at(0)))]);
    let own = writers(&job, 0);
    assert!(own.is_empty(), "the job itself is named as another writer: {own:?}");
    let of_other = writers(&copy, 1);
    assert!(of_other.is_empty(), "an output that nobody writes has writers: {of_other:?}");
    let named = writers(&copy, 0);
    if named.is_empty() {
        return Outcome::Skipped("the sink does not tell which other jobs write an output");
    }
    let name = subject.context().process.job;
    assert!(named.len() == 1 && names(&named[0], &name), "job '{name}' alone writes the output: {named:?}");
    Outcome::Passed
}

/// Neither its records nor its progress are ever seen, and the next transaction is not disturbed.
pub fn fencing_aborts_what_was_left_open<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let mut writer = job.fence(0, 0);
    job.prepare(&mut writer, vec![write(&at, &records("lost", 3), 5, job.end(&at))]);
    drop(writer);
    let mut writer = job.fence(0, 0);
    assert_eq!(job.committed(&at), [], "records of an aborted transaction are seen");
    assert!(job.progress().is_empty(), "the progress of an aborted transaction is seen");
    job.commit(&mut writer, vec![write(&at, &records("kept", 2), 6, job.end(&at))]);
    assert_eq!(job.committed(&at), records("kept", 2), "after an aborted transaction");
    assert_eq!(job.tick(&at), Some(6));
}

fn must_be_fenced<T: std::fmt::Debug>(result: Result<T, CommitError>, what: &str) {
    assert!(matches!(result, Err(CommitError::Fenced(_))), "{what} must be fenced, and the result is {result:?}");
}

/// Whatever it had begun. What it tries leaves nothing behind, and the newer writer is not disturbed by it.
pub fn a_fenced_writer_can_neither_prepare_nor_commit<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let transaction =
        |name: &str, tick| job.transaction(0, vec![write(&at, &records(name, 3), tick, job.end(&at))]);
    let mut idle = job.fence(0, 0);
    let mut prepared = job.fence(0, 0);
    job.prepare(&mut prepared, transaction("zombie", 5).writes);
    let mut newest = job.fence(0, 0);
    must_be_fenced(idle.prepare(&transaction("zombie", 6)), "prepare of an older writer");
    newest.prepare(&transaction("new", 7)).expect("the newest writer can prepare");
    must_be_fenced(prepared.commit(), "commit of an older writer");
    newest.commit().expect("the newest writer can commit");
    assert_eq!(job.committed(&at), records("new", 3), "the records of the newest writer alone");
    assert_eq!(job.tick(&at), Some(7), "the progress of the newest writer");
}

/// The newer writer is one of another session, on another thread, as that of a process that replaces one which hangs.
pub fn fencing_reaches_other_sessions_and_threads<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let (mut idle, mut prepared) = (job.fence(0, 0), job.fence(0, 1));
    job.prepare(&mut prepared, vec![write(&at, &records("zombie", 3), 5, job.end(&at))]);
    let successor = job.reopened(subject);
    let newer = in_time("fencing from another session", job.patience * 2, move || {
        let writers = [successor.fence(0, 0), successor.fence(0, 1)];
        (successor, writers)
    });
    let (successor, [mut first, _second]) = newer;
    must_be_fenced(
        idle.prepare(&job.transaction(0, vec![write(&at, &records("zombie", 3), 6, successor.end(&at))])),
        "prepare of a writer that another session has fenced",
    );
    must_be_fenced(
        std::thread::scope(|threads| threads.spawn(|| prepared.commit()).join().expect("commit does not panic")),
        "commit of a writer that another session has fenced, on another thread",
    );
    assert_eq!(successor.committed(&at), [], "records of a writer that was fenced");
    successor.commit(&mut first, vec![write(&at, &records("new", 2), 7, successor.end(&at))]);
    assert_eq!(job.committed(&at), records("new", 2), "the older session sees what the newer one committed");
    assert_eq!(job.tick(&at), Some(7));
}

/// Those of another turn, another slot and another job go on with what they have prepared.
pub fn fencing_leaves_other_writers_alone<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let stranger = Job::with(subject, &context_of(subject, "-other", 0));
    for (writer_of, slot, turn) in [(&job, 0, 1), (&job, 1, 0), (&stranger, 0, 0)] {
        let at = job.at(0);
        let mut writer = writer_of.fence(slot, turn);
        let some = write(&at, &records(&format!("{slot} {turn} "), 2), 5, writer_of.end(&at));
        writer.prepare(&writer_of.transaction(slot, vec![some])).expect("a transaction can be prepared");
        drop(job.fence(0, 0));
        let committed = writer.commit();
        assert!(committed.is_ok(), "fencing slot 0, turn 0 of a job disturbed another writer: {committed:?}");
    }
    assert_eq!(job.committed(&job.at(0)).len(), 6, "what the other writers committed");
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

/// Of two writers one has committed and the other is in the middle of its transaction. The call may wait for it, but no
/// longer than the patience; when it is aborted, the call returns.
pub fn progress_is_seen_while_another_transaction_is_open<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    // Slots far apart, whose progress may well lie in one place.
    let (slow_slot, quick_slot) = (0, 240);
    let (mut slow, mut quick) = (job.fence(slow_slot, 0), job.fence(quick_slot, 0));
    let open = write(&job.at(0), &records("open", 2), 9, job.end(&job.at(0)));
    slow.prepare(&job.transaction(slow_slot, vec![open])).expect("a transaction can be prepared");
    let done = write(&job.at(1), &records("done", 2), 9, job.end(&job.at(1)));
    quick.prepare(&job.transaction(quick_slot, vec![done])).expect("a transaction can be prepared");
    quick.commit().expect("a prepared transaction can be committed");

    let what = "progress while another transaction is open";
    let complete = |progress: BTreeMap<OutputPartition, Progress>| {
        assert_eq!(progress.into_keys().collect::<Vec<_>>(), [job.at(1)], "{what}");
    };
    if let Some(progress) = within_patience(&job.impatient(subject), what, |job| job.session.progress()) {
        complete(progress);
    }
    let session = job.session.clone();
    let asking = std::thread::spawn(move || session.progress());
    let _newer = job.fence(slow_slot, 0);
    complete(asking.join().expect("progress does not panic").expect("the open transaction was aborted"));
}

/// After a change of the number of workers a partition has another owner, and later its first one again.
pub fn the_newest_progress_wins_whichever_writer_wrote_it<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    for (slot, turn, tick) in [(0, 0, 1), (1, 0, 2), (0, 0, 3), (2, 0, 4), (0, 1, 5), (1, 0, 6), (0, 0, 7)] {
        let mut writer = job.fence(slot, turn);
        let one = write(&at, &records("k", 1), tick, job.end(&at));
        let end = writer.prepare(&job.transaction(slot, vec![one])).expect("a transaction can be prepared")[0];
        writer.commit().expect("a prepared transaction can be committed");
        let progress = &job.progress()[&at];
        assert_eq!((progress.tick, progress.end), (Tick(tick), end), "progress by slot {slot}, turn {turn}");
    }
    assert_eq!(job.reopened(subject).tick(&at), Some(7), "in a session that came later");
}

/// Both in one partition: the records that were committed are seen, or the call says that it waits. When the open
/// transaction is aborted, they are seen.
pub fn records_are_seen_behind_an_open_transaction<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let (at, done) = (job.at(0), records("done", 2));
    let (mut slow, mut quick) = (job.fence(0, 0), job.fence(240, 0));
    let open = write(&at, &records("open", 2), 9, job.end(&at));
    slow.prepare(&job.transaction(0, vec![open])).expect("a transaction can be prepared");
    let some = write(&at, &done, 9, job.end(&at));
    quick.prepare(&job.transaction(240, vec![some])).expect("a transaction can be prepared");
    quick.commit().expect("a prepared transaction can be committed");

    let read = {
        let at = at.clone();
        within_patience(&job.impatient(subject), "reading behind an open transaction", move |job| {
            let (records, end) = job.try_read(&at, Offset(0));
            end.map(|_| just_records(records))
        })
    };
    if let Some(read) = read {
        assert_eq!(read, done, "what was committed behind an open transaction");
    }
    let _newer = job.fence(0, 0);
    assert_eq!(job.committed(&at), done, "what was committed behind a transaction that was aborted");
}

/// Every partition at once, in any order, from its beginning, from its middle, from beyond its end and for its end alone.
pub fn several_partitions_are_read_side_by_side<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let mut writer = job.fence(0, 0);
    let name = |number: usize| format!("of partition {number} ");
    let some = |(number, at): (usize, &OutputPartition)| write(at, &records(&name(number), 3 + number), 1, job.end(at));
    job.commit(&mut writer, job.places.iter().enumerate().map(some).collect());

    // Each partition: where to read from, and how many of its first records are not to come.
    let ask = |rotation: usize| -> Vec<(OutputPartition, Offset, usize)> {
        let case = |number: usize| {
            let (at, all) = (job.at(number), job.read(&job.at(number), Offset(0)));
            match (number + rotation) % 4 {
                0 => (at, Offset(0), 0),
                1 => (at, all[1].0, 1),
                2 => (at.clone(), job.end(&at), all.len()),
                _ => (at, Offset(u64::MAX), all.len()),
            }
        };
        (0..job.places.len()).rev().map(case).collect()
    };
    for rotation in 0..4 {
        let asked = ask(rotation);
        let from: Vec<_> = asked.iter().map(|(at, from, _)| (at.clone(), *from)).collect();
        let mut read: Vec<Vec<(Offset, OutputRecord)>> = vec![Vec::new(); from.len()];
        let ends = job.session.read_all_committed(&from, &mut |place, record| read[place].push(owned(record)));
        let ends = ends.expect("several partitions can be read");
        assert_eq!(ends.len(), asked.len(), "each partition has its end");
        for ((at, from, skipped), (read, end)) in asked.iter().zip(read.iter().zip(ends)) {
            assert_eq!(*read, job.read(at, Offset(0))[*skipped..], "{at} read from {from}, with others beside it");
            assert_eq!(end.end, job.end(at), "the end of {at}, with others beside it");
            assert_eq!(end.aborted, None, "nothing was aborted in {at}");
        }
    }
    let none = job.session.read_all_committed(&[], &mut |_, record| panic!("{record:?} was not asked for"));
    assert_eq!(none.expect("no partitions can be read"), [], "no partitions have no ends");
}

/// The same records come with the same offsets, from each record, from the end, and from beyond it.
pub fn an_output_can_be_read_from_any_offset<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let mut writer = job.fence(0, 0);
    for tick in 1..=3 {
        job.commit(&mut writer, vec![write(&at, &records(&format!("{tick} "), 4), tick, job.end(&at))]);
    }
    let all = job.read(&at, Offset(0));
    assert_eq!(all.len(), 12);
    for (skipped, (from, _)) in all.iter().enumerate() {
        assert_eq!(job.read(&at, *from), all[skipped..], "read from offset {from}");
    }
    let end = job.end(&at);
    assert_eq!(job.read(&at, end), [], "read from the end");
    let beyond = Offset(end.0 + 100);
    let read = job.session.read_committed(&at, beyond, &mut |record| panic!("{record:?} came from beyond the end"));
    assert_eq!(read.expect("an output can be read from beyond its end"), end, "the end, read from beyond it");
}

/// To whoever goes on after a record that it took for committed: the record's offset, or an end before it where a sink
/// does not keep what was aborted.
pub fn an_aborted_record_before_the_offset_is_told<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let from = |from: Offset| {
        let read = job.session.read_all_committed(&[(at.clone(), from)], &mut |_, _| ());
        read.expect("an output can be read back")[0]
    };
    let prepare = |writer: &mut Box<dyn Transactor>, tick| {
        job.prepare(writer, vec![write(&at, &records("k", 3), tick, job.end(&at))])[0]
    };
    let mut writer = job.fence(0, 0);
    let kept = prepare(&mut writer, 5);
    writer.commit().expect("a prepared transaction can be committed");
    assert_eq!(from(kept).aborted, None, "the record before is committed");
    let lost = prepare(&mut writer, 6);
    drop(writer);
    let mut writer = job.fence(0, 0);
    let told = from(lost);
    match told.aborted {
        Some(record) => assert!(kept <= record && record < lost, "{record} is not between {kept} and {lost}"),
        None => assert!(told.end < lost, "{told:?} does not say that the records before {lost} were aborted"),
    }
    assert_eq!(from(kept).aborted, None, "what was aborted later does not count");
    let again = prepare(&mut writer, 7);
    writer.commit().expect("a prepared transaction can be committed");
    assert_eq!(from(again).aborted, None, "what was aborted earlier does not count");
    assert_eq!(from(Offset(u64::MAX)).aborted, None, "only the end was asked for");
}

/// After each transaction, whether it was committed or aborted.
pub fn the_end_is_between_earlier_and_later_records<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let mut ends = vec![(job.end(&at), 0)];
    for tick in 1..=4 {
        let mut writer = job.fence(0, 0);
        let one = write(&at, &records(&format!("{tick} "), 3), tick, job.end(&at));
        job.prepare(&mut writer, vec![one]);
        if tick % 2 == 1 {
            writer.commit().expect("a prepared transaction can be committed");
        } else {
            drop(job.fence(0, 0));
        }
        let count = job.read(&at, Offset(0)).len();
        ends.push((job.end(&at), count));
        let read = job.session.read_committed(&at, Offset(0), &mut |_| ());
        assert_eq!(read.expect("an output can be read back"), job.end(&at), "`end` and `read_committed` differ");
    }
    let all = job.read(&at, Offset(0));
    assert_eq!(all.len(), 6, "two transactions were committed");
    for (end, count) in ends {
        let before = all.iter().filter(|(offset, _)| *offset < end).count();
        assert_eq!(before, count, "records before the end {end} that was told when there were {count}");
    }
}

/// Neither records nor progress, to any session, before the commit; a later reader may wait, but no longer than the
/// patience.
pub fn what_is_prepared_is_invisible<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let mut writer = job.fence(0, 0);
    job.prepare(&mut writer, vec![write(&at, &records("open", 3), 5, job.end(&at))]);
    let asking = job.impatient(subject);
    if let Some(progress) = within_patience(&asking, "progress before the commit", |job| job.session.progress()) {
        assert!(progress.is_empty(), "progress is seen before the commit: {progress:?}");
    }
    let of = at.clone();
    let seen = in_time("reading before the commit", job.patience * 2, move || asking.try_read(&of, Offset(0)).0);
    assert_eq!(seen, [], "records are seen before the commit");
    writer.commit().expect("a prepared transaction can be committed");
    assert_eq!(job.committed(&at), records("open", 3), "records are seen after the commit");
    assert_eq!(job.tick(&at), Some(5), "progress is seen after the commit");
}

/// One transaction over several partitions of several outputs.
pub fn records_and_progress_are_committed_in_one_step<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let mut writer = job.fence(0, 0);
    for tick in 1..=2u64 {
        let name = |number: usize| format!("tick {tick} of {number} ");
        let some = |(number, at)| write(at, &records(&name(number), number + 1), tick, job.end(at));
        let ends = job.commit(&mut writer, job.places.iter().enumerate().map(some).collect());
        let progress = job.progress();
        let seen: Vec<_> = progress.keys().cloned().collect();
        let mut expected = job.places.clone();
        expected.sort();
        assert_eq!(seen, expected, "each partition has progress");
        for (number, (at, end)) in job.places.iter().zip(ends).enumerate() {
            assert_eq!((progress[at].tick, progress[at].end), (Tick(tick), end), "the progress of {at}");
            let committed = job.committed(at);
            let last = &committed[committed.len() - number - 1..];
            assert_eq!(last, records(&name(number), number + 1), "the records of {at}");
        }
    }
}

/// Another thread asks while transactions are committed: records that it reads are in the progress that it asks for
/// afterwards, and what progress says is in the records that it reads afterwards.
pub fn an_observer_never_sees_one_without_the_other<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let observer = job.reopened(subject);
    let (at, rounds, done) = (job.at(0), 12, AtomicBool::new(false));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            // Set at the end, also when the writer panics: the observer must not go on for ever.
            struct Done<'a>(&'a AtomicBool);
            impl Drop for Done<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::SeqCst);
                }
            }
            let _done = Done(&done);
            let mut writer = job.fence(0, 0);
            for tick in 1..=rounds {
                job.commit(&mut writer, vec![write(&at, &records("k", 2), tick, job.end(&at))]);
            }
        });
        let mut last = 0;
        while !done.load(Ordering::SeqCst) {
            let records = observer.read(&at, Offset(0));
            let progress = observer.progress();
            let through = progress.get(&at).map_or(Offset(0), |progress| progress.end);
            if let Some((offset, _)) = records.last() {
                assert!(*offset < through, "a record at {offset} is seen, and progress says {through}");
            }
            let ticks = progress.get(&at).map_or(0, |progress| progress.tick.0);
            let records = observer.read(&at, Offset(0));
            assert!(records.len() as u64 >= 2 * ticks, "progress says {ticks} ticks, and there are {records:?}");
            assert!(ticks >= last, "progress went back from tick {last} to {ticks}");
            last = ticks;
        }
    });
    assert_eq!(observer.tick(&at), Some(rounds), "progress after the last commit");
}

/// Each is after the records of its own write, and before those of a later one.
pub fn ends_come_in_the_order_of_the_writes<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let mut writer = job.fence(0, 0);
    let (first, second) = (job.at(0), job.at(1));
    job.commit(&mut writer, vec![write(&first, &records("filler", 7), 1, job.end(&first))]);
    for (tick, order) in [(2, [&first, &second]), (3, [&second, &first])] {
        let writes = order.map(|at| write(at, &records("k", 2), tick, job.end(at)));
        let ends = job.commit(&mut writer, writes.to_vec());
        for (at, end) in order.into_iter().zip(ends) {
            let all = job.read(at, Offset(0));
            let (last, _) = all.last().expect("records were committed");
            assert!(*last < end, "the end {end} of {at} is not after its last record, at {last}");
            assert!(end <= job.end(at), "the end {end} of a write is after that of {at}");
            assert_eq!(job.progress()[at].end, end, "the end in the progress of {at}");
        }
    }
}

/// Deletions, empty keys and values, and any bytes. They are handed over in several parts, as the engine does.
pub fn every_record_is_read_back_as_it_was_written<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let record = |key: &[u8], value: Option<&[u8]>| OutputRecord { key: key.to_vec(), value: value.map(<[u8]>::to_vec) };
    let every_byte: Vec<u8> = (0..=255).collect();
    let all: Arc<[OutputRecord]> = Arc::new([
        record(b"not written", Some(b"it is before the part")),
        record(b"deleted", None),
        record(b"empty", Some(b"")),
        record(b"", Some(b"of an empty key")),
        record(b"twice", Some(b"1")),
        record(b"twice", Some(b"1")),
        record(&every_byte, Some(&every_byte)),
        record(b"line\nbreak\r\n", Some(b"\n")),
        record(b"", None),
    ]);
    let mut parts = OutputRecords::default();
    for part in [1..3, 3..3, 3..8, 8..9] {
        parts.push(&all, part);
    }
    let mut one = write(&at, &all[1..], 1, job.end(&at));
    one.records = parts;
    let mut writer = job.fence(0, 0);
    job.commit(&mut writer, vec![one]);
    assert_eq!(job.committed(&at), all[1..], "records are not read back as they were written");
}

/// In one transaction, more than any queue on the way holds.
pub fn many_records_keep_their_order<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let mut writer = job.fence(0, 0);
    let all = records("k", 150_000);
    let half = &all[..70_000];
    let (first, second) = (job.at(0), job.at(1));
    job.commit(&mut writer, vec![write(&first, &all, 1, job.end(&first)), write(&second, half, 1, job.end(&second))]);
    // Not by `assert_eq`, which would print them all.
    assert!(job.committed(&first) == all, "150000 records did not come back in their order");
    assert!(job.committed(&second) == half, "70000 records did not come back in their order");
}

/// Incarnation, generation, tick, position and digest; and the end of each tick, from which exactly the records of later
/// ticks are read.
pub fn progress_says_what_was_written<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let mut writer = job.fence(0, 0);
    let all = records("k", 6);
    let mut one = write(&at, &all, 12, job.end(&at));
    let count = |tick, records| TickCount { tick: Tick(tick), records };
    one.ticks = vec![count(10, 2), count(11, 3), count(12, 6)];
    one.digest = Digest(u128::MAX - 7);
    one.position = Position::Records(3);
    let mut transaction = job.transaction(0, vec![one]);
    transaction.generation = Generation(41);
    let ends = writer.prepare(&transaction).expect("a transaction can be prepared");
    writer.commit().expect("a prepared transaction can be committed");
    let progress = job.progress().remove(&at).expect("what was committed has progress");
    assert_eq!((progress.incarnation, progress.generation), (job.incarnation, Generation(41)), "who wrote");
    assert_eq!((progress.tick, progress.position), (Tick(12), Position::Records(3)), "the tick, and how much of it");
    assert_eq!((progress.digest, progress.end), (Digest(u128::MAX - 7), ends[0]), "the digest and the end");
    let ticks: Vec<_> = progress.ticks.iter().map(|end| end.tick.0).collect();
    assert_eq!(ticks, [10, 11, 12], "the ticks");
    for (TickEnd { tick, end }, records) in progress.ticks.iter().zip([2, 3, 6]) {
        assert_eq!(just_records(job.read(&at, *end)), all[records..], "read from the end {end} of tick {tick}");
    }
    assert_eq!(progress.ticks[2].end, progress.end, "the last tick ends with the records");
}

/// The position within the tick is kept.
pub fn a_tick_may_be_committed_in_parts<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let mut writer = job.fence(0, 0);
    for position in [Position::Records(2), Position::Records(4), Position::Complete] {
        let mut part = write(&at, &records("k", 2), 3, job.end(&at));
        part.position = position;
        let end = job.commit(&mut writer, vec![part])[0];
        let progress = &job.progress()[&at];
        assert_eq!((progress.position, progress.tick, progress.end), (position, Tick(3), end), "of a part of a tick");
    }
    assert_eq!(job.committed(&at).len(), 6, "all parts of a tick are seen");
}

/// Of a partition that has nothing to write, alone and beside one that has; its end stays what the write says.
pub fn progress_may_come_without_records<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let (idle, busy) = (job.at(0), job.at(1));
    let mut writer = job.fence(0, 0);
    let nothing = job.end(&idle);
    let writes = vec![write(&idle, &[], 7, nothing), write(&busy, &records("k", 1), 7, job.end(&busy))];
    assert_eq!(job.commit(&mut writer, writes)[0], nothing, "the end of a partition that nothing was written to");
    assert_eq!(job.tick(&idle), Some(7), "progress without records");
    assert_eq!(job.committed(&idle), [], "progress without records is no record");

    let end = job.commit(&mut writer, vec![write(&idle, &records("k", 3), 8, nothing)])[0];
    assert_eq!(job.commit(&mut writer, vec![write(&idle, &[], 9, end)])[0], end, "the end stays without records");
    let progress = job.progress();
    assert_eq!((progress[&idle].tick, progress[&idle].end), (Tick(9), end), "progress without records");
    assert_eq!(progress[&idle].ticks, [], "no tick of this transaction has records");
    assert_eq!(progress[&busy].tick, Tick(7), "the progress of the other partition changed");
    assert_eq!(job.committed(&idle), records("k", 3), "progress without records is no record");
}

/// The ticks of records that a partially committed transaction left, before those of the transaction itself.
pub fn earlier_ticks_come_first<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let begin = job.end(&at);
    let mut writer = job.fence(0, 0);
    let left = job.commit(&mut writer, vec![write(&at, &records("left", 4), 1, begin)])[0];
    let offsets: Vec<_> = job.read(&at, Offset(0)).into_iter().map(|(offset, _)| offset).collect();
    let earlier = vec![TickEnd { tick: Tick(1), end: offsets[2] }, TickEnd { tick: Tick(2), end: left }];
    let mut next = write(&at, &records("next", 1), 3, job.end(&at));
    (next.begin, next.earlier) = (begin, earlier.clone());
    let end = job.commit(&mut writer, vec![next])[0];
    let last = TickEnd { tick: Tick(3), end };
    assert_eq!(job.progress()[&at].ticks, [earlier, vec![last]].concat(), "earlier ticks, and then the own");
}

/// The second prepares while the first has not committed; they commit in order.
pub fn writers_take_turns<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(1);
    let mut turns = [job.fence(0, 0), job.fence(0, 1)];
    let mut expected = Vec::new();
    let mut end = job.end(&at);
    for tick in 0..20u64 {
        let some = records(&format!("{tick} "), 3);
        let now = usize::from(tick % 2 == 1);
        let next = job.prepare(&mut turns[now], vec![write(&at, &some, tick, end)])[0];
        assert!(end < next, "the end {next} of a transaction is not after the end {end} of the one before");
        end = next;
        if tick > 0 {
            turns[1 - now].commit().expect("the first of two prepared transactions can be committed");
        }
        expected.extend(some);
    }
    turns[1].commit().expect("a prepared transaction can be committed");
    assert_eq!(job.committed(&at), expected, "the records of two writers that took turns");
    assert_eq!((job.progress()[&at].end, job.tick(&at)), (end, Some(19)), "the progress of the last turn");
}

/// An open transaction does not hold up the thread that gives it up, and the next writer aborts it.
pub fn a_writer_that_is_dropped_is_gone_at_once<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let mut writer = job.fence(0, 0);
    job.prepare(&mut writer, vec![write(&at, &records("k", 100), 1, job.end(&at))]);
    let begun = Instant::now();
    drop(writer);
    let took = begun.elapsed();
    assert!(took < job.patience / 4, "dropping a writer with an open transaction took {took:?}");
    drop(job.fence(0, 0));
    assert_eq!(job.committed(&at), [], "what a dropped writer had prepared is not committed");
}

/// After a crash before each step of a commit, and after the last, a job that reopens the sink sees all of the
/// transaction or nothing of it; it sees the same each time, and can go on.
pub fn a_crash_leaves_all_of_a_transaction_or_nothing<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let places = [job.at(0), job.at(1)];
    let (mut crashed, mut expected) = (job.clone(), Vec::<OutputRecord>::new());
    drop(job);
    let (mut tick, mut steps, mut committed) = (0, 0, 0);
    loop {
        tick += 1;
        let name = format!("of tick {tick} ");
        let mut writer = crashed.fence(0, 0);
        let writes = places.each_ref().map(|at| write(at, &records(&name, 3), tick, crashed.end(at)));
        crashed.prepare(&mut writer, writes.to_vec());
        if !subject.crash_in_commit(writer, steps) {
            break;
        }
        let incarnation = crashed.incarnation;
        drop(crashed);
        crashed = Job { incarnation, ..Job::of(subject) };
        drop(crashed.fence(0, 0));
        let seen = crashed.committed(&places[0]);
        let what = format!("after a crash before step {steps} of the commit");
        let happened = seen.len() > expected.len();
        if happened {
            expected.extend(records(&name, 3));
            committed = tick;
        }
        for at in &places {
            assert_eq!(crashed.committed(at), expected, "{what}: the records of {at} are in part there");
            let through = crashed.tick(at).unwrap_or(0);
            assert_eq!(through, committed, "{what}: the tick that {at} is committed through");
        }
        if steps == 0 {
            assert!(!happened, "{what}: a transaction was committed that was only prepared");
        }
        // It stays so for later sessions, and the job goes on.
        let again = crashed.reopened(subject);
        assert_eq!(again.committed(&places[0]), expected, "{what}: a later session sees something else");
        tick += 1;
        let mut writer = crashed.fence(0, 0);
        let writes = places.each_ref().map(|at| write(at, &records(&format!("{tick} "), 2), tick, crashed.end(at)));
        crashed.commit(&mut writer, writes.to_vec());
        expected.extend(records(&format!("{tick} "), 2));
        committed = tick;
        for at in &places {
            assert_eq!(crashed.committed(at), expected, "{what}: the job cannot go on");
        }
        steps += 1;
    }
    assert!(steps >= 2, "the subject crashes before and after the commit at the least");
}
