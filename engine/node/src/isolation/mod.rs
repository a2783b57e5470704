//! How the processes of a cluster's jobs are kept apart from their node and from each other: control groups with limits, and a user
//! without the node's rights.
//!
//! All jobs run as one user, so a job is not kept from the state of another one. A node that does not run as root has no other user to
//! run jobs as: they can then do whatever the node can, and read its memory.
//!
//! **Does not** isolate the processes that `run` starts: they are the user's own.

mod groups;
mod hierarchy;
mod left_behind;
mod limits;
pub(crate) mod secrets;
pub mod stage;
mod user;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, bail};
use fluvial_store::{Beneath, Location, Store};
use serde::{Deserialize, Serialize};

pub(crate) use groups::{AttemptGroup, ProcessGroup};
pub(crate) use hierarchy::{Place, Version, of_proc};
pub(crate) use limits::Bytes;
pub use limits::{Limits, cpus, memory};
pub use secrets::Secrets;
use user::JobUser;
pub use user::UserOptions;

use groups::ControlGroups;

use crate::keeper::Program;

/// How a node keeps the processes of jobs apart.
#[derive(Debug)]
pub(crate) struct Isolation {
    groups: Result<ControlGroups, String>,
    user: Option<JobUser>,
    /// Why processes run as the node's own user, where that is root and nobody has asked for it.
    no_user: Option<String>,
    /// The store, if it is a folder.
    store: Option<PathBuf>,
    /// The folder of secrets that jobs may have.
    secrets: PathBuf,
}

/// How a node of a cluster is to keep the processes of jobs apart.
#[derive(Clone, Debug, Default)]
pub struct IsolationOptions {
    /// As whom they run.
    pub user: UserOptions,
    /// Whether they may run as the node's own user where no other one reaches what it needs: on a machine for development.
    pub lenient: bool,
    /// The files that they must not be able to read.
    pub private: Vec<PathBuf>,
    /// The folder of secrets that jobs may have [default: /run/secrets].
    pub secrets: Option<PathBuf>,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HostIsolation {
    /// The control groups of the node.
    pub control_groups: Option<String>,
    /// Why it has none: its processes run without limits.
    pub no_control_groups: Option<String>,
    /// As whom processes of jobs run, if that is not the user of the node.
    #[serde(default)]
    pub user: Option<String>,
    /// Why they run as the user of the node although that is root.
    #[serde(default)]
    pub no_user: Option<String>,
}

impl fmt::Display for HostIsolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.control_groups, &self.no_control_groups) {
            (Some(groups), _) => f.write_str(groups)?,
            (None, Some(why)) => write!(f, "no limits on memory and CPU: {why}")?,
            (None, None) => f.write_str("no limits on memory and CPU")?,
        }
        match (&self.user, &self.no_user) {
            (Some(user), _) => write!(f, "; jobs run as {user}"),
            (None, Some(why)) => write!(f, "; jobs run as root: {why}"),
            (None, None) => f.write_str("; jobs run as the user of the node"),
        }
    }
}

impl Isolation {
    /// What can be had on this host, for a node with a store at `location` and a cache of binaries.
    ///
    /// # Errors
    /// The user as whom jobs are to run does not reach what it needs, or reaches what it must not.
    pub(crate) fn new(options: &IsolationOptions, location: &str, cache: &Path) -> anyhow::Result<Self> {
        let store = match location.parse() {
            Ok(Location::Folder { path, .. }) => Some(path),
            _ => None,
        };
        let chosen = choose_user(options, store.as_deref(), cache);
        let (user, no_user) = match chosen {
            Ok(user) => (user, None),
            // What a person asks for is done or refused.
            Err(why) if options.lenient && options.user.job_user.is_none() => {
                tracing::warn!(why, "processes of jobs run as root, the user of this node");
                (None, Some(why))
            }
            Err(why) => bail!("{why}"),
        };
        if let Some(user) = &user {
            if let Some(file) = options.private.iter().find(|file| user.can_read(file)) {
                bail!("the user of jobs, '{}', can read '{}': take that right away", user.name, file.display());
            }
            if let Some(store) = &store {
                let own = store.join(crate::group::CLUSTER);
                user::close(&own).with_context(|| format!("cannot close '{}' to jobs", own.display()))?;
            }
            tracing::info!(user = user.name, "processes of jobs run as a user of their own");
        }
        let groups = ControlGroups::new(&of_proc("cgroup"), &of_proc("mountinfo"));
        match &groups {
            Ok(groups) => tracing::info!("processes of jobs run in {}", groups.describe()),
            Err(why) => tracing::warn!(why, "processes of jobs run without limits on memory and CPU"),
        }
        let secrets = options.secrets.clone().unwrap_or_else(secrets::default_folder);
        // Whoever submits a job may name any file there.
        let is_there = |file: &&PathBuf| {
            let (file, folder) = (file.canonicalize(), secrets.canonicalize());
            file.is_ok_and(|file| folder.is_ok_and(|folder| file.starts_with(folder)))
        };
        if let Some(file) = options.private.iter().find(is_there) {
            let (file, folder) = (file.display(), secrets.display());
            bail!("'{file}' lies in '{folder}', from which jobs may take secrets: name another folder by --secrets");
        }
        Ok(Self { groups, user, no_user, store, secrets })
    }

