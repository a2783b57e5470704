//! The nodes of a worker's dataflow that have a name for people, and what those that keep state hold: for the graph of the job
//! and for its metrics. Nothing that is computed depends on it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use fluvial_node::status::NodeKind;
use timely::dataflow::Stream;
use timely::progress::Timestamp;

/// A node of the dataflow that the engine or the job's author has named.
#[derive(Clone, Debug)]
pub(crate) struct NamedNode {
    /// The index of its operator in the dataflow.
    pub(crate) index: usize,
    pub(crate) kind: NodeKind,
    pub(crate) name: String,
    /// What it holds, if it keeps state.
    pub(crate) held: Option<Rc<Held>>,
}

/// How much state an operator holds in memory. The operator says it at the end of each of its turns.
#[derive(Debug, Default)]
pub(crate) struct Held {
    rows: Cell<u64>,
    bytes: Cell<u64>,
}

impl Held {
    /// Takes the number of rows, and the memory of the tables that hold them.
    pub(crate) fn set(&self, rows: usize, bytes: usize) {
        self.rows.set(rows as u64);
        self.bytes.set(bytes as u64);
    }

    /// The number of rows, and the memory of the tables that hold them.
    pub(crate) fn get(&self) -> (u64, u64) {
        (self.rows.get(), self.bytes.get())
    }
}

/// The named nodes of one worker, in the order in which the job builds them.
#[derive(Debug, Default)]
pub(super) struct Nodes(RefCell<Vec<NamedNode>>);

impl Nodes {
    /// Notes that the operator whose output is `stream` has a name. One in a nested scope is a part of that scope's node.
    pub(super) fn note<T: Timestamp, C>(
        &self,
        stream: &Stream<'_, T, C>,
        kind: NodeKind,
        name: &str,
        held: Option<Rc<Held>>,
    ) {
        if stream.scope().addr().len() == 1 {
            let index = stream.name().node;
            self.0.borrow_mut().push(NamedNode { index, kind, name: name.to_owned(), held });
        }
    }

    pub(super) fn all(&self) -> Vec<NamedNode> {
        self.0.borrow().clone()
    }
}
