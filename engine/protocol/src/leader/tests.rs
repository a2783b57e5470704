#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use fluvial_connector::{
    Availability, Digest, Envelope, Generation, Incarnation, Offset, OutputPartition, OutputStatus, SinkStatus,
    SplitId, Tick,
};
use uuid::Uuid;

use super::*;
use crate::compaction::Compare;
use crate::journal::{Entry, JournalRecord, Range, Recreated, SplitNumber};
use crate::{Approval, InputFault, Passed, PutOutcome};

/// A leader of two processes of two workers, with a journal that does what it is told.
struct Bench {
    leader: Leader,
    journal: BTreeMap<Seq, JournalRecord>,
    now_ms: u64,
}

impl Bench {
    fn new() -> Self {
        Self::appending_every(0)
    }

    fn appending_every(append_every_ms: u64) -> Self {
        let config = LeaderConfig {
            incarnation: Incarnation(Uuid::from_u128(1)),
            nonce: Nonce(7),
            follows: None,
            program: "program".to_owned(),
            layout: Layout { workers: 4, processes: 2 },
            turns: 2,
            sources: vec!["in".to_owned()],
            outputs: vec![FoundOutput { output: "out".to_owned(), partitions: 1, envelope: Envelope::Append }],
            sink: SinkStatus::default(),
            pace: Pace {
                tick_interval_ms: 10,
                heartbeat_ms: 1000,
                longest_heartbeat_ms: 30_000,
                tick_records: 1000,
                tick_bytes: 1000,
                in_flight_bytes: 1000,
                in_flight_ticks: 100,
            },
            append_every_ms,
            checkpoint_every_ms: 5000,
            idle_checkpoint_every_ms: 30_000,
            checkpoint_age_limit_ms: 60_000,
            keep_journal: false,
            reconcile: false,
            upgrade: None,
            go_back: None,
            leave_append_outputs: false,
            grace_ms: 1000,
            max_clock_jump_ms: 600_000,
        };
        let mut bench = Self { leader: Leader::new(config, 50_000), journal: BTreeMap::new(), now_ms: 50_000 };
        bench.on(Event::Splits(vec![found("0", "first")])).unwrap();
        bench
    }

    fn on(&mut self, event: Event) -> Result<(), Ended> {
        self.leader.on(event, self.now_ms)
    }

    fn report(&mut self, worker: u32, report: Report) {
        self.on(Event::FromWorker(worker, report)).unwrap();
    }

    /// Everything that the leader wants done until it waits for a worker or for time.
    fn requests(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(request) = self.leader.next_request() {
            let (said, answer) = match request {
                Request::Broadcast(order) => (show(&order), None),
                Request::Warn(warning) => (warning, None),
                Request::Survey => ("survey".to_owned(), None),
                Request::Store(part, call) => {
                    let (said, answer) = self.call(call);
                    (said, Some((part, answer)))
                }
            };
            all.push(said);
            if let Some((part, answer)) = answer {
                self.on(Event::Store(part, answer)).unwrap();
            }
        }
        all
    }

    fn call(&mut self, call: Call) -> (String, Answer) {
        match call {
            Call::List { after } => {
                let taken = self.journal.keys().copied();
                let positions = taken.filter(|seq| after.is_none_or(|after| *seq > after)).collect();
                (format!("list after {after:?}"), Answer::Positions(positions))
            }
            Call::Get(seqs) => {
                let found = seqs.iter().map(|seq| (*seq, self.journal.get(seq).cloned())).collect();
                (format!("get {seqs:?}"), Answer::Records(found))
            }
            Call::Put(seq, record) => {
                let kinds: Vec<&str> = record.entries.iter().map(kind).collect();
                self.journal.insert(seq, (*record).clone());
                (format!("put {seq}: {}", kinds.join(", ")), Answer::Put(PutOutcome::Created))
            }
            Call::PutManifest(..) => ("put manifest".to_owned(), Answer::Put(PutOutcome::Created)),
            Call::ListObjects => ("list objects".to_owned(), Answer::Objects(Vec::new())),
            Call::ListPinned => ("list pinned".to_owned(), Answer::Pinned(BTreeSet::new())),
            Call::Delete(objects) => (format!("delete {objects:?}"), Answer::Deleted),
            other => panic!("{other:?}"),
        }
    }

    /// A leader that mints.
    fn running() -> Self {
        Self::new().run()
    }

    fn run(mut self) -> Self {
        let bench = &mut self;
        if bench.requests().contains(&"survey".to_owned()) {
            bench.on(Event::Surveyed(Vec::new())).unwrap();
            bench.requests();
        }
        for worker in [0, 2] {
            bench.report(worker, Report::Fenced);
        }
        bench.requests();
        for worker in 0..4 {
            bench.report(worker, Report::Ready { operators: Vec::new() });
        }
        bench.requests();
        self
    }
}

