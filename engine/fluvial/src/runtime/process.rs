//! One process of a generation, from joining to its end.
//!
//! ```text
//!   join the mesh ─► build the job once, to know its parts ─► (process 0) look at sources and sink ─► timely workers
//! ```
//!
//! Whatever goes wrong ends the process at once, after it has told the supervisor why: a process holds nothing that
//! its end at any moment could leave half done.

use std::io::Read as _;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context;
use fluvial_connector::{
    Availability, Envelope, Error, Generation, JobProcess, OutputSpec, Sink, SinkContext, SinkSession, SinkStatus,
    Source, Waits,
};
use fluvial_protocol::journal::SplitName;
use fluvial_protocol::{Exit, FoundOutput, FoundSplit, System};
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};
use timely::communication::initialize::Hooks;
use xxhash_rust::xxh3::Xxh3;

use super::background::wait_out;
use super::config::RunConfig;
use super::failure::Failure;
use super::inbox::Inbox;
use super::leader::Ends;
use super::peer::{FromPeer, Invitation, Peer, Succession, SupervisorLink};
use super::plan::plan;
use super::pulse::Pulses;
use super::unavailable::{LOOK_AGAIN, Unavailable};
use super::{Build, ambient, log, panics, worker};
use crate::fail_point;
use crate::journal::JobStore;
use crate::stages::STAGES;

/// What the workers of one process share.
pub(crate) struct Shared {
    /// The job's name, and which process of its generation this is.
    pub(crate) process: JobProcess,
    pub(crate) build: Build,
    pub(crate) config: RunConfig,
    pub(crate) store: JobStore,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) sources: Vec<(String, Arc<dyn Source>)>,
    pub(crate) outputs: Vec<OutputSpec>,
    pub(crate) succession: Succession,
    /// What the workers' dataflows have put out.
    pub(crate) inbox: Arc<Inbox>,
    sink: Arc<dyn Sink>,
    session: OnceLock<Arc<dyn SinkSession>>,
    for_the_leader: Mutex<Option<ForTheLeader>>,
    /// What the sink's calls wait for.
    pub(crate) waits: Waits,
    pub(crate) pulses: Pulses,
    supervisor: SupervisorLink,
}

/// What the leader begins with.
pub(crate) struct ForTheLeader {
    /// What the first process found.
    pub(crate) found: Found,
    /// Where the supervisor asks for the end.
    pub(crate) stop: Receiver<()>,
    /// What tells this program from others that may compute other output.
    pub(crate) program: String,
}

/// What the first process finds before it opens the journal; while the job runs, what one source says of its splits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) splits: Vec<FoundSplit>,
    pub(crate) ends: Ends,
    pub(crate) outputs: Vec<FoundOutput>,
    pub(crate) sink: SinkStatus,
}

impl Found {
    /// The splits of all sources and where they end now.
    ///
    /// # Errors
    /// One of the sources cannot be asked: a start needs them all.
    pub(crate) fn of_sources(sources: &[(String, Arc<dyn Source>)], patience: Duration) -> Result<Self, Error> {
        let mut found = Self::default();
        for (name, source) in sources {
            let Self { splits, ends, .. } = Self::of_source(name, source.as_ref(), patience)?;
            found.splits.extend(splits);
            found.ends.extend(ends);
        }
        Ok(found)
    }

    /// The splits of one source and where they end now.
    ///
    /// # Errors
    /// It cannot be asked.
    pub(crate) fn of_source(name: &str, source: &dyn Source, patience: Duration) -> Result<Self, Error> {
        let mut found = Self::default();
        let asked_ms = ambient::now_ms();
        for status in source.splits(patience)? {
            if let Some(end) = status.availability.end() {
                found.ends.insert(SplitName { source: name.to_owned(), split: status.split.clone() }, end);
            }
            found.splits.push(FoundSplit {
                source: name.to_owned(),
                described: source.describe_split(&status.split),
                split: status.split,
                availability: status.availability,
                identity: status.identity,
                asked_ms,
            });
        }
        Ok(found)
    }

