#![allow(clippy::unwrap_used)]

use fluvial_connector::{Digest, Envelope, Offset, SplitId};
use uuid::Uuid;

use super::*;
use crate::journal::SplitStart;

const JOB: Incarnation = Incarnation(Uuid::from_u128(1));

fn of(generation: u64, nonce: u64, entries: Vec<Entry>) -> JournalRecord {
    JournalRecord { incarnation: JOB, generation: Generation(generation), nonce: Nonce(nonce), entries }
}

fn opened(generation: u64, nonce: u64, processes: u32) -> JournalRecord {
    let workers = 2 * processes;
    of(generation, nonce, vec![Entry::Opened { program: "b".to_owned(), workers, processes, turns: 2 }])
}

fn split(number: u32) -> Entry {
    let (source, split) = ("in".to_owned(), SplitId(number.to_string()));
    let number = SplitNumber(number);
    Entry::SplitStarted(SplitStart { number, source, split, offset: Offset(10), identity: String::new() })
}

fn sink() -> SinkStart {
    SinkStart {
        output: "out".to_owned(),
        partitions: 2,
        envelope: Envelope::Upsert,
        tick: Tick(0),
        identity: String::new(),
        progress: String::new(),
    }
}

fn bind(tick: u64, from: u64, to: u64) -> Entry {
    let (from, to, digest) = (Offset(from), Offset(to), Digest::default());
    let range = Range { split: SplitNumber(0), from, to, count: 1, digest };
    Entry::Binding(Binding { tick: Tick(tick), ranges: vec![range], checkpoint: true })
}

fn journal(from: u64, records: Vec<JournalRecord>) -> BTreeMap<Seq, JournalRecord> {
    (from..).map(Seq).zip(records).collect()
}

fn manifest(tick: u64, position: u64) -> Manifest {
    let Entry::SplitStarted(start) = split(0) else { unreachable!() };
    Manifest {
        incarnation: JOB,
        generation: Generation(1),
        program: "before".to_owned(),
        tick: Tick(tick),
        gone_back_to: None,
        went_back: None,
        splits: vec![SplitState { start, position: Offset(position), last: None, caught_up_ms: 0 }],
        sinks: vec![sink()],
        outputs: Vec::new(),
        operators: Vec::new(),
        most_slots: 7,
        most_turns: 1,
    }
}

fn checkpoint(tick: u64, floor: u64) -> Entry {
    Entry::Checkpoint { tick: Tick(tick), manifest: format!("m{tick}"), floor: Seq(floor) }
}

#[test]
fn a_journal_without_a_checkpoint_is_replayed_from_its_beginning() {
    let begin = of(1, 5, vec![split(0), Entry::SinkStarted(sink())]);
    let records = journal(0, vec![opened(1, 5, 4), begin, of(1, 5, vec![bind(3, 10, 12), bind(4, 12, 12)])]);
    let history = History::fold(JOB, &records, None).unwrap();
    assert_eq!((history.as_of(), history.sealed()), (Tick(0), Tick(4)));
    assert_eq!((history.most_slots, history.most_turns), (4, 2));
    assert_eq!((history.new_splits.len(), history.sinks.len()), (1, 1));
    assert_eq!(history.splits[&SplitNumber(0)].position, Offset(12));
    assert!(history.replay.iter().all(|binding| !binding.checkpoint));
}

#[test]
fn a_checkpoint_covers_what_is_at_or_before_its_tick() {
    let records = journal(
        8,
        vec![
            of(1, 5, vec![bind(3, 10, 12), bind(4, 12, 14)]),
            of(
                1,
                5,
                vec![
                    split(1),
                    Entry::Reconciled { tick: Tick(3), rewound: Vec::new(), recreated: Vec::new() },
                    bind(6, 14, 15),
                ],
            ),
            of(1, 5, vec![checkpoint(4, 8)]),
            of(2, 6, Vec::new()),
            opened(2, 6, 3),
        ],
    );
    let found = newest_checkpoint(&records).unwrap();
    assert_eq!((found.at, found.tick, found.floor), (Seq(10), Tick(4), Seq(8)));
    let history = History::fold(JOB, &records, Some((found, manifest(4, 14)))).unwrap();
    assert_eq!((history.as_of(), history.sealed()), (Tick(4), Tick(6)));
    assert_eq!(history.replay.len(), 1);
    assert_eq!(history.new_splits, [SplitNumber(1)]);
    assert_eq!((history.most_slots, history.most_turns), (7, 2));
    assert_eq!(history.reconciliation, None, "the checkpoint covers it");
}

