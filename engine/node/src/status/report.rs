//! What the copies of a group know together, as `status` prints it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use fluvial_protocol::group::{
    Attempt, GroupRecord, JobRecord, Member, NodeId, Offer, Outcome, ProcessState, Returned, Running, Wanted, Workers,
};
use fluvial_protocol::{Exit, ProcessEnd};
use futures::future::join_all;
use serde::{Deserialize, Serialize};

use super::drains::{self, DrainReport};
use super::figures::Figures;
use super::merging::Of;
use super::waiting::Outlook;
use super::{Progress, View, changes};
use crate::isolation::{HostIsolation, Limited, Limits};
use crate::links::ask_for_view;
use crate::trust::Trust;

/// Process 0 says each second how far it is; longer silence than this is not one late message.
const SILENT_MS: u64 = 5000;
/// How long nothing may be committed before a job counts as stalled.
const STALLED_MS: u64 = 10_000;

/// The state of a job. Only [`State::Running`] without a reason beside it is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It reads input and commits output.
    Running,
    /// Its processes run, but it commits nothing.
    Stalled,
    /// Its processes have met, and restore their state or compare their output.
    Opening,
    /// Nodes fetch and check its program.
    Preparing,
    /// Its processes are being started.
    Starting,
    /// It takes a checkpoint, and ends or begins with other copies.
    Stopping,
    /// An attempt has failed, and the next one is to follow.
    Restarting,
    /// There is no copy that could run it.
    Waiting,
    /// A user has stopped it.
    Stopped,
    /// It has ended for good, with everything done.
    Ended,
    /// It has ended for good in another way, also because it failed again and again.
    Failed,
    /// Nobody who knows has answered.
    Unknown,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Stalled => "stalled",
            Self::Opening => "opening",
            Self::Preparing => "preparing",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Restarting => "restarting",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
            Self::Ended => "ended",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        })
    }
}

/// The state of a job and of the group that runs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Report {
    /// The name of the job.
    pub job: String,
    /// The location of its store.
    pub store: String,
    /// Its state.
    pub state: State,
    /// What is to be said of that state; empty if everything is as it should be.
    pub why: String,
    /// The copy that has answered; `None` if all of this comes from the store.
    pub answered_by: Option<String>,
    /// The copy that coordinates, or did so last.
    pub coordinator: Option<String>,
    /// The term of that coordinator.
    pub term: Option<u64>,
    /// The newest attempt to run the job.
    pub attempt: Option<AttemptReport>,
    /// What users want of a job of a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<crate::http::api::WantedJob>)]
    pub wanted: Option<Wanted>,
    /// The version that users wanted last and that has failed before it had read input, so that the job has returned to the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<crate::http::api::ReturnedJob>)]
    pub returned: Option<Returned>,
    /// The version to which the job returns if the one that is wanted fails before it has read input; it has read none so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returns_to: Option<String>,
    /// The limits of each of its processes, if it has any and runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// The number of workers that the users of the copies want; `None` if the coordinator is not known.
    pub workers_wanted: Option<u32>,
    /// The copies.
    pub members: Vec<MemberReport>,
    /// How far the job is; `None` if it does not run, or its process 0 cannot be asked.
    pub progress: Option<Progress>,
    /// The resident memory of its processes, of those that have said it.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// The processor time that they use a second, in seconds: 2 means two cores.
    #[serde(default)]
    pub cpu_share: Option<f64>,
    /// What its parts do, if it runs; only if one job was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
    /// What the store holds, if it was read.
    pub stored: Option<Stored>,
}

/// An attempt to run the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AttemptReport {
    /// Its number.
    pub number: u64,
    /// The generation of the job that it has become.
    pub generation: Option<u64>,
    /// Why it followed the one before.
    pub why: String,
    /// The version of its program.
    pub version: String,
    /// The number of its workers.
    pub workers: u32,
    /// Its processes.
    pub processes: Vec<ProcessReport>,
}

