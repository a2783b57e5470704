//! The processes that this node runs for the attempts of its group's jobs, and the certificates by which they know each other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use fluvial_protocol::ProcessEnd;
use fluvial_protocol::group::{Attempt, AttemptNumber, GroupRecord, NodeId, ProcessSays};

use crate::isolation::{Isolation, IsolationReport, Limited, Limits};
use crate::keeper::{Keeper, Launch, ProcessEvent, Program};
use crate::logs::Logs;
use crate::process_link::{Invitation, MeshIdentity, MeshPlace, Succession};
use crate::status::{AllHeard, Progress};
use crate::trust::{AttemptAuthority, Authorities};

/// For how many seconds a process may be silent before it is killed.
const SILENT_LOOKS: u32 = 5;

/// An event of a process of a job.
pub(super) type OnEvent = Arc<dyn Fn(&str, ProcessEvent) + Send + Sync>;

/// The processes of this node.
pub(super) struct Attempts {
    me: NodeId,
    listen: IpAddr,
    host: String,
    ansi: bool,
    events: OnEvent,
    authorities: Authorities,
    /// How the processes of a cluster's jobs are kept apart.
    isolation: Option<Arc<Isolation>>,
    /// By the name of the job.
    keepers: BTreeMap<String, (AttemptNumber, Keeper)>,
    /// The limits of those that were started last.
    limits: BTreeMap<String, Limits>,
    /// The requests that the processes of earlier attempts have made to a store that charges for them.
    earlier_requests: u64,
    /// Whether no attempt has been started yet.
    first: bool,
    /// Where what the processes print is kept; `None` if this process prints it.
    logs: Option<Logs>,
}

impl Attempts {
    pub(super) fn new(
        me: NodeId,
        listen: IpAddr,
        host: String,
        ansi: bool,
        logs: Option<Logs>,
        isolation: Option<Arc<Isolation>>,
        events: OnEvent,
    ) -> Self {
        let (authorities, keepers, limits) = (Authorities::new(), BTreeMap::new(), BTreeMap::new());
        Self {
            me,
            listen,
            host,
            ansi,
            events,
            authorities,
            isolation,
            keepers,
            limits,
            earlier_requests: 0,
            first: true,
            logs,
        }
    }

    /// The newest authorities that are known.
    pub(super) fn authorities(&self) -> Authorities {
        self.authorities.clone()
    }

    /// Takes the authorities that a message came with. What comes from a coordinator replaces what is known, because two
    /// coordinators may have wanted to write the same attempt.
    /// `record` is this node's, if it coordinates: other nodes may still know jobs that were deleted.
    pub(super) fn hear(&mut self, authorities: Authorities, from_coordinator: bool, record: Option<&GroupRecord>) {
        if from_coordinator {
            self.authorities.retain(|job, _| authorities.contains_key(job));
        }
        let is_there = |job: &String| record.is_none_or(|record| record.jobs.contains_key(job));
        for (job, (number, authority)) in authorities.into_iter().filter(|(job, _)| is_there(job)) {
            let known = self.authorities.get(&job).map(|(number, _)| *number);
            if known < Some(number) || (from_coordinator && known == Some(number)) {
                self.authorities.insert(job, (number, authority));
            }
        }
    }

    /// This node is about to write a record: a new attempt gets an authority.
    pub(super) fn writes(&mut self, position: u64, record: &GroupRecord) {
        self.authorities.retain(|job, _| record.jobs.contains_key(job));
        let number = AttemptNumber(position);
        for (name, job) in &record.jobs {
            let known = self.authorities.get(name).is_some_and(|(known, _)| *known == number);
            if !known && job.attempt.as_ref().is_some_and(|attempt| attempt.number == number) {
                self.authorities.insert(name.clone(), (number, AttemptAuthority::new()));
            }
        }
    }

