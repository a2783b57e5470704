//! The queue through which a process's workers pass complete ticks to its one committer.
//!
//! ```text
//!   worker 0: OutputQueues ─► Outlet ─┐
//!   worker 1: OutputQueues ─► Outlet ─┼─► Inbox ──ticks that all workers have passed──► SinkDriver (on worker 0)
//!   worker 2: OutputQueues ─► Outlet ─┘      └──── is there room? ────► workers that replay
//! ```
//!
//! Workers consolidate, encode, sort and compute digests in parallel, and pass the result on without another copy. A tick is
//! complete when every worker of the process has passed it. The rows of an output partition come from one worker.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fluvial_connector::{OutputPartition, Tick, Waker};
use fluvial_protocol::{Exit, TickRecords};

use super::failure::Failure;
use crate::job::output::OutputQueue;
use crate::stages::STAGES;

/// The output of some ticks, by tick and output partition.
pub(crate) type Ticks = BTreeMap<Tick, Vec<(OutputPartition, TickRecords)>>;

/// The output that the workers of one process have handed in.
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Whether too much output waits for its commit.
    full: AtomicBool,
}

struct State {
    ticks: Ticks,
    /// For each thread, the tick before which all of its ticks have been handed in.
    uppers: Vec<u64>,
    /// For each thread, the waker of its worker, once the worker has begun.
    wakers: Vec<Option<Waker>>,
}

impl State {
    /// The tick before which all ticks are complete.
    fn upper(&self) -> u64 {
        self.uppers.iter().min().copied().unwrap_or(0)
    }

    fn wake(&self, thread: usize) {
        if let Some(waker) = &self.wakers[thread] {
            waker.wake();
        }
    }
}

impl Inbox {
    /// Creates the inbox of a process with `threads` workers. The first of them takes complete ticks from it.
    pub(crate) fn new(threads: usize) -> Self {
        let state = State { ticks: Ticks::new(), uppers: vec![0; threads], wakers: vec![None; threads] };
        Self { state: Mutex::new(state), full: AtomicBool::new(false) }
    }

    /// The ticks through `through` that have become complete, and the first tick that is not complete.
    pub(crate) fn take(&self, through: Tick) -> (Ticks, u64) {
        let mut state = self.state();
        let upper = state.upper();
        let later = state.ticks.split_off(&Tick(upper.min(through.0.saturating_add(1))));
        (std::mem::replace(&mut state.ticks, later), upper)
    }