/// A process of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProcessReport {
    /// The number of the process.
    pub process: u32,
    /// The copy that runs it.
    pub node: String,
    /// The number of its workers.
    pub workers: u32,
    /// `started`, `listens`, `ended`, or `unknown`.
    pub state: String,
    /// Why it has ended.
    pub why: Option<String>,
}

/// A copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MemberReport {
    /// Its address.
    pub node: String,
    /// Whether it coordinates.
    pub coordinates: bool,
    /// The version of its program; `None` if it has not been heard.
    pub version: Option<String>,
    /// How many workers it can run.
    pub slots: Option<u32>,
    /// `ready`, `unready`, `leaving`, `failed`, `silent`, or, of a node that gets no more processes, `draining` or `drained`.
    pub state: String,
    /// Why it could not run the job.
    pub why: Option<String>,
    /// For how long it has been silent.
    pub silent_ms: Option<u64>,
    /// The processes of the job that it runs.
    pub processes: Vec<u32>,
    /// The requests that it and its processes have made since it began, to a store that charges for them; `None` if it has
    /// not answered.
    pub store_requests: Option<u64>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How far it is, if it is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainReport>,
    /// The workers of jobs that are placed on it; `None` if the coordinator is not known, or in a group of copies of one job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots_used: Option<u32>,
    /// The `host:port` of its API and console, if it is the node of a cluster and has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// How a node of a cluster keeps the processes of jobs apart, if it has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<HostIsolation>,
}

impl MemberReport {
    /// Of a node that is not heard, without its address.
    pub(super) fn silent() -> Self {
        Self {
            node: String::new(),
            coordinates: false,
            version: None,
            slots: None,
            state: "silent".to_owned(),
            why: None,
            silent_ms: None,
            processes: Vec::new(),
            store_requests: None,
            labels: BTreeMap::new(),
            drain: None,
            slots_used: None,
            api: None,
            isolation: None,
        }
    }
}

/// What the store holds of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Stored {
    /// The generation that wrote the newest record of the journal.
    pub generation: u64,
    /// The position of that record.
    pub journal_end: u64,
    /// The tick of the newest checkpoint.
    pub checkpoint: Option<u64>,
}

/// Asks the coordinator, and then all nodes that it hears, for what they know, and says what all of them know of the only job.
pub async fn gather(own: Arc<View>, trust: &Trust) -> Report {
    let job = own.job.clone();
    Views::ask(own, trust, Some(&job)).await.report(&job, true)
}

/// The same of one job of a cluster. The outer `None`: the coordinator does not answer; the inner one: there is no such job.
pub async fn gather_job(own: Arc<View>, trust: &Trust, job: &str) -> Option<Option<Report>> {
    let views = Views::ask(own, trust, Some(job)).await;
    let record = views.coordinator()?.record.as_ref()?;
    Some(record.jobs.contains_key(job).then(|| views.report(job, true)))
}

/// What several nodes know.
pub(super) struct Views {
    own: Arc<View>,
    /// Of the node that `own` takes for the coordinator, if it is another one.
    other: Option<View>,
    /// Of all others that the coordinator hears.
    answers: Vec<View>,
}

impl Views {
    /// Asks for what they know, and for the figures of the parts of one job.
    pub(super) async fn ask(own: Arc<View>, trust: &Trust, figures_of: Option<&str>) -> Self {
        let other = match &own.coordinator {
            Some((node, _)) if !own.coordinates() => {
                ask_for_view(&node.address, trust, &own.job, figures_of).await.ok()
            }
            _ => None,
        };
        let mut views = Self { own, other, answers: Vec::new() };
        let (own, informed) = (&*views.own, views.informed());
        let members = informed.members.iter().flatten().filter(|member| member.status.is_some());
        let strangers = members.map(|member| &member.node).filter(|node| **node != own.me && **node != informed.me);
        let asked = join_all(strangers.map(|node| ask_for_view(&node.address, trust, &own.job, figures_of))).await;
        views.answers = asked.into_iter().filter_map(Result::ok).collect();
        views
    }

    /// The view of the coordinator. One that has been superseded meanwhile knows no more than this node.
    pub(super) fn coordinator(&self) -> Option<&View> {
        [Some(&*self.own), self.other.as_ref()].into_iter().flatten().find(|view| view.coordinates())
    }

