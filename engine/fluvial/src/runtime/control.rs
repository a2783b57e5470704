//! Messages between the leader and the workers, over the dataflow's own channels.
//!
//! A timely dataflow of its own carries them: each message goes to the worker that it is addressed to, in the order in
//! which its sender sent it. It needs no second mesh, and it wakes the receiver's thread. Timestamps mean nothing in it:
//! each sender's advances with every message, because an exchange keeps what it has until then.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use fluvial_connector::Offset;
use serde::{Deserialize, Serialize};
use timely::dataflow::InputHandleVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;
use timely::worker::Worker;

use fluvial_protocol::journal::SplitName;
use fluvial_protocol::{FoundSplit, Order, Report};

/// A message on the control channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// An order of the leader.
    Order(Order),
    /// A report to the leader, with the index of the worker.
    Report(u32, Report),
    /// From the leader to all workers, before any order: where the input ended at the start, for a job that stops
    /// there.
    Ends(Vec<(SplitName, Offset)>),
    /// From the leader to all workers, after the journal is open: the newest answers of the sources about their splits.
    Found(Vec<FoundSplit>),
    /// To the leader: this worker has reported all input up to those ends.
    AtEnd(u32),
    /// To the leader, for the status line: the number of records that have been committed since the last such message.
    Wrote(u64),
    /// To the leader, for the status line: the number of offsets of outputs that other writers have taken since the
    /// last such message.
    ForeignRecords(u64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Addressed {
    to: u32,
    message: Message,
}

/// The end of one worker of the control channel.
pub(crate) struct Control {
    workers: u32,
    outgoing: InputHandleVec<u64, Addressed>,
    inbox: Rc<RefCell<VecDeque<Message>>>,
}

impl Control {
    /// Builds the channel; every worker does so, before any other dataflow.
    pub(crate) fn new(worker: &mut Worker) -> Self {
        let inbox = Rc::new(RefCell::new(VecDeque::new()));
        let received = Rc::clone(&inbox);
        let mut outgoing = InputHandleVec::new();
        let handle = &mut outgoing;
        worker.dataflow_named::<u64, _, _>("control", move |scope| {
            handle.to_stream(scope).sink(Exchange::new(|m: &Addressed| u64::from(m.to)), "Inbox", move |(input, _)| {
                input.for_each(|_, messages: &mut Vec<Addressed>| {
                    received.borrow_mut().extend(messages.drain(..).map(|m| m.message));
                });
            });
        });
        let workers = u32::try_from(worker.peers()).expect("the number of workers is small");
        Self { workers, outgoing, inbox }
    }

    /// Sends a message to every worker, this one included.
    pub(crate) fn tell_all(&mut self, message: &Message) {
        for to in 0..self.workers {
            self.outgoing.send(Addressed { to, message: message.clone() });
        }
        self.send_now();
    }

    /// Gives an order to every worker.
    pub(crate) fn broadcast(&mut self, order: &Order) {
        self.tell_all(&Message::Order(order.clone()));
    }

    /// Sends a message to the leader.
    pub(crate) fn tell_leader(&mut self, message: Message) {
        self.outgoing.send(Addressed { to: 0, message });
        self.send_now();
    }

    /// Sends a report to the leader, as worker `from`.
    pub(crate) fn report(&mut self, from: u32, report: Report) {
        self.tell_leader(Message::Report(from, report));
    }

    fn send_now(&mut self) {
        let next = *self.outgoing.time() + 1;
        self.outgoing.advance_to(next);
    }

    /// The next message, if one has come.
    pub(crate) fn receive(&mut self) -> Option<Message> {
        self.inbox.borrow_mut().pop_front()
    }
}
