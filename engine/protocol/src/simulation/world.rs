//! A history: generations that overlap, a store and a Kafka that answer late, twice or not at all, and crashes and
//! pauses between any two steps; then calm, in which one generation must finish everything.

use fluvial_connector::{Envelope, Incarnation, OutputPartition, Progress, SinkStatus, Tick};
use uuid::Uuid;

use super::dice::Dice;
use super::generation::{Begun, Generation, Incoming};
use super::input::Input;
use super::kafka::{Body, Id, Kafka, Producer};
use super::oracle;
use super::store::Store;
use super::weather::Weather;
use super::worker::{Shape, Task};
use super::{Computes, OUTPUT, OUTPUT_PARTITIONS, Over, PROGRESS_PARTITIONS, Violation};
use crate::journal::Nonce;
use crate::rules::{Rule, Rules};
use crate::{Call, Ended, Event, FoundOutput, GoBack, Layout, Leader, LeaderConfig, Mismatch, Pace, Savepoint};

/// The version of the logic of programs that are started by mistake.
const MISTAKEN: u64 = 500;
/// How many generations are started into the chaos.
const GENERATIONS: usize = 5;
/// How long the chaos lasts at most.
const CHAOS_STEPS: usize = 3000;
/// How long calm may take: more means stuck.
const CALM_STEPS: usize = 40_000;
/// How many generations may be needed in the calm, since zombies of the chaos still wake up.
const CALM_GENERATIONS: usize = 12;

/// A simulated world.
pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) now: u64,
    pub(super) store: Store,
    pub(super) kafka: Kafka,
    pub(super) input: Input,
    pub(super) generations: Vec<Generation>,
    flights: Vec<Flight>,
    pub(super) late_calls: Vec<Call>,
    pub(super) late_commits: Vec<(Id, Producer)>,
    pub(super) weather: Weather,
    pub(super) computes: Computes,
    /// The savepoint that is being taken, and whether it is pinned.
    taking: Option<(Savepoint, bool)>,
    savepoints: usize,
    /// The last request to go back: the generations that follow are started with it, too.
    go_back: Option<GoBack>,
    /// What the job's logic is by now.
    version: u64,
    pub(super) calm: bool,
    pub(super) rules: Rules,
    trace: bool,
}

struct Flight {
    generation: usize,
    process: u32,
    what: Begun,
    /// It is under way; otherwise it leaves only while its process is awake.
    sent: bool,
}

/// What became of a step of something in flight.
pub(super) enum Step {
    Again,
    Back(Incoming),
    Gone,
}

/// Runs the history of a seed.
pub(super) fn run(seed: u64, rules: Rules, trace: bool) -> Result<(), Violation> {
    World::new(seed, Computes::Counts, rules, trace).run()
}

/// Runs the history of a seed with a job that keeps no state.
pub(super) fn run_stream(seed: u64, rules: Rules, trace: bool) -> Result<(), Violation> {
    World::new(seed, Computes::Stream, rules, trace).run()
}

impl World {
    fn new(seed: u64, computes: Computes, rules: Rules, trace: bool) -> Self {
        let mut dice = Dice::new(seed);
        let splits = dice.between(1, 3);
        let mut weather = Weather::new(&mut dice);
        if computes == Computes::Stream {
            // Its output cannot be corrected, so nothing may be gone of its input, nobody goes back, and what another program
            // writes by mistake is only warned of.
            (weather.compacts, weather.savepoints, weather.mistakes) = (false, false, false);
        }
        let input = Input::new(&mut dice, splits, 24, 5, weather.compacts);
        Self {
            dice,
            now: 1_000_000,
            store: Store::default(),
            kafka: Kafka::new(OUTPUT_PARTITIONS + PROGRESS_PARTITIONS),
            input,
            generations: Vec::new(),
            flights: Vec::new(),
            late_calls: Vec::new(),
            late_commits: Vec::new(),
            weather,
            computes,
            taking: None,
            savepoints: 0,
            go_back: None,
            version: 0,
            calm: false,
            rules,
            trace,
        }
    }

