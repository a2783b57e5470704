//! What users of a cluster change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::{AttemptNumber, Back, GroupRecord, JobRecord, Wanted};
use crate::Exit;

/// A change that a user asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Run a job of this name.
    Submit {
        /// The name of the job.
        job: String,
        /// Its program.
        version: String,
        /// The number of its workers.
        workers: u32,
        /// The labels that its nodes must have.
        #[serde(default)]
        require: BTreeMap<String, String>,
    },
    /// Run the job with another program or another number of workers; where it has ended, begin again.
    Update {
        /// The name of the job.
        job: String,
        /// Its program, if that changes.
        version: Option<String>,
        /// The number of its workers, if that changes.
        workers: Option<u32>,
        /// The labels that its nodes must have, if that changes.
        #[serde(default)]
        require: Option<BTreeMap<String, String>>,
        /// The revision that this was made of: another one has been changed by somebody else meanwhile.
        of: Option<u64>,
        /// With another program: the version that stands for the present one if the job returns to it, because the new one fails before
        /// it has read input. Without, it is the present one itself.
        #[serde(default)]
        back: Option<String>,
    },
    /// Run a job that was stopped or has ended.
    Start {
        /// The name of the job.
        job: String,
    },
    /// Commit, take a checkpoint and end; the job can be started again.
    Stop {
        /// The name of the job.
        job: String,
        /// Whether its processes are ended at once instead.
        #[serde(default)]
        force: bool,
    },
    /// End at a checkpoint, and begin again.
    Restart {
        /// The name of the job.
        job: String,
        /// Whether its processes are ended at once instead.
        #[serde(default)]
        force: bool,
    },
    /// Forget a job that has ended.
    Delete {
        /// The name of the job.
        job: String,
        /// Whether its state in the store is removed, too. Until that has happened, no job of this name can be submitted.
        #[serde(default)]
        state: bool,
    },
    /// The state of a deleted job has been removed from the store.
    Removed {
        /// The name of the job.
        job: String,
    },
    /// Give the node of this address no more processes, and move those that it has once there is room for them elsewhere.
    Drain {
        /// The address.
        node: String,
    },
    /// Let it have processes again.
    Undrain {
        /// The address.
        node: String,
    },
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// There is a job of this name.
    #[error("there is a job '{0}' already: choose another name, or update that job")]
    Exists(String),
    /// There is none.
    #[error("there is no job '{0}'")]
    Unknown(String),
    /// Somebody else has changed it.
    #[error("the job '{0}' was changed by somebody else meanwhile: look at it, and ask again if that is still right")]
    Changed(String),
    /// It has not ended.
    #[error("the job '{0}' has not ended: stop it first")]
    Runs(String),
    /// The state of a deleted job of this name is being removed.
    #[error(
        "the state of a deleted job '{0}' is still being removed from the store: wait a moment, or choose another name"
    )]
    Removing(String),
    /// No node of this address is heard.
    #[error("there is no node '{0}'")]
    UnknownNode(String),
    /// A job has at least one worker.
    #[error("a job has at least one worker")]
    NoWorkers,
    /// This node does not coordinate or does not reach the store, or has ceased to before the change was stored: it may have been
    /// made all the same.
    #[error("the coordinator has changed or does not reach the store: ask again")]
    NotCoordinator,
}

impl Change {
    /// The address of the node that it is about, if it is about one.
    pub(super) fn node(&self) -> Option<&str> {
        match self {
            Self::Drain { node } | Self::Undrain { node } => Some(node),
            _ => None,
        }
    }
}