fn kind(entry: &Entry) -> &'static str {
    match entry {
        Entry::Opened { .. } => "opened",
        Entry::Binding(binding) if binding.checkpoint => "binding with checkpoint",
        Entry::Binding(_) => "binding",
        Entry::SplitStarted(_) => "split",
        Entry::SinkStarted(_) => "sink",
        Entry::Checkpoint { .. } => "checkpoint",
        Entry::Reconciled { .. } => "reconciled",
        Entry::Compacted { .. } => "compacted",
        Entry::Upgraded { .. } => "upgraded",
    }
}

fn show(order: &Order) -> String {
    match order {
        Order::Opened(_) => "Opened".to_owned(),
        Order::AllFenced => "AllFenced".to_owned(),
        Order::SplitStarted(start) => format!("SplitStarted {}", start.number.0),
        Order::Minted(binding) => format!("Minted {}", binding.tick),
        Order::Sealed(tick) => format!("Sealed {tick}"),
        Order::CheckpointComplete { tick, .. } => format!("CheckpointComplete {tick}"),
        Order::Finish(tick) => format!("Finish {tick}"),
    }
}

fn found(split: &str, identity: &str) -> FoundSplit {
    let described = format!("topic 'orders' partition {split}");
    let (source, split, identity) = ("in".to_owned(), SplitId(split.to_owned()), identity.to_owned());
    let availability = Availability::Available { earliest: Offset(3), end: Offset(1_000) };
    FoundSplit { source, described, split, availability, identity, asked_ms: 0 }
}

fn read(from: u64, to: u64) -> Report {
    let (from, to) = (Offset(from), Offset(to));
    Report::Read {
        ranges: vec![Range { split: SplitNumber(0), from, to, count: 1, digest: Digest::default() }],
        bytes: 10,
    }
}

#[test]
fn an_opening_goes_in_the_order_of_the_protocol() {
    let mut bench = Bench::new();
    let opening = ["list after None", "put 0: opened", "list after None", "put 1: sink", "Opened"];
    assert_eq!(bench.requests(), opening);
    bench.report(0, Report::Fenced);
    assert_eq!(bench.requests(), [""; 0], "the other process still fences");
    bench.report(2, Report::Fenced);
    assert_eq!(bench.requests(), ["list after Some(Seq(1))", "AllFenced"]);
    for worker in 1..4 {
        bench.report(worker, Report::Ready { operators: Vec::new() });
    }
    bench.now_ms += 10_000;
    bench.on(Event::Time).unwrap();
    assert_eq!(bench.requests(), [""; 0], "nothing is minted before all are ready");
    bench.report(0, Report::Ready { operators: Vec::new() });
    assert!(bench.leader.is_running());
    let first = ["Minted 60000", "put 2: split, binding", "SplitStarted 0", "Sealed 60000"];
    assert_eq!(bench.requests(), first);
}

#[test]
fn ticks_that_follow_each_other_fast_share_a_record_which_is_begun_in_time() {
    let mut bench = Bench::appending_every(40).run();
    let minted = |bench: &mut Bench, by_ms: u64, from: u64| {
        bench.now_ms += by_ms;
        bench.report(0, read(from, from + 1));
        bench.requests()
    };
    assert!(minted(&mut bench, 500, 3).contains(&"put 2: split, binding, binding".to_owned()));
    for (by_ms, from) in [(10, 4), (10, 5)] {
        assert_eq!(minted(&mut bench, by_ms, from).len(), 1, "it is minted at once");
    }
    let due = bench.leader.deadline_ms().unwrap();
    assert_eq!(due, bench.now_ms + 20);
    bench.now_ms = due;
    bench.on(Event::Time).unwrap();
    assert_eq!(bench.requests()[0], "put 3: binding, binding");
}

#[test]
fn a_newer_record_after_the_fencing_ends_the_generation() {
    let mut bench = Bench::new();
    bench.requests();
    for worker in [0, 2] {
        bench.report(worker, Report::Fenced);
    }
    let newer = Identity { incarnation: Incarnation(Uuid::from_u128(1)), generation: Generation(2), nonce: Nonce(9) };
    bench.journal.insert(Seq(6), (*newer.record(Vec::new())).clone());
    let mut ended = Ok(());
    while let Some(Request::Store(part, call)) = bench.leader.next_request() {
        let (_, answer) = bench.call(call);
        ended = bench.on(Event::Store(part, answer));
    }
    assert_eq!(ended, Err(Ended::Fenced { by: Generation(2) }));
}

#[test]
fn what_is_read_is_minted_at_once_and_sealed_when_it_is_durable() {
    let mut bench = Bench::running();
    bench.now_ms += 500;
    bench.report(0, read(3, 5));
    assert_eq!(bench.requests(), ["Minted 50500", "put 3: binding", "Sealed 50500"]);
    assert_eq!((bench.leader.status().minted, bench.leader.status().committed), (Tick(50_500), Tick(0)));
    bench.report(0, Report::Committed(Tick(50_500)));
    bench.report(2, Report::Committed(Tick(50_000)));
    assert_eq!(bench.leader.status().committed, Tick(50_000));
}