    /// The view of the coordinator, or else of this node.
    fn informed(&self) -> &View {
        self.coordinator().unwrap_or(&self.own)
    }

    pub(super) fn report(&self, job: &str, with_parts: bool) -> Report {
        let all = || std::iter::once(&*self.own).chain(&self.other).chain(&self.answers);
        let attempt = self.informed().record_of(job).and_then(|job| job.attempt.as_ref());
        let first = attempt.and_then(|attempt| attempt.placement.places.first()).map(|(node, _)| node);
        let progress = all().find(|view| Some(&view.me) == first).and_then(|view| view.progress.get(job).cloned());
        let mut report = Report::new(job, &self.own, self.coordinator(), progress);
        for member in &mut report.members {
            let view = all().find(|view| view.me.address == member.node);
            member.store_requests = view.and_then(|view| view.store_requests);
            member.api = view.and_then(|view| view.api.clone());
            let isolation = view.and_then(|view| view.isolation.as_ref());
            member.isolation = isolation.map(|isolation| isolation.host.clone());
        }
        let placed = |view: &&View| attempt.is_some_and(|attempt| !attempt.placement.of(&view.me).is_empty());
        for view in all().filter(placed) {
            let limited = view.isolation.as_ref().and_then(|isolation| isolation.limits.get(job));
            report.tell_limits(&view.me, limited);
        }
        let mut processes = Vec::new();
        let places = attempt.iter().flat_map(|attempt| &attempt.placement.places);
        let placed = places.flat_map(|(node, count)| (0..*count).map(move |_| node));
        // Nodes may still know of processes of earlier attempts.
        for (process, node) in (0..).zip(placed) {
            let view = all().find(|view| view.me == *node);
            let heard = view.and_then(|view| view.figures.get(job)?.get(&process));
            processes.extend(heard.map(|heard| Of {
                process,
                node: &node.address,
                age_ms: heard.age_ms,
                figures: &heard.figures,
            }));
        }
        report.used(&processes, with_parts);
        report
    }
}

