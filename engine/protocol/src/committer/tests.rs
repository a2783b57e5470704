#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use fluvial_connector::{
    Digest, Envelope, Generation, Incarnation, Offset, OutputPartition, OutputRecord, OutputRecordRef, OutputStatus,
    Position, Progress, SinkStatus, Tick, Transaction, output_digest,
};
use uuid::Uuid;

use super::{Action, Committer, CommitterConfig, Done, Failure, Stretch, Tail};
use crate::journal::{Binding, Nonce, Range, SinkStart, SplitNumber};
use crate::{Compare, Ended, Layout, OutputFault, Plan, Reconciliation, TickRecords, Verdict};

const JOB: Incarnation = Incarnation(Uuid::from_u128(1));
const OTHER_JOB: Incarnation = Incarnation(Uuid::from_u128(2));

pub(super) fn at(partition: u32) -> OutputPartition {
    OutputPartition { output: "out".to_owned(), partition }
}

/// `k1` is the record of key `k` and value `1`.
fn record(text: &str) -> OutputRecord {
    let (key, value) = text.split_at(1);
    OutputRecord { key: key.into(), value: Some(value.into()) }
}

pub(super) fn records(text: &str) -> Vec<OutputRecord> {
    text.split_whitespace().map(record).collect()
}

fn show(record: OutputRecordRef<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(record.key) + &record.value.map_or("-".to_owned(), text)
}

/// The running digest after these ticks.
fn digest(ticks: &[(u64, &str)]) -> Digest {
    ticks.iter().fold(Digest::default(), |before, (tick, text)| {
        let mut sum = Digest::default();
        records(text).iter().for_each(|r| sum.add(output_digest(Some(&r.key), r.value.as_deref())));
        before.chain(Tick(*tick), sum)
    })
}

fn progress(tick: u64, position: Position, ticks: &[(u64, &str)], end: u64) -> Progress {
    Progress {
        incarnation: JOB,
        generation: Generation(1),
        tick: Tick(tick),
        position,
        digest: digest(ticks),
        begin: Offset(end),
        end: Offset(end),
        ticks: Vec::new(),
    }
}

pub(super) fn binding(tick: u64, checkpoint: bool) -> Binding {
    let (from, to, digest) = (Offset(tick), Offset(tick + 1), Digest::default());
    let ranges = vec![Range { split: SplitNumber(0), from, to, count: 1, digest }];
    Binding { tick: Tick(tick), ranges, checkpoint }
}

/// A plan of generation 2 with ticks to replay, for an output of so many partitions.
pub(super) fn plan(partitions: u32, replay: &[u64]) -> Plan {
    Plan {
        incarnation: JOB,
        generation: Generation(2),
        nonce: Nonce(1),
        most_slots: 1,
        most_turns: 2,
        checkpoint: None,
        splits: Vec::new(),
        replay: replay.iter().map(|tick| binding(*tick, false)).collect(),
        sinks: vec![SinkStart {
            output: "out".to_owned(),
            partitions,
            envelope: Envelope::Upsert,
            tick: Tick(0),
            identity: String::new(),
            progress: String::new(),
        }],
        reconciliation: None,
        compare_outputs: None,
        cannot_correct: None,
    }
}

fn reconciliation(tick: u64) -> Option<Reconciliation> {
    Some(Reconciliation { tick: Tick(tick), compare: Compare::Nothing })
}

fn committer(plan: &Plan) -> Committer {
    let config = CommitterConfig {
        slot: 0,
        layout: Layout { workers: 1, processes: 1 },
        turns: 2,
        outputs: vec!["out".to_owned()],
        transaction_records: 3,
        transaction_bytes: 1000,
        heartbeat_ms: 1000,
        patience_ms: 60_000,
    };
    let mut committer = Committer::new(plan, config);
    committer.all_fenced();
    committer
}

/// `out/0 a1 b2 @7 from 5`: partition, records, what progress will say, and where the records before end.
fn show_transaction(transaction: &Transaction) -> String {
    let writes = transaction.writes.iter().map(|write| {
        let records: String = write.records.iter().map(|r| format!(" {}", show(r))).collect();
        let part = match write.progress.position {
            Position::Complete => String::new(),
            Position::Records(count) => format!(".{count}"),
        };
        let earlier: String = write.progress.ticks.iter().map(|e| format!(" earlier {}-{}", e.tick, e.end)).collect();
        format!("{}{records} @{}{part} from {}{earlier}", write.at, write.progress.tick, write.progress.end)
    });
    writes.collect::<Vec<_>>().join("; ")
}