    pub(super) fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>6} {}", self.now, what());
        }
    }

    fn run(mut self) -> Result<(), Violation> {
        for _ in 0..CHAOS_STEPS {
            self.step()?;
            if self.dice.one_in(self.weather.disturbance) {
                self.disturb();
            }
            if self.generations.len() == GENERATIONS && self.generations.iter().all(|g| !g.is_live()) {
                break;
            }
        }
        self.say(|| "calm".to_owned());
        self.calm = true;
        self.input.end();
        let mut steps = 0;
        while !self.is_finished() {
            while !self.is_finished() {
                self.settle();
                self.step()?;
                steps += 1;
                if steps > CALM_STEPS || self.generations.len() > GENERATIONS + CALM_GENERATIONS {
                    let ends: Vec<_> = self.generations.iter().map(|g| (g.leader.status(), &g.over)).collect();
                    return Err(Violation(format!("stuck after {steps} steps of calm: {ends:?}")));
                }
            }
            // Whoever still sleeps wakes up, and must not do any harm. It may open, and then has to finish.
            for generation in &mut self.generations {
                generation.processes.iter_mut().for_each(|process| process.paused = false);
            }
            for _ in 0..300 {
                self.step()?;
            }
        }
        while self.kafka.is_ending() {
            self.kafka.write_marker(|_| 0);
        }
        oracle::check(&self)
    }

    /// Whether a generation has come to a good end, and no reconciliation was asked for after it.
    fn is_finished(&self) -> bool {
        let done = self.generations.iter().filter_map(|generation| generation.done).max();
        done.is_some_and(|done| self.reconciled().0 <= done)
    }

    /// In the calm somebody always works, sleepers wake up one by one, and who has read everything finishes.
    fn settle(&mut self) {
        if !self.generations.iter().any(|g| g.is_live() && g.processes.iter().all(|p| !p.paused)) {
            self.start();
        }
        if self.dice.one_in(50) {
            self.resume();
        }
        for generation in &mut self.generations {
            if generation.is_live() && !generation.stopping && generation.has_read(&self.input) {
                generation.stopping = true;
                let stopped = generation.leader.on(Event::Stop, self.now);
                debug_assert!(stopped.is_ok(), "the last tick is minted, nothing else");
            }
        }
    }

    /// Something bad happens, or a generation starts.
    fn disturb(&mut self) {
        let live = self.generations.iter().any(|g| g.is_live() && g.processes.iter().all(|p| !p.paused));
        if self.generations.len() < GENERATIONS && (!live || self.dice.one_in(self.weather.start)) {
            return self.start();
        }
        if self.generations.is_empty() {
            return;
        }
        let chosen = self.dice.below(self.generations.len());
        let process = self.dice.below(self.generations[chosen].processes.len());
        let whole = self.dice.one_in(self.weather.whole);
        let (crash, pause) = (self.dice.one_in(self.weather.crash), self.dice.one_in(self.weather.pause));
        let generation = &mut self.generations[chosen];
        if crash {
            generation.processes[process].dead = true;
            generation.over.get_or_insert_with(|| "crashed".to_owned());
            self.say(|| format!("g{chosen}/{process} crashes"));
        } else if pause {
            for (index, sleeper) in generation.processes.iter_mut().enumerate() {
                sleeper.paused |= whole || index == process;
            }
            self.say(|| format!("g{chosen}/{process} sleeps, whole: {whole}"));
        } else {
            self.resume();
        }
    }

    fn resume(&mut self) {
        let sleeping: Vec<usize> = self
            .generations
            .iter()
            .enumerate()
            .filter(|(_, generation)| generation.processes.iter().any(|process| process.paused))
            .map(|(index, _)| index)
            .collect();
        if !sleeping.is_empty() {
            let chosen = sleeping[self.dice.below(sleeping.len())];
            self.generations[chosen].processes.iter_mut().for_each(|process| process.paused = false);
            self.say(|| format!("g{chosen} wakes up"));
        }
    }

    /// Whether an output shows a row, with progress that covers it.
    fn shows_a_row(&self) -> bool {
        self.progress().into_iter().any(|(at, progress)| {
            let end = progress.end.0 as usize;
            self.kafka.read(at.partition as usize, 0, end).any(|(_, body)| matches!(body, Body::Record(_)))
        })
    }

    /// A step of a person who takes savepoints, and drops them.
    fn save(&mut self) {
        if self.dice.one_in(20) && !self.store.savepoints.is_empty() {
            let chosen = self.dice.below(self.store.savepoints.len());
            let dropped = self.store.savepoints.keys().nth(chosen).cloned();
            self.say(|| format!("savepoint {dropped:?} is dropped"));
            self.store.savepoints.retain(|name, _| Some(name) != dropped.as_ref());
        }
        match self.taking.take() {
            None => {
                if self.dice.one_in(4) {
                    self.savepoints += 1;
                    self.taking =
                        self.store.newest_checkpoint(&self.savepoints.to_string()).map(|found| (found, false));
                }
            }
            // Whoever takes it dies.
            Some(_) if self.dice.one_in(12) => {}
            Some((savepoint, false)) => {
                self.store.pin(savepoint.clone());
                self.taking = Some((savepoint, true));
            }
            Some((savepoint, true)) => {
                let name = &savepoint.name;
                let newest = self.store.newest_checkpoint(name).map(|newest| newest.checkpoint);
                let keep =
                    newest.as_ref() == Some(&savepoint.checkpoint) || !self.rules.has(Rule::LookAgainAfterPinning);
                self.say(|| format!("savepoint {name} of {} is taken: {keep}", savepoint.checkpoint));
                self.store.unpin(name, keep);
            }
        }
    }

    /// The job's logic changes. Whoever has not opened the journal with the old one never will.
    fn upgrade(&mut self) {
        self.version += 1;
        for generation in self.generations.iter_mut().filter(|generation| generation.leader.identity().is_none()) {
            generation.over.get_or_insert_with(|| "replaced by other logic".to_owned());
            generation.processes.iter_mut().for_each(|process| process.dead = true);
        }
    }

    /// The version of whoever asked for the last reconciliation, and its tick; tick 0 and the version that wrote everything, if
    /// there was none.
    pub(super) fn reconciled(&self) -> (Tick, u64) {
        let (tick, nonce) = match self.store.reconciled() {
            Some((tick, nonce)) => (tick, Some(nonce)),
            None => (Tick(0), self.store.first_to_bind()),
        };
        let by = self.generations.iter().find(|generation| Some(generation.nonce) == nonce);
        (tick, by.map_or(0, |generation| generation.version))
    }

    fn start(&mut self) {
        if self.weather.upgrades && !self.calm && !self.generations.is_empty() && self.dice.one_in(2) {
            self.upgrade();
        }
        let may_be_mistaken = self.weather.mistakes && !self.weather.compacts && !self.calm;
        let by_mistake = may_be_mistaken && self.shows_a_row() && self.dice.one_in(3);
        let dice = &mut self.dice;
        let workers = if self.weather.widens { self.generations.len() + 1 } else { dice.between(1, 3) };
        let shape = Shape {
            workers: workers.min(3) as u32,
            // A transaction that is committed partially while another turn's is not committed yet leaves records out of order, which
            // nothing can mend. A sink whose commits are answered for good never does that.
            turns: if self.weather.stale_commits { 1 } else { dice.between(1, 2) as u32 },
            transaction_records: dice.between(1, self.weather.transaction_records),
            version: if by_mistake { MISTAKEN } else { self.version },
            computes: self.computes,
            rules: self.rules,
        };
        let number = self.generations.len();
        // Each version of the logic is a run.
        let nonce = Nonce::of_run(shape.version as u32, 100 + number as u32);
        // The same logic is built again now and then. Compaction is corrected by the very program that wrote the outputs.
        let build = if self.weather.compacts || self.weather.savepoints { 0 } else { dice.below(2) };
        let program = format!("logic {}, build {build}", shape.version);
        // Other logic is asked for in either way. What was compacted is gone on without only if the input is taken as it is.
        let saves = self.weather.savepoints && !self.weather.compacts;
        let by_hash = self.version > 0 && !self.weather.compacts && (saves || dice.one_in(2));
        let savepoints = &self.store.savepoints;
        let goes_back = saves && !by_mistake && !self.calm && !savepoints.is_empty() && dice.one_in(2);
        let go_back = goes_back.then(|| savepoints.keys().nth(dice.below(savepoints.len())).cloned()).flatten();
        let go_back = go_back.map(|savepoint| GoBack { id: number as u64, savepoint, correct_outputs: true });
        // A run is started again with the options that it had.
        let go_back = go_back.or(self.go_back.take().filter(|_| !by_mistake && dice.one_in(2)));
        self.go_back.clone_from(&go_back);
        // Going back is a run of its own.
        let nonce = if go_back.is_some() { Nonce::of_run(1000 + number as u32, 1) } else { nonce };
        let stream = self.computes == Computes::Stream;
        let envelope = if stream { Envelope::StreamWritten } else { Envelope::Upsert };
        let output = FoundOutput { output: OUTPUT.to_owned(), partitions: OUTPUT_PARTITIONS as u32, envelope };
        let config = LeaderConfig {
            incarnation: Incarnation(Uuid::from_u128(7 + number as u128)),
            nonce,
            follows: None,
            program: program.clone(),
            layout: Layout { workers: shape.workers, processes: shape.workers },
            turns: shape.turns,
            sources: vec!["in".to_owned()],
            outputs: vec![output],
            sink: SinkStatus::default(),
            pace: Pace {
                tick_interval_ms: 4,
                heartbeat_ms: 60,
                longest_heartbeat_ms: 200,
                tick_records: 6,
                tick_bytes: 1000,
                in_flight_bytes: 25 * self.weather.backlog as u64,
                in_flight_ticks: self.weather.backlog,
            },
            append_every_ms: 3,
            checkpoint_every_ms: dice.between(20, 80) as u64,
            idle_checkpoint_every_ms: 150,
            checkpoint_age_limit_ms: u64::MAX / 4,
            keep_journal: dice.one_in(8),
            reconcile: self.version > 0 && !by_mistake && !by_hash,
            upgrade: Some(program).filter(|_| by_hash && !by_mistake),
            go_back,
            leave_append_outputs: stream,
            grace_ms: dice.below(40) as u64,
            max_clock_jump_ms: u64::MAX / 4,
        };
        let leader = Leader::with_rules(config, self.now, self.rules);
        self.say(|| format!("g{number} starts with {} workers, {} turns", shape.workers, shape.turns));
        self.generations.push(Generation::new(nonce, leader, shape));
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.now += self.dice.below(3) as u64;
        if self.dice.one_in(self.weather.clock) {
            self.now -= self.dice.below(200) as u64;
        }
        match self.dice.below(16) {
            0..8 => self.step_process(),
            8..14 => self.step_flight(),
            14 => {
                if self.dice.one_in(4) {
                    self.input.grow(&mut self.dice);
                }
                if self.weather.compacts && !self.calm && self.dice.one_in(8) {
                    self.input.compact(&mut self.dice);
                }
                self.late()
            }
            _ => {
                for _ in 0..2 {
                    let dice = &mut self.dice;
                    self.kafka.write_marker(|n| dice.below(n));
                }
                self.kafka.time_out(self.now, self.weather.time_out_ms);
                if self.weather.savepoints && !self.weather.compacts && !self.calm {
                    self.save();
                }
                if !self.calm && self.dice.one_in(self.weather.forgotten_id) {
                    let dice = &mut self.dice;
                    self.kafka.forget(|n| dice.below(n));
                }
                Ok(())
            }
        }
    }

    fn step_process(&mut self) -> Result<(), Violation> {
        let awake = |generation: &Generation| generation.processes.iter().any(|p| !p.dead && !p.paused);
        let candidates: Vec<usize> = (0..self.generations.len()).filter(|g| awake(&self.generations[*g])).collect();
        let count = candidates.len();
        if count == 0 {
            return Ok(());
        }
        // The newer ones take most of the steps.
        let newest = count - 1 - self.dice.below(count.min(2));
        let chosen = candidates[if self.dice.one_in(3) { self.dice.below(count) } else { newest }];
        let generation = &mut self.generations[chosen];
        let process = self.dice.below(generation.processes.len());
        let state = &mut generation.processes[process];
        if state.dead || state.paused {
            return Ok(());
        }
        if generation.over.is_some() && self.dice.one_in(6) {
            state.dead = true;
            return Ok(());
        }
        let (trace, now) = (self.trace, self.now);
        let mut say = |what: String| {
            if trace {
                println!("{now:>6} g{chosen} {what}");
            }
        };
        match generation.step(process, &self.input, &mut self.dice, now, &mut say) {
            Ok(begun) => {
                self.check_sealed(chosen)?;
                self.begin(chosen, begun);
            }
            Err(Over::Violation(violation)) => return Err(violation),
            Err(Over::Ended(ended)) => {
                let mut begun = Vec::new();
                generation.follow(&mut begun, &mut say);
                self.ended(chosen, process, ended)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, generation: usize, begun: Vec<(u32, Begun)>) {
        let fences = begun.iter().any(|(_, what)| matches!(what, Begun::Task(Task::Fence { opening: true, .. })));
        for (process, what) in begun {
            if let Begun::Task(Task::Fence { own: Some(turn), .. }) = &what {
                self.give_up(generation, process, *turn);
            }
            let sent = self.dice.one_in(2);
            self.flights.push(Flight { generation, process, what, sent });
        }
        if fences && !self.calm && self.dice.one_in(self.weather.sleepy) {
            self.generations[generation].processes.iter_mut().for_each(|process| process.paused = true);
            self.say(|| format!("g{generation} sleeps as it begins to fence"));
        }
    }

    /// A turn's transactor is dropped: what it had begun may still arrive.
    fn give_up(&mut self, generation: usize, process: u32, turn: u32) {
        let is_its = |flight: &Flight| {
            let same = flight.generation == generation && flight.process == process;
            same && matches!(flight.what, Begun::Task(Task::Write { turn: t } | Task::Commit { turn: t }) if t == turn)
        };
        self.flights.retain(|flight| !is_its(flight));
    }

    /// What a leader calls sealed must stand in the journal for ever.
    fn check_sealed(&self, chosen: usize) -> Result<(), Violation> {
        let sealed = self.generations[chosen].leader.status().sealed;
        if sealed > Tick(0) && !self.store.is_sealed(sealed) {
            return Err(Violation(format!("g{chosen} calls tick {sealed} sealed, which the journal never had")));
        }
        Ok(())
    }

    fn ended(&mut self, chosen: usize, process: usize, ended: Ended) -> Result<(), Violation> {
        self.say(|| format!("g{chosen}/{process} ends: {ended}"));
        let generation = &mut self.generations[chosen];
        generation.processes[process].dead = true;
        generation.over.get_or_insert_with(|| ended.to_string());
        match ended {
            Ended::Done(tick) => generation.done = Some(tick),
            Ended::LostRace { .. } | Ended::WriterFenced { .. } | Ended::Compacted { .. } => {}
            Ended::Fenced { by } => {
                let nonce = generation.nonce;
                if !self.store.has_opened(by, nonce) {
                    return Err(Violation(format!("g{chosen} was fenced by generation {by}, which never opened")));
                }
            }
            // It was dropped meanwhile.
            Ended::Mismatch(Mismatch::SavepointMissing { .. }) => {}
            Ended::Mismatch(Mismatch::OutputDiffers { .. } | Mismatch::ReconciliationOfAnother { .. })
                if generation.version == MISTAKEN => {}
            // A program that was started by mistake ends for no other reason: the input that it reads again has not
            // changed.
            other => return Err(Violation(format!("g{chosen}/{process} ended: {other}"))),
        }
        Ok(())
    }

    /// A request that its sender has given up arrives after all.
    fn late(&mut self) -> Result<(), Violation> {
        if !self.late_calls.is_empty() && self.dice.one_in(self.weather.late) {
            let call = self.late_calls.swap_remove(self.dice.below(self.late_calls.len()));
            self.say(|| format!("late {call:?}"));
            self.store.execute(&call)?;
        }
        if !self.late_commits.is_empty() && self.dice.one_in(self.weather.late) {
            let (id, producer) = self.late_commits.swap_remove(self.dice.below(self.late_commits.len()));
            let result = self.kafka.commit(id, producer);
            self.say(|| format!("late commit of {id:?}: {result:?}"));
        }
        Ok(())
    }

    fn step_flight(&mut self) -> Result<(), Violation> {
        if self.flights.is_empty() {
            return Ok(());
        }
        let index = self.dice.below(self.flights.len());
        let flight = self.flights.swap_remove(index);
        let sender = &self.generations[flight.generation].processes[flight.process as usize];
        if sender.dead && (!flight.sent || self.dice.one_in(2)) {
            return Ok(());
        }
        if sender.paused && !flight.sent {
            self.flights.push(flight);
            return Ok(());
        }
        let Flight { generation, process, mut what, .. } = flight;
        let step = match &mut what {
            Begun::Call(part, call) => self.step_call(*part, call)?,
            Begun::Task(task) => self.step_task(generation, process as usize, task)?,
        };
        match step {
            Step::Again => {
                let sent = self.dice.one_in(2);
                self.flights.push(Flight { generation, process, what, sent });
            }
            Step::Back(incoming) => {
                self.generations[generation].processes[process as usize].inbox.push_back(incoming);
            }
            Step::Gone => {}
        }
        Ok(())
    }

    /// The newest committed progress of each output partition.
    pub(super) fn progress(&self) -> std::collections::BTreeMap<OutputPartition, Progress> {
        let mut newest: std::collections::BTreeMap<OutputPartition, Progress> = std::collections::BTreeMap::new();
        for partition in OUTPUT_PARTITIONS..OUTPUT_PARTITIONS + PROGRESS_PARTITIONS {
            for (_, body) in self.kafka.read(partition, 0, usize::MAX) {
                if let Body::Progress(at, progress) = body
                    && newest.get(at).is_none_or(|known| known.rank() <= progress.rank())
                {
                    newest.insert(at.clone(), progress.clone());
                }
            }
        }
        newest
    }

    /// Every committed progress, for the check at the end.
    pub(super) fn all_progress(&self) -> Vec<(OutputPartition, Progress)> {
        let mut all = Vec::new();
        for partition in OUTPUT_PARTITIONS..OUTPUT_PARTITIONS + PROGRESS_PARTITIONS {
            for (_, body) in self.kafka.read(partition, 0, usize::MAX) {
                if let Body::Progress(at, progress) = body {
                    all.push((at.clone(), progress.clone()));
                }
            }
        }
        all
    }
}
