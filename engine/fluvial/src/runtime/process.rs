//! One process of a generation, from joining to its end.
//!
//! ```text
//!   join the mesh ─► build the job once, to know its parts ─► (process 0) look at sources and sink ─► timely workers
//! ```
//!
//! [`Shared`] is what the workers share. [`Member`] is what the process has only while the job runs, and not in a
//! replay. The main thread starts the workers and waits for them; a `hash` thread reads the binary while the process
//! looks around.
//!
//! Whatever goes wrong ends the process at once, after it has told its node why: a process holds nothing that
//! its end at any moment could leave half done.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::Context;
use fluvial_connector::{JobProcess, SinkContext, SinkStatus, Source, Waits};
use fluvial_node::log;
use fluvial_node::process_link::{FromProcess, Invited, Succession};
use fluvial_protocol::{Exit, FoundOutput, FoundSplit, System};
use fluvial_store::Store;
use timely::communication::WorkerGuards;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};
use timely::communication::initialize::Hooks;
use timely::worker::Worker;

use super::calls::store_runtime;
use super::config::RunConfig;
use super::failure::Failure;
use super::inbox::Inbox;
use super::member::{Member, SinkLink, StoreLink};
use super::mesh::Socket;
use super::peer::Peer;
use super::plan::plan;
use super::pulse::Pulses;
use super::replay::Script;
use super::request_rate::RequestRate;
use super::source::Volume;
use super::version::version;
use super::{Build, panics, worker};
use crate::stages::STAGES;
use fluvial_node::job_store::JobStore;

/// How many full ticks a worker reads ahead of the minted ones. Reading further ahead brings no input into the dataflow
/// sooner, but takes memory, and records that wait longer have left the CPU caches when their tick comes.
const TICKS_READ_AHEAD: u64 = 2;

/// The values that the workers of one process share, whether they run the job or replay it.
pub(crate) struct Shared {
    pub(crate) build: Build,
    pub(crate) sources: Vec<(String, Arc<dyn Source>)>,
    /// How much input may wait for its tick on one worker.
    pub(crate) most_waiting: Volume,
    /// How long to wait for a system that is unavailable.
    pub(crate) patience: Duration,
    /// The output of the workers' dataflows.
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) pulses: Pulses,
    /// How many workers the process has.
    pub(crate) threads: usize,
    pub(crate) mode: Mode,
}

/// The mode of the workers: whether they run the job or replay it.
pub(crate) enum Mode {
    /// They run the job, as one process of a generation.
    Run(Arc<Member>),
    /// They replay its kept journal, and write nothing.
    Replay(Box<Script>),
}

impl Shared {
    /// Which of the process's workers this is.
    pub(crate) fn thread(&self, worker: &Worker) -> usize {
        worker.index() % self.threads
    }
}

/// The values that the leader begins with.
pub(crate) struct ForTheLeader {
    /// The splits and outputs that the first process found.
    pub(crate) found: Found,
    /// The run, and the generation that precedes this one.
    pub(crate) succession: Succession,
    /// Receives the node's request to stop.
    pub(crate) stop: Receiver<()>,
    /// How often to write to the store.
    pub(crate) rate: RequestRate,
    /// Identifies the program: the hash of its binary and of the job's own options. Another program may compute other
    /// output.
    pub(crate) program: String,
}

/// The splits and outputs that the first process finds before it opens the journal.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) splits: Vec<FoundSplit>,
    pub(crate) outputs: Vec<FoundOutput>,
    pub(crate) sink: SinkStatus,
}

/// Runs this process of a generation; returns how it ended, after its node has been told.
///
/// # Errors
/// The process cannot be set up.
pub(crate) fn run(invited: Invited, build: &Build, config: &RunConfig) -> anyhow::Result<Exit> {
    // Ctrl-C in a terminal reaches every process, but the node alone decides what follows.
    let ignored = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ignored)).context("cannot watch for signals")?;
    }
    let node = invited.node.clone();
    if config.layout.processes > 1 {
        log::this_is_process(invited.invitation.index as usize);
    }
    panics::end_the_process_on_panic(node.clone());
    let (exit, last_words) = match Peer::join(invited).and_then(|peer| generation(peer, build, config)) {
        Ok(()) => (Exit::Done, FromProcess::Ended { exit: Exit::Done, why: String::new(), elsewhere: false }),
        Err(failure) => (failure.exit, failure.last_words()),
    };
    node.say(&last_words);
    Ok(exit)
}

