//! The interface between the durable operators of one worker and the runtime.
//!
//! ```text
//!   runtime ──mark_checkpoint(c)──► Durables ◄──register── operators (while the dataflow is built)
//!           ◄──take_frozen()───────    ▲ └──rows of the checkpoint──► operators
//!           ◄──failure()───────────    └── freeze at the end of tick c ── operators
//! ```
//!
//! **Owns** the operators' names, the marks of checkpoints in progress, and the frozen rows until the runtime takes them.
//! **Guarantees** that for each mark every operator hands over exactly one [`Frozen`], also when nothing has changed.
//! **Does not** store anything: [`Frozen::encode`] is called on a thread of the runtime.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::{Rc, Weak};

use fluvial_connector::Tick;
use fluvial_node::status::NodeKind;
use fluvial_protocol::manifest::{OperatorKind, OperatorState, StateFile};
use timely::dataflow::Stream;
use timely::progress::Timestamp;

use super::DataflowError;
use super::frozen::{Encode, Frozen};
use super::nodes::{Held, NamedNode, Nodes};
use crate::state::{StateError, StateStore};

/// The checkpoint that a worker restores from.
#[derive(Clone, Debug)]
pub(crate) struct Restore {
    /// The checkpoint's tick, at which the restored rows appear.
    pub as_of: Tick,
    /// The operators in the checkpoint's manifest.
    pub operators: Vec<OperatorState>,
    /// Where their state files are.
    pub store: StateStore,
}

thread_local! {
    static OF_THIS_WORKER: RefCell<Weak<Shared>> = const { RefCell::new(Weak::new()) };
}

/// The durable operators of one worker. It is cheap to clone, and all clones share the operators.
///
/// The runtime makes one before it builds the dataflow, calls [`Durables::built`] after it, and then, in its loop,
/// [`Durables::mark_checkpoint`], [`Durables::take_frozen`] and [`Durables::failure`].
#[derive(Clone)]
pub(crate) struct Durables(Rc<Shared>);

struct Shared {
    worker: u32,
    workers: u32,
    restore: Option<Restore>,
    only_checks: bool,
    operators: RefCell<BTreeMap<String, Marks>>,
    refused: RefCell<Vec<StateError>>,
    frozen: RefCell<Vec<Frozen>>,
    failure: RefCell<Option<DataflowError>>,
    nodes: Nodes,
}

/// The checkpoints that an operator has not frozen yet, ascending.
type Marks = Rc<RefCell<VecDeque<u64>>>;

impl Durables {
    /// The operators of `worker`, one of `workers`, that begin empty or from a checkpoint.
    #[must_use]
    pub(crate) fn new(worker: u32, workers: u32, restore: Option<Restore>) -> Self {
        Self::of(worker, workers, restore, false)
    }

    fn of(worker: u32, workers: u32, restore: Option<Restore>, only_checks: bool) -> Self {
        let shared = Rc::new(Shared {
            worker,
            workers,
            restore,
            only_checks,
            operators: RefCell::default(),
            refused: RefCell::default(),
            frozen: RefCell::default(),
            failure: RefCell::default(),
            nodes: Nodes::default(),
        });
        OF_THIS_WORKER.set(Rc::downgrade(&shared));
        Self(shared)
    }

    /// The instance that was created last on this thread, which is a worker's and builds one job. A
    /// [`Collection`](crate::Collection) is a type of differential dataflow and cannot carry it to its operators.
    ///
    /// # Panics
    /// If no job is being built on this thread.
    pub(crate) fn of_this_worker() -> Self {
        let shared = OF_THIS_WORKER.with_borrow(Weak::upgrade);
        Self(shared.expect("an operator of `fluvial::Table` is used outside the closure that builds a job"))
    }

    /// Creates the instance for a dataflow that is built only to see its parts.
    #[must_use]
    pub(crate) fn planning() -> Self {
        Self::new(0, 1, None)
    }

    /// Creates the instance for a dataflow that is built only to see whether its operators could restore this checkpoint: they
    /// read enough of their state files to tell, and keep no rows.
    #[must_use]
    pub(crate) fn checking(restore: Restore) -> Self {
        Self::of(0, 1, Some(restore), true)
    }

    /// Whether operators only check that they could restore their rows.
    pub(crate) fn only_checks(&self) -> bool {
        self.0.only_checks
    }

    /// Checks the operators against the checkpoint. It must be called after the dataflow has been built, when every operator has
    /// restored its rows.
    ///
    /// # Errors
    /// The first of what is [wrong](Self::wrong).
    pub(crate) fn built(&self) -> Result<(), StateError> {
        self.wrong().into_iter().next().map_or(Ok(()), Err)
    }

    /// What is wrong with the operators of a dataflow that has been built: errors of operators, those of the checkpoint that are
    /// missing in the binary, and those of the binary that are missing in the checkpoint. Says it once.
    pub(crate) fn wrong(&self) -> Vec<StateError> {
        let mut wrong = self.refused();
        let Some(Restore { operators: stored, as_of, .. }) = &self.0.restore else { return wrong };
        let refused = |name: &str| wrong.iter().any(|error| error.operator() == Some(name));
        let operators = self.0.operators.borrow();
        let missing = stored.iter().filter(|stored| !operators.contains_key(&stored.name) && !refused(&stored.name));
        let missing =
            missing.map(|stored| StateError::Missing { operator: stored.name.clone(), kind: stored.kind.to_string() });
        let added = operators.keys().filter(|name| stored.iter().all(|stored| stored.name != **name));
        let added = added.map(|name| StateError::Added { operator: name.clone(), as_of: *as_of });
        let more: Vec<_> = missing.chain(added).collect();
        wrong.extend(more);
        wrong
    }

