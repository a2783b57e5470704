//! What a group keeps in the store.

use std::collections::{BTreeMap, BTreeSet};

use fluvial_connector::Generation;
use serde::{Deserialize, Serialize};

use super::placement::Placement;
use crate::{Decisions, Exit, Layout};

/// One start of one copy: a copy that is started again at the same address is another node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId {
    /// The host and port at which the others reach it.
    pub address: String,
    /// A random number, drawn when it starts.
    pub start: u64,
}

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.address)
    }
}

/// The period in which one node coordinates. Terms follow each other without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

impl std::fmt::Display for Term {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The position of an attempt's record in the group's journal, which orders the attempts of all terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptNumber(pub u64);

impl std::fmt::Display for AttemptNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The decision to run the job: which nodes start which processes. It becomes one generation of the job, or none if its
/// processes do not come together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its position in the group's journal.
    pub number: AttemptNumber,
    /// The program that its nodes run: the hash of the binary and of the job's own options, or the name of a specification.
    pub version: String,
    /// The revision of what users wanted of the job; 0 in a group of copies of one job.
    pub revision: u64,
    /// The nodes and their processes.
    pub placement: Placement,
    /// The newest generation of the run that is known to have opened: where another run has opened one since, the attempt
    /// must not supersede it.
    pub follows: Option<Generation>,
    /// The restarts that led to it: how long the next one waits.
    pub decisions: Decisions,
    /// Why it follows the one before, in one line.
    pub why: String,
}

impl Attempt {
    /// The numbers of workers and processes.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.placement.layout()
    }
}

/// How the job ended for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended: every copy of a group of copies ends so.
    pub exit: Exit,
    /// The reason, in one line.
    pub why: String,
}

/// One record of the group's journal. Each holds the whole state of the group, so that the newest one is all that a node
/// has to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// Tells this record from any other that was meant for the same position.
    pub nonce: u64,
    /// The term in which it was written.
    pub term: Term,
    /// The node that coordinates in this term.
    pub coordinator: NodeId,
    /// The jobs, by name.
    pub jobs: BTreeMap<String, JobRecord>,
    /// The addresses of the nodes that get no more processes: a node that is started again at one of them is drained, too.
    #[serde(default)]
    pub draining: BTreeSet<String>,
    /// The time that coordinators have counted so far, in all terms, in milliseconds. It stands still between two terms, and a new
    /// coordinator continues from the newest record. So it may be late, and never runs back or ahead.
    #[serde(default)]
    pub clock_ms: u64,
    /// The jobs that were deleted and of which the state is still in the store, each with the time of [`GroupRecord::clock_ms`] from
    /// which on it may be removed: nothing that may still run writes to it any more.
    #[serde(default)]
    pub removing: BTreeMap<String, u64>,
}

/// What the users of a cluster want of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Grows with each change. An attempt of an earlier revision is asked to stop, and the next one follows it.
    pub revision: u64,
    /// The program: the name of the specification that holds its binary and options.
    pub version: String,
    /// The number of its workers.
    pub workers: u32,
    /// Whether it is to run.
    pub run: bool,
    /// The labels that a node must have to run it.
    #[serde(default)]
    pub require: BTreeMap<String, String>,
    /// Attempts up to this number are ended at once, without a checkpoint, because users have forced that.
    #[serde(default)]
    pub ends_at_once: AttemptNumber,
}

/// What a job returns to, without a person, if the version that is wanted fails before it has read input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Back {
    /// The version that runs then.
    pub version: String,
    /// The version that it stands for, which ran before. The job returns only if that one has read input.
    pub of: String,
    /// The number of workers that it had.
    pub workers: u32,
    /// The labels that its nodes had to have.
    pub require: BTreeMap<String, String>,
}

/// A version that failed before it had read input, so that the job has returned to the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returned {
    /// The version that has failed.
    pub version: String,
    /// Its revision.
    pub revision: u64,
    /// How it has failed, in one line.
    pub why: String,
}

impl std::fmt::Display for Returned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { revision, why, .. } = self;
        write!(
            f,
            "{why}; revision {revision} has failed before it had read input, and the job has returned to the program before it"
        )
    }
}

/// That processes of a job died on a node, which was not lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// The address of the node: what is wrong with a host is still wrong after its node was started again.
    pub node: String,
    /// When, by [`GroupRecord::clock_ms`].
    pub at_ms: u64,
}

/// How often processes of a job have to die on a node before others are preferred.
const DEATHS_TO_AVOID: usize = 3;
/// For how long a death counts.
const DEATH_COUNTS_MS: u64 = 600_000;

/// What the group has decided about a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// What users want of it; `None` in a group of copies of one job, who bring the program and the number of workers.
    pub wanted: Option<Wanted>,
    /// The run: a random number that all attempts have in common until the job has ended. Generations of other runs are not
    /// superseded by a restart.
    pub run: u32,
    /// The newest attempt.
    pub attempt: Option<Attempt>,
    /// The nodes whose program or host ended an attempt in a way that no restart mends, with the reason. Others run the job.
    pub failed: Vec<(NodeId, String)>,
    /// How the run ended, if it has.
    pub outcome: Option<Outcome>,
    /// Where processes have died lately. It is part of the record because a job that dies often, on the host of the coordinator
    /// for example, would otherwise be placed there again by each new coordinator.
    #[serde(default)]
    pub deaths: Vec<Death>,
    /// The version that has read input last. A program that has read no input has written nothing that another one would have to
    /// take back.
    #[serde(default)]
    pub proven: Option<String>,
    /// What the job returns to if the version that is wanted fails before it has read input; `None` once it has, or may have.
    #[serde(default)]
    pub back: Option<Back>,
    /// The version that was given up like that last, until users change the job again.
    #[serde(default)]
    pub returned: Option<Returned>,
}

impl JobRecord {
    /// A job of which nothing has been decided yet, in a new run.
    #[must_use]
    pub fn new(run: u32) -> Self {
        Self {
            wanted: None,
            run,
            attempt: None,
            failed: Vec::new(),
            outcome: None,
            deaths: Vec::new(),
            proven: None,
            back: None,
            returned: None,
        }
    }

    /// What the job returns to if the version that is wanted fails now: the version before it has read input, and this one has not.
    #[must_use]
    pub fn may_return_to(&self) -> Option<&Back> {
        self.back.as_ref().filter(|back| self.proven.as_ref() == Some(&back.of))
    }

    /// Gives up the version that is wanted, which has failed, and wants again what ran before.
    pub(super) fn return_back(&mut self, why: String) {
        let (Some(back), Some(wanted)) = (self.back.take(), &mut self.wanted) else { return };
        self.returned = Some(Returned { version: wanted.version.clone(), revision: wanted.revision, why });
        self.proven = Some(back.version.clone());
        (wanted.version, wanted.workers, wanted.require) = (back.version, back.workers, back.require);
        wanted.revision += 1;
        self.failed.clear();
    }

    /// The deaths that count at a time of the group's clock.
    pub(super) fn deaths_at(&self, clock_ms: u64) -> impl Iterator<Item = &Death> {
        self.deaths.iter().filter(move |death| clock_ms < death.at_ms + DEATH_COUNTS_MS)
    }
}

/// Whether processes of a job died so often at an address that others are preferred.
pub(super) fn avoids(deaths: &[Death], address: &str) -> bool {
    deaths.iter().filter(|death| death.node == address).count() >= DEATHS_TO_AVOID
}