/// Everything that is to be done now.
pub(super) fn actions(committer: &mut Committer, now_ms: u64) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(action) = committer.next_action(now_ms).unwrap() {
        all.push(match action {
            Action::Fence { turn } => format!("fence {turn}"),
            Action::CheckJournal => "journal".to_owned(),
            Action::ReadProgress => "progress".to_owned(),
            Action::ReadTails(from) => {
                let each = from.iter().map(|(at, from)| match from {
                    Some(from) => format!("tail {at} from {from}"),
                    None => format!("end {at}"),
                });
                each.collect::<Vec<_>>().join(", ")
            }
            Action::Prepare { turn, transaction } => format!("prepare {turn}: {}", show_transaction(&transaction)),
            Action::Commit { turn } => format!("commit {turn}"),
            of_participant @ (Action::FenceOthers(_) | Action::ReadBack(_)) => format!("{of_participant:?}"),
        });
    }
    all
}

/// Answers the questions of a recovery: the progress of the partitions from 0 on, and what stands behind it.
fn recover(committer: &mut Committer, found: &[(Option<Progress>, &str)]) -> Result<(), Ended> {
    assert_eq!(actions(committer, 0), ["progress"]);
    let known = found.iter().enumerate().filter_map(|(p, (progress, _))| Some((at(p as u32), progress.clone()?)));
    let known: BTreeMap<OutputPartition, Progress> = known.collect();
    committer.on(Done::Progress(known, SinkStatus::default()))?;
    let asked = actions(committer, 0);
    if asked == ["journal"] {
        return committer.on(Done::Journal(Verdict::Mine));
    }
    let mut questions = Vec::new();
    let mut tails = Vec::new();
    for (partition, (progress, uncovered)) in found.iter().enumerate() {
        let at = at(partition as u32);
        let begin = progress.as_ref().map_or(Offset(0), |progress| progress.end);
        questions.push(if progress.is_some() { format!("tail {at} from {begin}") } else { format!("end {at}") });
        let uncovered = records(uncovered).into_iter().enumerate();
        let uncovered: Vec<_> = uncovered.map(|(i, record)| (Offset(begin.0 + i as u64), record)).collect();
        let end = Offset(begin.0 + uncovered.len() as u64);
        tails.push(Tail { records: uncovered, end, aborted: None });
    }
    assert_eq!(asked, [questions.join(", ")]);
    committer.on(Done::Tails(tails))
}

/// Fences the turns after an unknown outcome, with a journal that has no newer generation.
fn fence(committer: &mut Committer) {
    assert_eq!(actions(committer, 0), ["fence 1", "fence 0"]);
    for turn in 0..2 {
        assert_eq!(actions(committer, 0), [""; 0], "not all turns are fenced");
        committer.on(Done::Fenced { turn }).unwrap();
    }
    assert_eq!(actions(committer, 0), ["journal"]);
    committer.on(Done::Journal(Verdict::Mine)).unwrap();
}

/// Recovers from an unknown outcome of what [`ready`] made: nothing of it is committed.
pub(super) fn recover_nothing(committer: &mut Committer) {
    fence(committer);
    recover(committer, &[(Some(progress(5, Position::Complete, &[], 10)), "")]).unwrap();
}

pub(super) fn prepared(committer: &mut Committer, turn: u32, ends: &[u64]) {
    let ends = ends.iter().map(|end| Offset(*end)).collect();
    committer.on(Done::Prepared { turn, result: Ok(ends) }).unwrap();
}

pub(super) fn committed(committer: &mut Committer, turn: u32) {
    committer.on(Done::Committed { turn, result: Ok(()) }).unwrap();
}

/// Hands in one tick of partition 0, sealed.
pub(super) fn tick(committer: &mut Committer, tick: u64, text: &str) {
    committer.minted(&binding(tick, false));
    committer.output(Tick(tick), &at(0), TickRecords::new(records(text))).unwrap();
    committer.complete(Tick(tick)).unwrap();
    committer.sealed(Tick(tick));
}

/// A committer that has found its progress at the last tick that it replays, and no output so far.
pub(super) fn ready(partitions: u32) -> Committer {
    let mut committer = committer(&plan(partitions, &[5]));
    let found = progress(5, Position::Complete, &[], 10);
    recover(&mut committer, &vec![(Some(found), ""); partitions as usize]).unwrap();
    committer.complete(Tick(5)).unwrap();
    assert!(committer.is_ready());
    committer
}

#[test]
fn a_new_job_begins_with_progress_alone_and_writes_what_is_sealed() {
    let mut committer = committer(&plan(1, &[]));
    recover(&mut committer, &[(None, "")]).unwrap();
    assert!(!committer.is_ready());
    assert_eq!(actions(&mut committer, 0), ["prepare 0: out/0 @0 from 0"]);
    prepared(&mut committer, 0, &[0]);
    assert_eq!(actions(&mut committer, 0), ["commit 0"]);
    committed(&mut committer, 0);
    assert!(committer.is_ready());

    committer.minted(&binding(7, false));
    committer.output(Tick(7), &at(0), TickRecords::new(records("a1 b2"))).unwrap();
    committer.complete(Tick(7)).unwrap();
    assert_eq!(actions(&mut committer, 0), [""; 0]);
    assert_eq!(committer.committed_through(), Tick(0));
    committer.sealed(Tick(7));
    assert_eq!(actions(&mut committer, 0), ["prepare 1: out/0 a1 b2 @7 from 0"]);
    assert_eq!(committer.committed_through(), Tick(6));
    prepared(&mut committer, 1, &[2]);
    assert_eq!(actions(&mut committer, 0), ["commit 1"]);
    committed(&mut committer, 1);
    assert_eq!(committer.committed_through(), Tick(7));
}