#[test]
fn a_stop_takes_a_last_checkpoint_and_then_ends_well() {
    let mut bench = Bench::running();
    bench.now_ms += 1;
    bench.report(0, read(3, 5));
    bench.on(Event::Stop).unwrap();
    bench.report(0, read(5, 9));
    let last = Tick(50_002);
    let requests = ["Minted 50001", "Minted 50002", "put 3: binding, binding with checkpoint", "Sealed 50002"];
    assert_eq!(bench.requests(), requests);
    for worker in [0, 2] {
        bench.report(worker, Report::Committed(last));
        let outputs = (worker == 0).then(|| (OutputPartition { output: "out".to_owned(), partition: 0 }, Digest(1)));
        bench.report(worker, Report::SinkAt { tick: last, outputs: outputs.into_iter().collect() });
    }
    let mut ended = Ok(());
    let mut said = Vec::new();
    while let Some(request) = bench.leader.next_request() {
        match request {
            Request::Store(part, call) => {
                let (what, answer) = bench.call(call);
                said.push(what);
                ended = bench.on(Event::Store(part, answer));
            }
            Request::Broadcast(order) => said.push(show(&order)),
            Request::Warn(warning) => said.push(warning),
            Request::Survey => said.push("survey".to_owned()),
        }
    }
    assert_eq!(ended, Err(Ended::Done(last)));
    assert_eq!((bench.leader.status().committed, bench.leader.status().checkpoint), (last, Some(last)));
    assert_eq!(said, ["put manifest", "put 4: checkpoint", "CheckpointComplete 50002", "Finish 50002"]);
    // A worker read on before it heard of the end, and a deletion was under way.
    assert_eq!(bench.on(Event::FromWorker(1, read(9, 12))), Ok(()));
    assert_eq!(bench.on(Event::Store(Part::Cleaner, Answer::Deleted)), Ok(()));
    assert!(bench.leader.next_request().is_none());
}

#[test]
fn splits_are_numbered_once_and_one_that_is_recreated_is_refused() {
    let mut bench = Bench::running();
    bench.on(Event::Splits(vec![found("1", "a"), found("0", "first")])).unwrap();
    assert_eq!(bench.requests(), ["put 3: split", "SplitStarted 1"]);
    let ended = bench.on(Event::Splits(vec![found("0", "second")])).unwrap_err();
    assert!(
        ended.to_string().contains(
            "topic 'orders' partition 0 was deleted and recreated, or is not the one that the job has read (its id is"
        ),
        "{ended}"
    );
}

#[test]
fn a_split_that_is_unavailable_is_started_when_it_can_be_read_and_counts_for_nothing_until_then() {
    let unavailable = |split: &str| {
        let why = "partition has no leader".to_owned();
        FoundSplit { availability: Availability::Unavailable { why }, ..found(split, "first") }
    };
    let mut bench = Bench::running();
    bench.on(Event::Splits(vec![unavailable("0"), unavailable("1"), found("2", "first")])).unwrap();
    assert_eq!(bench.requests(), ["put 3: split", "SplitStarted 1"]);
    bench.on(Event::Splits(vec![found("0", "first"), found("1", "first"), found("2", "first")])).unwrap();
    assert_eq!(bench.requests(), ["put 4: split", "SplitStarted 2"]);
    let mut bench = after_reading(false);
    bench.on(Event::Splits(ends_at(8))).unwrap();
    bench.on(Event::Splits(vec![unavailable("0")])).unwrap();
    bench.on(Event::Splits(ends_at(8))).unwrap();
    assert!(bench.on(Event::Splits(ends_at(8))).is_err(), "two answers in a row say that it ends too early");
}

/// A split as the sources have it, which ends here. They are asked every five seconds.
fn ends_at(end: u64) -> Vec<FoundSplit> {
    thread_local!(static ASKED_MS: Cell<u64> = const { Cell::new(0) });
    let availability = Availability::Available { earliest: Offset(3), end: Offset(end) };
    let asked_ms = ASKED_MS.get() + 5000;
    ASKED_MS.set(asked_ms);
    vec![FoundSplit { availability, asked_ms, ..found("0", "first") }]
}

/// Whether the leader waits until it is known where the input ends.
fn is_looking(bench: &Bench) -> bool {
    matches!(bench.leader.stage, Stage::Looking { .. })
}

/// The next generation on the journal of one that has read a split up to offset 9.
fn after_reading(reconcile: bool) -> Bench {
    let mut bench = Bench::running();
    bench.report(0, read(3, 9));
    bench.now_ms += 500;
    bench.on(Event::Time).unwrap();
    bench.requests();
    let mut config = bench.leader.config.clone();
    (config.nonce, config.reconcile, config.leave_append_outputs) = (Nonce::of_run(2, 8), reconcile, true);
    bench.leader = Leader::new(config, bench.now_ms);
    // From before the opening: what was read since then may lie behind it.
    bench.on(Event::Splits(ends_at(4))).unwrap();
    bench.requests();
    bench
}

