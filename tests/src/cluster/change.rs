//! What users change while a cluster is struck.

use std::ffi::OsString;

use anyhow::{Result, ensure};
use fluvial_node::fail_point::FailPoint;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::{Cluster, Fleet, built_again};
use crate::client::unique;
use crate::job::binary;

/// A change that a user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A job is submitted, with a binary that is uploaded for it.
    Submit,
    /// A job gets another number of workers.
    Rescale,
    /// A job gets another binary, which is uploaded for it.
    Upgrade,
    /// A node is drained, and undrained.
    Drain,
    /// A savepoint is taken.
    Savepoint,
    /// A job is run again from a checkpoint.
    Restart,
    /// A job is stopped and started.
    StopAndStart,
}

impl Change {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Submit, Self::Rescale, Self::Upgrade, Self::Drain, Self::Savepoint, Self::Restart, Self::StopAndStart];

    /// One of them.
    pub fn random(random: &mut ChaCha8Rng) -> Self {
        Self::ALL[random.random_range(0..Self::ALL.len())]
    }
}

impl Change {
    /// Whether a node gets to this place during the change, in any case.
    #[must_use]
    pub fn passes(self, point: FailPoint) -> bool {
        use FailPoint::{
            AfterAttempt, AfterBinary, AfterCheck, AfterEnd, AfterFetch, AfterIntroduction, AfterPin, AfterRecord,
            AfterSavepoint, AfterSpecification, AfterStart, BeforeAnswer, BeforeAttempt, BeforeBinary, BeforeFetch,
            BeforeIntroduction, BeforeInvitation, BeforeRecord, BeforeSavepoint, BeforeSpecification, BeforeStart,
            BeforeStop,
        };
        match point {
            BeforeBinary | AfterBinary | BeforeSpecification | AfterSpecification => {
                matches!(self, Self::Submit | Self::Upgrade)
            }
            BeforeFetch | AfterFetch | AfterCheck => matches!(self, Self::Submit | Self::Upgrade),
            AfterPin | BeforeSavepoint | AfterSavepoint => matches!(self, Self::Savepoint | Self::Upgrade),
            BeforeStop | AfterEnd => !matches!(self, Self::Submit | Self::Savepoint),
            BeforeRecord | AfterRecord | BeforeAnswer => self != Self::Savepoint,
            BeforeAttempt | AfterAttempt | BeforeStart | BeforeInvitation | AfterStart | BeforeIntroduction
            | AfterIntroduction => self != Self::Savepoint,
        }
    }
}

/// A change that is about to be made.
pub struct Prepared {
    change: Change,
    job: String,
    /// The words that are said until each has succeeded.
    words: Vec<Vec<OsString>>,
}

impl Prepared {
    /// Makes ready what a change needs: topics, another build, a name. It is about the job or the host of this number. `fresh`: a
    /// binary that is not in the store yet is uploaded for it.
    ///
    /// # Errors
    /// As [`Fleet::add_small`].
    pub fn new(fleet: &mut Fleet<'_>, change: Change, number: usize, fresh: bool) -> Result<Self> {
        let cluster = fleet.cluster();
        let number_of_it = if change == Change::Submit { fleet.add_small()? } else { number % fleet.tenants().len() };
        let other = (change == Change::Upgrade && !fresh).then(|| fleet.other_build(number_of_it)).transpose()?;
        let tenant = &fleet.tenants()[number_of_it];
        let job = tenant.name().to_owned();
        let say = |words: &str| words.split(' ').map(OsString::from).collect::<Vec<_>>();
        let words = match change {
            Change::Submit => {
                let program = binary("orders")?;
                let program = if fresh { built_again(cluster, &program, &unique("built"))? } else { program };
                vec![tenant.submission(&program, 1)]
            }
            Change::Rescale => {
                let before = cluster.json(&format!("status {job}"))?["wanted"]["workers"].as_u64();
                let workers = if before == Some(1) { 2 } else { 1 };
                vec![say(&format!("rescale {job} --workers {workers}"))]
            }
            Change::Upgrade => {
                let fresh = || built_again(cluster, &tenant.program()?, &unique("built"));
                let program = other.map_or_else(fresh, Ok)?;
                vec![say(&format!("upgrade {job} {} --yes --same-output", program.display()))]
            }
            Change::Drain => {
                let host = u8::try_from(number % cluster.hosts().len())?;
                let address = cluster.address(host);
                vec![say(&format!("drain {address}")), say(&format!("undrain {address}"))]
            }
            Change::Savepoint => vec![say(&format!("savepoint {job} --name {}", unique("kept")))],
            Change::Restart => vec![say(&format!("restart {job}"))],
            Change::StopAndStart => vec![say(&format!("stop {job}")), say(&format!("start {job}"))],
        };
        Ok(Self { change, job, words })
    }

    /// Makes it: says the words until they have succeeded, whatever happens meanwhile.
    ///
    /// # Errors
    /// They do not.
    pub fn make(&self, cluster: &Cluster) -> Result<()> {
        for words in &self.words {
            // The answer to the first request may have been lost.
            let taken = |said: &str| said.contains("there is a savepoint") && said.contains("already");
            // A user sees that the job does not run yet; it is looked at later.
            let begun =
                |said: &str| self.change == Change::StopAndStart && said.contains(" is ") && words[0] == "start";
            cluster.tell_until(words, |said| taken(said) || begun(said))?;
        }
        Ok(())
    }

    /// Waits until the job is as it was wanted.
    ///
    /// # Errors
    /// It is not.
    pub fn verify(&self, cluster: &Cluster) -> Result<()> {
        cluster.wait_until(&format!("{} as it is wanted after {:?}", self.job, self.change), || {
            let job = cluster.json(&format!("status {}", self.job))?;
            ensure!(job["state"] != "failed", "{job}");
            let (wanted, attempt) = (&job["wanted"], &job["attempt"]);
            Ok(job["state"] == "running"
                && wanted["workers"] == attempt["workers"]
                && wanted["version"] == attempt["version"])
        })?;
        if self.change == Change::Savepoint {
            let words = &self.words[0];
            let name = words[words.len() - 1].to_string_lossy().into_owned();
            let savepoints = cluster.json(&format!("savepoints {}", self.job))?;
            let kept = savepoints.as_array().into_iter().flatten().filter(|of| of["name"] == *name).count();
            ensure!(kept == 1, "{} has {savepoints}, and no {name}", self.job);
        }
        Ok(())
    }
}
