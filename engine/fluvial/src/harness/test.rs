//! A dataflow under test: its input so far, its output so far, and a checkpoint of each tick, from which it can be restarted.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use fluvial_connector::{Generation, Offset, Tick};
use fluvial_protocol::manifest::OperatorState;
use fluvial_store::Store;
use object_store::memory::InMemory;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::workers::{BuildSite, Fed, Step, Stepped, Workers};
use crate::durable::{Frozen, Restore};
use crate::runtime::failure::chain;
use crate::state::StateStore;
use fluvial_node::job_store::JobStore;

/// Drives the stores of all tests in a process.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("harness").build();
    runtime.unwrap_or_else(|error| panic!("the threads of a test's store cannot be started: {error}"))
});

/// The number of splits over which the records of an input are distributed.
pub(super) const SPLITS: u32 = 4;

/// Compares the output before and after a restart from the checkpoint of `tick`, at which the restored state appears as a
/// whole. Panics with the message `what` if they differ.
pub(super) type Compare<U> = fn(what: &str, before: &[U], now: &[U], tick: u64);

/// A dataflow under test, whose output has the type `U`: a [`JobTest`](super::JobTest) or a [`Dataflow`](super::Dataflow). These
/// methods, common to both, advance the dataflow and restart it. Each tick that is passed is a checkpoint.
///
/// ```
/// use fluvial::durable::Count;
/// use fluvial::harness::Dataflow;
///
/// let mut test = Dataflow::new(1, |scope| {
///     let words = scope.input::<(String, u32)>("words");
///     scope.output("counts", words.aggregate("counts", Count));
/// });
/// test.feed("words", 1, [("to".to_owned(), 1u32), ("be".to_owned(), 1)]);
/// test.feed("words", 2, [("to".to_owned(), 1u32)]);
/// test.advance_past(2);
/// test.restart_at(1, 3); // runs tick 2 again, on three workers
/// assert_eq!(test.table::<(String, u64)>("counts"), [("be".to_owned(), 1), ("to".to_owned(), 2)]);
/// ```
pub struct Test<U> {
    build: Arc<BuildSite<U>>,
    compare: Compare<U>,
    workers: Workers<U>,
    store: StateStore,
    fed: BTreeMap<u64, Vec<Fed>>,
    /// The number of records that each input has been fed.
    counts: BTreeMap<String, u64>,
    /// What each output has emitted so far.
    made: BTreeMap<String, Vec<U>>,
    /// The operators' state files as of each tick that was passed.
    checkpoints: BTreeMap<u64, Vec<OperatorState>>,
    /// The last tick that was passed.
    past: Option<u64>,
    files: u128,
}

