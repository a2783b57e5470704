//! A history: generations that overlap, a store and a Kafka that answer late, twice or not at all, and crashes and
//! pauses between any two steps; then calm, in which one generation must finish everything.

use fluvial_connector::{Envelope, Incarnation, OutputPartition, Progress, Tick};
use uuid::Uuid;

use super::dice::Dice;
use super::generation::{Begun, Generation, Incoming};
use super::input::Input;
use super::kafka::{Body, Id, Kafka, Producer, Refusal, rank};
use super::oracle;
use super::store::{Run, Store};
use super::worker::{Back, Shape, Task};
use super::{OUTPUT, OUTPUT_PARTITIONS, Over, PROGRESS_PARTITIONS, Violation};
use crate::journal::Nonce;
use crate::protocol::rules::{Rule, Rules};
use crate::protocol::{
    Answer, Call, Done, Ended, Event, Failure, FoundOutput, Leader, LeaderConfig, Pace, Part, PutOutcome, Report,
};

/// How many generations are started into the chaos.
const GENERATIONS: usize = 4;
/// How long the chaos lasts at most.
const CHAOS_STEPS: usize = 3000;
/// How long calm may take: more means stuck.
const CALM_STEPS: usize = 40_000;
/// How many generations may be needed in the calm, since zombies of the chaos still wake up.
const CALM_GENERATIONS: usize = 12;

/// A simulated world.
pub(super) struct World {
    dice: Dice,
    now: u64,
    pub(super) store: Store,
    pub(super) kafka: Kafka,
    pub(super) input: Input,
    generations: Vec<Generation>,
    flights: Vec<Flight>,
    late_calls: Vec<Call>,
    late_commits: Vec<(Id, Producer)>,
    weather: Weather,
    /// What the job's logic is by now.
    version: u64,
    calm: bool,
    pub(super) rules: Rules,
    trace: bool,
}

/// What goes wrong how often: every history has a weather of its own. Each is once in so many times.
struct Weather {
    disturbance: usize,
    start: usize,
    crash: usize,
    pause: usize,
    whole: usize,
    store_fault: usize,
    write_fault: usize,
    commit_fault: usize,
    forgotten_id: usize,
    /// The clock goes back.
    clock: usize,
    /// A generation falls asleep when it begins to fence.
    sleepy: usize,
    /// A request that was given up arrives.
    late: usize,
    /// Transactions time out after so many milliseconds.
    time_out_ms: u64,
    /// Commits that were answered may come a second time, as with a client that sends again by itself.
    stale_commits: bool,
    /// The next generation has more workers than those before.
    widens: bool,
    /// Some generations come with other logic, and reconcile.
    upgrades: bool,
}

impl Weather {
    fn new(dice: &mut Dice) -> Self {
        let mut one_of = |choices: &[usize]| choices[dice.below(choices.len())];
        Self {
            disturbance: one_of(&[8, 20, 60]),
            start: one_of(&[3, 8, 20]),
            crash: one_of(&[4, 8, 40]),
            pause: one_of(&[2, 3, 10]),
            whole: one_of(&[1, 2, 4]),
            store_fault: one_of(&[2, 5, 50]),
            write_fault: one_of(&[30, 100, 1000]),
            commit_fault: one_of(&[3, 8, 50]),
            forgotten_id: one_of(&[20, 60, 1000]),
            clock: one_of(&[300, 10_000]),
            sleepy: one_of(&[2, 8, 1000]),
            late: one_of(&[2, 8, 24]),
            time_out_ms: one_of(&[300, 600, 3000]) as u64,
            stale_commits: one_of(&[0, 0, 0, 1]) == 1,
            widens: one_of(&[0, 1]) == 1,
            upgrades: one_of(&[0, 0, 0, 1]) == 1,
        }
    }
}

struct Flight {
    generation: usize,
    process: u32,
    what: Begun,
    /// It is under way; otherwise it leaves only while its process is awake.
    sent: bool,
}

/// What became of a step of something in flight.
enum Step {
    Again,
    Back(Incoming),
    Gone,
}

/// Runs the history of a seed.
pub(super) fn run(seed: u64, rules: Rules, trace: bool) -> Result<(), Violation> {
    World::new(seed, rules, trace).run()
}

