//! The parts of a process that it has as a member of a generation and that a replay lacks: the connections to
//! node, store and sink.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use fluvial_connector::{Generation, JobProcess, OutputSpec, Sink, SinkContext, SinkSession, SinkStatus, Source};
use fluvial_node::process_link::{FromProcess, NodeLink};
use fluvial_node::status::Progress;
use fluvial_protocol::{FoundOutput, System};
use tokio::runtime::Handle;

use super::background::wait_out;
use super::beat::Beats;
use super::calls::StoreCalls;
use super::config::RunConfig;
use super::discovery;
use super::failure::Failure;
use super::meter::{LeaderFigures, Meters};
use super::process::{ForTheLeader, Found};
use crate::state::StateStore;
use fluvial_node::job_store::JobStore;

/// A process of a generation, as its leader and its sink know it.
pub(crate) struct Member {
    /// The job's name, and which process of its generation this is.
    pub(crate) process: JobProcess,
    pub(crate) config: RunConfig,
    pub(crate) sources: Vec<(String, Arc<dyn Source>)>,
    pub(crate) store: StoreLink,
    pub(crate) sink: SinkLink,
    pub(crate) meters: Arc<Meters>,
    node: NodeLink,
    beats: Beats,
    for_the_leader: Mutex<Option<ForTheLeader>>,
}

/// The process's access to the job's store.
pub(crate) struct StoreLink {
    /// Access to the state files.
    pub(crate) state: StateStore,
    /// Access to the journal and to all other objects.
    pub(crate) calls: Arc<StoreCalls>,
    /// The runtime on which the store's calls run.
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

    /// The session with the sink. The first call creates it: in the first process before the journal is opened, to find
    /// the outputs; in the others after it is opened.
    ///
    /// # Errors
    /// The sink has been unavailable for longer than the patience, or refuses the session.
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

/// The outputs of the job with the partitions that the sink says.
pub(crate) fn found_outputs(outputs: &[OutputSpec], sink: &SinkStatus) -> Vec<FoundOutput> {
    let found = outputs.iter().map(|spec| {
        let partitions = sink.outputs.get(&spec.name).map_or(0, |output| output.partitions);
        FoundOutput { output: spec.name.clone(), partitions, envelope: spec.envelope }
    });
    found.collect()
}

impl Member {
    pub(crate) fn new(
        process: JobProcess,
        config: RunConfig,
        sources: Vec<(String, Arc<dyn Source>)>,
        store: StoreLink,
        sink: SinkLink,
        node: NodeLink,
        beats: Beats,
    ) -> Self {
        let threads = config.layout.threads();
        let meters = Arc::new(Meters::new(process.index * threads, threads as usize));
        beats.measure(&meters);
        Self { process, config, sources, store, sink, meters, node, beats, for_the_leader: Mutex::new(None) }
    }

    /// Ends the process at once, because its workers may wait for each other in any state.
    pub(crate) fn end(&self, failure: &Failure) -> ! {
        self.node.say(&failure.last_words());
        std::process::exit(i32::from(failure.exit.code()));
    }

    /// Asks sources and sink for the splits and outputs of the job, before the journal is opened.
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
        Ok(Found { splits, outputs: found_outputs(&self.sink.outputs, &sink), sink })
    }

    /// Stores the values that the leader begins with, until its worker takes them.
    pub(crate) fn set_for_the_leader(&self, with: ForTheLeader) {
        *self.for_the_leader.lock().unwrap_or_else(PoisonError::into_inner) = Some(with);
    }

    /// The values that the leader begins with. They are returned once, in the first process.
    pub(crate) fn for_the_leader(&self) -> Option<ForTheLeader> {
        self.for_the_leader.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Tells the node that the generation has its place in the journal.
    pub(crate) fn say_opened(&self, generation: Generation) {
        self.node.say(&FromProcess::Opened(generation));
    }

    /// Takes how far the job is, and what the leader knows of its parts, which the node hears with the next beat.
    pub(crate) fn say_progress(&self, progress: Progress, figures: LeaderFigures) {
        self.beats.measured(progress, figures);
    }

    /// Tells the node that the generation reads input.
    pub(crate) fn say_running(&self) {
        self.node.say(&FromProcess::Running);
    }
}
