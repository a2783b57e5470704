#![allow(clippy::unwrap_used)]

use fluvial_connector::Tick;
use uuid::Uuid;

use super::*;
use crate::{Layout, PutOutcome};

/// A store that holds only a journal, and the older generation that goes on appending to it.
struct Journal {
    records: BTreeMap<Seq, JournalRecord>,
    busy: bool,
    appends: u64,
}

fn identity(generation: u64) -> Identity {
    let (incarnation, nonce) = (Incarnation(Uuid::nil()), Nonce(generation));
    Identity { incarnation, generation: Generation(generation), nonce }
}

fn opened_by(generation: u64) -> JournalRecord {
    let entry = Entry::Opened { program: String::new(), workers: 1, processes: 1, turns: 1 };
    (*identity(generation).record(vec![entry])).clone()
}

impl Journal {
    fn of(generations: &[(u64, u64)]) -> Self {
        let records = generations.iter().map(|(seq, generation)| (Seq(*seq), opened_by(*generation))).collect();
        Self { records, busy: false, appends: 0 }
    }

    /// The busy generation appends at the first free position, unless that is another's.
    fn append(&mut self) {
        let free = Seq(self.appends + 1);
        if self.busy && !self.records.contains_key(&free) {
            self.appends += 1;
            self.records.insert(
                free,
                (*identity(1).record(vec![Entry::Reconciled {
                    tick: Tick(0),
                    rewound: Vec::new(),
                    recreated: Vec::new(),
                }]))
                .clone(),
            );
        } else {
            self.busy = false;
        }
    }

    fn answer(&mut self, call: Call) -> Answer {
        match call {
            Call::List { after } => {
                let taken = self.records.keys().copied();
                Answer::Positions(taken.filter(|seq| after.is_none_or(|after| *seq > after)).collect())
            }
            Call::Get(seqs) => {
                Answer::Records(seqs.into_iter().map(|seq| (seq, self.records.get(&seq).cloned())).collect())
            }
            Call::Put(seq, _) if self.records.contains_key(&seq) => Answer::Put(PutOutcome::AlreadyExists),
            Call::Put(seq, record) => {
                self.records.insert(seq, (*record).clone());
                Answer::Put(PutOutcome::Created)
            }
            other => panic!("{other:?}"),
        }
    }
}

fn opener(nonce: u64, rules: Rules) -> Opening {
    let incarnation = Incarnation(Uuid::nil());
    let opener = Opener {
        incarnation,
        nonce: Nonce(nonce),
        program: String::new(),
        layout: Layout { workers: 1, processes: 1 },
        turns: 1,
        follows: None,
        go_back: None,
    };
    Opening::new(opener, rules)
}

/// Opens, while the store does `between` after each of its answers.
fn open(
    mut opening: Opening,
    journal: &mut Journal,
    mut between: impl FnMut(&mut Journal),
) -> Option<Result<Opened, Ended>> {
    for _ in 0..500 {
        let call = opening.next_call().expect("an opening always asks something");
        let answer = journal.answer(call);
        between(journal);
        match opening.on(answer) {
            Ok(None) => {}
            Ok(Some(opened)) => return Some(Ok(opened)),
            Err(ended) => return Some(Err(ended)),
        }
    }
    None
}

#[test]
fn the_first_generation_opens_at_the_beginning() {
    let opened = open(opener(9, Rules::default()), &mut Journal::of(&[]), |_| {}).unwrap().unwrap();
    assert_eq!((opened.at, opened.me.generation), (Seq(0), Generation(1)));
}

