//! Checks whether the job could be run now, and changes nothing: the command `check`.
//!
//! ```text
//!   version ─► plan ─► store: journal, manifest ─► durable operators against the checkpoint
//!                            │                                              sources ─┬─► judging, as a leader
//!                            └────── Inspected ──────────────────────────── sink ────┘   that appends nothing
//! ```
//!
//! Every step is the code of an opening: [`Inspection`] reads the journal, the dataflow is built over the checkpoint's state
//! files, and a leader judges what sources and sink say. A step that fails does not keep those from being checked that do not
//! need it, so that a person learns of everything at once.
//!
//! **Guarantees** that nothing is created, appended, committed or deleted, in the store or elsewhere, and that it ends: what
//! does not answer within some seconds is a problem that names it. **Does not** probe whether the store honours conditional
//! creates, which takes a write (each start does), and does not read the outputs back, which takes writers that are fenced:
//! that they hold what this program computes is compared at a start.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use fluvial_connector::{
    Envelope, Error, ErrorKind, JobProcess, OutputSpec, SinkContext, SinkSession, SinkStatus, Source, Waits,
};
use fluvial_node::process_link::Succession;
use fluvial_node::readiness::{Becomes, Part, Problem, Verdict};
use fluvial_protocol::manifest::Manifest;
use fluvial_protocol::{Asks, Event, Exit, FoundSplit, Inspected, Inspection, System};
use fluvial_store::Store;
use tokio::runtime::Runtime;

use super::background::wait_out;
use super::calls::{StoreCalls, store_runtime};
use super::config::RunConfig;
use super::failure::{Failure, chain};
use super::leader::{input_to_replay, leader_config};
use super::member::found_outputs;
use super::plan::{Topology, check_operators, plan};
use super::request_rate::RequestRate;
use super::unavailable::LOOK_AGAIN;
use super::version::version;
use super::{Build, ambient, discovery, outputs};
use crate::durable::Restore;
use crate::state::StateStore;
use fluvial_node::job_store::JobStore;

/// How long a system may take to answer, unless `--patience` is shorter.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to read what the store holds. Each request ends in time by itself, but their number grows with the
/// journal and the state.
const READ_WITHIN: Duration = Duration::from_secs(40);
/// How much longer it is waited for a call that should have given up by itself, and then says more.
const GRACE: Duration = Duration::from_secs(3);
/// How long an input is asked again that seems to end too early.
const IN_DOUBT: Duration = Duration::from_secs(8);

/// Checks the job.
pub(crate) fn check(build: &Build, config: &RunConfig) -> (Verdict, Exit) {
    let mut checked = Checked { verdict: Verdict::default(), exit: Exit::Done };
    let within = config.patience.min(ANSWERS_WITHIN);
    let program = checked.note("job", version(&config.own_options).map_err(Failure::of_host));
    checked.verdict.version = program.clone().unwrap_or_default();
    let to_plan = Arc::clone(build);
    let planned = Asked::new("the closure that builds the job", Exit::Failed, within, move || {
        plan(&to_plan).map_err(|error| Failure::new(Exit::Misconfigured, error))
    });
    let topology = checked.note("job", planned.and_then(Asked::wait));
    let job = checked.note("store", Stored::read(config, within));
    if let (Some(topology), Some(job)) = (&topology, &job) {
        checked.verdict.parts = parts(topology, job.inspected.checkpoint());
        checked.operators(build, job);
    }
    if let Some(topology) = topology {
        checked.verdict.graph = Some(topology.graph.clone());
        let around = checked.look_around(topology, config, within);
        if let (Some(around), Some(job), Some(program)) = (around, job, program) {
            let judged = checked.judge(around, job, program, config, within);
            checked.note("job", judged);
        }
    }
    checked.verdict.ready = checked.verdict.problems.is_empty();
    (checked.verdict, checked.exit)
}

/// The parts of the job, compared with its newest checkpoint.
fn parts(topology: &Topology, checkpoint: Option<&Manifest>) -> Vec<Part> {
    let Some(checkpoint) = checkpoint else { return Vec::new() };
    let sources = topology.sources.iter().map(|(name, _)| name.clone()).collect();
    let sources_then = checkpoint.splits.iter().map(|split| split.start.source.clone()).collect();
    let operators = topology.operators.iter().cloned().collect();
    let operators_then = checkpoint.operators.iter().map(|operator| operator.name.clone()).collect();
    let outputs = topology.outputs.iter().map(|output| output.name.clone()).collect();
    let outputs_then = checkpoint.sinks.iter().map(|sink| sink.output.clone()).collect();
    [
        ("source", sources, sources_then),
        ("durable operator", operators, operators_then),
        ("output", outputs, outputs_then),
    ]
    .into_iter()
    .flat_map(|(kind, now, then)| compared(kind, &now, &then))
    .collect()
}

