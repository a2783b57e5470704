//! The processes that this copy runs for the attempts of its group, and the certificates by which they know each other.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use fluvial_protocol::ProcessEnd;
use fluvial_protocol::group::{Attempt, AttemptNumber, GroupRecord, NodeId, ProcessSays};

use crate::keeper::{Keeper, Launch, ProcessEvent};
use crate::process_link::{Invitation, MeshIdentity, MeshPlace, Succession};
use crate::status::Progress;
use crate::trust::AttemptAuthority;

/// For how many seconds a process may be silent before it is killed.
const SILENT_LOOKS: u32 = 5;

/// The processes of this copy.
pub(super) struct Attempts {
    me: NodeId,
    listen: IpAddr,
    host: String,
    ansi: bool,
    events: Arc<dyn Fn(ProcessEvent) + Send + Sync>,
    authority: Option<(AttemptNumber, AttemptAuthority)>,
    keeper: Option<(AttemptNumber, Keeper)>,
    /// The requests that the processes of earlier attempts have made to a store that charges for them.
    earlier_requests: u64,
    /// Whether no attempt has been started yet.
    first: bool,
}

impl Attempts {
    pub(super) fn new(
        me: NodeId,
        listen: IpAddr,
        host: String,
        ansi: bool,
        events: impl Fn(ProcessEvent) + Send + Sync + 'static,
    ) -> Self {
        Self {
            me,
            listen,
            host,
            ansi,
            events: Arc::new(events),
            authority: None,
            keeper: None,
            earlier_requests: 0,
            first: true,
        }
    }

    /// The newest authority that is known.
    pub(super) fn authority(&self) -> Option<(AttemptNumber, AttemptAuthority)> {
        self.authority.clone()
    }

    /// Takes the authority that a message came with. What comes from a coordinator replaces what is known, because two
    /// coordinators may have wanted to write the same attempt.
    pub(super) fn hear(&mut self, authority: Option<(AttemptNumber, AttemptAuthority)>, from_coordinator: bool) {
        if let Some((number, _)) = &authority {
            let known = self.authority.as_ref().map(|(number, _)| *number);
            if known < Some(*number) || (from_coordinator && known == Some(*number)) {
                self.authority = authority;
            }
        }
    }

    /// This copy is about to write a record: a new attempt gets an authority.
    pub(super) fn writes(&mut self, position: u64, record: &GroupRecord) {
        let number = AttemptNumber(position);
        let known = self.authority.as_ref().is_some_and(|(known, _)| *known == number);
        let mut attempts = record.jobs.values().filter_map(|job| job.attempt.as_ref());
        if !known && attempts.any(|attempt| attempt.number == number) {
            self.authority = Some((number, AttemptAuthority::new()));
        }
    }

    pub(super) fn start(&mut self, attempt: &Attempt, run: u32, processes: Range<u32>) {
        if let Some((_, old)) = self.keeper.take() {
            self.earlier_requests += old.store_requests();
            // Its processes have ended, but what they have printed may still be on its way.
            let _ = std::thread::Builder::new().name("keeper-end".to_owned()).spawn(move || drop(old));
        }
        let number = attempt.number;
        let authority = self.authority.as_ref().filter(|(known, _)| *known == number).map(|(_, authority)| authority);
        let Some(authority) = authority else {
            // Its coordinator was lost after it had written the attempt, and has told nobody the authority.
            return self.not_started(number, processes, "the coordinator of this attempt was lost before it began");
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
            ansi: self.ansi,
        };
        let invitations = processes.clone().map(invitation).collect();
        let events = Arc::clone(&self.events);
        let launch = Launch { attempt: number.0, invitations, silent_looks: Some(SILENT_LOOKS) };
        match Keeper::start(launch, move |event| events(event)) {
            Ok(keeper) => self.keeper = Some((number, keeper)),
            Err(error) => return self.not_started(number, processes, &format!("cannot start the job: {error}")),
        }
        self.first = false;
        tracing::info!(attempt = number.0, node = %self.me, why = attempt.why, "starting processes of the job");
    }

    fn not_started(&self, attempt: AttemptNumber, processes: Range<u32>, why: &str) {
        for process in processes {
            let says = ProcessSays::Ended(ProcessEnd::Died { why: why.to_owned() });
            (self.events)(ProcessEvent { attempt: attempt.0, process, says });
        }
    }

    pub(super) fn introduce(&self, attempt: AttemptNumber, addresses: Vec<String>) {
        if let Some(keeper) = self.of(attempt) {
            keeper.introduce(addresses);
        }
    }

    pub(super) fn stop(&self, attempt: AttemptNumber) {
        if let Some(keeper) = self.of(attempt) {
            keeper.stop();
        }
    }

    pub(super) fn kill(&self, attempt: AttemptNumber) {
        if let Some(keeper) = self.of(attempt) {
            keeper.kill();
        }
    }

    /// How far the job is, if this copy runs its process 0.
    pub(super) fn progress(&self) -> Option<Progress> {
        self.keeper.as_ref().and_then(|(_, keeper)| keeper.progress())
    }

    /// The requests that the processes which this copy has started have made to a store that charges for them.
    pub(super) fn store_requests(&self) -> u64 {
        self.earlier_requests + self.keeper.as_ref().map_or(0, |(_, keeper)| keeper.store_requests())
    }

    fn of(&self, attempt: AttemptNumber) -> Option<&Keeper> {
        self.keeper.as_ref().filter(|(number, _)| *number == attempt).map(|(_, keeper)| keeper)
    }
}