#[test]
fn a_turn_prepares_while_the_other_commits_and_they_commit_in_order() {
    let mut committer = ready(1);
    tick(&mut committer, 6, "a1");
    assert_eq!(actions(&mut committer, 0), ["prepare 0: out/0 a1 @6 from 10"]);
    tick(&mut committer, 7, "a2");
    assert_eq!(actions(&mut committer, 0), [""; 0], "the first is not prepared yet");
    prepared(&mut committer, 0, &[11]);
    assert_eq!(actions(&mut committer, 0), ["commit 0", "prepare 1: out/0 a2 @7 from 11"]);
    prepared(&mut committer, 1, &[13]);
    assert_eq!(actions(&mut committer, 0), [""; 0], "the first is not committed yet");
    committed(&mut committer, 0);
    assert_eq!(actions(&mut committer, 0), ["commit 1"]);
}

#[test]
fn replay_is_dropped_up_to_the_progress_and_compared_there() {
    let check = |replayed: &[(u64, &str)], expected: Result<&str, &str>| {
        let mut committer = committer(&plan(1, &[1, 2, 3]));
        recover(&mut committer, &[(Some(progress(2, Position::Complete, &[(1, "a1"), (2, "b1 c1")], 4)), "")]).unwrap();
        for (tick, text) in replayed {
            committer.output(Tick(*tick), &at(0), TickRecords::new(records(text))).unwrap();
        }
        committer.complete(Tick(3)).unwrap();
        let first = actions(&mut committer, 0).remove(0);
        match expected {
            Ok(expected) => assert_eq!(first, expected),
            Err(expected) => {
                assert_eq!(first, "journal", "a newer generation may have moved on");
                let ended = committer.on(Done::Journal(Verdict::Mine)).unwrap_err();
                assert!(ended.to_string().contains(expected), "{ended}");
            }
        }
    };
    check(&[(1, "a1"), (2, "b1 c1"), (3, "d1")], Ok("prepare 0: out/0 d1 @3 from 4"));
    check(&[(1, "a1"), (2, "c1 b1"), (3, "d1")], Ok("prepare 0: out/0 d1 @3 from 4"));
    check(&[(1, "a1"), (2, "b1 c2"), (3, "d1")], Err("tick 2"));
    check(&[(1, "a1"), (3, "d1")], Err("tick 2"));
    check(&[(2, "b1 c1")], Err("tick 2"));
    check(&[(1, "a1")], Err("tick 2"));
}

#[test]
fn a_large_tick_is_written_in_parts_and_gone_on_from_in_the_middle() {
    let mut writer = ready(1);
    tick(&mut writer, 6, "a1 b1 c1 d1 e1");
    assert_eq!(actions(&mut writer, 0), ["prepare 0: out/0 a1 b1 c1 @6.3 from 10"]);
    prepared(&mut writer, 0, &[13]);
    assert_eq!(actions(&mut writer, 0), ["commit 0", "prepare 1: out/0 d1 e1 @6 from 13"]);
    committed(&mut writer, 0);
    assert_eq!(writer.committed_through(), Tick(5));

    let mut next = committer(&plan(1, &[5, 6]));
    recover(&mut next, &[(Some(progress(6, Position::Records(3), &[(6, "a1 b1 c1")], 13)), "")]).unwrap();
    next.output(Tick(6), &at(0), TickRecords::new(records("a1 b1 c1 d1 e1"))).unwrap();
    next.complete(Tick(6)).unwrap();
    assert_eq!(actions(&mut next, 0), ["prepare 0: out/0 d1 e1 @6 from 13"]);
}

#[test]
fn the_parts_of_a_tick_come_to_the_digest_of_the_whole() {
    let mut writer = ready(1);
    tick(&mut writer, 6, "a1 b1 c1 d1 e1");
    let mut digests = Vec::new();
    for turn in 0..2 {
        while let Some(action) = writer.next_action(0).unwrap() {
            if let Action::Prepare { transaction, .. } = action {
                digests.push(transaction.writes[0].progress.digest);
            }
        }
        if turn == 0 {
            prepared(&mut writer, 0, &[13]);
        }
    }
    assert_eq!(digests, [digest(&[(6, "a1 b1 c1")]), digest(&[(6, "a1 b1 c1 d1 e1")])]);
}