    /// Starts processes of an attempt from a program, if there is one.
    pub(super) fn start(
        &mut self,
        job: &str,
        attempt: &Attempt,
        run: u32,
        processes: Range<u32>,
        program: anyhow::Result<Program>,
    ) {
        if let Some((_, old)) = self.keepers.remove(job) {
            self.earlier_requests += retire(old);
        }
        let number = attempt.number;
        let program = match program {
            Ok(program) => program,
            Err(error) => return self.not_started(job, number, processes, &format!("cannot start the job: {error:#}")),
        };
        let authority = self.authorities.get(job).filter(|(known, _)| *known == number).map(|(_, authority)| authority);
        let Some(authority) = authority else {
            // Its coordinator was lost after it had written the attempt, and has told nobody the authority.
            let why = "the coordinator of this attempt was lost before it began";
            return self.not_started(job, number, processes, why);
        };
        // More attempts than these are not made by one run; if they were, the later ones would end as fenced.
        let succession =
            Succession { run, attempt: u32::try_from(number.0).unwrap_or(u32::MAX), follows: attempt.follows };
        let invitation = |index| Invitation {
            index,
            layout: attempt.layout(),
            succession,
            mesh: MeshPlace {
                listen: self.listen,
                host: self.host.clone(),
                identity: MeshIdentity::Tls(authority.certificate(index)),
            },
            first: self.first,
            secrets: None,
            ansi: self.ansi,
        };
        let invitations = processes.clone().map(invitation).collect();
        let (events, of_job) = (Arc::clone(&self.events), job.to_owned());
        let logs = self.logs.as_ref().map(|logs| logs.of_attempt(job, number.0));
        let isolation = self.isolation.clone();
        let limits = program.limits;
        if let Some(why) = isolation.as_ref().and_then(|isolation| isolation.lack(&limits)) {
            tracing::warn!(job, %limits, why, "the processes of the job run without their limits");
        }
        let silent_looks = Some(SILENT_LOOKS);
        let launch = Launch { attempt: number.0, program, isolation, invitations, silent_looks, logs };
        match Keeper::start(launch, move |event| events(&of_job, event)) {
            Ok(keeper) => {
                self.keepers.insert(job.to_owned(), (number, keeper));
                self.limits.insert(job.to_owned(), limits);
            }
            Err(error) => return self.not_started(job, number, processes, &format!("cannot start the job: {error}")),
        }
        self.first = false;
        tracing::info!(job, attempt = number.0, node = %self.me, why = attempt.why, "starting processes of the job");
    }

    fn not_started(&self, job: &str, attempt: AttemptNumber, processes: Range<u32>, why: &str) {
        for process in processes {
            let says = ProcessSays::Ended(ProcessEnd::Died { why: why.to_owned() });
            (self.events)(job, ProcessEvent { attempt: attempt.0, process, says });
        }
    }

    pub(super) fn introduce(&self, job: &str, attempt: AttemptNumber, addresses: Vec<String>) {
        if let Some(keeper) = self.of(job, attempt) {
            keeper.introduce(addresses);
        }
    }

    pub(super) fn stop(&self, job: &str, attempt: AttemptNumber) {
        if let Some(keeper) = self.of(job, attempt) {
            keeper.stop();
        }
    }

    pub(super) fn kill(&self, job: &str, attempt: AttemptNumber) {
        if let Some(keeper) = self.of(job, attempt) {
            keeper.kill();
        }
    }

    /// Forgets the processes of all jobs but these: they have ended.
    pub(super) fn forget_all_but(&mut self, is_there: impl Fn(&str) -> bool) {
        for (_, (_, keeper)) in self.keepers.extract_if(.., |job, _| !is_there(job)) {
            self.earlier_requests += retire(keeper);
        }
        self.limits.retain(|job, _| is_there(job));
    }

    /// How the processes of jobs are kept apart here.
    pub(super) fn isolation(&self) -> Option<IsolationReport> {
        let isolation = self.isolation.as_ref()?;
        let limited = |limits: &Limits| Limited { limits: *limits, not_kept: isolation.lack(limits) };
        let limits = self.limits.iter().filter(|(_, limits)| !limits.is_empty());
        let limits = limits.map(|(job, limits)| (job.clone(), limited(limits))).collect();
        Some(IsolationReport { host: isolation.report(), limits })
    }

    /// How far the jobs are whose process 0 this node runs.
    pub(super) fn progress(&self) -> BTreeMap<String, Progress> {
        let progress = |(job, (_, keeper)): (&String, &(_, Keeper))| Some((job.clone(), keeper.progress()?));
        self.keepers.iter().filter_map(progress).collect()
    }

    /// What the processes here say of the parts of their jobs.
    pub(super) fn figures(&self) -> AllHeard {
        self.keepers.iter().map(|(job, (_, keeper))| (job.clone(), keeper.figures())).collect()
    }

    /// The requests that the processes which this node has started have made to a store that charges for them.
    pub(super) fn store_requests(&self) -> u64 {
        self.earlier_requests + self.keepers.values().map(|(_, keeper)| keeper.store_requests()).sum::<u64>()
    }

    fn of(&self, job: &str, attempt: AttemptNumber) -> Option<&Keeper> {
        self.keepers.get(job).filter(|(number, _)| *number == attempt).map(|(_, keeper)| keeper)
    }
}

impl Drop for Attempts {
    fn drop(&mut self) {
        self.keepers.clear();
        // A task that prepares a program may hold it for longer.
        if let Some(isolation) = &self.isolation {
            isolation.end();
        }
    }
}

/// Lets a keeper go whose processes have ended: what they have printed may still be on its way. Returns their requests to the store.
fn retire(keeper: Keeper) -> u64 {
    let requests = keeper.store_requests();
    let _ = std::thread::Builder::new().name("keeper-end".to_owned()).spawn(move || drop(keeper));
    requests
}