fn generation(peer: Peer, build: &Build, config: &RunConfig) -> Result<(), Failure> {
    tracing::debug!(target: STAGES, "joined");
    let misconfigured = |error: anyhow::Error| Failure::new(Exit::Misconfigured, error);
    let topology = plan(build).map_err(misconfigured)?;
    let store = Store::open_or_create(&config.store).map_err(|e| Failure::of(System::Store, e))?;
    let store = JobStore::new(store, &config.job);
    let runtime = store_runtime().map_err(Failure::of_host)?;
    let first = peer.index == 0;
    let threads = config.layout.threads() as usize;
    let index = u32::try_from(peer.index).expect("processes are few");
    let process = JobProcess { job: config.job.clone(), index };
    topology.sources.iter().for_each(|(_, source)| source.used_by(&process));
    let link = StoreLink::new(store.clone(), config.patience, runtime.handle().clone());
    let context = SinkContext { process: process.clone(), patience: config.patience, waits: Waits::default() };
    let sink = SinkLink::new(topology.sink, topology.outputs, context);
    let member =
        Member::new(process, config.clone(), topology.sources.clone(), link, sink, peer.node, peer.beats.clone());
    let member = Arc::new(member);
    if first {
        let failed = Failure::of_host;
        // Hashing takes some milliseconds, in which Kafka can answer.
        let own_options = config.own_options.clone();
        let hash = move || version(&own_options);
        let hash = std::thread::Builder::new().name("hash".to_owned()).spawn(hash).map_err(failed)?;
        let rate = RequestRate::new(config, store.store());
        rate.say(config, store.store(), topology.operators.len());
        // The store can be asked while Kafka answers.
        let calls = Arc::clone(&member.store.calls);
        let probed = runtime.spawn(async move { calls.probe().await });
        let found = member.look_around()?;
        let probed = runtime.block_on(probed).map_err(|error| Failure::of_host(error.into()))?;
        probed.map_err(|error| Failure::of(System::Store, error))?;
        let program = hash.join().unwrap_or_else(|_| Err(std::io::Error::other("panicked"))).map_err(failed)?;
        let (succession, stop) = (peer.succession, peer.stop);
        member.set_for_the_leader(ForTheLeader { found, succession, stop, rate, program });
        tracing::debug!(target: STAGES, "found");
    }
    let shared = Shared {
        build: Arc::clone(build),
        sources: topology.sources,
        most_waiting: Volume {
            records: config.tick_records.saturating_mul(TICKS_READ_AHEAD),
            bytes: config.in_flight_bytes / u64::from(config.layout.workers),
        },
        patience: config.patience,
        inbox: Arc::new(Inbox::new(threads)),
        pulses: Pulses::new(threads),
        threads,
        mode: Mode::Run(Arc::clone(&member)),
    };
    peer.beats.watch(&shared.pulses, &member.store.calls);
    let guards = start_workers(shared, peer.index, peer.sockets, move |ended| {
        if let Err(failure) = ended {
            member.end(&failure);
        }
    })?;
    for result in guards.join() {
        result.map_err(|error| Failure::new(Exit::EngineFault, anyhow::anyhow!(error)))?;
    }
    Ok(())
}

/// Starts the workers of process `index`, which `sockets` connect with the others; `ended` is called on each of them when
/// it ends.
pub(crate) fn start_workers(
    shared: Shared,
    index: usize,
    sockets: Vec<Option<Socket>>,
    ended: impl Fn(Result<(), Failure>) + Send + Sync + 'static,
) -> Result<WorkerGuards<()>, Failure> {
    let threads = shared.threads;
    shared.pulses.watch(index * threads).map_err(Failure::of_host)?;
    let hooks = Hooks::default();
    let local = ProcessBuilder::new_typed_vector(threads, hooks.refill.clone(), hooks.spill.clone());
    let (builders, guard): (Vec<AllocatorBuilder>, Box<dyn std::any::Any + Send>) = if sockets.len() == 1 {
        (local.into_iter().map(AllocatorBuilder::Process).collect(), Box::new(()))
    } else {
        let (tcp, guard) = initialize_networking_from_sockets(local, sockets, index, threads, hooks)
            .map_err(|e| Failure::new(Exit::GenerationLost, e))?;
        (tcp.into_iter().map(AllocatorBuilder::Tcp).collect(), Box::new(guard))
    };
    let mut config = timely::WorkerConfig::default().idle_spin(Duration::ZERO);
    differential_dataflow::configure(&mut config, &differential_dataflow::Config::default());
    let work = move |worker: &mut Worker| ended(worker::work(worker, &shared));
    timely::execute::execute_from(builders, guard, config, work)
        .map_err(|error| Failure::new(Exit::EngineFault, anyhow::anyhow!(error)))
}
