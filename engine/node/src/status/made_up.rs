//! A made-up group of two copies that runs a job, for tests.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use fluvial_connector::Generation;
use fluvial_protocol::Decisions;
use fluvial_protocol::group::{
    Attempt, AttemptNumber, GroupRecord, JobRecord, Member, NodeId, Offer, Placement, ProcessState, Running, Status,
    Term, Workers,
};

use super::{Progress, View};

pub(crate) fn id(name: &str) -> NodeId {
    NodeId { address: name.to_owned(), start: 1 }
}

pub(crate) fn offer() -> Offer {
    Offer {
        version: "1".to_owned(),
        slots: 2,
        workers: Workers::Auto,
        unready: None,
        leaving: false,
        programs: Default::default(),
        labels: Default::default(),
    }
}

/// The name of the job.
pub(crate) const JOB: &str = "orders";

/// A member that runs the process `process` of attempt 7.
pub(crate) fn member(name: &str, process: u32) -> Member {
    let running = Running {
        attempt: AttemptNumber(7),
        processes: BTreeMap::from([(process, ProcessState::Listens(format!("{name}:{process}")))]),
        generation: (process == 0).then_some(Generation(3)),
        reads: process == 0,
        healthy: false,
        asked_to_stop: false,
    };
    let status = Status {
        number: 1,
        term: Term(2),
        offer: offer(),
        running: BTreeMap::from([(JOB.to_owned(), running)]),
        deaf_to: Vec::new(),
    };
    Member { node: id(name), status: Some(status), silent_ms: 200 }
}

pub(crate) fn record() -> GroupRecord {
    let attempt = Attempt {
        number: AttemptNumber(7),
        version: "1".to_owned(),
        revision: 0,
        placement: Placement { threads: 2, places: vec![(id("b"), 1), (id("a"), 1)] },
        follows: None,
        decisions: Decisions::new(true),
        why: "node c was lost".to_owned(),
    };
    let job = JobRecord { attempt: Some(attempt), ..JobRecord::new(1) };
    GroupRecord {
        nonce: 1,
        term: Term(2),
        coordinator: id("a"),
        jobs: BTreeMap::from([(JOB.to_owned(), job)]),
        draining: Default::default(),
        clock_ms: 0,
        removing: BTreeMap::new(),
    }
}

/// `a` coordinates, and runs process 1 beside `b`, which runs process 0.
pub(crate) fn view() -> View {
    let members = vec![member("a", 1), member("b", 0)];
    View {
        job: JOB.to_owned(),
        store: "s3://bucket".to_owned(),
        me: id("a"),
        offer: offer(),
        coordinator: Some((id("a"), Term(2))),
        reaches_store: true,
        record: Some(Arc::new(record())),
        running: members[0].status.clone().unwrap().running,
        members: Some(members),
        progress: BTreeMap::new(),
        figures: BTreeMap::new(),
        store_requests: Some(12),
        api: None,
        isolation: None,
    }
}

pub(crate) fn progress() -> Progress {
    Progress { minted: 20, sealed: 20, committed: 10, lag_records: Some(5), lag_ms: Some(40), ..Progress::default() }
}
