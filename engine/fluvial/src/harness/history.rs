//! What a test has fed, what came out, and the checkpoints that were taken, so that the dataflow can be started again
//! at any of them.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use fluvial_connector::{Generation, Tick};
use fluvial_protocol::manifest::OperatorState;
use object_store::memory::InMemory;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::workers::{BuildSite, Records, Step, Stepped, Workers};
use crate::durable::{Frozen, Restore};
use crate::journal::JobStore;
use crate::runtime::failure::chain;
use crate::state::StateStore;

/// Drives the stores of all tests in a process.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("harness").build();
    runtime.unwrap_or_else(|error| panic!("the threads of a test's store cannot be started: {error}"))
});

/// The most splits that an input's records are spread over.
pub(super) const SPLITS: u32 = 4;

/// Records of one input at one tick, on one split.
pub(super) struct Fed {
    pub(super) input: String,
    pub(super) split: u32,
    pub(super) records: Records,
}

/// A dataflow with everything that was fed to it, and every update `U` that came out.
pub(super) struct History<U> {
    build: Arc<BuildSite<Vec<U>>>,
    workers: Workers<Vec<U>>,
    store: StateStore,
    fed: BTreeMap<u64, Vec<Fed>>,
    /// What came out, by output.
    made: BTreeMap<String, Vec<U>>,
    /// The operators' state files as of each tick that was passed.
    checkpoints: BTreeMap<u64, Vec<OperatorState>>,
    /// The last tick that was passed.
    past: Option<u64>,
    files: u128,
}

impl<U: Send + 'static> History<U> {
    pub(super) fn new(workers: usize, build: Arc<BuildSite<Vec<U>>>) -> Self {
        let store = JobStore::over(Arc::new(InMemory::new()), "test", "memory");
        Self {
            workers: Workers::start(workers, None, Arc::clone(&build)),
            build,
            store: StateStore::new(store, RUNTIME.handle().clone()),
            fed: BTreeMap::new(),
            made: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            past: None,
            files: 0,
        }
    }

    /// Remembers records until their tick comes.
    pub(super) fn feed(&mut self, tick: u64, fed: Fed) {
        assert!(
            self.past < Some(tick) && tick > 0,
            "tick {tick} is over: feed records at ticks that have not been passed"
        );
        self.fed.entry(tick).or_default().push(fed);
    }

    /// Passes all ticks that have records, and `tick`.
    pub(super) fn advance_past(&mut self, tick: u64) -> Result<(), String> {
        let from = self.past.map_or(0, |past| past + 1);
        if tick < from {
            return Ok(());
        }
        let mut ticks: Vec<u64> = self.fed.range(from..=tick).map(|(tick, _)| *tick).collect();
        if ticks.last() != Some(&tick) {
            ticks.push(tick);
        }
        for tick in ticks {
            let stepped = self.step(tick)?;
            self.take(stepped.made);
        }
        Ok(())
    }

    /// What an output has said so far.
    pub(super) fn made(&self, output: &str) -> &[U] {
        self.made.get(output).map_or(&[][..], Vec::as_slice)
    }

    fn take(&mut self, made: Vec<(String, Vec<U>)>) {
        for (output, updates) in made {
            self.made.entry(output).or_default().extend(updates);
        }
    }

    /// Starts the dataflow again on so many workers from the last checkpoint at or before `tick`, and passes again what
    /// was passed after it. `same` compares, output by output, what was made before with what is made now, given the
    /// checkpoint's tick, at which the restored state comes out as a whole.
    pub(super) fn restart_at(
        &mut self,
        tick: u64,
        workers: usize,
        same: impl Fn(&str, &[U], &[U], u64),
    ) -> Result<(), String> {
        let past = self.past;
        let before = std::mem::take(&mut self.made);
        let tick = self.restore(tick, workers)?;
        if let Some(past) = past {
            self.advance_past(past)?;
        }
        for (output, before) in &before {
            same(output, before, self.made(output), tick);
        }
        self.made = before;
        Ok(())
    }

    /// Starts the dataflow again; returns the checkpoint's tick.
    fn restore(&mut self, tick: u64, workers: usize) -> Result<u64, String> {
        let checkpoint = self.checkpoints.range(..=tick).next_back();
        let (&tick, operators) = checkpoint.expect("there is a checkpoint of each tick that was passed");
        let restore = Restore { as_of: Tick(tick), operators: operators.clone(), store: self.store.clone() };
        self.workers = Workers::start(workers, Some(restore), Arc::clone(&self.build));
        let mut restored = self.workers.step(|_| Step { tick, feeds: Vec::new() })?;
        // Nothing has changed since the checkpoint, but rows whose type has got fields are frozen again.
        let operators = operators.clone();
        self.keep(tick, operators, &mut restored)?;
        self.take(restored.made);
        Ok(tick)
    }

    /// The last tick that was passed.
    pub(super) fn past(&self) -> Option<u64> {
        self.past
    }

    fn step(&mut self, tick: u64) -> Result<Stepped<Vec<U>>, String> {
        let workers = self.workers.len();
        let fed = self.fed.get(&tick).map_or(&[][..], Vec::as_slice);
        let mut stepped = self.workers.step(|worker| Step {
            tick,
            feeds: fed
                .iter()
                .filter(|fed| fed.split as usize % workers == worker)
                .map(|fed| (fed.input.clone(), Arc::clone(&fed.records)))
                .collect(),
        })?;
        let before = self.checkpoints.range(..tick).next_back();
        let operators = before.map_or_else(Vec::new, |(_, operators)| operators.clone());
        self.keep(tick, operators, &mut stepped)?;
        Ok(stepped)
    }

    /// Makes what was frozen at `tick` the checkpoint of it, on top of `operators`.
    fn keep(
        &mut self,
        tick: u64,
        mut operators: Vec<OperatorState>,
        stepped: &mut Stepped<Vec<U>>,
    ) -> Result<(), String> {
        for frozen in stepped.frozen.drain(..) {
            self.files += 1;
            add_file(&mut operators, frozen, &self.store, Uuid::from_u128(self.files))?;
        }
        self.checkpoints.insert(tick, operators);
        self.past = Some(tick);
        Ok(())
    }
}

fn add_file(
    operators: &mut Vec<OperatorState>,
    frozen: Frozen,
    store: &StateStore,
    unique: Uuid,
) -> Result<(), String> {
    let (name, kind) = (frozen.operator().to_owned(), frozen.kind().clone());
    let file = frozen.store(store, Generation(1), unique).map_err(chain)?;
    let operator = match operators.iter_mut().find(|operator| operator.name == name) {
        Some(operator) => operator,
        None => {
            operators.push(OperatorState { name, kind: kind.clone(), files: Vec::new(), keys: None });
            let last = operators.len() - 1;
            &mut operators[last]
        }
    };
    operator.add(&kind, file);
    Ok(())
}