    /// What is said of it.
    pub(crate) fn report(&self) -> HostIsolation {
        HostIsolation {
            control_groups: self.groups.as_ref().ok().map(ControlGroups::describe),
            no_control_groups: self.groups.as_ref().err().cloned(),
            user: self.user.as_ref().map(|user| user.name.clone()),
            no_user: self.no_user.clone(),
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

    /// The group of a check of a job's binary, if there are groups.
    pub(crate) fn check(&self) -> std::io::Result<Option<AttemptGroup>> {
        self.groups.as_ref().ok().map(ControlGroups::check).transpose()
    }

    /// A command that waits for [`stage::GO`] before it becomes the program.
    pub(crate) fn command(&self, program: &Program, shown: &str) -> Command {
        self.command_of(&program.path, shown, &program.arguments)
    }

    /// The same for any program with these arguments.
    pub(crate) fn command_of(&self, program: &Path, shown: &str, arguments: &[OsString]) -> Command {
        stage::command(OsStr::new(program), shown, arguments, self.user.as_ref())
    }

    /// Ends what processes have left behind: this node ends.
    pub(crate) fn end(&self) {
        if let Ok(groups) = &self.groups {
            groups.end();
        }
    }

    /// What the references among a job's options stand for.
    ///
    /// # Errors
    /// One line that names the one that cannot be resolved.
    pub(crate) fn resolve(&self, options: &[String]) -> Result<Secrets, String> {
        secrets::resolve(options, &self.secrets)
    }

    /// The store for what this node does in the folders of jobs, if these belong to the user of jobs: who can put links there.
    pub(crate) fn guarded(&self, store: &Store) -> std::io::Result<Option<Store>> {
        let (Some(user), Some(folder)) = (&self.user, &self.store) else { return Ok(None) };
        let beneath = Beneath::open(folder, (user.uid, user.gid))?;
        Ok(Some(Store::over(Arc::new(beneath), store.describe())))
    }

    /// Makes a job's folder in the store its user's, if the store is a folder.
    pub(crate) fn hand_over(&self, job: &str) -> std::io::Result<()> {
        match (&self.user, &self.store) {
            (Some(user), Some(store)) => user.hand_over(store, job),
            _ => Ok(()),
        }
    }
}

/// As whom processes run, if that is not the user of the node.
fn choose_user(options: &IsolationOptions, store: Option<&Path>, cache: &Path) -> Result<Option<JobUser>, String> {
    let own = rustix::process::geteuid().as_raw();
    let Some(user) = options.user.choose(own, &user::passwd())? else { return Ok(None) };
    std::fs::create_dir_all(cache).map_err(|error| format!("cannot create '{}': {error}", cache.display()))?;
    for (what, folder) in [("--cache", Some(cache)), ("--store", store)] {
        let cure = "put it elsewhere, let the user pass, or name another one by --job-user";
        let failed = |why| format!("jobs cannot use the folder of {what}: {why}; {cure}");
        let fits = |folder: &Path| user.reaches(folder).and_then(|()| user.leaves_alone(folder));
        folder.map_or(Ok(()), fits).map_err(failed)?;
    }
    Ok(Some(user))
}
