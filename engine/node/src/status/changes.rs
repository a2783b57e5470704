//! The log lines that say what has happened to a group.

use fluvial_protocol::group::{Attempt, Member, NodeId};

use super::View;

/// A member that was heard within this time has not been lost by its silence.
const HEARD_LATELY_MS: u64 = 3000;

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Whether something was lost or has failed.
    pub(super) is_loss: bool,
    /// What happened, and why.
    pub(super) line: String,
}

/// What has happened between two views of one copy. The coordinator tells of the group, and each copy of itself.
pub(super) fn between(before: Option<&View>, after: &View) -> Vec<Change> {
    let mut changes = Changes(Vec::new());
    changes.terms(before, after);
    let of_group = before.filter(|before| before.coordinates() && after.coordinates());
    if let Some(before) = of_group {
        changes.members(before, after);
        changes.drains(before, after);
    }
    if after.coordinates() {
        changes.attempts(before, after);
    }
    changes.own(before, after);
    changes.0
}

struct Changes(Vec<Change>);

impl Changes {
    fn says(&mut self, line: String) {
        self.0.push(Change { is_loss: false, line });
    }

    fn warns(&mut self, line: String) {
        self.0.push(Change { is_loss: true, line });
    }

    fn terms(&mut self, before: Option<&View>, after: &View) {
        let Some((coordinator, term)) = &after.coordinator else { return };
        let earlier = before.and_then(|before| before.coordinator.as_ref());
        if earlier == Some(&(coordinator.clone(), *term)) {
            return;
        }
        if !after.coordinates() {
            return self.says(format!("term {term}: {coordinator} coordinates"));
        }
        let record = before.and_then(|before| before.record.as_ref());
        let why = match (record, earlier) {
            (None, _) => "the group begins".to_owned(),
            _ if before.and_then(View::job_record).is_some_and(|job| job.outcome.is_some()) => {
                "the last run of the job had ended".to_owned()
            }
            (Some(_), Some((lost, _))) => format!("no copy hears {lost} as a coordinator that reaches the store"),
            (Some(record), None) => format!("{} does not coordinate any more", record.coordinator),
        };
        self.says(format!("term {term} begins: this copy, {coordinator}, coordinates, because {why}"));
    }

    fn members(&mut self, before: &View, after: &View) {
        let (earlier, now) = (before.members.as_deref(), after.members.as_deref());
        let (earlier, now) = (earlier.unwrap_or_default(), now.unwrap_or_default());
        let has = |members: &[Member], node: &NodeId| members.iter().any(|member| member.node == *node);
        for Member { node, status, .. } in now.iter().filter(|member| !has(earlier, &member.node)) {
            let offer = status.as_ref().map(|status| &status.offer);
            let slots = offer.map_or(String::new(), |offer| format!(" with {} slots", offer.slots));
            self.says(format!("{node} has joined{slots}"));
        }
        for Member { node, status, silent_ms } in earlier.iter().filter(|member| !has(now, &member.node)) {
            if status.as_ref().is_some_and(|status| status.offer.leaving) {
                self.says(format!("{node} has left"));
            } else if *silent_ms < HEARD_LATELY_MS {
                self.warns(format!("{node} is lost: nobody answers at its address any more"));
            } else {
                self.warns(format!("{node} is lost: it has been silent for {} s", (silent_ms + 500) / 1000));
            }
        }
        let leaves = |member: &&Member| member.status.as_ref().is_some_and(|status| status.offer.leaving);
        let left_before = |node: &NodeId| earlier.iter().any(|member| member.node == *node && leaves(&member));
        for Member { node, .. } in now.iter().filter(|member| leaves(member) && !left_before(&member.node)) {
            self.says(format!("{node} is leaving"));
        }
    }

    fn drains(&mut self, before: &View, after: &View) {
        let draining = |view: &View| view.record.as_ref().map(|record| record.draining.clone()).unwrap_or_default();
        let (earlier, now) = (draining(before), draining(after));
        for node in now.difference(&earlier) {
            self.says(format!("{node} is drained: it gets no more processes"));
        }
        for node in earlier.difference(&now) {
            self.says(format!("{node} is not drained any more"));
        }
    }

    fn attempts(&mut self, before: Option<&View>, after: &View) {
        for (name, job) in after.record.iter().flat_map(|record| &record.jobs) {
            // A copy's lines are about its only job.
            let of = if *name == after.job { String::new() } else { format!("{name}: ") };
            let earlier = before.and_then(|before| before.record_of(name));
            let number = |attempt: &Attempt| attempt.number;
            let is_new = job.attempt.as_ref().map(number) > earlier.and_then(|job| job.attempt.as_ref()).map(number);
            if let Some(attempt) = job.attempt.as_ref().filter(|_| is_new) {
                self.says(format!("{of}{}", describe(attempt)));
            }
            let returned_before = earlier.and_then(|job| job.returned.as_ref());
            if let Some(returned) = job.returned.as_ref().filter(|returned| returned_before != Some(returned)) {
                self.warns(format!("{of}{returned}"));
            }
            let failed_before = earlier.map(|job| job.failed.as_slice()).unwrap_or_default();
            for (node, why) in job.failed.iter().filter(|failed| !failed_before.contains(failed)) {
                self.warns(format!("{of}{node} takes no further part in the job: {why}"));
            }
            let ended = job.outcome.as_ref().filter(|_| earlier.is_none_or(|earlier| earlier.outcome.is_none()));
            if let Some(outcome) = ended.filter(|_| job.wanted.is_some()) {
                let (how, why) = (outcome.exit.describe(), &outcome.why);
                self.says(if why.is_empty() { format!("{of}{how}") } else { format!("{of}{how}: {why}") });
            }
        }
    }

    fn own(&mut self, before: Option<&View>, after: &View) {
        // A copy that has just been started has not checked yet.
        let Some(before) = before.filter(|before| before.offer.unready != after.offer.unready) else { return };
        match (&before.offer.unready, &after.offer.unready) {
            (_, Some(why)) => self.warns(format!("this copy could not run the job now: {why}")),
            (_, None) => self.says("this copy could run the job now".to_owned()),
        }
    }
}

/// An attempt in one line: its workers, where its processes run, and why it begins.
fn describe(attempt: &Attempt) -> String {
    let (layout, places) = (attempt.layout(), &attempt.placement.places);
    let mut first = 0;
    let mut hosts = Vec::new();
    for (node, count) in places {
        let processes: Vec<_> = (first..first + count).map(|process| process.to_string()).collect();
        hosts.push(format!("{} on {node}", processes.join(", ")));
        first += count;
    }
    let (number, workers, hosts) = (attempt.number, layout.workers, hosts.join("; "));
    format!("attempt {number} begins with {workers} workers, processes {hosts}: {}", why(attempt))
}

/// Why an attempt follows the one before: one that was asked to stop has ended without a reason of its own.
pub(crate) fn why(attempt: &Attempt) -> &str {
    if attempt.why.is_empty() { "the copies, or their versions, have changed" } else { &attempt.why }
}