    /// What was wrong with operators, in the order in which the job makes them. Says it once.
    #[must_use]
    pub(crate) fn refused(&self) -> Vec<StateError> {
        std::mem::take(&mut self.0.refused.borrow_mut())
    }

    /// Returns the names of the operators, in the same order on every worker.
    #[must_use]
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.operators.borrow().keys().cloned().collect()
    }

    /// Marks `tick` for a checkpoint. It must be called on every worker, with ascending ticks, before the frontier passes the
    /// tick.
    pub(crate) fn mark_checkpoint(&self, tick: Tick) {
        for marks in self.0.operators.borrow().values() {
            marks.borrow_mut().push_back(tick.0);
        }
    }

    /// Returns what operators have frozen since the last call.
    #[must_use]
    pub(crate) fn take_frozen(&self) -> Vec<Frozen> {
        std::mem::take(&mut self.0.frozen.borrow_mut())
    }

    /// Returns the first failure of an operator, if there was one. The generation must then end.
    #[must_use]
    pub(crate) fn failure(&self) -> Option<DataflowError> {
        self.0.failure.borrow().clone()
    }

    /// Reports the failure of an operator, which must keep a capability of the tick at which it failed.
    pub(crate) fn fail(&self, error: DataflowError) {
        self.0.failure.borrow_mut().get_or_insert(error);
    }

    /// Notes the name of the operator whose output is `stream`, and what it holds, if it keeps state.
    pub(crate) fn note_node<T: Timestamp, C>(
        &self,
        stream: &Stream<'_, T, C>,
        kind: NodeKind,
        name: &str,
        held: Option<Rc<Held>>,
    ) {
        self.0.nodes.note(stream, kind, name, held);
    }

    /// The nodes of the dataflow that were noted, in the order in which the job builds them.
    pub(crate) fn nodes(&self) -> Vec<NamedNode> {
        self.0.nodes.all()
    }

    pub(crate) fn worker(&self) -> u32 {
        self.0.worker
    }

    pub(crate) fn workers(&self) -> u32 {
        self.0.workers
    }

    pub(crate) fn refuse(&self, error: StateError) {
        self.0.refused.borrow_mut().push(error);
    }

    /// Registers an operator. If the operator is refused, it gets no rows, and [`Durables::built`] returns the reason.
    pub(crate) fn register(&self, name: &str, kind: OperatorKind) -> Registration {
        let marks = Marks::default();
        let mut operators = self.0.operators.borrow_mut();
        let mut in_checkpoint = self.0.restore.iter().flat_map(|restore| &restore.operators);
        let stored = in_checkpoint.find(|stored| stored.name == name);
        let mut files = None;
        if !is_a_name(name) {
            self.refuse(StateError::BadName { operator: name.to_owned() });
        } else if operators.contains_key(name) {
            self.refuse(StateError::Duplicate { operator: name.to_owned() });
        } else if let Some(stored) = stored
            && stored.kind.operator != kind.operator
        {
            self.refuse(StateError::Changed {
                operator: name.to_owned(),
                stored: stored.kind.to_string(),
                wanted: kind.to_string(),
            });
        } else {
            files = stored.zip(self.0.restore.as_ref()).map(|(stored, restore)| StoredFiles {
                of_before: stored.kind != kind,
                as_of: restore.as_of.0,
                files: stored.files.clone(),
                store: restore.store.clone(),
            });
            operators.insert(name.to_owned(), Rc::clone(&marks));
        }
        Registration { durables: self.clone(), name: name.to_owned(), kind, marks, files }
    }
}

impl fmt::Debug for Durables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durables").field("operators", &self.names()).finish()
    }
}

fn is_a_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=100).contains(&name.len()) && name.chars().all(allowed) && !name.starts_with('.')
}

/// The state files that an operator begins with.
pub(crate) struct StoredFiles {
    /// Whether the operator's types have changed since the checkpoint, so that the next checkpoint must write all rows again.
    pub(crate) of_before: bool,
    pub(crate) as_of: u64,
    pub(crate) files: Vec<StateFile>,
    pub(crate) store: StateStore,
}

/// The registration of a durable operator with its worker's [`Durables`].
pub(crate) struct Registration {
    pub(crate) durables: Durables,
    pub(crate) name: String,
    pub(crate) kind: OperatorKind,
    marks: Marks,
    pub(crate) files: Option<StoredFiles>,
}

impl Registration {
    /// Returns the earliest marked tick at which the operator has not frozen its rows yet.
    pub(crate) fn next_mark(&self) -> Option<u64> {
        self.marks.borrow().front().copied()
    }

    /// Passes the rows that have changed up to the earliest marked tick to the runtime; `keys` is the number of keys that have a
    /// row, if rows have keys.
    pub(crate) fn freeze(&self, rows: Option<Box<dyn Encode>>, keys: Option<u64>) {
        if let Some(tick) = self.marks.borrow_mut().pop_front() {
            let frozen = Frozen::new(self.name.clone(), self.kind.clone(), Tick(tick), rows, keys);
            self.durables.0.frozen.borrow_mut().push(frozen);
        }
    }
}