impl Report {
    /// The state, and what is to be said of it, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        if self.why.is_empty() { self.state.to_string() } else { format!("{}: {}", self.state, self.why) }
    }

    /// Takes what a node that runs some of its processes says of their limits.
    fn tell_limits(&mut self, node: &NodeId, limited: Option<&Limited>) {
        let Some(Limited { limits, not_kept }) = limited else { return };
        self.limits = Some(*limits);
        if let (State::Running, true, Some(why)) = (self.state, self.why.is_empty(), not_kept) {
            self.why = format!("without its limits on {node}: {why}");
        }
    }

    /// What `own` and the coordinator know of a job. `progress` is what the node of process 0 says.
    pub(super) fn new(name: &str, own: &View, coordinator: Option<&View>, progress: Option<Progress>) -> Self {
        let informed = coordinator.unwrap_or(own);
        let mut report = Self::of_store(name.to_owned(), own.store.clone(), informed.record.as_deref());
        let alone = [Member {
            node: own.me.clone(),
            status: Some(fluvial_protocol::group::Status {
                number: 0,
                term: own.coordinator.as_ref().map(|(_, term)| *term).unwrap_or_default(),
                offer: own.offer.clone(),
                running: own.running.clone(),
                deaf_to: Vec::new(),
            }),
            silent_ms: 0,
        }];
        let members = coordinator.and_then(|view| view.members.as_deref()).unwrap_or(&alone);
        report.answered_by = Some(own.me.address.clone());
        if let Some((node, term)) = &informed.coordinator {
            (report.coordinator, report.term) = (Some(node.address.clone()), Some(term.0));
        }
        let job = informed.record_of(name);
        let attempt = job.and_then(|job| job.attempt.as_ref());
        if let (Some(attempt), Some(of_attempt)) = (attempt, &mut report.attempt) {
            fill(of_attempt, attempt, name, members);
        }
        report.workers_wanted = match job.and_then(|job| job.wanted.as_ref()) {
            Some(wanted) => Some(wanted.workers),
            None => coordinator.and_then(|_| wanted(members, attempt)),
        };
        let coordinating = informed.coordinator.as_ref().map(|(node, _)| node);
        report.members = list(members, job, coordinating);
        if let Some(record) = &informed.record {
            drains::mark(&mut report.members, record, members);
        }
        (report.state, report.why) = judge(name, job, coordinator, members, progress.as_ref());
        let missing = report.attempt.as_ref().zip(report.workers_wanted).filter(|(of, wanted)| of.workers < *wanted);
        if let (State::Running, true, Some((of, wanted))) = (report.state, report.why.is_empty(), missing) {
            report.why = format!("with {} of the {wanted} workers that are wanted", of.workers);
        }
        let pending = job.and_then(|job| job.wanted.as_ref()).filter(|wanted| {
            attempt.is_some_and(|attempt| attempt.revision != wanted.revision)
                && report.state == State::Running
                && report.why.is_empty()
        });
        if let Some((wanted, record)) = pending.zip(informed.record.as_deref()) {
            let (_, why) = Outlook::new(name, wanted, record, members).state();
            report.why = format!("revision {} does not run yet: {why}", wanted.revision);
        }
        if let (State::Running, true, Some(returned)) = (report.state, report.why.is_empty(), &report.returned) {
            report.why = returned.to_string();
        }
        report.progress = progress;
        report
    }

    /// Takes what the processes say of themselves, and of the parts of the job.
    pub(super) fn used(&mut self, processes: &[Of<'_>], with_parts: bool) {
        let runs = !matches!(self.state, State::Stopped | State::Ended | State::Failed);
        if processes.is_empty() || !runs {
            return;
        }
        let all = processes.iter().map(|process| process.figures);
        self.memory_bytes = all.clone().filter_map(|figures| figures.memory_bytes).reduce(|one, other| one + other);
        self.cpu_share = all.filter_map(|figures| figures.cpu_share).reduce(|one, other| one + other);
        self.figures = with_parts.then(|| Figures::of(processes));
    }

    /// What is known of a job from the newest record of its group's journal, if there is one.
    #[must_use]
    pub fn of_store(job: String, store: String, record: Option<&GroupRecord>) -> Self {
        let of_job = record.and_then(|record| record.jobs.get(&job));
        let (state, why) = match of_job.and_then(|job| job.outcome.as_ref()) {
            Some(outcome) => ended(outcome),
            None if record.is_some() => (State::Unknown, "no copy answers".to_owned()),
            None => (State::Unknown, "no copy was ever started with --join".to_owned()),
        };
        let attempt = of_job.and_then(|job| job.attempt.as_ref()).map(|attempt| AttemptReport {
            number: attempt.number.0,
            generation: None,
            why: changes::why(attempt).to_owned(),
            version: attempt.version.clone(),
            workers: attempt.layout().workers,
            processes: processes(attempt),
        });
        Self {
            job,
            store,
            state,
            why,
            answered_by: None,
            coordinator: record.map(|record| record.coordinator.address.clone()),
            term: record.map(|record| record.term.0),
            attempt,
            wanted: of_job.and_then(|job| job.wanted.clone()),
            returned: of_job.and_then(|job| job.returned.clone()),
            returns_to: of_job.and_then(|job| job.may_return_to().map(|back| back.version.clone())),
            limits: None,
            workers_wanted: None,
            members: Vec::new(),
            progress: None,
            memory_bytes: None,
            cpu_share: None,
            figures: None,
            stored: None,
        }
    }
}

pub(super) fn ended(outcome: &Outcome) -> (State, String) {
    let Outcome { exit, why } = outcome;
    let what = exit.describe();
    let state = if *exit == Exit::Done { State::Ended } else { State::Failed };
    (state, if why.is_empty() { what.to_owned() } else { format!("{what}: {why}") })
}