#[test]
fn a_split_that_is_truncated_while_it_is_read_again_is_refused() {
    let mut bench = after_reading(false);
    bench.on(Event::Splits(ends_at(9))).unwrap();
    bench.on(Event::Splits(ends_at(8))).unwrap();
    bench.on(Event::Splits(ends_at(9))).unwrap();
    bench.on(Event::Splits(ends_at(8))).unwrap();
    let ended = bench.on(Event::Splits(ends_at(8))).unwrap_err();
    assert!(ended.to_string().contains("partition 0 ends at offset 8 now, and has been read up to 9"), "{ended}");
    assert_eq!(ended.exit(), crate::Exit::StateRefused);
}

#[test]
fn each_source_is_judged_by_its_own_answers_whatever_the_others_say_between_them() {
    let other = || FoundSplit { source: "other".to_owned(), ..found("0", "its own") };
    let mut bench = after_reading(false);
    bench.on(Event::Splits(ends_at(8))).unwrap();
    bench.on(Event::Splits(vec![other()])).unwrap();
    let ended = bench.on(Event::Splits(ends_at(8))).unwrap_err();
    assert!(ended.to_string().contains("ends at offset 8 now"), "{ended}");

    // While a generation opens, what comes from one source is not all that there is.
    let mut bench = Bench::new();
    bench.on(Event::Splits(vec![other()])).unwrap();
    bench.on(Event::Splits(vec![found("0", "first"), found("1", "first")])).unwrap();
    let bench = bench.run();
    let Stage::Running(running) = &bench.leader.stage else { panic!("it runs") };
    let started = running.sequencer.splits().values().map(|state| (&*state.start.source, &*state.start.split.0));
    assert_eq!(started.collect::<Vec<_>>(), [("in", "0"), ("in", "1"), ("other", "0")]);
}

#[test]
fn a_split_that_was_truncated_is_gone_on_with_from_its_end_where_the_input_is_taken_as_it_is() {
    for (end, position) in [(6, 6), (9, 9), (20, 9)] {
        let mut bench = after_reading(true);
        assert!(bench.leader.identity().is_some());
        assert!(is_looking(&bench), "what was said before the opening counts for nothing");
        bench.on(Event::Splits(ends_at(end))).unwrap();
        assert_eq!(is_looking(&bench), end < 9, "one answer that it ends too early is not believed");
        bench.on(Event::Splits(ends_at(end))).unwrap();
        let said = bench.requests();
        assert_eq!(said.iter().any(|said| said.contains("ends at offset 6")), position == 6, "{said:?}");
        bench.on(Event::Splits(ends_at(position))).unwrap();
        bench.on(Event::Splits(ends_at(position - 1))).unwrap();
        assert!(bench.on(Event::Splits(ends_at(position - 1))).is_err());
    }
}

#[test]
fn a_reconciliation_that_no_checkpoint_covers_begins_again_with_the_next_generation() {
    let mut bench = after_reading(true);
    for (run, reconcile) in [(2, true), (3, false)] {
        bench.on(Event::Splits(ends_at(9))).unwrap();
        assert!(bench.requests().iter().any(|said| said.contains("reconciled")));
        let config = LeaderConfig { nonce: Nonce::of_run(run, 9), reconcile, ..bench.leader.config.clone() };
        bench.leader = Leader::new(config, bench.now_ms);
        bench.on(Event::Splits(ends_at(9))).unwrap();
        bench.requests();
        assert!(is_looking(&bench));
    }
}

/// A leader of another run on what another has left in its journal.
fn next(bench: &Bench, program: &str, change: impl FnOnce(&mut LeaderConfig)) -> Bench {
    let mut config = LeaderConfig {
        nonce: Nonce::of_run(9, bench.journal.len() as u32),
        program: program.to_owned(),
        ..bench.leader.config.clone()
    };
    change(&mut config);
    let leader = Leader::new(config, bench.now_ms);
    let mut next = Bench { leader, journal: bench.journal.clone(), now_ms: bench.now_ms };
    next.on(Event::Splits(ends_at(9))).unwrap();
    next
}

/// The plan that the workers of a generation get.
fn plan_of(mut bench: Bench) -> Result<Plan, Ended> {
    loop {
        let Some(request) = bench.leader.next_request() else {
            assert!(is_looking(&bench), "it opens or ends");
            bench.on(Event::Splits(ends_at(9)))?;
            continue;
        };
        match request {
            Request::Broadcast(Order::Opened(plan)) => return Ok(*plan),
            Request::Store(part, call) => {
                let (_, answer) = bench.call(call);
                bench.on(Event::Store(part, answer))?;
            }
            Request::Survey => bench.on(Event::Surveyed(Vec::new()))?,
            _ => {}
        }
    }
}