#[test]
fn a_split_that_was_rewound_goes_on_from_its_end() {
    let rewound = |tick| {
        let rewound = vec![Rewound { split: SplitNumber(0), to: Offset(13) }];
        Entry::Reconciled { tick: Tick(tick), rewound, recreated: Vec::new() }
    };
    let entries = vec![split(0), bind(3, 10, 12), bind(4, 12, 14), bind(5, 14, 15), rewound(6), bind(6, 13, 16)];
    let records = journal(0, vec![opened(1, 5, 1), of(1, 5, entries.clone())]);
    let history = History::fold(JOB, &records, None).unwrap();
    let ranges = history.replay.iter().flat_map(|binding| &binding.ranges).map(|r| (r.from.0, r.to.0));
    assert_eq!(ranges.collect::<Vec<_>>(), [(10, 12), (12, 13), (13, 13), (13, 16)]);
    let reconciliation = Reconciliation { tick: Tick(6), compare: Compare::Nothing };
    assert_eq!(history.reconciliation, Some(reconciliation));
    assert_eq!(history.splits[&SplitNumber(0)].position, Offset(16));
    // A checkpoint from before: what it had read behind the split's end is not expected to be there.
    let before = |tick, position| {
        let entry = CheckpointEntry { at: Seq(0), tick: Tick(tick), manifest: String::new(), floor: Seq(0) };
        History::fold(JOB, &records, Some((entry, manifest(tick, position)))).unwrap()
    };
    assert_eq!(before(5, 15).checkpoint.unwrap().splits[0].position, Offset(13));
    // One that covers it has taken the split from its end on.
    assert_eq!(before(6, 16).checkpoint.unwrap().splits[0].position, Offset(16));
}

#[test]
fn a_checkpoint_after_a_reconciliation_vouches_for_nothing_that_was_read_before() {
    let last = |more: &[Entry]| {
        let reconciled = Entry::Reconciled { tick: Tick(4), rewound: Vec::new(), recreated: Vec::new() };
        let entries = [split(0), bind(3, 10, 12), reconciled].into_iter().chain(more.iter().cloned());
        let records = journal(0, vec![opened(1, 5, 1), of(1, 5, entries.collect())]);
        History::fold(JOB, &records, None).unwrap().splits[&SplitNumber(0)].last.as_ref().map(|last| last.to)
    };
    assert_eq!(last(&[]), None);
    assert_eq!(last(&[bind(4, 12, 13)]), Some(Offset(13)));
}

#[test]
fn what_cannot_have_been_written_is_refused() {
    let check = |records: Vec<JournalRecord>, expected: &str| {
        let error = History::fold(JOB, &journal(0, records), None).unwrap_err();
        assert!(matches!(&error, Ended::Journal(_)) && error.to_string().contains(expected), "{error}");
    };
    let begin = of(1, 5, vec![split(0), bind(3, 10, 12)]);
    let other = JournalRecord { incarnation: Incarnation(Uuid::from_u128(2)), ..begin.clone() };
    check(vec![opened(1, 5, 1), other], "record 1 belongs to incarnation");
    check(vec![opened(1, 5, 1), begin.clone(), of(1, 5, vec![bind(3, 12, 13)])], "record 2 binds tick 3 after tick 3");
    check(vec![opened(1, 5, 1), begin.clone(), of(1, 5, vec![bind(4, 11, 13)])], "offsets 11 to 12 of split 0");
    check(vec![opened(1, 5, 1), of(1, 5, vec![bind(4, 11, 13)])], "split 0, which has not started");
    check(vec![opened(1, 5, 1), opened(2, 6, 1), begin], "generation 1, which had been fenced");
    let mut gap = journal(0, vec![opened(1, 5, 1), of(1, 5, Vec::new()), of(1, 5, Vec::new())]);
    gap.remove(&Seq(1));
    let error = History::fold(JOB, &gap, None).unwrap_err();
    assert!(error.to_string().contains("record 1 is missing"), "{error}");
}

#[test]
fn one_that_lost_the_race_to_open_takes_nothing_from_the_winner() {
    let records =
        journal(0, vec![opened(1, 5, 1), opened(3, 7, 1), opened(2, 6, 9), of(3, 7, vec![split(0), bind(3, 10, 12)])]);
    let history = History::fold(JOB, &records, None).unwrap();
    assert_eq!((history.sealed(), history.most_slots), (Tick(3), 9));
}

#[test]
fn opened_records_and_no_ops_are_kept() {
    assert!(is_kept(&opened(1, 5, 1)));
    assert!(is_kept(&of(1, 5, Vec::new())));
    assert!(!is_kept(&of(1, 5, vec![bind(3, 10, 12)])));
}

#[test]
fn the_programs_that_count_wrote_something_or_took_the_checkpoint() {
    let opened = |generation: u64, program: &str| {
        of(
            generation,
            generation,
            vec![Entry::Opened { program: program.to_owned(), workers: 1, processes: 1, turns: 1 }],
        )
    };
    let records = journal(
        0,
        vec![
            opened(1, "first"),
            of(1, 1, vec![split(0), bind(3, 10, 12)]),
            opened(2, "refused"),
            opened(3, "third"),
            of(3, 3, vec![bind(4, 12, 14)]),
            opened(4, "mine"),
        ],
    );
    let history = History::fold(JOB, &records, None).unwrap();
    assert_eq!(history.programs.iter().collect::<Vec<_>>(), ["first", "third"]);
    // The opened record of who wrote at the floor lies before it.
    let entry = CheckpointEntry { at: Seq(0), tick: Tick(3), manifest: String::new(), floor: Seq(4) };
    let history = History::fold(JOB, &records, Some((entry, manifest(3, 12)))).unwrap();
    assert_eq!(history.programs.iter().collect::<Vec<_>>(), ["before"]);
}
