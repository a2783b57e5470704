//! What every sink does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{PATIENCE, SinkSubject};
use crate::{
    CommitError, Digest, Generation, Incarnation, Offset, OutputPartition, OutputRecord, PartitionWrite, Position,
    ProducerId, SinkContext, SinkSession, SinkStatus, Tick, TickCount, TickEnd, Transaction, Transactor,
};

/// A sentence and what shows it.
type Check<S> = (&'static str, fn(&mut S));

/// Runs every check, each with a subject of its own.
pub fn all<S: SinkSubject>(mut fresh: impl FnMut() -> S) {
    let checks: [Check<S>; 15] = [
        ("a new sink has its partitions and no progress", a_new_sink_has_its_partitions_and_no_progress),
        ("an output that is recreated has another identity", an_output_that_is_recreated_has_another_identity),
        ("other jobs that write an output are named", other_jobs_that_write_an_output_are_named),
        ("records and progress are committed together", records_and_progress_are_committed_together),
        ("what is not committed is never seen", what_is_not_committed_is_never_seen),
        ("that the record before was aborted is told", that_the_record_before_was_aborted_is_told),
        ("a fenced writer can neither prepare nor commit", a_fenced_writer_can_neither_prepare_nor_commit),
        ("progress sees what was committed before", progress_sees_what_was_committed_before),
        ("the newest progress wins whichever worker wrote it", the_newest_progress_wins_whichever_worker_wrote_it),
        ("writers take turns", writers_take_turns),
        ("a tick may be committed in parts", a_tick_may_be_committed_in_parts),
        ("progress may come without records", progress_may_come_without_records),
        ("earlier ticks come first", earlier_ticks_come_first),
        ("many records keep their order", many_records_keep_their_order),
        ("a writer that is dropped is gone at once", a_writer_that_is_dropped_is_gone_at_once),
    ];
    for (name, check) in checks {
        eprintln!("sink: {name}");
        check(&mut fresh());
    }
}

struct Job {
    session: Arc<dyn SinkSession>,
    outputs: [String; 2],
    incarnation: Incarnation,
}

impl Job {
    fn of(subject: &dyn SinkSubject) -> Self {
        let outputs = subject.outputs();
        let specs = outputs.each_ref().map(|output| output.spec());
        let session = outputs[0].sink().connect(&subject.context(), &specs).expect("the sink can be reached");
        Self { session, outputs: specs.map(|spec| spec.name), incarnation: Incarnation(Uuid::new_v4()) }
    }

    fn id(&self, slot: u32, turn: u32) -> ProducerId {
        ProducerId { incarnation: self.incarnation, slot, turn }
    }

    fn fence(&self, slot: u32, turn: u32) -> Box<dyn Transactor> {
        self.session.fence(&self.id(slot, turn)).expect("a writer can be made")
    }

    fn at(&self, output: usize, partition: u32) -> OutputPartition {
        OutputPartition { output: self.outputs[output].clone(), partition }
    }

    fn transaction(&self, slot: u32, writes: Vec<PartitionWrite>) -> Transaction {
        Transaction { incarnation: self.incarnation, generation: Generation(1), slot, writes }
    }

    fn committed(&self, at: &OutputPartition) -> Vec<(u64, OutputRecord)> {
        let mut records = Vec::new();
        let end = self
            .session
            .read_committed(at, Offset(0), &mut |record| {
                let key = record.key.expect("all test records have a key").to_vec();
                records.push((record.offset.0, OutputRecord { key, value: record.value.map(<[u8]>::to_vec) }));
            })
            .expect("an output can be read back");
        assert!(records.last().is_none_or(|(offset, _)| *offset < end.0), "the end lies after the last record");
        records
    }
}

/// All of one tick.
fn write(at: OutputPartition, records: &[OutputRecord], tick: u64, end_before: Offset) -> PartitionWrite {
    PartitionWrite {
        at,
        records: records.to_vec().into(),
        ticks: vec![TickCount { tick: Tick(tick), records: records.len() }],
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

fn just_records(committed: Vec<(u64, OutputRecord)>) -> Vec<OutputRecord> {
    committed.into_iter().map(|(_, record)| record).collect()
}

/// What a job finds that starts for the first time.
pub fn a_new_sink_has_its_partitions_and_no_progress<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let status = job.session.status().expect("the sink can be reached");
    let partitions = status.outputs.iter().map(|(name, output)| (name.clone(), output.partitions));
    assert_eq!(partitions.collect::<Vec<_>>(), {
        let mut expected = job.outputs.clone().map(|output| (output, 2));
        expected.sort();
        expected
    });
    assert!(job.session.progress().expect("the sink can be reached").is_empty());
    assert_eq!(job.session.status().expect("the sink can be reached"), status, "nothing has been recreated");
}

/// All else keeps its own.
pub fn an_output_that_is_recreated_has_another_identity<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let before = job.session.status().expect("the sink can be reached");
    subject.recreate(&job.outputs[0]);
    let after = job.session.status().expect("the sink can be reached");
    let identity = |status: &SinkStatus, output: usize| status.outputs[&job.outputs[output]].identity.clone();
    assert_ne!(identity(&before, 0), identity(&after, 0));
    assert_eq!(identity(&before, 1), identity(&after, 1));
    assert_eq!(before.progress_identity, after.progress_identity);
}

/// As soon as they have progress for it.
pub fn other_jobs_that_write_an_output_are_named<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let outputs = subject.outputs();
    let specs = outputs.each_ref().map(|output| output.spec());
    let name = format!("{}-copy", subject.context().process.job);
    let context = SinkContext::new(name, PATIENCE);
    let copy = outputs[0].sink().connect(&context, &specs).expect("the sink can be reached");
    let writers = |session: &Arc<dyn SinkSession>, output: usize| {
        session.writers(&job.outputs[output]).expect("the sink can be reached")
    };
    let mut writer = job.fence(0, 0);
    writer
        .prepare(&job.transaction(0, vec![write(job.at(0, 0), &records("k", 1), 5, Offset(0))]))
        .expect("it can be prepared");
    writer.commit().expect("it can be committed");
    let named = writers(&copy, 0);
    let name = format!("'{}'", subject.context().process.job);
    assert!(named.len() == 1 && named[0].contains(&name), "{named:?}");
    assert!(writers(&copy, 1).is_empty(), "nobody writes the other output");
    assert!(writers(&job.session, 0).is_empty(), "a job is no other writer to itself");
}