impl World {
    fn new(seed: u64, rules: Rules, trace: bool) -> Self {
        let mut dice = Dice::new(seed);
        let splits = dice.between(1, 3);
        let input = Input::new(&mut dice, splits, 24, 5);
        let weather = Weather::new(&mut dice);
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
            version: 0,
            calm: false,
            rules,
            trace,
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
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
        while !self.generations.iter().any(|generation| generation.done) {
            self.settle();
            self.step()?;
            steps += 1;
            if steps > CALM_STEPS || self.generations.len() > GENERATIONS + CALM_GENERATIONS {
                let ends: Vec<_> = self.generations.iter().map(|g| (g.leader.status(), &g.over)).collect();
                return Err(Violation(format!("stuck after {steps} steps of calm: {ends:?}")));
            }
        }
        // Whoever still sleeps wakes up, and must not do any harm.
        for generation in &mut self.generations {
            generation.processes.iter_mut().for_each(|process| process.paused = false);
        }
        for _ in 0..300 {
            self.step()?;
        }
        while self.kafka.is_ending() {
            self.kafka.write_marker(|_| 0);
        }
        oracle::check(&self)
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

    /// The job's logic changes. Whoever has not opened the journal with the old one never will.
    fn upgrade(&mut self) {
        self.version += 1;
        for generation in self.generations.iter_mut().filter(|generation| generation.leader.identity().is_none()) {
            generation.over.get_or_insert_with(|| "replaced by other logic".to_owned());
            generation.processes.iter_mut().for_each(|process| process.dead = true);
        }
    }

    /// The version of whoever asked for the last reconciliation, and its tick.
    pub(super) fn reconciled(&self) -> Option<(Tick, u64)> {
        let (tick, nonce) = self.store.reconciled()?;
        let version = self.generations.iter().find(|generation| generation.nonce == nonce).map_or(0, |g| g.version);
        Some((tick, version))
    }

    fn start(&mut self) {
        if self.weather.upgrades && !self.calm && !self.generations.is_empty() && self.dice.one_in(2) {
            self.upgrade();
        }
        let reconcile = self.version > 0 && self.reconciled().is_none_or(|(_, version)| version < self.version);
        let dice = &mut self.dice;
        let workers = if self.weather.widens { self.generations.len() + 1 } else { dice.between(1, 3) };
        let shape = Shape {
            workers: workers.min(3) as u32,
            // A transaction that is torn while another turn's is not committed yet leaves records out of order, which
            // nothing can mend. A sink whose commits are answered for good never does that.
            turns: if self.weather.stale_commits { 1 } else { dice.between(1, 2) as u32 },
            transaction_records: dice.between(1, 6),
            version: self.version,
            rules: self.rules,
        };
        let number = self.generations.len();
        let nonce = Nonce(100 + number as u64);
        let output =
            FoundOutput { output: OUTPUT.to_owned(), partitions: OUTPUT_PARTITIONS as u32, envelope: Envelope::Upsert };
        let config = LeaderConfig {
            incarnation: Incarnation(Uuid::from_u128(7 + number as u128)),
            nonce,
            binary: "simulated".to_owned(),
            workers: shape.workers,
            turns: shape.turns,
            outputs: vec![output],
            pace: Pace {
                tick_interval_ms: 4,
                heartbeat_ms: 60,
                tick_records: 6,
                tick_bytes: 1000,
                in_flight_bytes: 120,
                in_flight_ticks: 6,
            },
            checkpoint_every_ms: dice.between(20, 80) as u64,
            checkpoint_age_limit_ms: u64::MAX / 4,
            keep_journal: dice.one_in(8),
            reconcile,
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
                self.late()
            }
            _ => {
                for _ in 0..2 {
                    let dice = &mut self.dice;
                    self.kafka.write_marker(|n| dice.below(n));
                }
                self.kafka.time_out(self.now, self.weather.time_out_ms);
                if !self.calm && self.dice.one_in(self.weather.forgotten_id) {
                    let dice = &mut self.dice;
                    self.kafka.forget(|n| dice.below(n));
                }
                Ok(())
            }
        }
    }