#[test]
fn what_was_compacted_is_in_the_journal_before_the_generation_ends_and_the_next_one_corrects() {
    let upsert = |config: &mut LeaderConfig| config.outputs[0].envelope = Envelope::Upsert;
    let mut bench = next(&Bench::new(), "program", upsert).run();
    bench.requests();
    for worker in 0..2 {
        bench.report(worker, Report::Compacted { what: format!("split {worker}") });
    }
    assert_eq!(bench.until_it_ends(), Err(Ended::Compacted { what: "split 0".to_owned() }));
    let last = bench.journal.values().next_back().unwrap().entries.last().map(kind);
    assert_eq!(last, Some("compacted"));

    // Each of the next generations corrects the outputs, however often it is killed, and still compares everything
    // else.
    let mut following = next(&bench, "program", |_| ());
    for _ in 0..2 {
        let plan = plan_of(next(&following, "program", |_| ())).unwrap();
        assert_eq!((plan.compare(), plan.cannot_correct), (Compare::AllButCompacted, None));
        following.until_it_ends().unwrap();
        following = next(&following, "program", |_| ());
    }
    // A program whose logic may be different is refused, also if another such program has been started in between.
    for program in ["other", "another"] {
        let refused = plan_of(next(&following, program, |_| ())).unwrap_err();
        assert!(
            matches!(&refused, Ended::Input(InputFault::CannotCorrect { why }) if why.contains(program)),
            "{refused}"
        );
        let mut other = next(&following, program, |_| ());
        assert!(other.until_it_ends().is_err());
        following = other;
    }
    assert!(plan_of(next(&following, "program", |_| ())).is_ok());
    // With `reconcile`, it accepts the input as it is.
    let plan = plan_of(next(&following, "other", |config| config.reconcile = true)).unwrap();
    assert_eq!(plan.compare(), Compare::Nothing);
}

/// Its splits would be waited for without end, as nobody tells of them.
#[test]
fn a_source_that_the_binary_lacks_is_refused_also_where_the_input_is_taken_as_it_is() {
    let begun = next(&Bench::new(), "program", |_| ()).run();
    for reconcile in [false, true] {
        let lacks = next(&begun, "program", |config| {
            config.sources = vec!["another".to_owned()];
            config.reconcile = reconcile;
        });
        let refused = plan_of(lacks).unwrap_err();
        assert_eq!(refused, Ended::Mismatch(Mismatch::SourceMissing { source_name: "in".to_owned() }));
    }
}

#[test]
fn a_job_with_an_append_output_or_another_program_than_wrote_the_output_cannot_correct() {
    let upsert = |config: &mut LeaderConfig| config.outputs[0].envelope = Envelope::Upsert;
    let why = |bench: Bench| plan_of(bench).unwrap().cannot_correct;
    let append = Bench::running();
    assert!(why(next(&append, "program", |_| ())).unwrap().contains("output 'out' is an append output"));
    let of_stream = next(&Bench::new(), "program", |config| config.outputs[0].envelope = Envelope::StreamWritten).run();
    let said = why(next(&of_stream, "program", |_| ())).unwrap();
    assert!(said.contains("output 'out' is written from a stream, of which the job keeps no table"), "{said}");
    let begun = next(&Bench::new(), "program", upsert).run();
    assert_eq!(why(next(&begun, "program", |_| ())), None);
    assert!(why(next(&begun, "other", |_| ())).unwrap().contains("hash other"));
}

