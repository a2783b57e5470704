//! A simulated worker, which is a process of its own: a count by key or the newest record of each, its files at
//! checkpoints, and a committer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fluvial_connector::{Offset, OutputBlock, OutputPartition, OutputRecord, Tick, WriterId};

use super::dice::Dice;
use super::input::{Input, range_of};
use super::kafka::Id;
use super::mesh::Mesh;
use super::store::Counts;
use super::turn::Turn;
use super::{Computes, OPERATOR, OUTPUT, Over, Violation};
use crate::journal::{Binding, SplitNumber, SplitStart};
use crate::manifest::{OperatorKind, StateFile};
use crate::rules::Rules;
use crate::{
    Action, CommitterConfig, Compare, Done, Ended, Identity, Layout, Order, Participant, Plan, Report, Tail,
    TickRecords, owner, split_owner,
};

/// Something that a worker has begun outside of itself.
#[derive(Debug)]
pub(super) enum Task {
    /// Fence an id; the turn is its own where it has one.
    Fence { id: Id, own: Option<u32>, opening: bool },
    /// Read the next file of the checkpoint.
    Restore { next: usize },
    /// Store a file, then report.
    Store { name: String, file: Counts, report: Report },
    /// Look at the newest record of the journal.
    Journal,
    /// Read progress up to these ends, once they are known.
    Progress { ends: Vec<usize> },
    /// Read what each partition holds after its progress, up to an end, or find its end: those that are left, and what was
    /// found of the others.
    Tails { left: VecDeque<(OutputPartition, Option<Offset>)>, end: Option<usize>, found: Vec<Tail> },
    /// Read all of a partition back, up to an end.
    ReadBack { at: OutputPartition, end: Option<usize> },
    /// The next request of a turn's transaction.
    Write { turn: u32 },
    /// End a turn's transaction.
    Commit { turn: u32 },
}

/// What comes back of a task.
#[derive(Debug)]
pub(super) enum Back {
    /// The id of another process of an earlier generation is fenced.
    OtherFenced,
    /// A file has been read.
    Restored { file: Counts, next: usize },
    /// A file is stored.
    Stored(Report),
    /// The participant's.
    Sink(Done),
}

/// What a worker is made with.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) workers: u32,
    pub(super) turns: u32,
    pub(super) transaction_records: usize,
    /// What the job's logic is: it shows in every value.
    pub(super) version: u64,
    pub(super) computes: Computes,
    pub(super) rules: Rules,
}

pub(super) struct Worker {
    index: u32,
    shape: Shape,
    pub(super) plan: Option<Plan>,
    pub(super) participant: Option<Participant>,
    pub(super) turns: Vec<Turn>,
    /// How many ids of others are still to be fenced.
    fences: usize,
    restored: bool,
    ready: bool,
    counts: Counts,
    dirty: BTreeSet<u8>,
    splits: BTreeMap<SplitNumber, (SplitStart, Offset)>,
    bindings: VecDeque<Binding>,
    released: usize,
    processed: usize,
    emitted: usize,
    files: usize,
    told_compacted: bool,
    pub(super) tasks: VecDeque<Task>,
    pub(super) reports: VecDeque<Report>,
}

impl Worker {
    pub(super) fn new(index: u32, shape: Shape) -> Self {
        Self {
            index,
            shape,
            plan: None,
            participant: None,
            turns: (0..shape.turns).map(|_| Turn::default()).collect(),
            fences: 0,
            restored: false,
            ready: false,
            counts: Counts::new(),
            dirty: BTreeSet::new(),
            splits: BTreeMap::new(),
            bindings: VecDeque::new(),
            released: 0,
            processed: 0,
            emitted: 0,
            files: 0,
            told_compacted: false,
            tasks: VecDeque::new(),
            reports: VecDeque::new(),
        }
    }

    /// The transactional id of a turn.
    pub(super) fn id(&self, turn: u32) -> Id {
        (self.index, turn)
    }