#[test]
fn what_is_torn_is_left_out_and_keeps_its_tick() {
    let mut committer = committer(&plan(1, &[1, 2, 3]));
    recover(&mut committer, &[(Some(progress(1, Position::Complete, &[(1, "a1")], 5)), "b1 c1 d1")]).unwrap();
    for (tick, text) in [(1, "a1"), (2, "b1 c1"), (3, "d1 e1")] {
        committer.output(Tick(tick), &at(0), TickRecords::new(records(text))).unwrap();
    }
    committer.complete(Tick(3)).unwrap();
    let expected = "prepare 0: out/0 e1 @3 from 8 earlier 2-7 earlier 3-8";
    assert_eq!(actions(&mut committer, 0), [expected]);
}

#[test]
fn a_committed_record_that_the_job_does_not_write_is_refused() {
    for uncovered in ["b2", "b1 c1 d1"] {
        let mut committer = committer(&plan(1, &[1, 2]));
        recover(&mut committer, &[(Some(progress(1, Position::Complete, &[(1, "a1")], 5)), uncovered)]).unwrap();
        committer.output(Tick(1), &at(0), TickRecords::new(records("a1"))).unwrap();
        committer.output(Tick(2), &at(0), TickRecords::new(records("b1 c1"))).unwrap();
        committer.complete(Tick(2)).unwrap();
        assert_eq!(actions(&mut committer, 0), ["journal"]);
        let ended = committer.on(Done::Journal(Verdict::Mine)).unwrap_err();
        assert!(matches!(ended, Ended::Output(OutputFault::ForeignRecord { .. })), "{ended}");
    }
}

#[test]
fn progress_that_cannot_be_this_jobs_is_refused_by_name() {
    let check = |found: Option<Progress>, expected: &str| {
        let mut committer = committer(&plan(1, &[1, 2]));
        let ended = recover(&mut committer, &[(found, "")]).unwrap_err();
        assert!(matches!(ended, Ended::Output(_)), "{ended}");
        assert!(ended.to_string().contains("output out/0") && ended.to_string().contains(expected), "{ended}");
    };
    let good = progress(2, Position::Complete, &[], 5);
    check(None, "has no progress, although the journal is sealed through tick 2");
    check(Some(Progress { incarnation: OTHER_JOB, ..good.clone() }), "another store");
    check(
        Some(Progress { tick: Tick(3), ..good }),
        "committed through tick 3, and the journal is sealed only through 2",
    );
}

#[test]
fn an_output_that_has_lost_what_was_committed_is_refused_unless_it_is_corrected() {
    let lost = |committer: &mut Committer| {
        actions(committer, 0);
        let found = progress(2, Position::Complete, &[(1, "a1")], 5);
        committer.on(Done::Progress([(at(0), found)].into(), SinkStatus::default())).unwrap();
        assert_eq!(actions(committer, 0), ["tail out/0 from 5"]);
        committer.on(Done::Tails(vec![Tail { records: Vec::new(), end: Offset(3), aborted: None }])).unwrap();
        actions(committer, 0)
    };
    let mut refused = committer(&plan(1, &[1, 2]));
    assert_eq!(lost(&mut refused), ["journal"]);
    let ended = refused.on(Done::Journal(Verdict::Mine)).unwrap_err();
    assert!(ended.to_string().contains("output out/0 ends at offset 3, and was written up to 5"), "{ended}");
    let mut corrected = committer(&Plan { reconciliation: reconciliation(9), ..plan(1, &[1, 2]) });
    assert_eq!(lost(&mut corrected), ["prepare 0: out/0 @2 from 3"]);
}

/// Answers the questions of a recovery: progress at tick 5 that ends at offset 10, whose last record was aborted.
fn find_aborted(committer: &mut Committer) -> Vec<String> {
    assert_eq!(actions(committer, 0), ["progress"]);
    let found = progress(5, Position::Complete, &[], 10);
    committer.on(Done::Progress([(at(0), found)].into(), SinkStatus::default())).unwrap();
    assert_eq!(actions(committer, 0), ["tail out/0 from 10"]);
    // The marker of the abort is after the record.
    let tail = Tail { records: Vec::new(), end: Offset(11), aborted: Some(Offset(9)) };
    committer.on(Done::Tails(vec![tail])).unwrap();
    actions(committer, 0)
}