#[test]
fn a_run_that_another_has_taken_over_from_does_not_take_over_again_by_itself_nor_does_an_attempt_that_is_late() {
    let (own, others) = (Nonce::of_run(1, 7), Nonce::of_run(2, 9));
    for (newest, follows, fenced) in [
        (Nonce::of_run(1, 9), None, true),
        (Nonce::of_run(1, 9), Some(3), true),
        (own, Some(3), false),
        (own, None, false),
        (others, None, false),
        (others, Some(4), false),
        (others, Some(3), true),
    ] {
        let mut journal = Journal::of(&[(0, 3)]);
        journal.records.values_mut().for_each(|record| record.nonce = newest);
        let mut opening = opener(Nonce::of_run(1, 8).0, Rules::default());
        opening.opener.follows = follows.map(Generation);
        let result = open(opening, &mut journal, |_| {}).unwrap();
        assert_eq!(result.err(), fenced.then_some(Ended::Fenced { by: Generation(3) }), "{newest:?} {follows:?}");
    }
}

#[test]
fn a_newer_generation_opens_ahead_and_leaves_no_hole() {
    let mut journal = Journal::of(&[(0, 1)]);
    let opened = open(opener(9, Rules::default()), &mut journal, |_| {}).unwrap().unwrap();
    assert_eq!((opened.at, opened.me.generation), (Seq(AHEAD + 1), Generation(2)));
    assert_eq!(journal.records.len() as u64, AHEAD + 2);
}

#[test]
fn a_newer_generation_wins_against_a_busy_one_on_a_slow_store() {
    let mut journal = Journal { busy: true, ..Journal::of(&[(0, 1)]) };
    let busy = |journal: &mut Journal| (0..3).for_each(|_| journal.append());
    let opened = open(opener(9, Rules::default()), &mut journal, busy).unwrap().unwrap();
    assert_eq!(opened.me.generation, Generation(2));
    assert!(!journal.busy, "the older one has met a record that is not its own");
    assert_eq!(opened.records.len() as u64, opened.at.0 + 1);
}

#[test]
fn without_claiming_ahead_it_loses_the_race_for_ever() {
    let mut journal = Journal { busy: true, ..Journal::of(&[(0, 1)]) };
    let busy = |journal: &mut Journal| (0..3).for_each(|_| journal.append());
    assert!(open(opener(9, Rules::without(Rule::ClaimAhead)), &mut journal, busy).is_none());
}

#[test]
fn holes_of_an_opening_that_died_are_filled() {
    let mut journal = Journal::of(&[(0, 1), (5, 2)]);
    let opened = open(opener(9, Rules::default()), &mut journal, |_| {}).unwrap().unwrap();
    assert_eq!(opened.me.generation, Generation(3));
    assert_eq!(journal.records.keys().map(|seq| seq.0).collect::<Vec<_>>(), (0..=opened.at.0).collect::<Vec<_>>());
}

/// What an opening that only reads finds; each answer is followed by what the store does `between`.
fn look(journal: &mut Journal, between: impl FnMut(&mut Journal)) -> Result<Opened, Ended> {
    let opening = Opening { only_reads: true, ..opener(9, Rules::default()) };
    open(opening, journal, between).unwrap()
}

#[test]
fn who_only_reads_finds_what_an_opening_finds_and_changes_nothing() {
    for taken in [&[][..], &[(0, 1)], &[(0, 1), (5, 2)], &[(0, 1), (1, 1), (7, 2), (8, 2), (12, 3)]] {
        let (mut journal, mut claimed) = (Journal::of(taken), Journal::of(taken));
        let read = look(&mut journal, |_| {}).unwrap();
        assert_eq!(journal.records, Journal::of(taken).records, "something was written");
        let opened = open(opener(9, Rules::default()), &mut claimed, |_| {}).unwrap().unwrap();
        assert_eq!(read.me.generation, opened.me.generation, "{taken:?}");
        assert_eq!(read.history.programs, opened.history.programs, "{taken:?}");
    }
}