#[test]
fn a_program_that_was_approved_corrects_what_another_wrote_until_a_checkpoint_covers_it_and_no_other_program_does() {
    let sealed = |envelope| {
        let mut bench = next(&Bench::new(), "first", |config| config.outputs[0].envelope = envelope).run();
        bench.report(0, read(3, 9));
        bench.now_ms += 500;
        bench.on(Event::Time).unwrap();
        bench.requests();
        bench
    };
    let begun = sealed(Envelope::Upsert);
    let approve = |hash: &'static str| move |config: &mut LeaderConfig| config.upgrade = Some(hash.to_owned());
    let approval = |program: &str, leave_append_outputs| Approval { program: program.to_owned(), leave_append_outputs };
    let corrects = |plan: &Plan| plan.reconciliation.map(|reconciliation| reconciliation.compare);
    for hash in ["first", "third"] {
        let plan = plan_of(next(&begun, "second", approve(hash))).unwrap();
        assert_eq!((plan.compare_outputs.clone(), corrects(&plan)), (Some(approval("second", false)), None), "{hash}");
    }
    // Nothing has to be approved of the program that wrote the outputs.
    let plan = plan_of(next(&begun, "first", approve("first"))).unwrap();
    assert_eq!((plan.compare_outputs.clone(), corrects(&plan)), (None, None));
    // The input is compared, unlike with `reconcile`.
    let plan = plan_of(next(&begun, "second", approve("second"))).unwrap();
    assert_eq!((plan.compare_outputs.clone(), corrects(&plan)), (None, Some(Compare::All)));
    let mut upgraded = next(&begun, "second", approve("second"));
    upgraded.until_it_ends().unwrap();
    let last = upgraded.journal.values().next_back().unwrap().entries.last().map(kind);
    assert_eq!(last, Some("upgraded"));
    let none = |config: &mut LeaderConfig| config.upgrade = None;
    let plan = plan_of(next(&upgraded, "second", none)).unwrap();
    assert_eq!((plan.compare_outputs.clone(), corrects(&plan)), (None, Some(Compare::All)));
    for program in ["first", "third"] {
        let refused = plan_of(next(&upgraded, program, none)).unwrap_err();
        let approval = approval(program, false);
        assert_eq!(refused, Ended::Mismatch(Mismatch::ReconciliationOfAnother { approval }));
    }
    assert!(plan_of(next(&upgraded, "third", approve("third"))).is_ok());

    // An output that is new is begun, too.
    let add = |config: &mut LeaderConfig| {
        let new = FoundOutput { output: "new".to_owned(), partitions: 1, envelope: Envelope::Upsert };
        config.outputs.push(new);
    };
    let refused = plan_of(next(&begun, "second", add)).unwrap_err().to_string();
    assert!(refused.contains("'new' is new") && refused.contains("`run --upgrade second`"), "{refused}");
    let plan = plan_of(next(&begun, "second", |config| {
        add(config);
        approve("second")(config)
    }))
    .unwrap();
    assert_eq!(plan.sinks.len(), 2);

    // That the records of outputs which cannot be corrected stay as they are has to be approved besides.
    for envelope in [Envelope::Append, Envelope::StreamWritten] {
        let begun = sealed(envelope);
        let plan = plan_of(next(&begun, "second", approve("second"))).unwrap();
        assert_eq!((plan.compare_outputs.clone(), corrects(&plan)), (Some(approval("second", true)), None));
        let leaves = |config: &mut LeaderConfig| {
            approve("second")(config);
            config.leave_append_outputs = true;
        };
        let warnings = next(&begun, "second", leaves).requests();
        let said = format!("the {envelope} output 'out' is not corrected: what it holds stays as it is");
        assert!(warnings.iter().any(|warning| warning.contains(&said)), "{warnings:?}");
        assert_eq!(corrects(&plan_of(next(&begun, "second", leaves)).unwrap()), Some(Compare::All));
    }
}

#[test]
fn a_split_is_known_to_have_held_nothing_more_when_it_was_asked_once_it_has_been_read_that_far() {
    let mut bench = Bench::running();
    let asked = |bench: &mut Bench, end, asked_ms| {
        let found = vec![FoundSplit { asked_ms, ..ends_at(end).swap_remove(0) }];
        bench.on(Event::Splits(found)).unwrap();
        let Stage::Running(running) = &bench.leader.stage else { panic!("it runs") };
        running.sequencer.splits()[&SplitNumber(0)].caught_up_ms
    };
    assert_eq!(asked(&mut bench, 1_000, 1), 0, "it ended at 1000 when it was met");
    let read_to = |bench: &mut Bench, from, to| {
        bench.now_ms += 100;
        bench.report(0, read(from, to));
        bench.requests();
    };
    read_to(&mut bench, 3, 1_000);
    assert_eq!(asked(&mut bench, 1_002, 2), 0, "it was asked at 0 then");
    assert_eq!(asked(&mut bench, 1_005, 3), 0);
    read_to(&mut bench, 1_000, 1_003);
    assert_eq!(asked(&mut bench, 1_008, 4), 2, "up to 1002 it has been read, up to 1005 and 1008 it has not");
    read_to(&mut bench, 1_003, 1_008);
    assert_eq!(asked(&mut bench, 1_009, 5), 4);
    read_to(&mut bench, 1_008, 1_009);
    assert_eq!(asked(&mut bench, 1_009, 6), 6);
    // What ends with a marker of a transaction has been read to its end, too.
    assert_eq!(asked(&mut bench, 1_011, 7), 6);
    let passed = Passed { split: SplitNumber(0), from: Offset(1_010), to: Offset(1_011) };
    bench.report(0, Report::Passed(vec![passed]));
    assert_eq!(asked(&mut bench, 1_011, 8), 6, "the record before the marker is not bound yet");
    read_to(&mut bench, 1_009, 1_010);
    assert_eq!(asked(&mut bench, 1_011, 9), 9);
}

#[test]
fn a_split_whose_system_tells_no_id_now_or_then_is_not_taken_for_another() {
    let mut bench = Bench::running();
    bench.on(Event::Splits(vec![found("0", ""), found("1", "")])).unwrap();
    assert_eq!(bench.requests(), ["put 3: split", "SplitStarted 1"]);
    bench.on(Event::Splits(vec![found("1", "later")])).unwrap();
}

#[test]
fn time_does_not_go_back_with_the_clock_nor_leap_with_it() {
    let mut bench = Bench::running();
    bench.now_ms -= 40_000;
    bench.on(Event::Time).unwrap();
    assert_eq!(bench.leader.deadline_ms(), Some(11_000), "the next heartbeat, by the clock as it is now");
    bench.now_ms += 1000;
    bench.on(Event::Time).unwrap();
    assert_eq!(bench.requests()[0], "Minted 51000");
    bench.now_ms += 700_000;
    assert_eq!(bench.on(Event::Time), Err(Ended::ClockJumped { by_ms: 700_000 }));
}