#[test]
fn a_committed_record_that_is_aborted_by_now_is_refused_in_every_recovery() {
    let opening = committer(&plan(1, &[5]));
    let mut running = ready(1);
    tick(&mut running, 6, "a1");
    actions(&mut running, 0);
    prepared(&mut running, 0, &[11]);
    assert_eq!(actions(&mut running, 0), ["commit 0"]);
    running.on(Done::Committed { turn: 0, result: Err(Failure::Unknown("no answer".to_owned())) }).unwrap();
    fence(&mut running);
    for mut committer in [opening, running] {
        assert_eq!(find_aborted(&mut committer), ["journal"], "a newer generation may have moved on");
        let ended = committer.on(Done::Journal(Verdict::Mine)).unwrap_err();
        assert!(matches!(ended, Ended::Output(_)), "{ended}");
        let ended = ended.to_string();
        let said = "output out/0: the record at offset 9, which this job had committed, was aborted; `run --reconcile`";
        assert!(ended.contains(said), "{ended}");
    }
}

#[test]
fn a_reconciliation_goes_on_after_an_aborted_record_and_does_not_find_it_again() {
    let mut corrected = committer(&Plan { reconciliation: reconciliation(9), ..plan(1, &[5]) });
    assert_eq!(find_aborted(&mut corrected), ["prepare 0: out/0 @5 from 11"]);
    let mut left = committer(&leaving(&[5]));
    assert_eq!(find_aborted(&mut left), [""; 0]);
    left.complete(Tick(5)).unwrap();
    tick(&mut left, 9, "d1");
    assert_eq!(actions(&mut left, 0), ["prepare 0: out/0 d1 @9 from 11"]);
}

#[test]
fn progress_of_a_newer_generation_says_that_this_one_is_fenced() {
    let mut committer = committer(&plan(1, &[1, 2]));
    let newer = Progress { generation: Generation(3), ..progress(9, Position::Complete, &[], 5) };
    let ended = recover(&mut committer, &[(Some(newer), "")]).unwrap_err();
    assert_eq!(ended, Ended::Fenced { by: Generation(3) });
}

#[test]
fn after_an_unknown_outcome_all_turns_are_fenced_before_anything_is_written_again() {
    for happened in [true, false] {
        let mut committer = ready(1);
        tick(&mut committer, 6, "a1");
        actions(&mut committer, 0);
        prepared(&mut committer, 0, &[11]);
        tick(&mut committer, 7, "b1");
        assert_eq!(actions(&mut committer, 0), ["commit 0", "prepare 1: out/0 b1 @7 from 11"]);
        committer.on(Done::Committed { turn: 0, result: Err(Failure::Unknown("no answer".to_owned())) }).unwrap();
        assert_eq!(actions(&mut committer, 0), ["fence 1", "fence 0"]);
        committer.on(Done::Prepared { turn: 1, result: Ok(vec![Offset(12)]) }).unwrap();
        committer.on(Done::Fenced { turn: 0 }).unwrap();
        committer.on(Done::Fenced { turn: 1 }).unwrap();
        assert_eq!(actions(&mut committer, 0), ["journal"]);
        committer.on(Done::Journal(Verdict::Mine)).unwrap();
        let found = if happened {
            progress(6, Position::Complete, &[(6, "a1")], 11)
        } else {
            progress(5, Position::Complete, &[], 10)
        };
        recover(&mut committer, &[(Some(Progress { generation: Generation(2), ..found }), "")]).unwrap();
        let expected = if happened { "b1 @7 from 11" } else { "a1 b1 @7 from 10" };
        let written = actions(&mut committer, 0);
        assert_eq!(written.len(), 1);
        assert!(written[0].ends_with(expected), "{written:?}");
    }
}

#[test]
fn the_journal_decides_what_a_fenced_writer_means() {
    for (verdict, fenced) in [(Verdict::Newer(Generation(3)), true), (Verdict::Mine, false), (Verdict::Older, false)] {
        let mut committer = ready(1);
        tick(&mut committer, 6, "a1");
        actions(&mut committer, 0);
        committer
            .on(Done::Prepared { turn: 0, result: Err(Failure::Fenced("fenced by the broker".to_owned())) })
            .unwrap();
        assert_eq!(actions(&mut committer, 0), ["journal"]);
        let ended = committer.on(Done::Journal(verdict)).unwrap_err();
        assert_eq!(matches!(ended, Ended::Fenced { .. }), fenced, "{ended}");
        assert_eq!(matches!(ended, Ended::WriterFenced { .. }), !fenced, "{ended}");
    }
}

#[test]
fn idle_partitions_follow_with_the_heartbeat_and_only_after_input() {
    let mut committer = ready(2);
    tick(&mut committer, 6, "a1");
    assert_eq!(actions(&mut committer, 5000), ["prepare 0: out/0 a1 @6 from 10; out/1 @6 from 10"]);
    prepared(&mut committer, 0, &[11, 10]);
    actions(&mut committer, 5000);
    committed(&mut committer, 0);
    tick(&mut committer, 7, "a2");
    assert_eq!(actions(&mut committer, 5500), ["prepare 1: out/0 a2 @7 from 11"]);
    prepared(&mut committer, 1, &[12]);
    assert_eq!(actions(&mut committer, 5500), ["commit 1"]);
    committed(&mut committer, 1);
    assert_eq!(committer.deadline_ms(), Some(6000));
    assert_eq!(actions(&mut committer, 6000), ["prepare 0: out/1 @7 from 10"]);
    prepared(&mut committer, 0, &[10]);
    actions(&mut committer, 6000);
    committed(&mut committer, 0);
    // A tick without input moves no progress.
    committer.minted(&Binding { tick: Tick(8), ranges: Vec::new(), checkpoint: false });
    committer.complete(Tick(8)).unwrap();
    committer.sealed(Tick(8));
    assert_eq!(actions(&mut committer, 9000), [""; 0]);
    assert_eq!(committer.committed_through(), Tick(8));
}

