//! A simulated generation: a leader and workers, each worker in a process of its own, the leader in the first.

use std::collections::VecDeque;

use fluvial_connector::Tick;

use super::Over;
use super::dice::Dice;
use super::input::Input;
use super::mesh::Mesh;
use super::worker::{Back, Shape, Task, Worker};
use crate::journal::Nonce;
use crate::{Answer, Call, Ended, Event, Leader, Order, Part, Report, Request};

pub(super) struct Generation {
    pub(super) nonce: Nonce,
    pub(super) version: u64,
    pub(super) leader: Leader,
    pub(super) workers: Vec<Worker>,
    pub(super) processes: Vec<Process>,
    /// Why it is over, once some process knows.
    pub(super) over: Option<String>,
    /// What it had committed and checkpointed when it came to a good end.
    pub(super) done: Option<Tick>,
    pub(super) stopping: bool,
    /// Whether the leader waits for what the outputs hold.
    surveys: bool,
    pub(super) mesh: Mesh,
    reports: Vec<VecDeque<Report>>,
}

#[derive(Default)]
pub(super) struct Process {
    pub(super) dead: bool,
    pub(super) paused: bool,
    orders: VecDeque<Order>,
    pub(super) inbox: VecDeque<Incoming>,
}

/// An answer that waits for its process.
pub(super) enum Incoming {
    Store(Part, Answer),
    Back(Back),
}

/// Something that a process has begun.
pub(super) enum Begun {
    Call(Part, Call),
    Task(Task),
}

impl Generation {
    pub(super) fn new(nonce: Nonce, leader: Leader, shape: Shape) -> Self {
        Self {
            nonce,
            version: shape.version,
            leader,
            workers: (0..shape.workers).map(|index| Worker::new(index, shape)).collect(),
            processes: (0..shape.workers).map(|_| Process::default()).collect(),
            over: None,
            done: None,
            stopping: false,
            surveys: false,
            mesh: Mesh::default(),
            reports: (0..shape.workers).map(|_| VecDeque::new()).collect(),
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.over.is_none() && self.processes.iter().all(|process| !process.dead)
    }

    /// One step of one process. Returns what it has begun.
    pub(super) fn step(
        &mut self,
        process: usize,
        input: &Input,
        dice: &mut Dice,
        now: u64,
        say: &mut dyn FnMut(String),
    ) -> Result<Vec<(u32, Begun)>, Over> {
        let incoming = self.processes[process].inbox.pop_front();
        match incoming {
            Some(Incoming::Store(part, answer)) => self.leader.on(Event::Store(part, answer), now)?,
            Some(Incoming::Back(back)) => self.workers[process].on_back(back)?,
            None => {}
        }
        for _ in 0..dice.below(4) {
            if let Some(order) = self.processes[process].orders.pop_front() {
                self.workers[process].on_order(order, dice)?;
            }
        }
        if process == 0 {
            self.lead(input, dice, now)?;
        }
        self.workers[process].work(&mut self.mesh, input, dice)?;
        self.workers[process].act(now)?;
        let mut begun = Vec::new();
        let worker = &mut self.workers[process];
        begun.extend(worker.tasks.drain(..).map(|task| (process as u32, Begun::Task(task))));
        self.reports[process].extend(worker.reports.drain(..));
        if process == 0 {
            self.follow(&mut begun, say);
        }
        Ok(begun)
    }

    fn lead(&mut self, input: &Input, dice: &mut Dice, now: u64) -> Result<(), Ended> {
        for _ in 0..dice.between(1, 3) {
            let worker = dice.below(self.reports.len());
            if let Some(report) = self.reports[worker].pop_front() {
                self.leader.on(Event::FromWorker(worker as u32, report), now)?;
            }
        }
        if std::mem::take(&mut self.surveys) {
            self.leader.on(Event::Surveyed(Vec::new()), now)?;
        }
        // The sources are asked more often while the generation opens.
        let opens = self.leader.identity().is_some() && !self.leader.is_running();
        if dice.one_in(if opens { 3 } else { 12 }) {
            self.leader.on(Event::Splits(input.found(dice, now)), now)?;
        }
        if self.leader.deadline_ms().is_some_and(|deadline| deadline <= now) {
            self.leader.on(Event::Time, now)?;
        }
        Ok(())
    }

    /// Does what the leader asks for.
    pub(super) fn follow(&mut self, begun: &mut Vec<(u32, Begun)>, say: &mut dyn FnMut(String)) {
        while let Some(request) = self.leader.next_request() {
            say(format!("{request:?}"));
            match request {
                Request::Store(part, call) => begun.push((0, Begun::Call(part, call))),
                Request::Broadcast(order) => {
                    self.processes.iter_mut().for_each(|process| process.orders.push_back(order.clone()));
                }
                Request::Survey => self.surveys = true,
                Request::Warn(_) => {}
            }
        }
    }

    /// Whether the input has been read to its end.
    pub(super) fn has_read(&self, input: &Input) -> bool {
        let read: usize = self.workers.iter().map(|worker| worker.read_to_the_end(input)).sum();
        self.leader.is_running() && read == input.splits() && self.reports.iter().all(VecDeque::is_empty)
    }
}
