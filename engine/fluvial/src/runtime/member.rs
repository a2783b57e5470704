//! What a process has as a member of a generation, and a replay has not: the supervisor, the store, the sink.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use fluvial_connector::{Generation, JobProcess, OutputSpec, Sink, SinkContext, SinkSession, Source};
use fluvial_protocol::{FoundOutput, System};
use tokio::runtime::Handle;

use super::background::wait_out;
use super::calls::StoreCalls;
use super::config::RunConfig;
use super::discovery;
use super::failure::Failure;
use super::peer::{FromPeer, SupervisorLink};
use super::process::{ForTheLeader, Found};
use crate::journal::JobStore;
use crate::state::StateStore;

/// A process of a generation, as its leader and its sink know it.
pub(crate) struct Member {
    /// The job's name, and which process of its generation this is.
    pub(crate) process: JobProcess,
    pub(crate) config: RunConfig,
    pub(crate) sources: Vec<(String, Arc<dyn Source>)>,
    pub(crate) store: StoreLink,
    pub(crate) sink: SinkLink,
    supervisor: SupervisorLink,
    for_the_leader: Mutex<Option<ForTheLeader>>,
}

/// The process's way to the job's store.
pub(crate) struct StoreLink {
    /// The state files.
    pub(crate) state: StateStore,
    /// The journal and everything else.
    pub(crate) calls: Arc<StoreCalls>,
    /// What drives the store's calls.
    pub(crate) runtime: Handle,
}

impl StoreLink {
    pub(crate) fn new(store: JobStore, patience: Duration, runtime: Handle) -> Self {
        let state = StateStore::new(store.clone(), runtime.clone());
        Self { state, calls: Arc::new(StoreCalls::new(store, patience)), runtime }
    }
}

/// The process's one connection with the job's sink.
pub(crate) struct SinkLink {
    pub(crate) outputs: Vec<OutputSpec>,
    pub(crate) context: SinkContext,
    sink: Arc<dyn Sink>,
    session: OnceLock<Arc<dyn SinkSession>>,
}

impl SinkLink {
    pub(crate) fn new(sink: Arc<dyn Sink>, outputs: Vec<OutputSpec>, context: SinkContext) -> Self {
        Self { outputs, context, sink, session: OnceLock::new() }
    }

    /// The session, which the first call makes: in the first process to look around, in the others when the journal is
    /// open.
    ///
    /// # Errors
    /// The sink has been unavailable for longer than the patience, or refuses.
    pub(crate) fn session(&self) -> Result<Arc<dyn SinkSession>, Failure> {
        if let Some(session) = self.session.get() {
            return Ok(Arc::clone(session));
        }
        let connect = || self.sink.connect(&self.context, &self.outputs);
        let session =
            wait_out("sink", self.context.patience, connect).map_err(|error| Failure::of(System::Sink, error))?;
        Ok(Arc::clone(self.session.get_or_init(|| session)))
    }
}

impl Member {
    pub(crate) fn new(
        process: JobProcess,
        config: RunConfig,
        sources: Vec<(String, Arc<dyn Source>)>,
        store: StoreLink,
        sink: SinkLink,
        supervisor: SupervisorLink,
    ) -> Self {
        Self { process, config, sources, store, sink, supervisor, for_the_leader: Mutex::new(None) }
    }

    /// Ends the process: its workers may wait for each other in any state.
    pub(crate) fn end(&self, failure: &Failure) -> ! {
        self.supervisor.say(&FromPeer::Ended { exit: failure.exit, why: failure.line() });
        std::process::exit(i32::from(failure.exit.code()));
    }

    /// What there is to read and to write, before the journal is opened.
    pub(crate) fn look_around(&self) -> Result<Found, Failure> {
        let (sources, patience) = (&self.sources, self.config.patience);
        let splits = if self.config.stop_at_end {
            discovery::splits_when_available(sources, patience, "--stop-at-end, which has to know where it ends,")
        } else {
            discovery::splits(sources, patience)
        };
        let splits = splits.map_err(|e| Failure::of(System::Source, e))?;
        let session = self.sink.session()?;
        let sink = wait_out("sink", patience, || session.status()).map_err(|e| Failure::of(System::Sink, e))?;
        let output = |spec: &OutputSpec| {
            let partitions = sink.outputs.get(&spec.name).map_or(0, |output| output.partitions);
            FoundOutput { output: spec.name.clone(), partitions, envelope: spec.envelope }
        };
        Ok(Found { splits, outputs: self.sink.outputs.iter().map(output).collect(), sink })
    }

    /// Leaves what the leader begins with.
    pub(crate) fn set_for_the_leader(&self, with: ForTheLeader) {
        *self.for_the_leader.lock().unwrap_or_else(PoisonError::into_inner) = Some(with);
    }

    /// What the leader begins with, in the first process, once.
    pub(crate) fn for_the_leader(&self) -> Option<ForTheLeader> {
        self.for_the_leader.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Tells the supervisor that the generation has its place in the journal.
    pub(crate) fn say_opened(&self, generation: Generation) {
        self.supervisor.say(&FromPeer::Opened(generation));
    }

    /// Tells the supervisor that the generation reads input.
    pub(crate) fn say_running(&self) {
        self.supervisor.say(&FromPeer::Running);
    }
}