impl<U: Send + 'static> Test<U> {
    /// Runs the dataflow until it has completed every tick through `tick`.
    ///
    /// # Panics
    /// If the dataflow fails; see [`Test::try_advance_past`].
    pub fn advance_past(&mut self, tick: u64) {
        self.try_advance_past(tick).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Like [`Test::advance_past`], for a dataflow that should fail.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let sums = scope.input::<(u8, i64)>("in").aggregate("sums", fluvial::Sum(|value: &i64| *value));
    ///     scope.output("sums", sums);
    /// });
    /// test.feed("in", 1, [(1u8, i64::MAX), (1, 1)]);
    /// let error = test.try_advance_past(1).unwrap_err();
    /// assert!(error.contains("the durable operator 'sums'") && error.contains("key 1"), "{error}");
    /// ```
    ///
    /// # Errors
    /// The dataflow is put together wrongly, a record cannot be decoded, a row cannot be encoded, or an operator failed. The
    /// text has the whole chain of causes.
    pub fn try_advance_past(&mut self, tick: u64) -> Result<(), String> {
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

    /// Restarts the dataflow on `workers` workers, from the checkpoint of the last tick that was passed. The examples of
    /// [`JobTest`](super::JobTest) and [`Dataflow`](super::Dataflow) show it.
    ///
    /// # Panics
    /// As [`Test::restart_at`].
    pub fn restart(&mut self, workers: usize) {
        self.restart_at(u64::MAX, workers);
    }

    /// Restarts the dataflow on `workers` workers, from the last checkpoint at or before `tick`. The ticks that had been passed
    /// after it are run again, and their output is compared with that of the first time. The example of [`Test`] shows it.
    ///
    /// # Panics
    /// If no tick was passed at or before `tick`, if the dataflow fails, or if any output differs from the first time.
    pub fn restart_at(&mut self, tick: u64, workers: usize) {
        self.try_restart_at(tick, workers).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Like [`Test::restart_at`], for a dataflow that should fail.
    ///
    /// # Errors
    /// The dataflow cannot be restored, or an operator failed. The text has the whole chain of causes.
    ///
    /// # Panics
    /// If no tick was passed at or before `tick`, or if any output differs from the first time.
    pub fn try_restart_at(&mut self, tick: u64, workers: usize) -> Result<(), String> {
        let past = self.past;
        let before = std::mem::take(&mut self.made);
        let tick = self.restore(tick, workers)?;
        if let Some(past) = past {
            self.try_advance_past(past)?;
        }
        for (output, before) in &before {
            let what =
                format!("output '{output}', restored as of tick {tick} on {workers} workers, is not what it was");
            (self.compare)(&what, before, self.made(output), tick);
        }
        self.made = before;
        Ok(())
    }

    pub(super) fn start(workers: usize, build: Arc<BuildSite<U>>, compare: Compare<U>) -> Self {
        let store = JobStore::new(Store::over(Arc::new(InMemory::new()), "memory"), "test");
        Self {
            workers: Workers::start(workers, None, Arc::clone(&build)),
            build,
            compare,
            store: StateStore::new(store, RUNTIME.handle().clone()),
            fed: BTreeMap::new(),
            counts: BTreeMap::new(),
            made: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            past: None,
            files: 0,
        }
    }

    /// Keeps records until their tick is run, distributed over the splits in their order.
    pub(super) fn spread<R: Send + Sync + 'static>(
        &mut self,
        input: &str,
        tick: u64,
        records: impl IntoIterator<Item = R>,
    ) {
        assert!(
            self.past < Some(tick) && tick > 0,
            "tick {tick} is over: feed records at ticks that have not been passed"
        );
        let count = self.counts.entry(input.to_owned()).or_default();
        let mut splits: Vec<Vec<(Offset, R)>> = (0..SPLITS).map(|_| Vec::new()).collect();
        for record in records {
            splits[(*count % u64::from(SPLITS)) as usize].push((Offset(*count / u64::from(SPLITS)), record));
            *count += 1;
        }
        for (split, records) in (0..).zip(splits).filter(|(_, records)| !records.is_empty()) {
            let fed = Fed { input: input.to_owned(), split, records: Arc::new(records) };
            self.fed.entry(tick).or_default().push(fed);
        }
    }

    /// Returns what an output has emitted so far.
    pub(super) fn made(&self, output: &str) -> &[U] {
        self.made.get(output).map_or(&[][..], Vec::as_slice)
    }

    fn take(&mut self, made: Vec<(String, Vec<U>)>) {
        for (output, updates) in made {
            self.made.entry(output).or_default().extend(updates);
        }
    }

    /// Restarts the dataflow, and returns the checkpoint's tick.
    fn restore(&mut self, tick: u64, workers: usize) -> Result<u64, String> {
        let checkpoint = self.checkpoints.range(..=tick).next_back();
        let (&tick, operators) =
            checkpoint.expect("no tick was passed by then, so there is no checkpoint to start from");
        let restore = Restore { as_of: Tick(tick), operators: operators.clone(), store: self.store.clone() };
        self.workers = Workers::start(workers, Some(restore), Arc::clone(&self.build));
        let mut restored = self.workers.step(|_| Step { tick, feeds: Vec::new() })?;
        // Nothing has changed since the checkpoint, but rows whose type has got fields are frozen again.
        let operators = operators.clone();
        self.keep(tick, operators, &mut restored)?;
        self.take(restored.made);
        Ok(tick)
    }

    fn step(&mut self, tick: u64) -> Result<Stepped<U>, String> {
        let workers = self.workers.len();
        let fed = self.fed.get(&tick).map_or(&[][..], Vec::as_slice);
        let mut stepped = self.workers.step(|worker| {
            let feeds = fed.iter().filter(|fed| fed.split as usize % workers == worker).cloned().collect();
            Step { tick, feeds }
        })?;
        let before = self.checkpoints.range(..tick).next_back();
        let operators = before.map_or_else(Vec::new, |(_, operators)| operators.clone());
        self.keep(tick, operators, &mut stepped)?;
        Ok(stepped)
    }

    /// Makes what was frozen at `tick` the checkpoint of it, on top of `operators`.
    fn keep(&mut self, tick: u64, mut operators: Vec<OperatorState>, stepped: &mut Stepped<U>) -> Result<(), String> {
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