#[test]
fn a_checkpoint_waits_for_the_progress_of_every_partition_and_has_the_digests_of_its_tick() {
    let mut committer = ready(2);
    committer.minted(&binding(6, true));
    committer.output(Tick(6), &at(0), TickRecords::new(records("a1"))).unwrap();
    committer.minted(&binding(7, false));
    committer.output(Tick(7), &at(0), TickRecords::new(records("a2"))).unwrap();
    committer.complete(Tick(7)).unwrap();
    assert_eq!(committer.checkpointed(), None);
    committer.sealed(Tick(6));
    assert_eq!(actions(&mut committer, 0), ["prepare 0: out/0 a1 @6 from 10; out/1 @6 from 10"]);
    prepared(&mut committer, 0, &[11, 10]);
    actions(&mut committer, 0);
    assert_eq!(committer.checkpointed(), None);
    committed(&mut committer, 0);
    let digests = vec![(at(0), digest(&[(6, "a1")])), (at(1), Digest::default())];
    assert_eq!(committer.checkpointed(), Some((Tick(6), digests)));
    assert_eq!(committer.checkpointed(), None);
}

#[test]
fn a_worker_without_output_partitions_commits_whatever_is_sealed_and_complete() {
    let mut committer = committer(&plan(0, &[1, 2]));
    assert!(committer.is_ready());
    committer.complete(Tick(2)).unwrap();
    assert_eq!(committer.committed_through(), Tick(2));
    committer.minted(&binding(3, true));
    committer.complete(Tick(3)).unwrap();
    assert_eq!((committer.committed_through(), committer.checkpointed()), (Tick(2), None));
    committer.sealed(Tick(3));
    assert_eq!((committer.committed_through(), committer.checkpointed()), (Tick(3), Some((Tick(3), Vec::new()))));
}

#[test]
fn a_reconciliation_gives_up_what_was_before_and_begins_the_digests_anew() {
    let reconciling = Plan { reconciliation: reconciliation(9), ..plan(1, &[1, 2]) };
    let mut committer = committer(&reconciling);
    recover(&mut committer, &[(Some(progress(1, Position::Complete, &[(1, "x1")], 5)), "y1")]).unwrap();
    // The replayed output may differ, and is not written.
    committer.output(Tick(1), &at(0), TickRecords::new(records("a1"))).unwrap();
    committer.output(Tick(2), &at(0), TickRecords::new(records("b1"))).unwrap();
    committer.complete(Tick(2)).unwrap();
    assert_eq!(actions(&mut committer, 0), ["prepare 0: out/0 @2 from 6"]);
    prepared(&mut committer, 0, &[6]);
    actions(&mut committer, 0);
    committed(&mut committer, 0);
    assert!(committer.is_ready());
    assert_eq!(committer.to_reconcile().collect::<Vec<_>>(), [&at(0)]);
    tick(&mut committer, 9, "c1");
    tick(&mut committer, 10, "d1");
    let Some(Action::Prepare { transaction, .. }) = committer.next_action(0).unwrap() else { panic!("it is due") };
    assert_eq!(show_transaction(&transaction), "out/0 c1 d1 @10 from 6");
    assert_eq!(transaction.writes[0].progress.digest, digest(&[(10, "d1")]));

    // A later generation finds it done.
    let mut next = self::committer(&Plan { replay: vec![binding(9, false), binding(10, false)], ..reconciling });
    recover(&mut next, &[(Some(progress(10, Position::Complete, &[(10, "d1")], 8)), "")]).unwrap();
    assert_eq!(next.to_reconcile().count(), 0);
    next.output(Tick(10), &at(0), TickRecords::new(records("d1"))).unwrap();
    next.complete(Tick(10)).unwrap();
    assert!(next.is_ready());
    assert_eq!(actions(&mut next, 0), [""; 0]);
}

/// A plan that reconciles at tick 9 and has an append output.
fn leaving(replay: &[u64]) -> Plan {
    let mut plan = Plan { reconciliation: reconciliation(9), ..plan(1, replay) };
    plan.sinks[0].envelope = Envelope::Append;
    plan
}