/// One transaction over several partitions of several outputs, with several ticks.
pub fn records_and_progress_are_committed_together<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let mut writer = job.fence(0, 0);
    let mut all = records("k", 6);
    all[2].value = None;
    all[3].value = Some(Vec::new());
    let mut first = write(job.at(0, 1), &all, 12, Offset(0));
    let count = |tick, records| TickCount { tick: Tick(tick), records };
    first.ticks = vec![count(10, 2), count(11, 3), count(12, 6)];
    let second = write(job.at(1, 0), &all[..1], 12, Offset(0));
    let ends = writer.prepare(&job.transaction(0, vec![first, second])).expect("it can be prepared");
    writer.commit().expect("it can be committed");

    let committed = job.committed(&job.at(0, 1));
    let offsets: Vec<u64> = committed.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(just_records(committed), all);
    assert_eq!(ends[0].0, offsets[5] + 1, "the end is after the last record");
    assert_eq!(just_records(job.committed(&job.at(1, 0))), all[..1]);

    let progress = job.session.progress().expect("the sink can be reached");
    assert_eq!(progress.keys().cloned().collect::<Vec<_>>(), {
        let mut expected = vec![job.at(0, 1), job.at(1, 0)];
        expected.sort();
        expected
    });
    let of = &progress[&job.at(0, 1)];
    assert_eq!((of.incarnation, of.generation, of.tick), (job.incarnation, Generation(1), Tick(12)));
    assert_eq!((of.position, of.digest, of.end), (Position::Complete, Digest(12_000), ends[0]));
    let end = |tick, record: usize| TickEnd { tick: Tick(tick), end: Offset(offsets[record] + 1) };
    assert_eq!(of.ticks, [end(10, 1), end(11, 2), end(12, 5)]);
}

/// Neither before it is aborted nor after.
pub fn what_is_not_committed_is_never_seen<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let mut writer = job.fence(0, 0);
    let lost = job.transaction(0, vec![write(job.at(0, 0), &records("lost", 3), 5, Offset(0))]);
    writer.prepare(&lost).expect("it can be prepared");
    drop(writer);
    let mut writer = job.fence(0, 0);
    assert!(job.committed(&job.at(0, 0)).is_empty(), "an aborted transaction is not seen");
    assert!(job.session.progress().expect("fencing has aborted what was open").is_empty());
    let kept = job.transaction(0, vec![write(job.at(0, 0), &records("kept", 2), 6, Offset(0))]);
    writer.prepare(&kept).expect("it can be prepared");
    writer.commit().expect("it can be committed");
    assert_eq!(just_records(job.committed(&job.at(0, 0))), records("kept", 2));
}