    /// The same with the later ends of this and an earlier answer.
    #[must_use]
    pub(crate) fn with_ends_of(mut self, earlier: &Self) -> Self {
        for split in &mut self.splits {
            let name = split.name();
            if let Availability::Available { end, .. } = &mut split.availability {
                *end = (*end).max(earlier.ends.get(&name).copied().unwrap_or_default());
                self.ends.insert(name, *end);
            }
        }
        self
    }

    /// What the sources say once all of their splits are available; tells which it waits for, and that `who` does.
    pub(crate) fn when_all_available(
        sources: &[(String, Arc<dyn Source>)],
        patience: Duration,
        who: &str,
    ) -> Result<Self, Error> {
        let mut unavailable = Unavailable::default();
        loop {
            let found = Self::of_sources(sources, patience)?;
            if unavailable.note(&found.splits, &format!("{who} waits for it")) == 0 {
                return Ok(found);
            }
            ambient::pause(LOOK_AGAIN);
        }
    }
}

/// Runs this process of a generation; returns how it ended, after the supervisor has been told.
///
/// # Errors
/// The process cannot join its generation.
pub(crate) fn run(invitation: &Invitation, build: &Build, config: &RunConfig) -> anyhow::Result<Exit> {
    // A terminal's Ctrl-C reaches every process; what to do about it is the supervisor's to say.
    let ignored = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ignored)).context("cannot watch for signals")?;
    }
    if let Some(doom) = invitation.fail_point {
        fail_point::set(doom);
    }
    let peer = Peer::join(invitation)?;
    let supervisor = peer.supervisor.clone();
    if peer.processes > 1 {
        log::this_is_process(peer.index);
    }
    tracing::debug!(target: STAGES, "joined");
    panics::end_the_process_on_panic(supervisor.clone());
    let (exit, why) = match generation(peer, build, config) {
        Ok(()) => (Exit::Done, String::new()),
        Err(failure) => (failure.exit, failure.line()),
    };
    supervisor.say(&FromPeer::Ended { exit, why });
    Ok(exit)
}

fn generation(peer: Peer, build: &Build, config: &RunConfig) -> Result<(), Failure> {
    let misconfigured = |error: anyhow::Error| Failure::new(Exit::Misconfigured, error);
    let topology = plan(build).map_err(misconfigured)?;
    let store = JobStore::open_or_make(&config.store, &config.job).map_err(|e| Failure::of(System::Store, e))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("store")
        .enable_all()
        .build()
        .map_err(Failure::of_host)?;
    let first = peer.index == 0;
    let threads = config.layout.threads() as usize;
    let index = u32::try_from(peer.index).expect("processes are few");
    let process = JobProcess { job: config.job.clone(), index };
    topology.sources.iter().for_each(|(_, source)| source.used_by(&process));
    let shared = Arc::new(Shared {
        process,
        build: Arc::clone(build),
        config: config.clone(),
        store,
        runtime: runtime.handle().clone(),
        sources: topology.sources,
        outputs: topology.outputs,
        succession: peer.succession,
        inbox: Arc::new(Inbox::new(threads)),
        sink: topology.sink,
        session: OnceLock::new(),
        for_the_leader: Mutex::new(None),
        waits: Waits::default(),
        pulses: Pulses::new(threads),
        supervisor: peer.supervisor,
    });
    if first {
        let failed = Failure::of_host;
        // It takes some milliseconds, in which Kafka can answer.
        let own_options = config.own_options.clone();
        let hash = move || hash_of_this_program(&own_options);
        let hash = std::thread::Builder::new().name("hash".to_owned()).spawn(hash).map_err(failed)?;
        let found = shared.look_around()?;
        let program = hash.join().unwrap_or_else(|_| Err(std::io::Error::other("panicked"))).map_err(failed)?;
        *lock(&shared.for_the_leader) = Some(ForTheLeader { found, stop: peer.stop, program });
        tracing::debug!(target: STAGES, "found");
    }
    let watched = shared.pulses.watch(peer.index * threads);
    watched.map_err(Failure::of_host)?;
    let failed = |error: String| Failure::new(Exit::EngineFault, anyhow::anyhow!(error));
    let hooks = Hooks::default();
    let local = ProcessBuilder::new_typed_vector(threads, hooks.refill.clone(), hooks.spill.clone());
    let (builders, guard): (Vec<AllocatorBuilder>, Box<dyn std::any::Any + Send>) = if peer.processes == 1 {
        (local.into_iter().map(AllocatorBuilder::Process).collect(), Box::new(()))
    } else {
        let (tcp, guard) = initialize_networking_from_sockets(local, peer.sockets, peer.index, threads, hooks)
            .map_err(|e| Failure::new(Exit::GenerationLost, e))?;
        (tcp.into_iter().map(AllocatorBuilder::Tcp).collect(), Box::new(guard))
    };
    let mut timely_config = timely::WorkerConfig::default().idle_spin(Duration::ZERO);
    differential_dataflow::configure(&mut timely_config, &differential_dataflow::Config::default());
    let of_workers = Arc::clone(&shared);
    let guards = timely::execute::execute_from(builders, guard, timely_config, move |timely_worker| {
        if let Err(failure) = worker::work(timely_worker, &of_workers) {
            of_workers.end(&failure);
        }
    })
    .map_err(failed)?;
    for result in guards.join() {
        result.map_err(failed)?;
    }
    Ok(())
}