/// Makes a change in a record. A run that begins gets the number `run`. The state of a job that is deleted may be removed from
/// `may_remove_at_ms` on. A change that was made already changes nothing.
pub(super) fn apply(record: &mut GroupRecord, change: &Change, run: u32, may_remove_at_ms: u64) -> Result<(), Refusal> {
    if let Change::Submit { workers: 0, .. } | Change::Update { workers: Some(0), .. } = change {
        return Err(Refusal::NoWorkers);
    }
    if let Change::Submit { job, version, workers, require } = change {
        let require = require.clone();
        if record.removing.contains_key(job) {
            return Err(Refusal::Removing(job.clone()));
        }
        let ends_at_once = AttemptNumber::default();
        let (version, workers) = (version.clone(), *workers);
        let wanted = Wanted { revision: 1, version, workers, run: true, require, ends_at_once };
        let submitted = JobRecord { wanted: Some(wanted.clone()), ..JobRecord::new(run) };
        let there = record.jobs.entry(job.clone()).or_insert(submitted);
        let as_new = |there: &Wanted| Wanted { revision: 1, ends_at_once, ..there.clone() };
        let same = there.wanted.as_ref().is_some_and(|there| as_new(there) == wanted);
        return if same { Ok(()) } else { Err(Refusal::Exists(job.clone())) };
    }
    match change {
        Change::Drain { node } => drop(record.draining.insert(node.clone())),
        Change::Undrain { node } => drop(record.draining.remove(node)),
        Change::Removed { job } => drop(record.removing.remove(job)),
        _ => {}
    }
    let (Change::Submit { job: name, .. }
    | Change::Update { job: name, .. }
    | Change::Start { job: name }
    | Change::Stop { job: name, .. }
    | Change::Restart { job: name, .. }
    | Change::Delete { job: name, .. }) = change
    else {
        return Ok(());
    };
    let Some(job) = record.jobs.get_mut(name) else {
        return if matches!(change, Change::Delete { .. }) { Ok(()) } else { Err(Refusal::Unknown(name.clone())) };
    };
    let returns = job.may_return_to().is_some();
    let Some(wanted) = &mut job.wanted else { return Err(Refusal::Unknown(name.clone())) };
    let before = wanted.clone();
    match change {
        Change::Submit { .. } | Change::Drain { .. } | Change::Undrain { .. } | Change::Removed { .. } => {}
        Change::Update { of: Some(of), .. } if *of != before.revision => return Err(Refusal::Changed(name.clone())),
        Change::Update { version, workers, require, .. } => {
            wanted.version = version.clone().unwrap_or(before.version.clone());
            wanted.workers = workers.unwrap_or(before.workers);
            wanted.require = require.clone().unwrap_or(before.require.clone());
        }
        Change::Start { .. } => wanted.run = true,
        Change::Stop { .. } => wanted.run = false,
        Change::Restart { .. } => {
            wanted.run = true;
            wanted.revision += 1;
        }
        Change::Delete { state: true, .. } if job.outcome.is_some() => {
            record.jobs.remove(name);
            record.removing.insert(name.clone(), may_remove_at_ms);
            return Ok(());
        }
        Change::Delete { .. } if job.outcome.is_none() => return Err(Refusal::Runs(name.clone())),
        Change::Delete { .. } => {
            record.jobs.remove(name);
            return Ok(());
        }
    }
    if let Change::Stop { force: true, .. } | Change::Restart { force: true, .. } = change
        && let Some(attempt) = job.attempt.as_ref().filter(|_| job.outcome.is_none())
    {
        wanted.ends_at_once = attempt.number;
    }
    if let Change::Update { back, .. } = change
        && wanted.version != before.version
    {
        // What was to follow before, and has read nothing yet, is nothing to return to.
        if !returns {
            let version = back.clone().unwrap_or_else(|| before.version.clone());
            let Wanted { version: of, workers, require, .. } = before.clone();
            job.back = Some(Back { version, of, workers, require });
        }
        // One that had failed by itself would fail again.
        let was_good = job.outcome.as_ref().is_none_or(|outcome| match outcome.exit {
            Exit::Done | Exit::StoppedUncommitted | Exit::StoppedWithoutCheckpoint => true,
            Exit::GenerationLost => !before.run,
            _ => false,
        });
        let is_there =
            job.back.as_ref().is_some_and(|back| back.version == wanted.version || back.of == wanted.version);
        if !was_good || is_there {
            job.back = None;
        }
    }
    if wanted.version != before.version
        && let Some(returned) = job.returned.take()
    {
        // What was given up is not tried again while nodes prepare the next version.
        job.attempt.take_if(|attempt| attempt.version == returned.version);
    }
    // A job that was stopped stays so until it is started, with what has changed meanwhile.
    let begins = wanted.run && job.outcome.is_some() && (*wanted != before || matches!(change, Change::Start { .. }));
    if (&wanted.version, wanted.workers, &wanted.require) != (&before.version, before.workers, &before.require) {
        wanted.revision += 1;
    }
    if begins {
        (job.run, job.attempt, job.outcome) = (run, None, None);
        job.failed.clear();
        job.deaths.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Exit;
    use crate::group::{NodeId, Outcome, Term};

    fn record() -> GroupRecord {
        let coordinator = NodeId { address: "a".to_owned(), start: 1 };
        GroupRecord {
            nonce: 1,
            term: Term(1),
            coordinator,
            jobs: BTreeMap::new(),
            draining: Default::default(),
            clock_ms: 0,
            removing: BTreeMap::new(),
        }
    }

    fn submit(version: &str) -> Change {
        Change::Submit { job: job(), version: version.to_owned(), workers: 2, require: BTreeMap::new() }
    }

    fn update(version: Option<String>, workers: Option<u32>, of: Option<u64>) -> Change {
        Change::Update { job: job(), version, workers, require: None, of, back: None }
    }

    fn job() -> String {
        "orders".to_owned()
    }

    #[test]
    fn a_job_is_submitted_once_and_the_same_again_is_no_change() {
        let mut record = record();
        assert_eq!(apply(&mut record, &submit("v1"), 7, 0), Ok(()));
        let first = record.clone();
        assert_eq!(apply(&mut record, &submit("v1"), 8, 0), Ok(()));
        assert_eq!(record, first);
        assert_eq!(apply(&mut record, &submit("v2"), 9, 0), Err(Refusal::Exists(job())));
        assert_eq!(record, first);
        let none =
            Change::Submit { job: "other".to_owned(), version: "v".to_owned(), workers: 0, require: BTreeMap::new() };
        assert_eq!(apply(&mut record, &none, 9, 0), Err(Refusal::NoWorkers));
    }

    #[test]
    fn a_job_that_has_ended_begins_a_new_run_when_it_is_started_or_changed() {
        let ended = Outcome { exit: Exit::Failed, why: "a bug".to_owned() };
        for (change, begins) in [
            (Change::Start { job: job() }, true),
            (Change::Restart { job: job(), force: false }, true),
            (update(Some("v2".to_owned()), None, Some(1)), true),
            (Change::Stop { job: job(), force: false }, false),
            (update(None, Some(2), None), false),
        ] {
            let mut record = record();
            apply(&mut record, &submit("v1"), 7, 0).expect("it is new");
            if let Some(job) = record.jobs.get_mut("orders") {
                job.outcome = Some(ended.clone());
            }
            assert_eq!(apply(&mut record, &change, 8, 0), Ok(()));
            let job = &record.jobs["orders"];
            assert_eq!((job.run, job.outcome.is_none()), if begins { (8, true) } else { (7, false) }, "{change:?}");
        }
    }

    #[test]
    fn a_job_may_return_to_the_last_version_that_has_read_input_unless_that_has_failed_by_itself() {
        let returns_to = |record: &GroupRecord| {
            let back = record.jobs["orders"].may_return_to();
            back.map(|back| (back.version.clone(), back.workers))
        };
        let upgrade = |version: &str, back: &str| Change::Update {
            job: job(),
            version: Some(version.to_owned()),
            workers: Some(4),
            require: None,
            of: None,
            back: Some(back.to_owned()),
        };
        let mut fresh = record();
        apply(&mut fresh, &submit("v1"), 7, 0).expect("it is new");
        let mut good = fresh.clone();
        good.jobs.get_mut("orders").expect("it is there").proven = Some("v1".to_owned());
        for (mut record, exit, expected) in [
            (fresh, None, None),
            (good.clone(), None, Some(("v1 again".to_owned(), 2))),
            (good.clone(), Some(Exit::Done), Some(("v1 again".to_owned(), 2))),
            (good.clone(), Some(Exit::Failed), None),
        ] {
            record.jobs.get_mut("orders").expect("it is there").outcome =
                exit.map(|exit| Outcome { exit, why: String::new() });
            apply(&mut record, &upgrade("v2", "v1 again"), 8, 0).expect("it is there");
            assert_eq!(returns_to(&record), expected, "{exit:?}");
        }
        apply(&mut good, &upgrade("v2", "v1 again"), 8, 0).expect("it is there");
        apply(&mut good, &upgrade("v3", "v2 again"), 8, 0).expect("it is there");
        assert_eq!(returns_to(&good), Some(("v1 again".to_owned(), 2)), "v2 has read nothing");
        let job = good.jobs.get_mut("orders").expect("it is there");
        job.return_back("signal 6".to_owned());
        let wanted = job.wanted.clone().expect("it is a cluster's");
        assert_eq!((wanted.version.as_str(), wanted.workers, wanted.revision), ("v1 again", 2, 4));
        let returned = job.returned.clone().expect("it has returned");
        assert_eq!((returned.version.as_str(), returned.revision, job.back.is_none()), ("v3", 3, true));
        apply(&mut good, &upgrade("v4", "v1 again"), 8, 0).expect("it is there");
        assert_eq!(good.jobs["orders"].returned, None);
        assert!(returns_to(&good).is_some(), "what it has returned to has read input");
    }

    #[test]
    fn a_node_is_drained_once_and_undrained_and_other_labels_are_another_revision() {
        let mut record = record();
        let of_node = |drains: bool| {
            let node = "host-a:7401".to_owned();
            if drains { Change::Drain { node } } else { Change::Undrain { node } }
        };
        for (drains, addresses) in [(true, 1), (true, 1), (false, 0), (false, 0)] {
            assert_eq!(apply(&mut record, &of_node(drains), 7, 0), Ok(()));
            assert_eq!(record.draining.len(), addresses);
        }
        apply(&mut record, &submit("v1"), 7, 0).expect("it is new");
        let require = Some(BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]));
        let change = Change::Update { job: job(), version: None, workers: None, require, of: None, back: None };
        for _ in 0..2 {
            assert_eq!(apply(&mut record, &change, 7, 0), Ok(()));
            let wanted = record.jobs["orders"].wanted.as_ref();
            assert_eq!(wanted.map(|wanted| (wanted.revision, wanted.require.len())), Some((2, 1)));
        }
    }

    #[test]
    fn only_a_job_that_has_ended_is_deleted() {
        let mut record = record();
        let delete = Change::Delete { job: job(), state: false };
        assert_eq!(apply(&mut record, &delete, 1, 0), Ok(()), "it is not there");
        assert_eq!(apply(&mut record, &Change::Stop { job: job(), force: false }, 1, 0), Err(Refusal::Unknown(job())));
        apply(&mut record, &submit("v1"), 7, 0).expect("it is new");
        assert_eq!(apply(&mut record, &delete, 1, 0), Err(Refusal::Runs(job())));
        if let Some(job) = record.jobs.get_mut("orders") {
            job.outcome = Some(Outcome { exit: Exit::Done, why: String::new() });
        }
        assert_eq!(apply(&mut record, &delete, 1, 0), Ok(()));
        assert!(record.jobs.is_empty());
    }

    #[test]
    fn what_changes_a_running_job_is_a_new_revision_of_it() {
        let mut record = record();
        apply(&mut record, &submit("v1"), 7, 0).expect("it is new");
        let revisions: Vec<_> = [
            update(None, Some(4), None),
            update(None, Some(4), None),
            Change::Start { job: job() },
            Change::Restart { job: job(), force: false },
        ]
        .iter()
        .map(|change| {
            apply(&mut record, change, 8, 0).expect("it is there");
            record.jobs["orders"].wanted.as_ref().map(|wanted| wanted.revision)
        })
        .collect();
        assert_eq!(revisions, [Some(2), Some(2), Some(2), Some(3)]);
        let before = record.clone();
        let of_an_older_one = update(Some("v2".to_owned()), None, Some(2));
        assert_eq!(apply(&mut record, &of_an_older_one, 8, 0), Err(Refusal::Changed(job())));
        assert_eq!(record, before);
        assert_eq!(record.jobs["orders"].run, 7);
    }
}
