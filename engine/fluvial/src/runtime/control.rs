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

/// What goes over the control channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// From the leader.
    Order(Order),
    /// To the leader, with the worker's index.
    Report(u32, Report),
    /// From the leader to all, before any order: where the input ended at the start, for a job that stops there.
    Ends(Vec<(SplitName, Offset)>),
    /// From the leader to all, after the journal is open: what the sources say of their splits now.
    Found(Vec<FoundSplit>),
    /// To the leader: this worker has reported all input up to those ends.
    AtEnd(u32),
    /// To the leader, for the status line: so many records have been committed since the last time.
    Wrote(u64),
    /// To the leader, for the status line: so many offsets of outputs have been taken by other writers since the last
    /// time.
    ForeignRecords(u64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Addressed {
    to: u32,
    message: Message,
}

/// One worker's end of the control channel.
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

    /// Tells every worker, this one included.
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

    /// Tells the leader.
    pub(crate) fn tell_leader(&mut self, message: Message) {
        self.outgoing.send(Addressed { to: 0, message });
        self.send_now();
    }

    /// Tells the leader, as worker `from`.
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