fn compared(kind: &'static str, now: &BTreeSet<String>, then: &BTreeSet<String>) -> Vec<Part> {
    let part = |name: &String| {
        let becomes = match (now.contains(name), then.contains(name)) {
            (true, true) => Becomes::Reused,
            (true, false) => Becomes::New,
            (false, _) => Becomes::Gone,
        };
        Part { kind: kind.to_owned(), name: name.clone(), becomes }
    };
    now.union(then).map(part).collect()
}

/// What has been found so far.
struct Checked {
    verdict: Verdict,
    /// How a run would end, by the first problem.
    exit: Exit,
}

/// What sources and sink say.
struct Around {
    sources: Vec<(String, Arc<dyn Source>)>,
    outputs: Vec<OutputSpec>,
    splits: Vec<FoundSplit>,
    session: Arc<dyn SinkSession>,
    sink: SinkStatus,
}

impl Checked {
    /// Takes a result; an error is a problem of this part of the job.
    fn note<T>(&mut self, part: &str, result: Result<T, Failure>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(failure) => {
                if self.exit == Exit::Done {
                    self.exit = failure.exit;
                }
                let problem = Problem { part: part.to_owned(), code: failure.exit.code(), what: failure.line() };
                self.verdict.problems.push(problem);
                None
            }
        }
    }

    /// Builds the dataflow over the checkpoint's state files.
    fn operators(&mut self, build: &Build, job: &Stored) {
        let Some(checkpoint) = job.inspected.checkpoint() else { return };
        let restore = Restore {
            as_of: checkpoint.tick,
            operators: checkpoint.operators.clone(),
            store: StateStore::new(job.store.clone(), job.runtime.handle().clone()),
        };
        let build = Arc::clone(build);
        let asked = Asked::new("the state of the durable operators", Exit::StoreFailed, READ_WITHIN, move || {
            check_operators(&build, restore).map_err(|error| Failure::new(Exit::Misconfigured, error))
        });
        for wrong in self.note("state", asked.and_then(Asked::wait)).unwrap_or_default() {
            let exit = Exit::of(wrong.kind(), System::Store);
            self.note::<()>("state", Err(Failure::new(exit, wrong)));
        }
    }

    /// Asks sources and sink, all at once.
    fn look_around(&mut self, topology: Topology, config: &RunConfig, within: Duration) -> Option<Around> {
        let Topology { sources, outputs, sink, .. } = topology;
        let process = JobProcess { job: config.job.clone(), index: 0 };
        let window = input_to_replay(config);
        let mut asked = Vec::new();
        for source in &sources {
            source.1.used_by(&process);
            let part = format!("source '{}'", source.0);
            let (what, source) = (format!("{part} ({})", source.1.describe()), source.clone());
            let splits = Asked::new(&what, Exit::SourceFailed, within, move || {
                let failed = |error| Failure::of(System::Source, error);
                let splits = discovery::splits(std::slice::from_ref(&source), within).map_err(failed)?;
                if splits.is_empty() {
                    let what = format!("{} has no splits", source.1.describe());
                    return Err(failed(Error::new(ErrorKind::Retry, what)));
                }
                Ok((splits, source.1.warnings(window, within).unwrap_or_default()))
            });
            asked.push((part, splits));
        }
        let context = SinkContext { process, patience: within, waits: Waits::default() };
        let (what, specs) = (format!("the sink ({})", sink.identity()), outputs.clone());
        let session = Asked::new(&what, Exit::SinkFailed, within, move || {
            let look = || {
                let session = sink.look(&context, &specs)?;
                let status = session.status()?;
                Ok((session, status))
            };
            let (session, status) = wait_out("sink", within, look).map_err(|error| Failure::of(System::Sink, error))?;
            let warnings = session.warnings().unwrap_or_default();
            Ok((session, status, warnings))
        });
        let mut splits = Some(Vec::new());
        for (part, asked) in asked {
            let found = self.note(&part, asked.and_then(Asked::wait));
            splits = splits.zip(found).map(|(mut splits, (found, warnings))| {
                self.verdict.warnings.extend(warnings);
                splits.extend(found);
                splits
            });
        }
        let (session, sink, warnings) = self.note("sink", session.and_then(Asked::wait))?;
        self.verdict.warnings.extend(warnings);
        for split in splits.iter().flatten() {
            let unavailable =
                split.availability.why_not().map(|why| format!("{} is unavailable: {why}", split.described));
            self.verdict.warnings.extend(unavailable);
        }
        Some(Around { sources, outputs, splits: splits?, session, sink })
    }

    /// Compares the job, its input and its outputs with the journal, as the leader of the next generation would.
    fn judge(
        &mut self,
        around: Around,
        job: Stored,
        program: String,
        config: &RunConfig,
        within: Duration,
    ) -> Result<(), Failure> {
        let Around { sources, outputs, splits, session, sink } = around;
        let names = sources.iter().map(|(name, _)| name.clone()).collect();
        let succession = Succession { run: 0, attempt: 0, follows: None };
        let rate = RequestRate::new(config, job.store.store());
        let found = found_outputs(&outputs, &sink);
        let config = leader_config(config, names, (found, sink), program, succession, rate);
        let mut judging = job.inspected.judge(config, &splits, ambient::now_ms())?;
        let until = ambient::instant() + IN_DOUBT;
        loop {
            let (warnings, asks) = judging.asks();
            self.verdict.warnings.extend(warnings);
            let event = match asks {
                None => break,
                Some(Asks::Splits) if ambient::instant() >= until => break,
                Some(Asks::Splits) => {
                    ambient::pause(LOOK_AGAIN);
                    let sources = sources.clone();
                    let again = Asked::new("the sources", Exit::SourceFailed, within, move || {
                        discovery::splits(&sources, within).map_err(|error| Failure::of(System::Source, error))
                    });
                    Event::Splits(again.and_then(Asked::wait)?)
                }
                Some(Asks::Survey) => {
                    let session = Arc::clone(&session);
                    let upserts = outputs.iter().filter(|output| output.envelope == Envelope::Upsert);
                    let upserts: Vec<String> = upserts.map(|output| output.name.clone()).collect();
                    let survey = Asked::new("what the upsert outputs hold", Exit::SinkFailed, within, move || {
                        outputs::survey(session.as_ref(), &upserts).map_err(|error| Failure::of(System::Sink, error))
                    });
                    Event::Surveyed(survey.and_then(Asked::wait)?)
                }
            };
            judging.hear(event)?;
        }
        let read = Asked::new("the progress of the outputs", Exit::SinkFailed, within, move || Ok(session.progress()));
        match read.and_then(Asked::wait)? {
            Ok(progress) => Ok(judging.check_progress(&progress)?),
            // A process that died may have left a transaction open, which a start aborts.
            Err(error) if error.kind == ErrorKind::Retry => {
                self.verdict.warnings.push(chain(error));
                Ok(())
            }
            Err(error) => Err(Failure::of(System::Sink, error)),
        }
    }
}