#[test]
fn a_reconciliation_leaves_an_append_output_and_goes_on_after_its_progress() {
    let mut committer = committer(&leaving(&[1, 2, 3]));
    recover(&mut committer, &[(Some(progress(2, Position::Complete, &[(1, "x1"), (2, "y1")], 5)), "")]).unwrap();
    // Nothing of this was written before, but its ticks were.
    committer.output(Tick(1), &at(0), TickRecords::new(records("a1"))).unwrap();
    committer.output(Tick(2), &at(0), TickRecords::new(records("b1 b2"))).unwrap();
    committer.output(Tick(3), &at(0), TickRecords::new(records("c1"))).unwrap();
    committer.complete(Tick(3)).unwrap();
    assert_eq!(committer.to_reconcile().count(), 0);
    tick(&mut committer, 9, "d1");
    let Some(Action::Prepare { transaction, .. }) = committer.next_action(0).unwrap() else { panic!("it is due") };
    assert_eq!(show_transaction(&transaction), "out/0 c1 d1 @9 from 5");
    let after = digest(&[(1, "a1"), (2, "b1 b2"), (3, "c1"), (9, "d1")]);
    assert_eq!(transaction.writes[0].progress.digest, after);

    // A later generation compares what has been written since.
    for (written, expected) in [("d1", true), ("z1", false)] {
        let found = progress(9, Position::Complete, &[(1, "a1"), (2, "b1 b2"), (3, "c1"), (9, written)], 7);
        let mut next = self::committer(&leaving(&[1, 2, 3, 9]));
        recover(&mut next, &[(Some(found), "")]).unwrap();
        for (number, text) in [(1, "a1"), (2, "b1 b2"), (3, "c1"), (9, "d1")] {
            next.output(Tick(number), &at(0), TickRecords::new(records(text))).unwrap();
        }
        next.complete(Tick(9)).unwrap();
        let doubts = actions(&mut next, 0);
        assert_eq!((doubts.is_empty(), next.is_ready()), (expected, expected), "{doubts:?}");
    }
}

#[test]
fn an_append_output_that_is_left_keeps_its_parts_and_torn_records_whatever_they_are() {
    // Two records of tick 2 are committed, of which it has one by now; two more of tick 3 are uncovered, of which it has three.
    let mut committer = committer(&leaving(&[1, 2, 3]));
    let found = progress(2, Position::Records(2), &[(1, "x1")], 5);
    recover(&mut committer, &[(Some(found), "q1 q2")]).unwrap();
    committer.output(Tick(2), &at(0), TickRecords::new(records("b1"))).unwrap();
    committer.output(Tick(3), &at(0), TickRecords::new(records("c1 c2 c3"))).unwrap();
    committer.complete(Tick(3)).unwrap();
    assert_eq!(actions(&mut committer, 0), ["prepare 0: out/0 c3 @3 from 7 earlier 3-7"]);

    // The uncovered records are more than there is to write.
    let mut committer = self::committer(&leaving(&[1, 2]));
    recover(&mut committer, &[(Some(progress(1, Position::Complete, &[(1, "x1")], 5)), "q1 q2")]).unwrap();
    committer.output(Tick(2), &at(0), TickRecords::new(records("b1"))).unwrap();
    committer.complete(Tick(2)).unwrap();
    assert_eq!(actions(&mut committer, 0), ["prepare 0: out/0 @2 from 7 earlier 2-6"]);
    tick(&mut committer, 10, "d1");
    prepared(&mut committer, 0, &[7]);
    assert_eq!(actions(&mut committer, 0), ["commit 0", "prepare 1: out/0 d1 @10 from 7"]);
}

/// Writes tick 7 after progress that ended at offset 5; `end` is where the sink says that it lies.
fn wrote(end: u64) -> Committer {
    let mut committer = committer(&plan(1, &[]));
    recover(&mut committer, &[(Some(progress(0, Position::Complete, &[], 5)), "")]).unwrap();
    tick(&mut committer, 7, "a1 b1");
    assert_eq!(actions(&mut committer, 0), ["prepare 0: out/0 a1 b1 @7 from 5"]);
    prepared(&mut committer, 0, &[end]);
    committer
}

#[test]
fn an_output_whose_offsets_go_back_is_not_committed_to() {
    let mut committer = wrote(2);
    fence(&mut committer);
    let found = progress(0, Position::Complete, &[], 5);
    recover(&mut committer, &[(Some(found), "")]).unwrap();
    assert_eq!(actions(&mut committer, 0), ["journal"]);
    let ended = committer.on(Done::Journal(Verdict::Mine)).unwrap_err().to_string();
    assert!(
        ended.contains(
            "output out/0 was written up to offset 5, and the records after that have lower offsets, up to 2"
        ),
        "{ended}"
    );
    assert!(ended.contains("run --reconcile"), "{ended}");
}

