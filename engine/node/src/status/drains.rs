//! How far the nodes are that are drained.

use fluvial_protocol::group::{GroupRecord, JobRecord, Member};
use serde::{Deserialize, Serialize};

use super::MemberReport;
use super::waiting::Outlook;

/// How far a node is that is drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DrainReport {
    /// Whether all processes on the node have ended. It is not known of a node that is not heard.
    pub done: bool,
    /// The jobs that have processes there, and what each waits for.
    pub waits_for: Vec<Awaited>,
}

/// A job that has processes on a node that is drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Awaited {
    /// The name of the job.
    pub job: String,
    /// What is done with it, or what it lacks.
    pub why: String,
}

/// Notes in the reports of the nodes which of them are drained, and how far that is. A node that is drained and not heard gets a report.
pub(super) fn mark(reports: &mut Vec<MemberReport>, record: &GroupRecord, members: &[Member]) {
    for address in &record.draining {
        if reports.iter().all(|report| report.node != *address) {
            reports.push(MemberReport { node: address.clone(), ..MemberReport::silent() });
        }
        let member = members.iter().find(|member| member.node.address == *address && member.status.is_some());
        let drain = match member {
            Some(member) => of(member, record, members),
            None => DrainReport { done: false, waits_for: Vec::new() },
        };
        for report in reports.iter_mut().filter(|report| report.node == *address) {
            if report.state == "ready" {
                report.state = if drain.done { "drained" } else { "draining" }.to_owned();
            }
            report.drain = Some(drain.clone());
        }
    }
}

fn of(member: &Member, record: &GroupRecord, members: &[Member]) -> DrainReport {
    let running = member.status.iter().flat_map(|status| &status.running);
    let mut jobs: Vec<&str> = running.filter(|(_, running)| !running.is_over()).map(|(job, _)| job.as_str()).collect();
    // Processes of an attempt that was written before the node was drained may not have begun yet.
    let begins = |(name, job): (&String, &JobRecord)| {
        let attempt = job.attempt.as_ref().filter(|_| job.outcome.is_none())?;
        let running = member.status.as_ref()?.running.get(name);
        let known = running.is_some_and(|running| running.attempt >= attempt.number);
        (attempt.placement.has(&member.node) && !known).then_some(name.clone())
    };
    let begin: Vec<_> = record.jobs.iter().filter_map(begins).collect();
    jobs.extend(begin.iter().map(String::as_str));
    jobs.sort_unstable();
    jobs.dedup();
    let waits_for: Vec<_> =
        jobs.iter().map(|job| Awaited { job: (*job).to_owned(), why: why(job, record, members) }).collect();
    DrainReport { done: waits_for.is_empty(), waits_for }
}

/// What is done with a job on a node that is drained, or what it lacks.
fn why(name: &str, record: &GroupRecord, members: &[Member]) -> String {
    let Some(job) = record.jobs.get(name).filter(|job| job.outcome.is_none()) else {
        return "its processes are being ended".to_owned();
    };
    let Some(wanted) = &job.wanted else { return String::new() };
    let running = members.iter().filter_map(|member| member.status.as_ref()?.running.get(name));
    let asked = running.filter(|running| Some(running.attempt) == job.attempt.as_ref().map(|attempt| attempt.number));
    if asked.clone().any(|running| running.asked_to_stop) {
        return "it takes a checkpoint, and begins elsewhere".to_owned();
    }
    let outlook = Outlook::new(name, wanted, record, members);
    if outlook.has_room() { "it is about to move".to_owned() } else { format!("it cannot move: {}", outlook.lacks()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use fluvial_protocol::ProcessEnd;
    use fluvial_protocol::group::{AttemptNumber, ProcessState, Wanted};

    use super::super::made_up::{JOB, view};
    use super::super::{Report, View};
    use super::*;

    /// What is reported of node `b`, which runs process 0 of two, with a third node `c` of so many slots.
    fn reported(change: impl FnOnce(&mut View), free: u32) -> MemberReport {
        let mut view = view();
        let record = Arc::make_mut(view.record.as_mut().unwrap());
        record.draining.insert("b".to_owned());
        let wanted = Wanted {
            revision: 0,
            version: "1".to_owned(),
            workers: 4,
            run: true,
            require: BTreeMap::new(),
            ends_at_once: AttemptNumber(0),
        };
        record.jobs.get_mut(JOB).unwrap().wanted = Some(wanted);
        let members = view.members.as_mut().unwrap();
        let mut third = members[0].clone();
        third.node.address = "c".to_owned();
        third.status.as_mut().unwrap().running.clear();
        third.status.as_mut().unwrap().offer.slots = free;
        members.push(third);
        for member in members {
            member.status.as_mut().unwrap().offer.programs.insert("1".to_owned(), None);
        }
        change(&mut view);
        let report = Report::new(JOB, &view, Some(&view), None);
        report.members.into_iter().find(|member| member.node == "b").unwrap()
    }

    #[test]
    fn a_node_is_drained_when_its_processes_have_ended_and_says_before_what_it_waits_for() {
        let check = |report: MemberReport, state: &str, expected: &[&str]| {
            let drain = report.drain.unwrap();
            assert_eq!((report.state.as_str(), drain.done), (state, expected.is_empty()));
            let whys: Vec<_> = drain.waits_for.iter().map(|awaited| awaited.why.as_str()).collect();
            assert!(whys.len() == expected.len() && whys.iter().zip(expected).all(|(w, e)| w.contains(e)), "{whys:?}");
        };
        check(reported(|_| {}, 2), "draining", &["it is about to move"]);
        check(
            reported(|_| {}, 1),
            "draining",
            &["it cannot move: it needs 4 slots, and 3 are free: 2 of 2 on a, 1 of 1 on c"],
        );
        let asked = |view: &mut View| {
            let status = view.members.as_mut().unwrap()[1].status.as_mut().unwrap();
            status.running.get_mut(JOB).unwrap().asked_to_stop = true;
        };
        check(reported(asked, 2), "draining", &["it takes a checkpoint"]);
        let ended = |view: &mut View| {
            let status = view.members.as_mut().unwrap()[1].status.as_mut().unwrap();
            let end = ProcessState::Ended(ProcessEnd::Died { why: "killed".to_owned() });
            status.running.get_mut(JOB).unwrap().processes.insert(0, end);
        };
        check(reported(ended, 1), "drained", &[]);
        let not_begun = |view: &mut View| view.members.as_mut().unwrap()[1].status.as_mut().unwrap().running.clear();
        check(reported(not_begun, 2), "draining", &["it is about to move"]);
    }

    #[test]
    fn a_node_that_is_drained_and_not_heard_is_not_said_to_be_done() {
        let gone = |view: &mut View| drop(view.members.as_mut().unwrap().remove(1));
        let report = reported(gone, 2);
        assert_eq!((report.state.as_str(), report.drain.unwrap().done), ("silent", false));
    }
}
