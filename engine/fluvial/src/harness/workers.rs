//! The threads of a dataflow under test.
//!
//! Each step feeds the records of one tick, runs the dataflow until it has completed the tick, and takes a checkpoint. No step
//! depends on timing: it ends when every worker's frontier has passed the tick.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fluvial_connector::Tick;
use timely::communication::WorkerGuards;
use timely::worker::Worker;

use crate::durable::{Durables, Frozen, Restore};
use crate::runtime::failure::chain;

/// Records of one input at one tick, on one split.
#[derive(Clone)]
pub(super) struct Fed {
    pub(super) input: String,
    pub(super) split: u32,
    /// A vector of offsets and records, whose type input and test agree on.
    pub(super) records: Arc<dyn Any + Send + Sync>,
}

/// A dataflow on one worker, as a step sees it; `U` is what comes out.
pub(super) trait Site<U> {
    /// Puts records in at `tick`.
    fn feed(&mut self, tick: u64, fed: &Fed);

    /// Says that nothing more comes at or before `tick`.
    fn close(&mut self, tick: u64);

    /// Whether everything at or before `tick` has come out.
    fn is_past(&self, tick: u64) -> bool;

    /// What has come out since the last call, by output.
    ///
    /// # Errors
    /// Something cannot come out.
    fn take(&mut self) -> anyhow::Result<Vec<(String, Vec<U>)>>;
}

/// Builds the dataflow on a worker.
pub(super) type BuildSite<U> = dyn Fn(&mut Worker, &Durables) -> anyhow::Result<Box<dyn Site<U>>> + Send + Sync;

/// One tick for one worker.
pub(super) struct Step {
    pub(super) tick: u64,
    pub(super) feeds: Vec<Fed>,
}

/// What one worker made of a step.
pub(super) struct Stepped<U> {
    pub(super) made: Vec<(String, Vec<U>)>,
    pub(super) frozen: Vec<Frozen>,
}

type Answer<U> = Result<Stepped<U>, String>;

/// What a worker says that ends because another one failed.
const ANOTHER: &str = "another worker failed";

/// Workers that run one dataflow. They end when this is dropped.
pub(super) struct Workers<U> {
    steps: Vec<Sender<Step>>,
    answers: Vec<Receiver<Answer<U>>>,
    guards: Option<WorkerGuards<()>>,
}

impl<U: Send + 'static> Workers<U> {
    /// Starts so many workers. With `restore`, the first step must be of its tick: the restored rows come out then.
    pub(super) fn start(workers: usize, restore: Option<Restore>, build: Arc<BuildSite<U>>) -> Self {
        let (steps, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| channel()).unzip();
        let (outboxes, answers): (Vec<_>, Vec<_>) = (0..workers).map(|_| channel()).unzip();
        let ends: Vec<_> = inboxes.into_iter().zip(outboxes).map(Some).collect();
        let ends = Mutex::new(ends);
        let failed = AtomicBool::new(false);
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            let _ending = Ending(&failed);
            let mine = ends.lock().unwrap_or_else(PoisonError::into_inner)[worker.index()].take();
            if let Some((inbox, outbox)) = mine
                && let Err(error) = run(worker, restore.clone(), &*build, &inbox, &outbox, &failed)
            {
                failed.store(true, Ordering::SeqCst);
                let _ = outbox.send(Err(error));
            }
            // An operator that failed holds its capability: its dataflow never ends by itself.
            for dataflow in worker.installed_dataflows() {
                worker.drop_dataflow(dataflow);
            }
        });
        let guards = guards.unwrap_or_else(|error| panic!("the workers cannot be started: {error}"));
        Self { steps, answers, guards: Some(guards) }
    }

    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Takes one step on all workers; `step` makes each worker's part of it.
    ///
    /// # Errors
    /// The dataflow cannot be built, or an operator failed.
    pub(super) fn step(&mut self, mut step: impl FnMut(usize) -> Step) -> Result<Stepped<U>, String> {
        for (worker, steps) in self.steps.iter().enumerate() {
            // A worker that has ended has left its reason in the answers.
            let _ = steps.send(step(worker));
        }
        let mut all = Stepped { made: Vec::new(), frozen: Vec::new() };
        let mut failure = None;
        for answer in &self.answers {
            match answer.recv() {
                Ok(Ok(one)) => {
                    all.made.extend(one.made);
                    all.frozen.extend(one.frozen);
                }
                Ok(Err(error)) => failure = failure.filter(|first| first != ANOTHER).or(Some(error)),
                Err(_) => failure = Some("a worker panicked; its message stands above".to_owned()),
            }
        }
        failure.map_or(Ok(all), Err)
    }
}

impl<U> Drop for Workers<U> {
    fn drop(&mut self) {
        self.steps.clear();
        if let Some(guards) = self.guards.take() {
            for result in guards.join() {
                drop(result);
            }
        }
    }
}

/// Tells the other workers when one panics: they would wait for it for ever.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

fn run<U>(
    worker: &mut Worker,
    restore: Option<Restore>,
    build: &BuildSite<U>,
    steps: &Receiver<Step>,
    answers: &Sender<Answer<U>>,
    failed: &AtomicBool,
) -> Result<(), String> {
    let durables = Durables::new(worker.index() as u32, worker.peers() as u32, restore);
    let mut site = build(worker, &durables).map_err(|error| format!("{error:#}"))?;
    durables.built().map_err(chain)?;
    let operators = durables.names().len();
    for Step { tick, feeds } in steps {
        durables.mark_checkpoint(Tick(tick));
        feeds.iter().for_each(|fed| site.feed(tick, fed));
        site.close(tick);
        let mut frozen = Vec::new();
        while !site.is_past(tick) || frozen.len() < operators {
            if let Some(error) = durables.failure() {
                return Err(chain(error));
            }
            if failed.load(Ordering::SeqCst) {
                return Err(ANOTHER.to_owned());
            }
            worker.step_or_park(Some(Duration::from_millis(1)));
            frozen.extend(durables.take_frozen());
        }
        let made = site.take().map_err(|error| format!("{error:#}"))?;
        if answers.send(Ok(Stepped { made, frozen })).is_err() {
            break;
        }
    }
    Ok(())
}