#[test]
fn an_output_that_is_recreated_is_told_by_its_id_before_anything_else_is_written() {
    let mut plan = plan(1, &[]);
    plan.sinks[0].identity = "first".to_owned();
    let mut committer = committer(&plan);
    assert_eq!(actions(&mut committer, 0), ["progress"]);
    let output = OutputStatus { partitions: 1, identity: "second".to_owned() };
    let status = SinkStatus { outputs: [("out".to_owned(), output)].into(), ..SinkStatus::default() };
    committer.on(Done::Progress(BTreeMap::new(), status)).unwrap();
    assert_eq!(actions(&mut committer, 0), ["journal"]);
    let ended = committer.on(Done::Journal(Verdict::Mine)).unwrap_err().to_string();
    assert!(ended.contains("has the id second and had first"), "{ended}");
}

#[test]
fn offsets_between_own_records_that_markers_do_not_explain_are_told() {
    let mut committer = wrote(7);
    assert_eq!(actions(&mut committer, 0), ["commit 0"]);
    committed(&mut committer, 0);
    tick(&mut committer, 8, "a2");
    actions(&mut committer, 0);
    // The marker of the first at 7, two of somebody else.
    prepared(&mut committer, 1, &[11]);
    let stretch = Stretch { at: at(0), from: Offset(7), to: Offset(11), records: 1, others: 2 };
    assert_eq!(committer.unexplained(), [stretch]);
    assert_eq!(committer.unexplained(), []);
}

#[test]
fn a_reconciliation_that_leaves_an_append_output_goes_on_where_it_ends_now() {
    let mut committer = committer(&leaving(&[1]));
    assert_eq!(actions(&mut committer, 0), ["progress"]);
    let found = progress(1, Position::Complete, &[(1, "x1")], 5);
    committer.on(Done::Progress([(at(0), found)].into(), SinkStatus::default())).unwrap();
    assert_eq!(actions(&mut committer, 0), ["tail out/0 from 5"]);
    committer.on(Done::Tails(vec![Tail { records: Vec::new(), end: Offset(0), aborted: None }])).unwrap();
    committer.output(Tick(1), &at(0), TickRecords::new(records("a1"))).unwrap();
    tick(&mut committer, 9, "d1");
    assert_eq!(actions(&mut committer, 0), ["prepare 0: out/0 d1 @9 from 0"]);
}

#[test]
fn what_lies_between_own_records_is_not_counted_across_a_recovery() {
    let mut committer = ready(1);
    tick(&mut committer, 6, "a1");
    actions(&mut committer, 0);
    committer.on(Done::Prepared { turn: 0, result: Err(Failure::Unknown("no answer".to_owned())) }).unwrap();
    recover_nothing(&mut committer);
    committer.complete(Tick(6)).unwrap();
    assert_eq!(actions(&mut committer, 0), ["prepare 1: out/0 a1 @6 from 10"]);
    // The aborted records of the first and their marker are before it.
    prepared(&mut committer, 1, &[18]);
    assert_eq!(committer.unexplained(), []);
    actions(&mut committer, 0);
    committed(&mut committer, 1);
    tick(&mut committer, 7, "a2");
    actions(&mut committer, 0);
    prepared(&mut committer, 0, &[21]);
    let stretch = Stretch { at: at(0), from: Offset(18), to: Offset(21), records: 1, others: 1 };
    assert_eq!(committer.unexplained(), [stretch]);
}

#[test]
fn a_turn_that_answers_what_it_was_not_asked_is_a_bug() {
    let check = |done: Done| {
        let mut committer = ready(1);
        tick(&mut committer, 6, "a1");
        assert_eq!(actions(&mut committer, 0), ["prepare 0: out/0 a1 @6 from 10"]);
        assert!(matches!(committer.on(done.clone()), Err(Ended::Bug(_))), "{done:?}");
    };
    check(Done::Committed { turn: 0, result: Ok(()) });
    check(Done::Prepared { turn: 1, result: Ok(vec![Offset(11)]) });
    check(Done::Fenced { turn: 0 });
    check(Done::Journal(Verdict::Mine));
}

#[test]
fn progress_earlier_than_what_this_generation_has_committed_is_refused() {
    let mut committer = ready(1);
    tick(&mut committer, 6, "a1");
    actions(&mut committer, 0);
    prepared(&mut committer, 0, &[11]);
    actions(&mut committer, 0);
    committed(&mut committer, 0);
    tick(&mut committer, 7, "b1");
    actions(&mut committer, 0);
    committer.on(Done::Prepared { turn: 1, result: Err(Failure::Unknown("no answer".to_owned())) }).unwrap();
    fence(&mut committer);
    let ended = recover(&mut committer, &[(Some(progress(5, Position::Complete, &[], 10)), "")]).unwrap_err();
    let behind = OutputFault::ProgressBehind { at: at(0), tick: Tick(5), committed: Tick(6) };
    assert_eq!(ended, Ended::Output(behind));
}
