//! How the processes of a cluster's jobs are kept apart from their node and from each other: control groups with limits.
//!
//! **Does not** isolate the processes that `run` starts: they are the user's own.

mod groups;
mod hierarchy;
mod left_behind;
mod limits;
pub mod stage;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::process::Command;

use serde::{Deserialize, Serialize};

pub(crate) use groups::{AttemptGroup, ProcessGroup};
pub(crate) use hierarchy::{Place, Version, of_proc};
pub(crate) use limits::Bytes;
pub use limits::{Limits, cpus, memory};

use groups::ControlGroups;

use crate::keeper::Program;

/// How a node keeps the processes of jobs apart.
#[derive(Debug)]
pub(crate) struct Isolation {
    groups: Result<ControlGroups, String>,
}

/// How a node keeps the processes of jobs apart, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolationReport {
    /// What can be had on its host.
    pub host: HostIsolation,
    /// The limits of the jobs that it runs or ran last, if they have any.
    pub limits: BTreeMap<String, Limited>,
}

/// The limits of a job's processes on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limited {
    /// What each process may use.
    pub limits: Limits,
    /// Why its processes run without them there, if they do.
    pub not_kept: Option<String>,
}

/// What can be had on a host to keep processes of jobs apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIsolation {
    /// The control groups of the node.
    pub control_groups: Option<String>,
    /// Why it has none: its processes run without limits.
    pub no_control_groups: Option<String>,
}

impl fmt::Display for HostIsolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.control_groups, &self.no_control_groups) {
            (Some(groups), _) => f.write_str(groups),
            (None, Some(why)) => write!(f, "no limits on memory and CPU: {why}"),
            (None, None) => f.write_str("no limits on memory and CPU"),
        }
    }
}

impl Isolation {
    /// What can be had on this host.
    pub(crate) fn of_this_host() -> Self {
        let groups = ControlGroups::new(&of_proc("cgroup"), &of_proc("mountinfo"));
        match &groups {
            Ok(groups) => tracing::info!("processes of jobs run in {}", groups.describe()),
            Err(why) => tracing::warn!(why, "processes of jobs run without limits on memory and CPU"),
        }
        Self { groups }
    }

    /// What is said of it.
    pub(crate) fn report(&self) -> HostIsolation {
        HostIsolation {
            control_groups: self.groups.as_ref().ok().map(ControlGroups::describe),
            no_control_groups: self.groups.as_ref().err().cloned(),
        }
    }

    /// Why processes run here without these limits, if they do.
    pub(crate) fn lack(&self, limits: &Limits) -> Option<String> {
        match &self.groups {
            _ if limits.is_empty() => None,
            Ok(groups) => groups.lack(limits),
            Err(why) => Some(why.clone()),
        }
    }

    /// The group of an attempt, if there are groups.
    pub(crate) fn attempt(&self, job: &str, attempt: u64) -> std::io::Result<Option<AttemptGroup>> {
        self.groups.as_ref().ok().map(|groups| groups.attempt(job, attempt)).transpose()
    }

    /// A command that waits for [`stage::GO`] before it becomes the program.
    pub(crate) fn command(&self, program: &Program, shown: &str) -> Command {
        stage::command(OsStr::new(&program.path), shown, &program.arguments)
    }
}
