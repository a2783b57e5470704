//! Reports, log lines and metrics of made-up groups.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use fluvial_protocol::group::{
    AttemptNumber, JobRecord, Member, NodeId, Offer, Outcome, ProcessState, Returned, Running, Status, Term,
};
use fluvial_protocol::{Exit, ProcessEnd};
use fluvial_store::Store;
use tokio::runtime::Handle;

use super::made_up::{JOB, id, member, offer, progress, record, view};
use super::{Board, Progress, Report, State, View, changes};
use crate::changes::Changes;
use crate::isolation::{HostIsolation, IsolationReport, Limited, Limits};
use crate::links::{LinkOptions, Links, StoreProof, ask_for_report, ask_for_view};
use crate::trust::{ClusterKey, Trust};

/// The state of the job after `change` has been made to a job that runs well.
fn state(change: impl FnOnce(&mut View, &mut Option<Progress>)) -> (State, String) {
    let (mut view, mut progress) = (view(), Some(progress()));
    change(&mut view, &mut progress);
    let coordinator = view.coordinates().then_some(&view);
    let report = Report::new(JOB, &view, coordinator, progress);
    (report.state, report.why)
}

fn running(view: &mut View, member: usize) -> &mut Running {
    let status = view.members.as_mut().unwrap()[member].status.as_mut().unwrap();
    status.running.values_mut().next().unwrap()
}

/// What the newest record says of the job.
fn job(view: &mut View) -> &mut JobRecord {
    Arc::make_mut(view.record.as_mut().unwrap()).jobs.values_mut().next().unwrap()
}

#[test]
fn a_job_is_only_reported_as_running_while_it_runs() {
    let check = |change: &dyn Fn(&mut View, &mut Option<Progress>), expected: State, why: &str| {
        let (state, reason) = state(change);
        assert_eq!(state, expected, "{reason}");
        assert!(reason.contains(why) && reason.is_empty() == why.is_empty(), "{state}: {reason} / {why}");
    };
    check(&|_, _| {}, State::Running, "");
    check(&|_, progress| *progress = None, State::Unknown, "process 0");
    check(&|_, progress| progress.as_mut().unwrap().age_ms = 6000, State::Stalled, "nothing for 6 s");
    check(&|_, p| p.as_mut().unwrap().commits_nothing_for_ms = 12_000, State::Stalled, "12 s");
    check(&|_, progress| progress.as_mut().unwrap().lag_records = None, State::Running, "lag is unknown");
    check(&|view, _| view.reaches_store = false, State::Running, "does not reach the store");
    check(&|view, _| view.members = None, State::Unknown, "coordinator does not answer");
    check(&|view, _| running(view, 1).reads = false, State::Opening, "restores");
    check(&|view, _| running(view, 1).generation = None, State::Opening, "journal");
    check(&|view, _| running(view, 1).asked_to_stop = true, State::Stopping, "checkpoint");
    check(
        &|view, _| drop(running(view, 0).processes.insert(1, ProcessState::Started)),
        State::Starting,
        "1 of 2 processes",
    );
    check(&|view, _| running(view, 0).attempt = AttemptNumber(6), State::Starting, "1 of 2 processes");
    let ended = ProcessState::Ended(ProcessEnd::Died { why: "killed".to_owned() });
    check(&|view, _| drop(running(view, 0).processes.insert(1, ended.clone())), State::Restarting, "killed");
    check(&|view, _| drop(view.members.as_mut().unwrap().pop()), State::Restarting, "b, which runs");
    check(&|view, _| view.members.as_mut().unwrap()[1].status = None, State::Restarting, "b, which runs");
    let outcome = Outcome { exit: Exit::Failed, why: "a bad record".to_owned() };
    check(&|view, _| job(view).outcome = Some(outcome.clone()), State::Failed, "a bad record");
    check(&|view, _| job(view).attempt = None, State::Waiting, "gathered");
    let returned = Returned { version: "2".to_owned(), revision: 2, why: "signal 6".to_owned() };
    check(
        &|view, _| job(view).returned = Some(returned.clone()),
        State::Running,
        "signal 6; revision 2 has failed before",
    );
    let unready = |view: &mut View| {
        job(view).attempt = None;
        view.members.as_mut().unwrap()[1].status.as_mut().unwrap().offer.unready = Some("no broker".to_owned());
    };
    check(&|view, _| unready(view), State::Waiting, "b is not ready: no broker");
    let spare = Member {
        status: Some(Status { running: BTreeMap::new(), ..member("c", 9).status.unwrap() }),
        ..member("c", 9)
    };
    check(&|view, _| view.members.as_mut().unwrap().push(spare.clone()), State::Running, "4 of the 6 workers");
}