#[test]
fn who_only_reads_is_not_confused_by_others_that_append_and_prune_and_believes_a_fault_that_lasts() {
    let mut journal = Journal { busy: true, ..Journal::of(&[(0, 1)]) };
    let busy = |journal: &mut Journal| (0..3).for_each(|_| journal.append());
    assert_eq!(look(&mut journal, busy).unwrap().me.generation, Generation(2));
    // Records go while they are read.
    let mut journal = Journal::of(&[(0, 1), (1, 1), (2, 2)]);
    let mut answers = 0;
    let prunes = |journal: &mut Journal| {
        answers += 1;
        if answers == 2 {
            journal.records.remove(&Seq(1));
        }
    };
    assert!(look(&mut journal, prunes).is_ok());
    let foreign = JournalRecord { incarnation: Incarnation(Uuid::from_u128(5)), ..opened_by(1) };
    let mut answers = 0;
    let mut journal = Journal::of(&[(0, 1), (1, 1)]);
    journal.records.insert(Seq(0), foreign.clone());
    let mends = |journal: &mut Journal| {
        answers += 1;
        if answers == 3 {
            journal.records.insert(Seq(0), opened_by(1));
        }
    };
    assert!(look(&mut journal, mends).is_ok(), "what was wrong once is wrong no more");
    journal.records.insert(Seq(0), foreign);
    let ended = look(&mut journal, |_| {}).unwrap_err();
    assert!(ended.to_string().contains("record 0 belongs to incarnation"), "{ended}");
}

#[test]
fn of_two_that_chose_the_same_number_the_later_one_chooses_a_higher_one() {
    let mut journal = Journal::of(&[(0, 1)]);
    let mut answers = 0;
    let other = |journal: &mut Journal| {
        answers += 1;
        // After our list, before our claim.
        if answers == 2 {
            journal.records.insert(Seq(3), opened_by(2));
        }
    };
    let opened = open(opener(9, Rules::default()), &mut journal, other).unwrap().unwrap();
    assert_eq!(opened.me.generation, Generation(3));
}

#[test]
fn a_newer_record_beyond_ours_fences() {
    let mut journal = Journal::of(&[(0, 1)]);
    let newer = |journal: &mut Journal| {
        if journal.records.contains_key(&Seq(AHEAD + 1)) {
            journal.records.insert(Seq(40), opened_by(3));
        }
    };
    let ended = open(opener(9, Rules::default()), &mut journal, newer).unwrap().unwrap_err();
    assert_eq!(ended, Ended::Fenced { by: Generation(3) });
}

#[test]
fn a_record_of_another_job_is_refused_by_its_position() {
    let mut journal = Journal::of(&[(0, 1), (1, 1)]);
    let foreign = JournalRecord { incarnation: Incarnation(Uuid::from_u128(5)), ..opened_by(1) };
    journal.records.insert(Seq(0), foreign);
    let ended = open(opener(9, Rules::default()), &mut journal, |_| {}).unwrap().unwrap_err();
    assert!(ended.to_string().contains("record 0 belongs to incarnation"), "{ended}");
}

#[test]
fn a_run_takes_the_input_as_it_is_until_it_has_a_checkpoint() {
    let of_run = |run, entry: Entry| {
        let me = Identity { nonce: Nonce::of_run(2, 1), ..identity(3) };
        let writer = Identity { nonce: Nonce::of_run(run, 7), ..identity(2) };
        let records = BTreeMap::from([(Seq(0), (*writer.record(vec![entry])).clone())]);
        let history = History::fold(Incarnation(Uuid::nil()), &BTreeMap::new(), None).unwrap();
        Opened { me, at: Seq(4), history, manifest: None, records, below: Vec::new(), goes_back: None }
    };
    let checkpoint = || Entry::Checkpoint { tick: Tick(9), manifest: String::new(), floor: Seq(0) };
    let opened = || Entry::Opened { program: String::new(), workers: 1, processes: 1, turns: 1 };
    let (all, nothing) = (Compare::All, Compare::Nothing);
    for (run, entry, expected) in [(2, checkpoint(), all), (3, checkpoint(), nothing), (2, opened(), nothing)] {
        let opened = of_run(run, entry);
        assert_eq!((opened.compare(true), opened.compare(false)), (expected, all), "run {run}");
    }
}