/// What the leader writes from now on for so long, where all that it waits for comes at once.
fn written_within(bench: &mut Bench, for_ms: u64) -> Vec<String> {
    let (until, mut written) = (bench.now_ms + for_ms, Vec::new());
    loop {
        let requests = bench.requests();
        for minted in requests.iter().filter_map(|said| said.strip_prefix("Minted ")) {
            let tick = Tick(minted.parse().unwrap());
            let checkpoint = requests.iter().any(|said| said.contains("binding with checkpoint"));
            for worker in [0, 2] {
                bench.report(worker, Report::Committed(tick));
                let output = OutputPartition { output: "out".to_owned(), partition: 0 };
                let outputs = (worker == 0).then_some((output, Digest(1))).into_iter().collect();
                if checkpoint {
                    bench.report(worker, Report::SinkAt { tick, outputs });
                }
            }
        }
        let minted = requests.iter().any(|said| said.starts_with("Minted "));
        written.extend(requests.into_iter().filter(|said| said.starts_with("put ")));
        if minted {
            continue;
        }
        bench.now_ms = bench.leader.deadline_ms().unwrap().max(bench.now_ms + 1);
        if bench.now_ms > until {
            return written;
        }
        bench.on(Event::Time).unwrap();
    }
}

/// The ticks of an idle job are 30 s apart here, and its checkpoints too.
#[test]
fn a_job_without_input_writes_rarely_and_one_with_input_takes_its_checkpoints_in_time() {
    const HOUR_MS: u64 = 3_600_000;
    let mut bench = Bench::running();
    written_within(&mut bench, HOUR_MS);
    let idle = written_within(&mut bench, HOUR_MS);
    let of = |kind: &str, written: &[String]| written.iter().filter(|put| put.contains(kind)).count();
    assert_eq!(of("binding", &idle), 120, "{idle:?}");
    assert!((119..=120).contains(&of("put manifest", &idle)), "{idle:?}");
    assert!(idle.len() <= 360, "{}", idle.len());
    // The first input is minted at once, and the checkpoint that covers it does not wait for a heartbeat.
    bench.now_ms += 100;
    bench.report(0, read(3, 5));
    let woken = written_within(&mut bench, 5_000);
    assert!(woken[0].ends_with(": binding") || woken[0].ends_with(": binding with checkpoint"), "{woken:?}");
    assert_eq!(of("put manifest", &woken), 1, "{woken:?}");
    let again = written_within(&mut bench, 25_000);
    assert_eq!(of("put manifest", &again), 0, "nothing has changed since: {again:?}");
}

#[test]
fn a_generation_without_checkpoints_does_not_go_on_for_ever() {
    let mut bench = Bench::running();
    bench.now_ms += 60_001;
    assert_eq!(bench.on(Event::Time), Err(Ended::CheckpointTooOld { age_ms: 60_001 }));
}

#[test]
fn a_generation_may_replay_for_as_long_as_it_takes() {
    let mut first = Bench::running();
    first.now_ms += 100;
    first.report(0, read(3, 10));
    first.requests();
    let sealed = first.leader.status().sealed;
    let mut bench = next(&first, "program", |_| ()).run();
    assert!(!bench.leader.has_replayed());
    for _ in 0..3 {
        bench.now_ms += 60_001;
        bench.on(Event::Time).unwrap();
        bench.requests();
    }
    bench.report(0, Report::Committed(sealed));
    assert!(!bench.leader.has_replayed(), "the other process has not");
    bench.report(2, Report::Committed(sealed));
    assert!(bench.leader.has_replayed());
    bench.now_ms += 60_000;
    bench.on(Event::Time).unwrap();
    bench.now_ms += 1;
    assert_eq!(bench.on(Event::Time), Err(Ended::CheckpointTooOld { age_ms: 60_001 }));
}

/// Fencing that took longer than the grace time ended the generation: nothing had looked at the clock meanwhile.
#[test]
fn a_clock_is_looked_at_while_an_opening_waits() {
    let mut bench = Bench::new();
    bench.requests();
    for _ in 0..1000 {
        let deadline = bench.leader.deadline_ms().unwrap();
        assert!(deadline <= bench.now_ms + 1000);
        bench.now_ms = deadline;
        bench.on(Event::Time).unwrap();
    }
}

/// What the sink says where the output has this id.
fn sink(identity: &str) -> SinkStatus {
    let output = OutputStatus { partitions: 1, identity: identity.to_owned() };
    SinkStatus { outputs: [("out".to_owned(), output)].into(), ..SinkStatus::default() }
}

impl Bench {
    /// A leader of a new job, whose output has this envelope and this id.
    fn writing(envelope: Envelope, identity: &str, reconcile: bool) -> Self {
        let mut bench = Self::new();
        let mut config = bench.leader.config.clone();
        (config.outputs[0].envelope, config.sink, config.reconcile) = (envelope, sink(identity), reconcile);
        bench.leader = Leader::new(config, bench.now_ms);
        bench.on(Event::Splits(ends_at(100))).unwrap();
        bench
    }