/// To whoever goes on after a record that it took for committed.
pub fn that_the_record_before_was_aborted_is_told<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0, 0);
    let from = |from: Offset| {
        let read = job.session.read_all_committed(&[(at.clone(), from)], &mut |_, _| ());
        read.expect("an output can be read back")[0]
    };
    let mut writer = job.fence(0, 0);
    let prepared = |writer: &mut Box<dyn Transactor>, tick, before| {
        let one = write(at.clone(), &records("k", 3), tick, before);
        writer.prepare(&job.transaction(0, vec![one])).expect("it can be prepared")[0]
    };
    let kept = prepared(&mut writer, 5, Offset(0));
    writer.commit().expect("it can be committed");
    assert_eq!(from(kept).aborted, None, "it is committed");
    let lost = prepared(&mut writer, 6, kept);
    drop(writer);
    let mut writer = job.fence(0, 0);
    assert_eq!(from(lost).aborted, Some(Offset(lost.0 - 1)));
    assert!(from(lost).end >= lost, "nothing is gone");
    assert_eq!(from(kept).aborted, None, "what comes later does not count");
    let again = prepared(&mut writer, 7, lost);
    writer.commit().expect("it can be committed");
    assert_eq!(from(again).aborted, None, "what came before does not count");
    assert_eq!(from(Offset(u64::MAX)).aborted, None, "only the end was asked for");
}

/// Whatever it had begun.
pub fn a_fenced_writer_can_neither_prepare_nor_commit<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let transaction =
        |name: &str, tick| job.transaction(0, vec![write(job.at(0, 0), &records(name, 3), tick, Offset(0))]);
    let mut idle = job.fence(0, 0);
    let mut prepared = job.fence(0, 0);
    prepared.prepare(&transaction("zombie", 5)).expect("it can be prepared");
    let mut newest = job.fence(0, 0);
    for (error, which) in [
        (idle.prepare(&transaction("zombie", 6)).err(), "prepare of an idle writer"),
        (prepared.commit().err(), "commit of a prepared writer"),
    ] {
        match error {
            Some(CommitError::Fenced(_)) => {}
            other => panic!("{which}: fenced is expected, and it is {other:?}"),
        }
    }
    newest.prepare(&transaction("new", 7)).expect("the newest writer can prepare");
    newest.commit().expect("the newest writer can commit");
    assert_eq!(just_records(job.committed(&job.at(0, 0))), records("new", 3));
    assert_eq!(job.session.progress().expect("the sink can be reached")[&job.at(0, 0)].tick, Tick(7));
}

/// Also while an older transaction of another writer is open.
pub fn progress_sees_what_was_committed_before<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    // Slots far apart, whose progress may well lie in one place.
    let (slow_slot, quick_slot) = (0, 240);
    let mut slow = job.fence(slow_slot, 0);
    let mut quick = job.fence(quick_slot, 0);
    let open = write(job.at(0, 0), &records("open", 2), 9, Offset(0));
    slow.prepare(&job.transaction(slow_slot, vec![open])).expect("it can be prepared");
    let done = write(job.at(0, 1), &records("done", 2), 9, Offset(0));
    quick.prepare(&job.transaction(quick_slot, vec![done])).expect("it can be prepared");
    quick.commit().expect("it can be committed");

    let session = job.session.clone();
    let asking = std::thread::spawn(move || session.progress());
    let _newer = job.fence(slow_slot, 0);
    let progress = asking.join().expect("the thread is well").expect("the open transaction has been aborted");
    assert_eq!(progress.keys().cloned().collect::<Vec<_>>(), [job.at(0, 1)]);
}

/// After a change of the number of workers a partition has another owner.
pub fn the_newest_progress_wins_whichever_worker_wrote_it<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let mut end = Offset(0);
    for (slot, tick) in [(0, 1), (1, 2), (0, 3), (2, 4), (1, 5)] {
        let mut writer = job.fence(slot, 0);
        let one = write(job.at(0, 0), &records("k", 1), tick, end);
        end = writer.prepare(&job.transaction(slot, vec![one])).expect("it can be prepared")[0];
        writer.commit().expect("it can be committed");
        let progress = job.session.progress().expect("the sink can be reached");
        assert_eq!((progress[&job.at(0, 0)].tick, progress[&job.at(0, 0)].end), (Tick(tick), end));
    }
}

/// The second prepares while the first has not committed; they commit in order.
pub fn writers_take_turns<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let mut turns = [job.fence(0, 0), job.fence(0, 1)];
    let mut expected = Vec::new();
    let mut end = Offset(0);
    for tick in 0..20u64 {
        let some = records(&format!("{tick} "), 3);
        let one = write(job.at(1, 1), &some, tick, end);
        let now = usize::try_from(tick % 2).expect("it is 0 or 1");
        let next = turns[now].prepare(&job.transaction(0, vec![one])).expect("it can be prepared")[0];
        assert!(next.0 >= end.0 + 3, "the end moves by at least the records");
        end = next;
        if tick > 0 {
            turns[1 - now].commit().expect("it can be committed");
        }
        expected.extend(some);
    }
    turns[1].commit().expect("it can be committed");
    assert_eq!(just_records(job.committed(&job.at(1, 1))), expected);
    assert_eq!(job.session.progress().expect("the sink can be reached")[&job.at(1, 1)].end, end);
}