/// The job's part of the store, with its journal.
struct Stored {
    store: JobStore,
    runtime: &'static Runtime,
    inspected: Inspected,
}

impl Stored {
    fn read(config: &RunConfig, within: Duration) -> Result<Self, Failure> {
        let failed = |error| Failure::of(System::Store, error);
        let store = JobStore::new(Store::look(&config.store, &config.job).map_err(failed)?, &config.job);
        let runtime = store_runtime().map_err(Failure::of_host)?;
        let calls = StoreCalls::new(store.clone(), within);
        let what = format!("the store '{}'", store.store().describe());
        let go_back = config.go_back.clone();
        let read = Asked::new(&what, Exit::StoreFailed, READ_WITHIN, move || {
            let mut inspection = Inspection::new(go_back);
            loop {
                let Some(call) = inspection.next_call() else {
                    let error = anyhow::anyhow!("reading the journal came to a halt");
                    return Err(Failure::new(Exit::EngineFault, error));
                };
                let answer = runtime.block_on(calls.make(call)).map_err(failed)?;
                if let Some(inspected) = inspection.on(answer)? {
                    return Ok(inspected);
                }
            }
        });
        let inspected = read.and_then(Asked::wait)?;
        Ok(Self { store, runtime, inspected })
    }
}

/// A question on a thread of its own, which is not waited for without end.
struct Asked<T> {
    what: String,
    /// How a run ends if there is no answer.
    exit: Exit,
    until: Instant,
    answer: Receiver<Result<T, Failure>>,
}

impl<T: Send + 'static> Asked<T> {
    fn new(
        what: &str,
        exit: Exit,
        within: Duration,
        ask: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<Self, Failure> {
        let (tell, answer) = channel();
        // Where nobody waits any more, the answer is of no use.
        let ask = move || drop(tell.send(ask()));
        std::thread::Builder::new().name("check".to_owned()).spawn(ask).map_err(Failure::of_host)?;
        Ok(Self { what: what.to_owned(), exit, until: ambient::instant() + within + GRACE, answer })
    }

    fn wait(self) -> Result<T, Failure> {
        let left = self.until.saturating_duration_since(ambient::instant());
        match self.answer.recv_timeout(left) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                Err(Failure::new(self.exit, anyhow::anyhow!("{} does not answer", self.what)))
            }
            // A panic ends the command before this.
            Err(RecvTimeoutError::Disconnected) => {
                Err(Failure::new(Exit::Panicked, anyhow::anyhow!("the thread that asked {} panicked", self.what)))
            }
        }
    }
}