#[test]
fn a_report_names_the_copies_and_what_each_runs() {
    let mut view = view();
    job(&mut view).failed.push((id("b"), "a bug".to_owned()));
    let placement = &mut job(&mut view).attempt.as_mut().unwrap().placement;
    placement.places.push((id("gone"), 1));
    let report = Report::new(JOB, &view, Some(&view), Some(progress()));
    let members: Vec<_> = report
        .members
        .iter()
        .map(|member| (member.node.as_str(), member.state.as_str(), member.processes.as_slice(), member.coordinates))
        .collect();
    let expected: [(_, _, &[u32], _); 3] =
        [("a", "ready", &[1], true), ("b", "failed", &[0], false), ("gone", "silent", &[2], false)];
    assert_eq!(members, expected);
    let attempt = report.attempt.unwrap();
    assert_eq!((attempt.number, attempt.generation, attempt.workers), (7, Some(3), 6));
    let processes: Vec<_> = attempt.processes.iter().map(|p| (p.process, p.node.as_str(), p.state.as_str())).collect();
    assert_eq!(processes, [(0, "b", "listens"), (1, "a", "listens"), (2, "gone", "unknown")]);
    assert_eq!((report.term, report.workers_wanted), (Some(2), Some(4)));
}

/// The lines of the log between two views.
fn lines(before: Option<&View>, after: &View) -> Vec<String> {
    let told = changes::between(before, after).into_iter();
    told.map(|change| format!("{}{}", if change.is_loss { "! " } else { "" }, change.line)).collect()
}

#[test]
fn the_log_says_what_has_happened_to_the_group_and_why() {
    let before = view();
    let after = |change: &dyn Fn(&mut View)| {
        let mut after = before.clone();
        change(&mut after);
        lines(Some(&before), &after)
    };
    assert_eq!(after(&|_| {}), [""; 0]);
    let joined = |view: &mut View| view.members.as_mut().unwrap().push(member("c", 9));
    assert_eq!(after(&joined), ["c has joined with 2 slots"]);
    let removed = |view: &mut View| drop(view.members.as_mut().unwrap().pop());
    assert_eq!(after(&removed), ["! b is lost: nobody answers at its address any more"]);
    let mut silent = before.clone();
    silent.members.as_mut().unwrap()[1].silent_ms = 4900;
    let mut lost = silent.clone();
    removed(&mut lost);
    assert_eq!(lines(Some(&silent), &lost), ["! b is lost: it has been silent for 5 s"]);
    let leaves = |view: &mut View| view.members.as_mut().unwrap()[1].status.as_mut().unwrap().offer.leaving = true;
    assert_eq!(after(&leaves), ["b is leaving"]);
    let mut leaving = before.clone();
    leaves(&mut leaving);
    let mut left = leaving.clone();
    removed(&mut left);
    assert_eq!(lines(Some(&leaving), &left), ["b has left"]);
    let next = |view: &mut View| {
        let record = job(view);
        record.attempt.as_mut().unwrap().number = AttemptNumber(8);
        record.failed.push((id("c"), "a bug".to_owned()));
    };
    assert_eq!(
        after(&next),
        [
            "attempt 8 begins with 4 workers, processes 0 on b; 1 on a: node c was lost",
            "! c takes no further part in the job: a bug"
        ]
    );
    let stopped = |view: &mut View| {
        let attempt = job(view).attempt.as_mut().unwrap();
        (attempt.number, attempt.why) = (AttemptNumber(9), String::new());
    };
    assert!(after(&stopped)[0].ends_with(": the copies, or their versions, have changed"));
    let returned = Returned { version: "2".to_owned(), revision: 2, why: "signal 6".to_owned() };
    let told = after(&|view| job(view).returned = Some(returned.clone()));
    assert!(told[0].starts_with("! signal 6; revision 2 has failed before it had read input"), "{told:?}");
    let unready = |view: &mut View| view.offer.unready = Some("no broker".to_owned());
    assert_eq!(after(&unready), ["! this copy could not run the job now: no broker"]);
}

#[test]
fn the_log_says_which_term_has_begun_and_why() {
    let coordinates = view();
    let follows = View { members: None, coordinator: Some((id("b"), Term(1))), ..coordinates.clone() };
    let alone = View { members: None, coordinator: None, record: None, ..coordinates.clone() };
    let elsewhere = View { members: None, coordinator: Some((id("c"), Term(3))), ..coordinates.clone() };
    let begins = |before: &View| lines(Some(before), &coordinates)[0].clone();
    let mine = "term 2 begins: this copy, a, coordinates, because ";
    assert_eq!(begins(&follows), format!("{mine}no copy hears b as a coordinator that reaches the store"));
    assert_eq!(begins(&alone), format!("{mine}the group begins"));
    let mut over = alone.clone();
    let outcome = Some(Outcome { exit: Exit::Done, why: String::new() });
    over.record = Some(Arc::new(record()));
    job(&mut over).outcome = outcome;
    assert_eq!(begins(&over), format!("{mine}the last run of the job had ended"));
    assert_eq!(lines(Some(&coordinates), &elsewhere), ["term 3: c coordinates"]);
    assert_eq!(lines(Some(&elsewhere), &elsewhere), [""; 0]);
    let unready = View { offer: Offer { unready: Some("not known yet".to_owned()), ..offer() }, ..elsewhere };
    assert_eq!(lines(None, &unready), ["term 3: c coordinates"], "it has not checked yet");
}