impl Shared {
    /// Ends the process: its workers may wait for each other in any state.
    fn end(&self, failure: &Failure) -> ! {
        self.supervisor.say(&FromPeer::Ended { exit: failure.exit, why: failure.line() });
        std::process::exit(i32::from(failure.exit.code()));
    }

    /// What there is to read and to write, before the journal is opened.
    fn look_around(&self) -> Result<Found, Failure> {
        let (sources, patience) = (&self.sources, self.config.patience);
        let found = if self.config.stop_at_end {
            Found::when_all_available(sources, patience, "--stop-at-end, which has to know where it ends,")
        } else {
            Found::of_sources(sources, patience)
        };
        let mut found = found.map_err(|e| Failure::of(System::Source, e))?;
        let session = self.session()?;
        found.sink =
            wait_out("sink", self.config.patience, || session.status()).map_err(|e| Failure::of(System::Sink, e))?;
        for spec in &self.outputs {
            let partitions = found.sink.outputs.get(&spec.name).map_or(0, |output| output.partitions);
            let envelope: Envelope = spec.envelope;
            found.outputs.push(FoundOutput { output: spec.name.clone(), partitions, envelope });
        }
        Ok(found)
    }

    /// What the leader begins with, in the first process, once.
    pub(crate) fn for_the_leader(&self) -> Option<ForTheLeader> {
        lock(&self.for_the_leader).take()
    }

    /// The process's one session with the sink, for its first worker.
    pub(crate) fn session(&self) -> Result<Arc<dyn SinkSession>, Failure> {
        if let Some(session) = self.session.get() {
            return Ok(Arc::clone(session));
        }
        let patience = self.config.patience;
        let context = SinkContext { process: self.process.clone(), patience, waits: self.waits.clone() };
        let session = wait_out("sink", patience, || self.sink.connect(&context, &self.outputs))
            .map_err(|e| Failure::of(System::Sink, e))?;
        Ok(Arc::clone(self.session.get_or_init(|| session)))
    }

    /// Tells the supervisor that the generation has its place in the journal.
    pub(crate) fn say_opened(&self, generation: Generation) {
        self.supervisor.say(&FromPeer::Opened(generation));
    }

    /// Tells the supervisor that the generation reads input.
    pub(crate) fn supervisor_says_running(&self) {
        self.supervisor.say(&FromPeer::Running);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hash of the binary that this process runs, whatever stands in its place on the disk by now, and of the job's own
/// options.
fn hash_of_this_program(own_options: &[u8]) -> std::io::Result<String> {
    let mut binary = std::fs::File::open("/proc/self/exe")?;
    let (mut hash, mut buffer) = (Xxh3::new(), vec![0; 1 << 20]);
    hash.update(own_options);
    loop {
        match binary.read(&mut buffer)? {
            0 => return Ok(format!("{:032x}", hash.digest128())),
            read => hash.update(&buffer[..read]),
        }
    }
}