/// The processes of an attempt, as long as nobody has said how they are.
fn processes(attempt: &Attempt) -> Vec<ProcessReport> {
    let places = attempt.placement.places.iter().flat_map(|(node, count)| (0..*count).map(move |_| node));
    let process = |(process, node): (u32, &NodeId)| ProcessReport {
        process,
        node: node.address.clone(),
        workers: attempt.placement.threads,
        state: "unknown".to_owned(),
        why: None,
    };
    (0..).zip(places).map(process).collect()
}

/// What the members run of an attempt.
fn running<'a>(members: &'a [Member], job: &'a str, attempt: &'a Attempt) -> impl Iterator<Item = &'a Running> {
    let running = members.iter().filter_map(|member| member.status.as_ref()?.running.get(job));
    running.filter(|running| running.attempt == attempt.number)
}

fn fill(report: &mut AttemptReport, attempt: &Attempt, job: &str, members: &[Member]) {
    for running in running(members, job, attempt) {
        report.generation = report.generation.max(running.generation.map(|generation| generation.0));
        for (process, state) in &running.processes {
            let Some(of_process) = report.processes.get_mut(*process as usize) else { continue };
            let (state, why) = match state {
                ProcessState::Started => ("started", None),
                ProcessState::Listens(_) => ("listens", None),
                ProcessState::Ended(end) => ("ended", Some(why(end))),
            };
            (of_process.state, of_process.why) = (state.to_owned(), why);
        }
    }
}

fn why(end: &ProcessEnd) -> String {
    match end {
        ProcessEnd::Said { exit, why, .. } if why.is_empty() => exit.describe().to_owned(),
        ProcessEnd::Said { why, .. } | ProcessEnd::Died { why } => why.clone(),
    }
}

/// The number of workers that the group would have if all copies that are there could run the job.
fn wanted(members: &[Member], attempt: Option<&Attempt>) -> Option<u32> {
    let offers = members.iter().filter_map(|member| Some(&member.status.as_ref()?.offer));
    let offers: Vec<&Offer> =
        offers.filter(|offer| attempt.is_none_or(|attempt| attempt.version == offer.version)).collect();
    let slots = offers.iter().filter(|offer| !offer.leaving).map(|offer| offer.slots).sum();
    let wanted = offers.iter().map(|offer| offer.workers).max()?;
    Some(match wanted {
        Workers::Auto => slots,
        Workers::Fixed(workers) => workers,
    })
}

fn list(members: &[Member], job: Option<&JobRecord>, coordinator: Option<&NodeId>) -> Vec<MemberReport> {
    let attempt = job.and_then(|job| job.attempt.as_ref());
    let failed = job.map(|job| job.failed.as_slice()).unwrap_or_default();
    let placed = attempt.iter().flat_map(|attempt| &attempt.placement.places).map(|(node, _)| node);
    let unheard = placed.filter(|node| members.iter().all(|member| member.node != **node));
    let member = |member: &Member| {
        let offer = member.status.as_ref().map(|status| &status.offer);
        let failure = failed.iter().find(|(node, _)| *node == member.node).map(|(_, why)| why.clone());
        let (state, why) = match offer {
            None => ("silent", None),
            Some(_) if failure.is_some() => ("failed", failure),
            Some(offer) if offer.leaving => ("leaving", None),
            Some(offer) if offer.unready.is_some() => ("unready", offer.unready.clone()),
            Some(_) => ("ready", None),
        };
        MemberReport {
            node: member.node.address.clone(),
            coordinates: coordinator == Some(&member.node),
            version: offer.map(|offer| offer.version.clone()),
            slots: offer.map(|offer| offer.slots),
            state: state.to_owned(),
            why,
            silent_ms: Some(member.silent_ms),
            processes: attempt.map(|attempt| attempt.placement.of(&member.node).collect()).unwrap_or_default(),
            store_requests: None,
            labels: offer.map(|offer| offer.labels.clone()).unwrap_or_default(),
            drain: None,
            slots_used: None,
            api: None,
            isolation: None,
        }
    };
    let silent = |node: &NodeId| {
        let unheard = Member { node: node.clone(), status: None, silent_ms: 0 };
        MemberReport { silent_ms: None, ..member(&unheard) }
    };
    members.iter().map(member).chain(unheard.map(silent)).collect()
}