/// The position within the tick is kept.
pub fn a_tick_may_be_committed_in_parts<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let mut writer = job.fence(0, 0);
    let mut end = Offset(0);
    for position in [Position::Records(2), Position::Records(4), Position::Complete] {
        let mut part = write(job.at(0, 0), &records("k", 2), 3, end);
        part.position = position;
        end = writer.prepare(&job.transaction(0, vec![part])).expect("it can be prepared")[0];
        writer.commit().expect("it can be committed");
        assert_eq!(job.session.progress().expect("the sink can be reached")[&job.at(0, 0)].position, position);
    }
    assert_eq!(job.committed(&job.at(0, 0)).len(), 6);
}

/// Of a partition that has nothing to write.
pub fn progress_may_come_without_records<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let mut writer = job.fence(0, 0);
    let mut idle = write(job.at(0, 0), &[], 8, Offset(17));
    idle.ticks.clear();
    let busy = write(job.at(0, 1), &records("k", 1), 8, Offset(0));
    let ends = writer.prepare(&job.transaction(0, vec![idle.clone(), busy])).expect("it can be prepared");
    writer.commit().expect("it can be committed");
    assert_eq!(ends[0], Offset(17), "without records the end stays");
    idle.tick = Tick(9);
    writer.prepare(&job.transaction(0, vec![idle])).expect("it can be prepared");
    writer.commit().expect("it can be committed");
    let progress = job.session.progress().expect("the sink can be reached");
    assert_eq!((progress[&job.at(0, 0)].tick, progress[&job.at(0, 0)].end), (Tick(9), Offset(17)));
    assert_eq!(progress[&job.at(0, 1)].tick, Tick(8));
    assert!(job.committed(&job.at(0, 0)).is_empty());
}

/// The ticks of records that a torn transaction left, and where a partition ends.
pub fn earlier_ticks_come_first<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0, 0);
    assert_eq!(job.session.end(&at).expect("the sink can be reached"), Offset(0), "nothing was written");
    let mut writer = job.fence(0, 0);
    let torn = write(at.clone(), &records("torn", 4), 1, Offset(0));
    writer.prepare(&job.transaction(0, vec![torn])).expect("it can be prepared");
    writer.commit().expect("it can be committed");
    let end_before = job.session.end(&at).expect("the sink can be reached");
    let committed = job.committed(&at);
    assert!(committed.iter().all(|(offset, _)| *offset < end_before.0), "all records are before the end");
    let from = Offset(end_before.0 + 100);
    let beyond = job.session.read_committed(&at, from, &mut |record| panic!("{record:?} is no record"));
    assert_eq!(beyond.expect("an output can be read from beyond its end"), end_before);

    let end = |tick, index: usize| TickEnd { tick: Tick(tick), end: Offset(committed[index].0 + 1) };
    let mut next = write(at.clone(), &records("next", 1), 3, end_before);
    (next.begin, next.earlier) = (Offset(0), vec![end(1, 1), end(2, 3)]);
    let ends = writer.prepare(&job.transaction(0, vec![next])).expect("it can be prepared");
    writer.commit().expect("it can be committed");
    assert!(ends[0] > end_before, "a later record does not lie before the end");
    let progress = job.session.progress().expect("the sink can be reached");
    let last = TickEnd { tick: Tick(3), end: ends[0] };
    assert_eq!(progress[&at].ticks, [end(1, 1), end(2, 3), last]);
}

/// In one transaction, more than any queue on the way holds.
pub fn many_records_keep_their_order<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let mut writer = job.fence(0, 0);
    let all = records("k", 150_000);
    let half = &all[..70_000];
    let writes = vec![write(job.at(0, 0), &all, 1, Offset(0)), write(job.at(1, 1), half, 1, Offset(0))];
    writer.prepare(&job.transaction(0, writes)).expect("it can be prepared");
    writer.commit().expect("it can be committed");
    assert!(just_records(job.committed(&job.at(0, 0))) == all, "the records came as they were written");
    assert!(just_records(job.committed(&job.at(1, 1))) == half, "the records came as they were written");
}

/// An open transaction does not hold up the thread that gives it up, and the next writer aborts it.
pub fn a_writer_that_is_dropped_is_gone_at_once<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let mut writer = job.fence(0, 0);
    let open = write(job.at(0, 0), &records("k", 100), 1, Offset(0));
    writer.prepare(&job.transaction(0, vec![open])).expect("it can be prepared");
    let begun = Instant::now();
    drop(writer);
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    let begun = Instant::now();
    drop(job.fence(0, 0));
    assert!(begun.elapsed() < PATIENCE, "it took {:?}", begun.elapsed());
    assert!(job.committed(&job.at(0, 0)).is_empty());
}
