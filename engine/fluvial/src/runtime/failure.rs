//! Why a process of a generation cannot go on.

use fluvial_connector::{Error, ErrorKind};
use fluvial_node::process_link::FromProcess;
use fluvial_protocol::{Ended, Exit, System};

/// How a process ends, with the error that is the reason.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How it ends.
    pub exit: Exit,
    /// The reason.
    pub error: anyhow::Error,
    /// As in [`fluvial_protocol::ProcessEnd::Said`].
    pub elsewhere: bool,
}

impl Failure {
    /// A failure that ends so, on any host.
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into(), elsewhere: false }
    }

    /// The failure that an external system's error is.
    #[must_use]
    pub(crate) fn of(system: System, error: Error) -> Self {
        let elsewhere = error.kind == ErrorKind::Host;
        Self { exit: Exit::of(error.kind, system), error: error.into(), elsewhere }
    }

    /// The failure that the host's refusal of a thread or a file is: its limits are too low for the job.
    #[must_use]
    pub(crate) fn of_host(error: std::io::Error) -> Self {
        let error = anyhow::Error::from(error).context(
            "the host refuses to start a thread or open a file for this \
             process: raise the limits of its user (`ulimit -u`, `ulimit -n`)",
        );
        Self { exit: Exit::Misconfigured, error, elsewhere: true }
    }

    /// What the process tells its node before it ends.
    #[must_use]
    pub(crate) fn last_words(&self) -> FromProcess {
        FromProcess::Ended { exit: self.exit, why: self.line(), elsewhere: self.elsewhere }
    }

    /// The failure in one line, causes included.
    #[must_use]
    pub(crate) fn line(&self) -> String {
        format!("{:#}", self.error)
    }
}

impl From<Ended> for Failure {
    fn from(ended: Ended) -> Self {
        let elsewhere = matches!(ended, Ended::NotWritable { kind: ErrorKind::Host, .. });
        Self { elsewhere, ..Self::new(ended.exit(), ended) }
    }
}

/// An error with all of its causes, in one line.
pub(crate) fn chain(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}