    /// Who this worker is, once it knows.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.participant.as_ref().map(|participant| *participant.identity())
    }

    fn owns_key(&self, key: u8) -> bool {
        owner(u32::from(key), self.shape.workers) == self.index
    }

    pub(super) fn on_order(&mut self, order: Order, dice: &mut Dice) -> Result<(), Over> {
        match order {
            Order::Opened(plan) => self.open(*plan),
            Order::AllFenced => self.participant_mut().all_fenced(),
            Order::SplitStarted(start) => self.start(start.clone(), start.offset),
            Order::Minted(binding) => {
                self.participant_mut().minted(&binding);
                self.bindings.push_back(binding);
            }
            Order::Sealed(tick) => self.participant_mut().sealed(tick),
            Order::CheckpointComplete { operators, .. } => {
                let files = operators.into_iter().next().map(|operator| operator.files).unwrap_or_default();
                if self.index == 0 && files.len() > 1 && dice.one_in(2) {
                    let at = dice.below(files.len() - 1);
                    self.merge(&files[at..at + 2]);
                }
            }
            Order::Finish(_) => {}
        }
        Ok(())
    }

    fn participant_mut(&mut self) -> &mut Participant {
        self.participant.as_mut().expect("orders come after the opening")
    }

    fn open(&mut self, plan: Plan) {
        let Shape { workers, turns, transaction_records, rules, .. } = self.shape;
        self.tasks.push_back(Task::Restore { next: 0 });
        let config = CommitterConfig {
            slot: self.index,
            layout: Layout { workers, processes: workers },
            turns,
            outputs: vec![OUTPUT.to_owned()],
            transaction_records,
            transaction_bytes: 1 << 20,
            heartbeat_ms: 60,
            patience_ms: u64::MAX,
        };
        self.participant = Some(Participant::with_rules(&plan, config, rules));
        for split in plan.checkpoint.iter().flat_map(|manifest| &manifest.splits) {
            self.start(split.start.clone(), split.position);
        }
        for start in &plan.splits {
            self.start(start.clone(), start.offset);
        }
        for range in plan.replay.iter().flat_map(|binding| &binding.ranges) {
            if let Some((_, position)) = self.splits.get_mut(&range.split) {
                *position = range.to;
            }
        }
        self.bindings = plan.replay.iter().cloned().collect();
        if plan.compare_outputs.is_some() && plan.checkpoint.is_some() {
            // What is restored comes out of the dataflow at its tick.
            self.bindings.push_front(Binding { tick: plan.as_of(), ranges: Vec::new(), checkpoint: false });
        }
        self.plan = Some(plan);
    }

    fn start(&mut self, start: SplitStart, position: Offset) {
        if split_owner(start.number, self.shape.workers) == self.index {
            self.splits.entry(start.number).or_insert((start, position));
        }
    }

    pub(super) fn on_back(&mut self, back: Back) -> Result<(), Over> {
        match back {
            Back::OtherFenced => {
                self.fences -= 1;
                if self.fences == 0 {
                    self.participant_mut().on(Done::OthersFenced)?;
                }
            }
            Back::Restored { file, next } => {
                let own = file.into_iter().filter(|(key, _)| self.owns_key(*key)).collect::<Vec<_>>();
                self.counts.extend(own);
                self.restored = next == self.chain().len();
                if !self.restored {
                    self.tasks.push_back(Task::Restore { next });
                }
            }
            Back::Stored(report) => self.reports.push_back(report),
            Back::Sink(done) => {
                let participant = self.participant_mut();
                participant.on(done)?;
                if let Some(stretch) = participant.unexplained().pop() {
                    return Err(Violation(format!("somebody else is said to have written: {stretch:?}")).into());
                }
            }
        }
        Ok(())
    }

    /// The files to restore.
    pub(super) fn chain(&self) -> &[StateFile] {
        let manifest = self.plan.as_ref().and_then(|plan| plan.checkpoint.as_ref());
        manifest.and_then(|manifest| manifest.operators.first()).map_or(&[], |operator| &operator.files)
    }

    fn file_name(&mut self) -> String {
        let me = self.identity().expect("files are written after the opening");
        self.files += 1;
        format!("state/{:010}-{:x}-{}-{}", me.generation.0, me.nonce.0, self.index, self.files)
    }

    /// Asks for two files to become one; the store fills in what they hold.
    fn merge(&mut self, files: &[StateFile]) {
        let (removed, name) = (files.iter().map(|file| file.object.clone()).collect(), self.file_name());
        let report = Report::Merged { operator: OPERATOR.to_owned(), removed, added: file_ref(&name) };
        self.tasks.push_back(Task::Store { name, file: Counts::new(), report });
    }

    /// Lets the dataflow go on: reads ranges, counts, hands output to the committer, reads new input.
    pub(super) fn work(&mut self, mesh: &mut Mesh, input: &Input, dice: &mut Dice) -> Result<(), Over> {
        if self.plan.is_none() {
            return Ok(());
        }
        for _ in 0..dice.between(1, 3) {
            self.release(mesh, input)?;
            if self.restored {
                self.process(mesh, input);
                self.emit(mesh)?;
            }
        }
        self.report();
        if self.ready && dice.one_in(2) {
            self.read(mesh, input, dice);
        }
        Ok(())
    }

    /// Reads the next tick's ranges of the worker's own splits; where records are gone that it cannot go on without, it
    /// says so, once, and waits.
    fn release(&mut self, mesh: &mut Mesh, input: &Input) -> Result<(), Violation> {
        let (Some(binding), Some(plan)) = (self.bindings.front(), &self.plan) else { return Ok(()) };
        let mut records = Vec::new();
        for range in &binding.ranges {
            let Some((start, _)) = self.splits.get(&range.split) else { continue };
            let again = binding.tick <= plan.sealed();
            let found = if again { input.held(start, range.from, range.to) } else { mesh.delivered(range) };
            if range_of(range.split, range.from, range.to, &found) != *range {
                let compacted = input.compacts() && again && (found.len() as u64) < range.count;
                if !compacted || plan.compare() == Compare::All && plan.cannot_correct.is_some() {
                    return Err(Violation(format!("range {range:?} reads back as {found:?}")));
                }
                if plan.compare() == Compare::All {
                    if self.ready && !std::mem::replace(&mut self.told_compacted, true) {
                        self.reports.push_back(Report::Compacted { what: format!("{range:?}") });
                    }
                    return Ok(());
                }
            }
            records.extend(found);
        }
        let tick = mesh.tick(self.released, binding);
        for (offset, key) in records {
            let delta = tick.deltas.entry(key).or_default();
            *delta = input.both(*delta, input.value(offset));
        }
        tick.released += 1;
        self.bindings.pop_front();
        self.released += 1;
        Ok(())
    }

    /// Counts the next tick's records of the worker's own keys.
    fn process(&mut self, mesh: &mut Mesh, input: &Input) {
        let (workers, index) = (self.shape.workers, self.index);
        let whole = self.reconcile().or(self.plan.as_ref().map(Plan::as_of));
        let Some(tick) = mesh.at(self.processed).filter(|tick| tick.released == workers) else { return };
        let mut changed = BTreeSet::new();
        for (key, delta) in tick.deltas.iter().filter(|(key, _)| owner(u32::from(**key), workers) == index) {
            let count = self.counts.entry(*key).or_default();
            *count = input.both(*count, *delta);
            self.dirty.insert(*key);
            changed.insert(*key);
        }
        let stream = self.shape.computes == Computes::Stream;
        if whole == Some(tick.tick) && !stream {
            changed = self.counts.keys().copied().collect();
        }
        for key in changed {
            let partition = u32::from(key) % super::OUTPUT_PARTITIONS as u32;
            let value = if stream { tick.deltas[&key] } else { self.counts[&key] };
            tick.outputs.entry(partition).or_default().push((key, value));
        }
        tick.processed += 1;
        self.processed += 1;
        let (checkpoint, tick) = (tick.checkpoint, tick.tick);
        if checkpoint {
            let file: Counts =
                std::mem::take(&mut self.dirty).into_iter().map(|key| (key, self.counts[&key])).collect();
            let kind = OperatorKind { operator: "aggregate".to_owned(), schema: "count".to_owned() };
            let stored = |file| Report::StateStored { tick, operator: OPERATOR.to_owned(), kind, file, keys: None };
            if file.is_empty() {
                self.reports.push_back(stored(None));
            } else {
                let name = self.file_name();
                let report = stored(Some(file_ref(&name)));
                self.tasks.push_back(Task::Store { name, file, report });
            }
        }
    }

    fn reconcile(&self) -> Option<Tick> {
        self.plan.as_ref()?.reconciliation.map(|reconciliation| reconciliation.tick)
    }

    /// Hands in the next tick's output in the worker's own partitions.
    fn emit(&mut self, mesh: &mut Mesh) -> Result<(), Ended> {
        let (workers, index, version) = (self.shape.workers, self.index, self.shape.version);
        let Some(tick) = mesh.at(self.emitted).filter(|tick| tick.processed == workers) else { return Ok(()) };
        let Some(participant) = &mut self.participant else { return Ok(()) };
        let own = (0..super::OUTPUT_PARTITIONS as u32).filter(|partition| owner(*partition, workers) == index);
        let output = own.map(|partition| {
            let mut rows = tick.outputs.remove(&partition).unwrap_or_default();
            rows.sort_unstable();
            let records = rows.iter().map(|(key, count)| record(*key, *count, version)).collect::<OutputBlock>();
            (OutputPartition { output: OUTPUT.to_owned(), partition }, TickRecords::new(records))
        });
        participant.output(tick.tick, output.collect())?;
        participant.complete(tick.tick.0 + 1)?;
        tick.emitted += 1;
        self.emitted += 1;
        mesh.trim(workers);
        Ok(())
    }

    /// Tells the leader what is new.
    fn report(&mut self) {
        let Some(participant) = &mut self.participant else { return };
        while let Some(report) = participant.next_report() {
            self.reports.push_back(report);
        }
        if !self.ready && self.restored && participant.is_ready() {
            self.ready = true;
            self.reports.push_back(Report::Ready { operators: vec![OPERATOR.to_owned()] });
        }
    }

    fn read(&mut self, mesh: &mut Mesh, input: &Input, dice: &mut Dice) {
        let mut ranges = Vec::new();
        for (start, position) in self.splits.values_mut() {
            if let Some((range, records)) = input.read(start, *position, dice.between(1, 4)) {
                mesh.delivered.extend(records.into_iter().map(|(offset, key)| ((start.number, offset), key)));
                *position = range.to;
                ranges.push(range);
            }
        }
        if !ranges.is_empty() {
            let bytes = ranges.iter().map(|range| range.count * 10).sum();
            self.reports.push_back(Report::Read { ranges, bytes });
        }
    }

    /// Splits of this worker that have been read to their ends.
    pub(super) fn read_to_the_end(&self, input: &Input) -> usize {
        let read = self.splits.values().filter(|(start, position)| input.is_read(start, *position));
        if self.ready { read.count() } else { 0 }
    }

    /// Begins what the participant asks for.
    pub(super) fn act(&mut self, now: u64) -> Result<(), Over> {
        while let Some(participant) = &mut self.participant
            && let Some(action) = participant.next_action(now)?
        {
            let task = match action {
                Action::Fence { turn } => {
                    let opening = self.turns[turn as usize].is_new();
                    self.turns[turn as usize].drop_producer();
                    Task::Fence { id: (self.index, turn), own: Some(turn), opening }
                }
                Action::FenceOthers(ids) => {
                    self.fences = ids.len();
                    let fence = |id: WriterId| Task::Fence { id: (id.slot, id.turn), own: None, opening: true };
                    self.tasks.extend(ids.into_iter().map(fence));
                    continue;
                }
                Action::ReadBack(partitions) => {
                    self.tasks.extend(partitions.into_iter().map(|at| Task::ReadBack { at, end: None }));
                    continue;
                }
                Action::CheckJournal => Task::Journal,
                Action::ReadProgress => Task::Progress { ends: Vec::new() },
                Action::ReadTails(from) => Task::Tails { left: from.into(), end: None, found: Vec::new() },
                Action::Prepare { turn, transaction } => {
                    self.turns[turn as usize].begin(*transaction, self.shape.rules);
                    Task::Write { turn }
                }
                Action::Commit { turn } => Task::Commit { turn },
            };
            self.tasks.push_back(task);
        }
        self.report();
        Ok(())
    }
}

/// The message that says what a key's count has become, under a version of the job.
pub(super) fn record(key: u8, count: u64, version: u64) -> OutputRecord {
    OutputRecord { key: vec![key], value: Some((count + 1000 * version).to_le_bytes().to_vec()) }
}

/// A message without the version of the job: its key and its count.
pub(super) fn unversioned(message: &OutputRecord) -> (Vec<u8>, Option<u64>) {
    let count = message.value.as_deref().and_then(|value| value.try_into().ok()).map(u64::from_le_bytes);
    (message.key.clone(), count.map(|count| count % 1000))
}

fn file_ref(name: &str) -> StateFile {
    StateFile { object: name.to_owned(), rows: 0, bytes: 0, crc32: 0 }
}