    /// The same job, opened by the next run.
    fn again(&mut self, run: u32, identity: &str, reconcile: bool) {
        let mut config = self.leader.config.clone();
        (config.nonce, config.sink, config.reconcile) = (Nonce::of_run(run, 9), sink(identity), reconcile);
        self.now_ms += 500;
        self.leader = Leader::new(config, self.now_ms);
        self.on(Event::Splits(ends_at(100))).unwrap();
    }

    /// Carries out what the leader asks, until it ends or waits.
    fn until_it_ends(&mut self) -> Result<(), Ended> {
        loop {
            match self.leader.next_request() {
                Some(Request::Store(part, call)) => {
                    let (_, answer) = self.call(call);
                    self.on(Event::Store(part, answer))?;
                }
                Some(Request::Survey) => self.on(Event::Surveyed(Vec::new()))?,
                Some(Request::Broadcast(_) | Request::Warn(_)) => {}
                None if is_looking(self) => self.on(Event::Splits(ends_at(100)))?,
                None => return Ok(()),
            }
        }
    }
}

#[test]
fn an_output_that_is_recreated_under_a_running_job_ends_it() {
    let mut bench = Bench::writing(Envelope::Upsert, "first", false);
    bench.until_it_ends().unwrap();
    let mut bench = bench.run();
    bench.on(Event::Outputs(sink("first"))).unwrap();
    bench.on(Event::Outputs(sink(""))).unwrap();
    let ended = bench.on(Event::Outputs(sink("second"))).unwrap_err().to_string();
    assert!(ended.contains("output 'out' was deleted and recreated (it has the id second and had first)"), "{ended}");
}

#[test]
fn an_output_that_was_recreated_is_gone_on_with_only_where_a_person_asks_and_from_then_on() {
    let mut bench = Bench::writing(Envelope::Upsert, "first", false);
    bench.until_it_ends().unwrap();
    let mut bench = bench.run();
    bench.report(0, read(3, 9));
    bench.until_it_ends().unwrap();
    let refused = |bench: &mut Bench, run, identity| {
        bench.again(run, identity, false);
        bench.until_it_ends().unwrap_err().to_string()
    };
    assert!(refused(&mut bench, 2, "second").contains("has the id second and had first"));
    bench.again(3, "second", true);
    bench.until_it_ends().unwrap();
    let recreated = vec![Recreated { output: "out".to_owned(), identity: "second".to_owned() }];
    let entries = bench.journal.values().flat_map(|record| &record.entries);
    let accepted: Vec<_> = entries
        .filter_map(|entry| match entry {
            Entry::Reconciled { recreated, .. } => Some(recreated.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(accepted, [recreated]);
    // It has been taken once, and is gone on with; another one is not.
    assert!(refused(&mut bench, 4, "third").contains("has the id third and had second"));
    bench.again(5, "second", false);
    bench.until_it_ends().unwrap();
}

#[test]
fn an_output_without_a_table_that_was_recreated_is_gone_on_with_only_where_its_loss_is_accepted() {
    for envelope in [Envelope::Append, Envelope::StreamWritten] {
        let mut bench = Bench::writing(envelope, "first", false);
        bench.until_it_ends().unwrap();
        bench.again(2, "second", true);
        let refused = bench.until_it_ends().unwrap_err().to_string();
        let way_out = "`run --reconcile --leave-append-outputs` goes on with the records to come";
        assert!(refused.contains(way_out), "{refused}");
        bench.again(3, "second", true);
        bench.leader.config.leave_append_outputs = true;
        bench.until_it_ends().unwrap();
    }
}

#[test]
fn a_new_job_looks_at_what_its_upsert_outputs_hold_and_does_not_begin_among_other_rows() {
    let mut bench = Bench::writing(Envelope::Upsert, "first", false);
    assert_eq!(bench.requests().last().map(String::as_str), Some("survey"));
    let held = |rows| HeldOutput { output: "out".to_owned(), rows, writers: vec!["job 'a' writes it".to_owned()] };
    let refused = bench.on(Event::Surveyed(vec![held(3)])).unwrap_err().to_string();
    assert!(refused.contains("output 'out' holds 3 rows") && refused.contains("(job 'a' writes it)"), "{refused}");
    assert!(bench.journal.values().flat_map(|record| &record.entries).all(|entry| kind(entry) == "opened"));
    bench.again(2, "first", false);
    bench.requests();
    bench.on(Event::Surveyed(vec![held(0)])).unwrap();
    // A person has asked for it; append outputs have no rows; and a stream may be written among other rows.
    for (envelope, reconcile) in [(Envelope::Upsert, true), (Envelope::Append, false), (Envelope::StreamWritten, false)]
    {
        let mut bench = Bench::writing(envelope, "first", reconcile);
        assert!(!bench.requests().contains(&"survey".to_owned()));
    }
}
