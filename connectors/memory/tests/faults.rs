//! What can go wrong on request, and inputs that are computed.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use fluvial_connector::{
    CommitError, ErrorKind, Generation, Incarnation, Offset, Output, OutputPartition, OutputRecord, PartitionWrite,
    Progress, SinkContext, SinkSession, Slot, Source, SplitId, SplitReader, Tick, Transaction, Transactor, Waker,
    WriterId,
};
use fluvial_memory::{LostCommit, Memory};

struct Job {
    memory: Memory,
    session: Arc<dyn SinkSession>,
}

impl Job {
    fn on(memory: Memory) -> Self {
        let output = memory.upsert("out", 1);
        let context = SinkContext::new("job", Duration::from_secs(5));
        let session = output.sink().connect(&context, &[output.spec()]).unwrap();
        Self { memory, session }
    }

    fn fence(&self) -> Box<dyn Transactor> {
        let incarnation = Incarnation(uuid::Uuid::nil());
        self.session.fence(&WriterId { incarnation, slot: 0, turn: 0 }).unwrap()
    }

    fn at() -> OutputPartition {
        OutputPartition { output: "out".to_owned(), partition: 0 }
    }

    fn transaction(tick: u64) -> Transaction {
        let write = PartitionWrite {
            at: Self::at(),
            records: vec![OutputRecord { key: b"key".to_vec(), value: Some(b"value".to_vec()) }].into(),
            ticks: Vec::new(),
            progress: Progress::complete(Incarnation(uuid::Uuid::nil()), Generation(1), Tick(tick), Offset(0)),
        };
        Transaction { slot: 0, writes: vec![write] }
    }

    /// Committed records, and the tick that progress tells.
    fn seen(&self) -> (usize, Option<u64>) {
        let records = self.memory.committed("out", 0).unwrap().len();
        (records, self.session.progress().unwrap().get(&Self::at()).map(|progress| progress.tick.0))
    }
}

#[test]
fn a_lost_commit_has_the_outcome_that_was_asked_for() {
    for (outcome, seen) in
        [(LostCommit::Happened, (2, Some(2))), (LostCommit::DidNot, (1, Some(1))), (LostCommit::Partly, (2, Some(1)))]
    {
        let job = Job::on(Memory::new());
        job.memory.faults().lose_commit(2, outcome);
        let mut writer = job.fence();
        writer.prepare(&Job::transaction(1)).unwrap();
        writer.commit().unwrap();
        writer.prepare(&Job::transaction(2)).unwrap();
        assert!(matches!(writer.commit(), Err(CommitError::Unknown(_))), "{outcome:?}");
        drop(job.fence());
        assert_eq!(job.seen(), seen, "{outcome:?}");
    }
}

#[test]
fn commits_can_be_stopped_and_let_go() {
    let job = Job::on(Memory::new());
    let mut writer = job.fence();
    writer.prepare(&Job::transaction(1)).unwrap();
    job.memory.faults().block_commits(true);
    let committing = std::thread::spawn(move || writer.commit());
    assert!(job.memory.faults().wait_for_blocked(1, Duration::from_secs(5)));
    assert_eq!(job.seen(), (0, None));
    job.memory.faults().block_commits(false);
    committing.join().unwrap().unwrap();
    assert_eq!(job.seen(), (1, Some(1)));
}

#[test]
fn a_memory_that_is_full_refuses() {
    let job = Job::on(Memory::with_limit(10));
    let mut writer = job.fence();
    writer.prepare(&Job::transaction(1)).unwrap();
    writer.commit().unwrap();
    assert!(matches!(writer.prepare(&Job::transaction(2)), Err(CommitError::Refused(_))));
    job.memory.create_topic("in", 1);
    assert_eq!(job.memory.append("in", 0, None, Some(b"value")).unwrap_err().kind, ErrorKind::Configuration);
}

#[test]
fn a_generated_topic_is_computed_when_it_is_read() {
    let memory = Memory::new();
    memory.generate("numbers", 2, 1_000_000, |split, offset, record| {
        record.key.extend_from_slice(&(offset.0 * 2 + u64::from(split)).to_le_bytes());
    });
    let source = memory.source("numbers");
    let splits = source.splits(Duration::from_secs(1)).unwrap();
    assert_eq!(splits.iter().map(|s| s.availability.end()).collect::<Vec<_>>(), [Some(Offset(1_000_000)); 2]);
    let mut reader: Box<dyn SplitReader> = source.reader(Waker::new(|| ())).unwrap();
    for (slot, split) in (0..).zip(&splits) {
        reader.start(Slot(slot), &split.split, Offset(999_000)).unwrap();
    }
    let mut sum = 0;
    while reader.poll(64, &mut |_, record| sum += u64::from_le_bytes(record.key.unwrap().try_into().unwrap())).unwrap()
        > 0
    {}
    assert_eq!(sum, (1_998_000..2_000_000).sum::<u64>());
    assert_eq!(reader.position(Slot(1)), Offset(1_000_000));
}

#[test]
fn committed_positions_are_kept_for_who_asks() {
    let memory = Memory::new();
    memory.create_topic("in", 1);
    memory.source("in").report_committed("job", &[(SplitId("0".to_owned()), Offset(3))]).unwrap();
    assert_eq!(memory.reported("in").unwrap()[&0], Offset(3));
}