    /// Sets whether too much output waits for its commit.
    pub(crate) fn set_full(&self, full: bool) {
        if self.full.swap(full, Ordering::AcqRel) && !full {
            let state = self.state();
            (0..state.wakers.len()).for_each(|thread| state.wake(thread));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of one worker, through which its output gets into the inbox.
pub(crate) struct Outlet {
    thread: usize,
    inbox: Arc<Inbox>,
    queues: Vec<(String, Rc<RefCell<OutputQueue>>)>,
    upper: u64,
}

impl Outlet {
    /// The outlet of one of the process's workers, `waker` being its own, for what the dataflow leaves in the queues.
    pub(crate) fn new(
        thread: usize,
        inbox: &Arc<Inbox>,
        queues: Vec<(String, Rc<RefCell<OutputQueue>>)>,
        waker: &Waker,
    ) -> Self {
        inbox.state().wakers[thread] = Some(waker.clone());
        Self { thread, inbox: Arc::clone(inbox), queues, upper: 0 }
    }

    /// Hands on the ticks that this worker's dataflow has passed.
    ///
    /// # Errors
    /// An output of the job has failed.
    pub(crate) fn hand_on(&mut self) -> Result<(), Failure> {
        let mut upper: Option<u64> = None;
        for (_, queue) in &self.queues {
            let mut queue = queue.borrow_mut();
            if let Some(error) = queue.failed.take() {
                return Err(Failure::new(Exit::Failed, error));
            }
            upper = match (upper, queue.upper) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        // The dataflow has ended only when the generation has.
        let Some(upper) = upper.filter(|upper| *upper > self.upper) else { return Ok(()) };
        tracing::trace!(target: STAGES, tick = upper - 1, "complete");
        self.upper = upper;
        let mut state = self.inbox.state();
        for (output, queue) in &self.queues {
            while let Some(tick) = queue.borrow_mut().ready.pop_front_if(|t| t.tick.0 < upper) {
                let partitions = tick.partitions.into_iter();
                let at = |partition| OutputPartition { output: output.clone(), partition };
                let partitions = partitions.map(|(partition, records)| (at(partition), records));
                state.ticks.entry(tick.tick).or_default().extend(partitions);
            }
        }
        let before = state.upper();
        state.uppers[self.thread] = upper;
        // The first worker goes on to the sink by itself.
        if self.thread > 0 && state.upper() > before {
            state.wake(0);
        }
        Ok(())
    }

    /// The tick that this worker has handed on everything through.
    pub(crate) fn complete(&self) -> Tick {
        Tick(self.upper.saturating_sub(1))
    }

    /// Whether more ticks may be replayed, because not too much output waits for its commit.
    pub(crate) fn has_room(&self) -> bool {
        !self.inbox.full.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::AtomicUsize;

    use fluvial_connector::OutputRecord;

    use super::*;
    use crate::job::output::TickOutput;

    struct Worker {
        outlet: Outlet,
        queue: Rc<RefCell<OutputQueue>>,
        woken: Arc<AtomicUsize>,
    }

    impl Worker {
        fn new(thread: usize, inbox: &Arc<Inbox>) -> Self {
            let (queue, woken) = (Rc::new(RefCell::new(OutputQueue::default())), Arc::new(AtomicUsize::new(0)));
            let count = Arc::clone(&woken);
            let waker = Waker::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
            });
            let outlet = Outlet::new(thread, inbox, vec![("out".to_owned(), Rc::clone(&queue))], &waker);
            Self { outlet, queue, woken }
        }

        /// Passes a tick with one record in a partition.
        fn pass(&mut self, tick: u64, partition: u32) {
            let record = OutputRecord { key: vec![1], value: None };
            let partitions = [(partition, TickRecords::new(vec![record]))].into();
            self.queue.borrow_mut().ready.push_back(TickOutput { tick: Tick(tick), partitions });
            self.queue.borrow_mut().upper = Some(tick + 1);
            self.outlet.hand_on().unwrap();
        }

        fn woken(&self) -> usize {
            self.woken.swap(0, Ordering::Relaxed)
        }
    }

    fn taken(inbox: &Inbox) -> (Vec<(u64, Vec<u32>)>, u64) {
        let (ticks, upper) = inbox.take(Tick(u64::MAX));
        let partitions = |of: Vec<(OutputPartition, TickRecords)>| of.into_iter().map(|(at, _)| at.partition).collect();
        (ticks.into_iter().map(|(tick, of)| (tick.0, partitions(of))).collect(), upper)
    }

    #[test]
    fn a_tick_is_complete_when_every_worker_of_the_process_has_passed_it() {
        let inbox = Arc::new(Inbox::new(2));
        let (mut first, mut second) = (Worker::new(0, &inbox), Worker::new(1, &inbox));
        second.pass(5, 1);
        second.pass(7, 1);
        assert_eq!(second.outlet.complete(), Tick(7));
        assert_eq!((taken(&inbox), first.woken()), ((vec![], 0), 0));
        first.pass(6, 0);
        assert_eq!(taken(&inbox), (vec![(5, vec![1]), (6, vec![0])], 7));
        first.pass(9, 0);
        assert_eq!((taken(&inbox), first.woken()), ((vec![(7, vec![1])], 8), 0));
        second.pass(9, 1);
        assert_eq!((taken(&inbox), first.woken()), ((vec![(9, vec![0, 1])], 10), 1));
    }

    #[test]
    fn workers_that_wait_for_room_are_woken_when_there_is_some() {
        let inbox = Arc::new(Inbox::new(2));
        let workers = [Worker::new(0, &inbox), Worker::new(1, &inbox)];
        let check = |full, has_room, woken| {
            inbox.set_full(full);
            assert!(workers.iter().all(|w| w.outlet.has_room() == has_room && w.woken() == woken));
        };
        check(false, true, 0);
        check(true, false, 0);
        check(true, false, 0);
        check(false, true, 1);
    }
}