/// A copy that answers questions, with the view that `change` has made of that of the coordinator.
fn copy(trust: &Arc<Trust>, change: impl FnOnce(NodeId) -> View) -> (Links, NodeId) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let me = NodeId { address: listener.local_addr().unwrap().to_string(), start: 5 };
    let board = Arc::new(Board::default());
    board.show(Arc::new(change(me.clone())), Instant::now());
    let store = Store::over(Arc::new(object_store::memory::InMemory::new()), "memory");
    let proof = StoreProof::new(store, "orders");
    let options = LinkOptions {
        me: me.clone(),
        listener,
        trust: Arc::clone(trust),
        proof,
        board,
        changes: Changes::none(),
        logs: None,
        history: None,
    };
    (Links::start(options, &Handle::current(), |_| {}).unwrap(), me)
}

/// The coordinator, the node of process 0, and a spare copy, as a running group.
fn group(trust: &Arc<Trust>) -> [(Links, NodeId); 3] {
    let (zero, of_zero) =
        copy(trust, |me| View { me, members: None, progress: [(JOB.to_owned(), progress())].into(), ..view() });
    let placed = |me: &NodeId| {
        let mut view = view();
        let placement = &mut job(&mut view).attempt.as_mut().unwrap().placement;
        placement.places = vec![(of_zero.clone(), 1), (me.clone(), 1)];
        view.coordinator = Some((me.clone(), Term(2)));
        let members = view.members.as_mut().unwrap();
        (members[0].node, members[1].node) = (me.clone(), of_zero.clone());
        view
    };
    let (one, coordinator) = copy(trust, |me| View { me: me.clone(), ..placed(&me) });
    let (spare, of_spare) = copy(trust, |me| View {
        me,
        members: None,
        record: None,
        coordinator: Some((coordinator.clone(), Term(2))),
        ..view()
    });
    [(one, coordinator), (zero, of_zero), (spare, of_spare)]
}

#[tokio::test]
async fn a_copy_that_only_follows_reports_what_the_coordinator_and_process_0_know() {
    let trust = Arc::new(Trust::of_cluster_key(&ClusterKey::new()).unwrap());
    let [one, zero, spare] = group(&trust);
    for copy in [&one, &spare] {
        let report = ask_for_report(&copy.1.address, &trust, "orders").await.unwrap();
        assert_eq!((report.state, report.why.as_str()), (State::Running, ""));
        assert_eq!(report.coordinator.as_deref(), Some(one.1.address.as_str()));
        assert_eq!(report.answered_by.as_deref(), Some(copy.1.address.as_str()));
        assert_eq!(report.progress, Some(progress()));
        assert_eq!(report.members.len(), 2);
    }
    drop(one);
    let report = ask_for_report(&spare.1.address, &trust, "orders").await.unwrap();
    assert_eq!((report.state, report.why.as_str()), (State::Unknown, "the coordinator does not answer"));
    drop(zero);
    let foreign = Trust::of_cluster_key(&ClusterKey::new()).unwrap();
    assert!(ask_for_view(&spare.1.address, &foreign, "orders", None).await.is_err(), "a stranger is told nothing");
    assert!(ask_for_view(&spare.1.address, &trust, "another", None).await.is_err(), "it runs another job");
}

#[tokio::test]
async fn a_job_that_runs_without_the_limits_that_were_asked_for_says_so_and_where() {
    let trust = Arc::new(Trust::of_cluster_key(&ClusterKey::new()).unwrap());
    for not_kept in [None, Some("this host has no control groups".to_owned())] {
        let limits = Limits { memory_bytes: Some(2 << 30), millicpus: None };
        let limited = Limited { limits, not_kept: not_kept.clone() };
        let host = HostIsolation { no_control_groups: not_kept.clone(), ..HostIsolation::default() };
        let isolation = IsolationReport { host: host.clone(), limits: [(JOB.to_owned(), limited)].into() };
        let (_links, me) = copy(&trust, |me| {
            let mut view = View { progress: [(JOB.to_owned(), progress())].into(), ..view() };
            job(&mut view).attempt.as_mut().unwrap().placement.places = vec![(me.clone(), 2)];
            view.coordinator = Some((me.clone(), Term(2)));
            let mut both = member("a", 0);
            let running = both.status.as_mut().unwrap().running.get_mut(JOB).unwrap();
            running.processes = (0..2).map(|process| (process, ProcessState::Listens(String::new()))).collect();
            view.members = Some(vec![Member { node: me.clone(), ..both }]);
            View { me, isolation: Some(isolation.clone()), ..view }
        });
        let report = ask_for_report(&me.address, &trust, "orders").await.unwrap();
        let why = not_kept.map_or(String::new(), |why| format!("without its limits on {me}: {why}"));
        assert_eq!((report.state, report.why), (State::Running, why));
        assert_eq!(report.limits, Some(limits));
        assert_eq!(report.members[0].isolation, Some(host));
    }
}