    fn step_process(&mut self) -> Result<(), Violation> {
        if self.generations.is_empty() {
            return Ok(());
        }
        // The newer ones take most of the steps.
        let count = self.generations.len();
        let chosen =
            if self.dice.one_in(3) { self.dice.below(count) } else { count - 1 - self.dice.below(count.min(2)) };
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
            Ended::Done(_) => generation.done = true,
            Ended::Restart(_) => {}
            Ended::Fenced { by } => {
                let nonce = generation.nonce;
                if !self.store.has_opened(by, nonce) {
                    return Err(Violation(format!("g{chosen} was fenced by generation {by}, which never opened")));
                }
            }
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

    fn step_call(&mut self, part: Part, call: &mut Call) -> Result<Step, Violation> {
        if let Call::Delete(objects) = call {
            // One by one: a crash may come in between.
            if let Some(object) = objects.pop() {
                self.store.execute(&Call::Delete(vec![object]))?;
                return Ok(Step::Again);
            }
        }
        let creates = matches!(call, Call::Put(..) | Call::PutManifest(..));
        let faulty = creates && !self.calm && self.dice.one_in(self.weather.store_fault);
        let unknown = Answer::Put(PutOutcome::Unknown);
        let answer = match self.dice.below(if faulty { 4 } else { 1 }) {
            // The request is lost; its answer is; it comes late; it comes twice.
            _ if !faulty => self.store.execute(call)?,
            0 => unknown,
            1 => {
                self.store.execute(call)?;
                unknown
            }
            2 => {
                self.late_calls.push(call.clone());
                unknown
            }
            _ => {
                self.store.execute(call)?;
                self.store.execute(call)?
            }
        };
        Ok(Step::Back(Incoming::Store(part, answer)))
    }

    fn step_task(&mut self, generation: usize, process: usize, task: &mut Task) -> Result<Step, Violation> {
        let done = match task {
            Task::Fence { id, own, opening } => {
                let old = own.and_then(|turn| self.generations[generation].workers[process].turns[turn as usize].old);
                let fresh = match old.filter(|_| !*opening && !self.rules.has(Rule::NewEpochAfterUnknown)) {
                    Some(producer) => self.kafka.abort(*id, producer).map(|()| producer),
                    None => self.kafka.init(*id, self.now),
                };
                let producer = match fresh {
                    Ok(producer) => producer,
                    Err(Refusal::Busy) => return Ok(Step::Again),
                    Err(_) => {
                        self.generations[generation].workers[process].turns[own.unwrap_or(0) as usize].old = None;
                        return Ok(Step::Again);
                    }
                };
                self.say(|| format!("g{generation}/{process} fences {id:?}"));
                if let Some(turn) = own {
                    self.generations[generation].workers[process].turns[*turn as usize].producer = Some(producer);
                }
                match own {
                    _ if *opening => return Ok(Step::Back(Incoming::Back(Back::Opening))),
                    Some(turn) => Done::Fenced { turn: *turn },
                    None => return Ok(Step::Gone),
                }
            }
            Task::Restore { next } => return self.restore(generation, process, *next),
            Task::Store { name, run, report } => {
                if let Report::Merged { removed, .. } = &report {
                    let Some(merged) = self.merge(removed) else { return Ok(Step::Gone) };
                    *run = merged;
                }
                self.store.put_run(name, run);
                return Ok(Step::Back(Incoming::Back(Back::Stored(report.clone()))));
            }
            Task::Journal => {
                let me = self.generations[generation].workers[process].identity();
                Done::Journal(self.store.newest(&me.expect("only who has opened asks")))
            }
            Task::Progress { ends } => {
                let partitions = OUTPUT_PARTITIONS..OUTPUT_PARTITIONS + PROGRESS_PARTITIONS;
                if ends.is_empty() && self.rules.has(Rule::ProgressToHighWatermark) {
                    ends.extend(partitions.clone().map(|partition| self.kafka.end(partition)));
                }
                if partitions.zip(ends.iter()).any(|(partition, end)| self.kafka.stable(partition) < *end) {
                    return Ok(Step::Again);
                }
                Done::Progress(self.progress())
            }
            Task::Tail { at, from, end } => {
                let partition = at.partition as usize;
                let end = *end.get_or_insert_with(|| self.kafka.end(partition));
                if self.kafka.stable(partition) < end {
                    return Ok(Step::Again);
                }
                let found = self.kafka.read(partition, from.0 as usize, end);
                let records = found.filter_map(|(offset, body)| match body {
                    Body::Record(record) => Some((offset, record.clone())),
                    _ => None,
                });
                let records: Vec<_> = records.collect();
                if !records.is_empty() {
                    self.say(|| format!("g{generation}/{process} finds torn records in {at} from {from}: {records:?}"));
                }
                Done::Tail { at: at.clone(), records }
            }
            Task::Held { at, end } => {
                let partition = at.partition as usize;
                let end = *end.get_or_insert_with(|| self.kafka.end(partition));
                if self.kafka.stable(partition) < end {
                    return Ok(Step::Again);
                }
                let found = self.kafka.read(partition, 0, end).filter_map(|(_, body)| match body {
                    Body::Record(record) => Some(record.clone()),
                    _ => None,
                });
                let back = Back::Held { partition: at.partition, records: found.collect() };
                return Ok(Step::Back(Incoming::Back(back)));
            }
            Task::End { at } => {
                let end = self.kafka.end(at.partition as usize) as u64;
                Done::End { at: at.clone(), end: fluvial_connector::Offset(end) }
            }
            Task::Write { turn } => {
                let turn = *turn;
                let worker = &mut self.generations[generation].workers[process];
                let id = worker.id(turn);
                let lost = !self.calm && self.dice.one_in(self.weather.write_fault);
                let result = worker.turns[turn as usize].step(id, &mut self.kafka, self.now);
                let result = if lost { Some(Err(worker.turns[turn as usize].fail())) } else { result };
                let Some(result) = result else { return Ok(Step::Again) };
                self.say(|| format!("g{generation}/{process} turn {turn} has prepared: {result:?}"));
                Done::Prepared { turn, result }
            }
            Task::Commit { turn } => return Ok(self.commit(generation, process, *turn)),
        };
        Ok(Step::Back(Incoming::Back(Back::Sink(done))))
    }

    fn commit(&mut self, generation: usize, process: usize, turn: u32) -> Step {
        let worker = &mut self.generations[generation].workers[process];
        let (id, producer) = (worker.id(turn), worker.turns[turn as usize].producer);
        let Some(producer) = producer else { return Step::Gone };
        let faulty = !self.calm && self.dice.one_in(self.weather.commit_fault);
        // The request is lost; it comes late; its answer is lost.
        let fate = if faulty { self.dice.between(1, 3) } else { 0 };
        let mut result = match fate {
            1 | 2 => Err(Failure::Unknown),
            _ => match self.kafka.commit(id, producer) {
                Ok(()) => Ok(()),
                Err(Refusal::Busy) => return Step::Again,
                Err(Refusal::Fenced) => Err(Failure::Fenced),
                Err(Refusal::Invalid) => Err(Failure::Unknown),
            },
        };
        match fate {
            2 => self.late_commits.push((id, producer)),
            3 if result.is_ok() => result = Err(Failure::Unknown),
            0 if result.is_ok() && !self.calm && self.weather.stale_commits => self.late_commits.push((id, producer)),
            _ => {}
        }
        if result.is_err() {
            let _ = self.generations[generation].workers[process].turns[turn as usize].fail();
        }
        self.say(|| format!("g{generation}/{process} turn {turn} commits: {result:?}, fate {fate}"));
        Step::Back(Incoming::Back(Back::Sink(Done::Committed { turn, result })))
    }

    fn restore(&mut self, generation: usize, process: usize, next: usize) -> Result<Step, Violation> {
        let worker = &self.generations[generation].workers[process];
        let run = match worker.chain().get(next) {
            None => Run::new(),
            Some(run) => match self.store.run(&run.object) {
                Some(found) => Run::clone(found),
                None => {
                    let me = worker.identity().expect("restoring comes after the opening");
                    if !self.store.has_newer(&me) {
                        return Err(Violation(format!("g{generation}/{process} misses the run {}", run.object)));
                    }
                    let ended = &mut self.generations[generation].over;
                    ended.get_or_insert_with(|| "misses a run, after it was fenced".to_owned());
                    return Ok(Step::Gone);
                }
            },
        };
        let next = (next + 1).min(worker.chain().len());
        Ok(Step::Back(Incoming::Back(Back::Restored { run, next })))
    }

    fn merge(&self, removed: &[String]) -> Option<Run> {
        let mut merged = Run::new();
        for name in removed {
            merged.extend(self.store.run(name)?.iter().map(|(key, count)| (*key, *count)));
        }
        Some(merged)
    }

    /// The newest committed progress of each output partition.
    pub(super) fn progress(&self) -> std::collections::BTreeMap<OutputPartition, Progress> {
        let mut newest: std::collections::BTreeMap<OutputPartition, Progress> = std::collections::BTreeMap::new();
        for partition in OUTPUT_PARTITIONS..OUTPUT_PARTITIONS + PROGRESS_PARTITIONS {
            for (_, body) in self.kafka.read(partition, 0, usize::MAX) {
                if let Body::Progress(at, progress) = body
                    && newest.get(at).is_none_or(|known| rank(known) <= rank(progress))
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