/// The state of the job, and what is to be said of it.
fn judge(
    name: &str,
    job: Option<&JobRecord>,
    coordinator: Option<&View>,
    members: &[Member],
    progress: Option<&Progress>,
) -> (State, String) {
    let because = |state, why: &str| (state, why.to_owned());
    let wanted = job.and_then(|job| job.wanted.as_ref());
    if let Some(outcome) = job.and_then(|job| job.outcome.as_ref()) {
        let stopped = wanted.is_some_and(|wanted| !wanted.run);
        return match outcome.exit {
            Exit::Done if stopped => (State::Stopped, outcome.why.clone()),
            Exit::StoppedUncommitted | Exit::StoppedWithoutCheckpoint | Exit::GenerationLost if stopped => {
                (State::Stopped, ended(outcome).1)
            }
            _ => ended(outcome),
        };
    }
    let Some(coordinator) = coordinator else {
        return because(State::Unknown, "the coordinator does not answer");
    };
    let Some(attempt) = job.and_then(|job| job.attempt.as_ref()) else {
        if let (Some(wanted), Some(record)) = (wanted, &coordinator.record) {
            return Outlook::new(name, wanted, record, members).state();
        }
        let reason = |member: &Member| {
            let unready = member.status.as_ref()?.offer.unready.as_ref()?;
            Some(format!("{} is not ready: {unready}", member.node))
        };
        let reasons: Vec<_> = members.iter().filter_map(reason).collect();
        let gathering = || "the copies are being gathered".to_owned();
        return (State::Waiting, if reasons.is_empty() { gathering() } else { reasons.join("; ") });
    };
    let of_attempt = || running(members, name, attempt);
    let processes = || of_attempt().flat_map(|running| &running.processes);
    if let Some((process, end)) = processes().find_map(|(process, state)| Some((process, state.end()?))) {
        // The next attempt may lack something.
        if let (Some(wanted), Some(record), true) = (wanted, &coordinator.record, of_attempt().all(Running::is_over)) {
            let outlook = Outlook::new(name, wanted, record, members);
            if wanted.run && !outlook.has_room() {
                let ended = format!("process {process} has ended: {}", why(end));
                return (State::Waiting, format!("{}; {ended}", outlook.lacks()));
            }
        }
        return (State::Restarting, format!("process {process} has ended: {}", why(end)));
    }
    let heard = |node: &NodeId| members.iter().any(|member| member.node == *node && member.status.is_some());
    if let Some((node, _)) = attempt.placement.places.iter().find(|(node, _)| !heard(node)) {
        return (State::Restarting, format!("{node}, which runs some of its processes, is not heard"));
    }
    if of_attempt().any(|running| running.asked_to_stop) {
        return because(State::Stopping, "a checkpoint is taken before the job ends or goes on with other copies");
    }
    let listen = processes().filter(|(_, state)| matches!(state, ProcessState::Listens(_))).count();
    if listen < attempt.layout().processes as usize {
        return (State::Starting, format!("{listen} of {} processes have started", attempt.layout().processes));
    }
    if of_attempt().all(|running| running.generation.is_none()) {
        return because(State::Opening, "its processes open the journal");
    }
    if of_attempt().all(|running| !running.reads) {
        return because(State::Opening, "it restores its state, and compares it with its outputs");
    }
    let Some(progress) = progress else {
        return because(State::Unknown, "process 0 does not say how far it is");
    };
    let seconds = |ms: u64| ms / 1000;
    if progress.age_ms >= SILENT_MS {
        return (State::Stalled, format!("process 0 has said nothing for {} s", seconds(progress.age_ms)));
    }
    if progress.commits_nothing_for_ms >= STALLED_MS {
        let for_s = seconds(progress.commits_nothing_for_ms);
        return (State::Stalled, format!("nothing has been committed for {for_s} s, although there is input"));
    }
    let why = match progress.lag_records {
        _ if !coordinator.reaches_store => "the coordinator does not reach the store",
        None => "a source does not say where it ends, so the lag is unknown",
        Some(_) => "",
    };
    because(State::Running, why)
}
