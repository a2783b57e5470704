//! How a generation ends, and what that means for the next one.

use fluvial_connector::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

use fluvial_protocol::Ended;

/// Why a process of a generation ended. Each has an exit code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    /// Everything asked for is done.
    Done,
    /// The data, the code or the engine is at fault; the same would happen again.
    Failed,
    /// A person must change a setting.
    Misconfigured,
    /// A newer generation has taken over.
    Fenced,
    /// Another process of the generation is gone.
    PeerLost,
    /// A sink failed in a way that a new generation may mend.
    SinkFailed,
    /// A source failed in a way that a new generation may mend.
    SourceFailed,
    /// The store failed in a way that a new generation may mend.
    StoreFailed,
    /// Asked to stop, and not everything that was read could be committed in time.
    StoppedUncommitted,
    /// Asked to stop: all output is committed, and the last checkpoint could not be completed in time.
    StoppedWithoutCheckpoint,
    /// A closure of the job panicked.
    Panicked,
}

impl Ending {
    /// The process's exit code.
    #[must_use]
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Ending::Done => 0,
            Ending::Failed => 1,
            Ending::Misconfigured => 2,
            Ending::Fenced => 3,
            Ending::PeerLost => 4,
            Ending::SinkFailed => 5,
            Ending::SourceFailed => 6,
            Ending::StoreFailed => 7,
            Ending::StoppedUncommitted => 8,
            Ending::StoppedWithoutCheckpoint => 9,
            Ending::Panicked => 10,
        }
    }

    /// Whether the next generation may succeed. If no generation of this run has opened yet (`ever_opened`),
    /// misconfiguration is more likely than an outage, so the run fails instead of retrying. The loss of a process does
    /// not depend on the settings and is always retried.
    #[must_use]
    pub(crate) fn a_restart_may_mend(self, ever_opened: bool) -> bool {
        match self {
            Ending::PeerLost => true,
            Ending::SinkFailed | Ending::SourceFailed | Ending::StoreFailed => ever_opened,
            _ => false,
        }
    }
}

/// What the exit codes mean, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done                                   6  a source failed
  1  failed: data, code or engine           7  the store failed
  2  wrong usage or configuration           8  stopped before all output was committed
  3  fenced by a newer generation           9  stopped, committed, last checkpoint incomplete
  4  a process of the job was lost         10  a closure of the job panicked
  5  a sink failed

Unless --no-restart is given, 4 is followed by a restart; so are 5, 6 and 7 once the job has opened under this run.";

/// An error with all of its causes, in one line.
pub(crate) fn chain(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

/// Which part of the engine an error came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A source or its reader.
    Source,
    /// A sink.
    Sink,
    /// The object store.
    Store,
}

/// Why a generation cannot go on: its ending, and the error that says so in one line.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How it ends.
    pub ending: Ending,
    /// Why.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure with this ending.
    pub(crate) fn new(ending: Ending, error: impl Into<anyhow::Error>) -> Self {
        Self { ending, error: error.into() }
    }

    /// The failure that an external system's error is.
    #[must_use]
    pub(crate) fn of(part: Part, error: Error) -> Self {
        let ending = match (error.kind, part) {
            (ErrorKind::Configuration, _) => Ending::Misconfigured,
            (ErrorKind::Data | ErrorKind::Bug, _) => Ending::Failed,
            (_, Part::Source) => Ending::SourceFailed,
            (_, Part::Sink) => Ending::SinkFailed,
            (_, Part::Store) => Ending::StoreFailed,
        };
        Self { ending, error: error.into() }
    }

    /// The failure in one line, causes included.
    #[must_use]
    pub(crate) fn line(&self) -> String {
        format!("{:#}", self.error)
    }
}

impl From<Ended> for Failure {
    /// The failure that the end of a state machine is.
    fn from(ended: Ended) -> Self {
        let ending = match ended.kind() {
            Some(ErrorKind::Fenced) => Ending::Fenced,
            Some(ErrorKind::Restart | ErrorKind::Retry) => match ended {
                Ended::CheckpointTooOld { .. } => Ending::StoreFailed,
                Ended::Compacted { .. } => Ending::SourceFailed,
                _ => Ending::SinkFailed,
            },
            Some(ErrorKind::Configuration) => Ending::Misconfigured,
            Some(ErrorKind::Data | ErrorKind::Bug) => Ending::Failed,
            None => Ending::Done,
        };
        Self::new(ending, ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fenced_job_never_restarts_and_one_that_never_opened_only_after_a_lost_process() {
        for (ending, before, after) in [
            (Ending::Fenced, false, false),
            (Ending::Misconfigured, false, false),
            (Ending::Failed, false, false),
            (Ending::Panicked, false, false),
            (Ending::PeerLost, true, true),
            (Ending::SinkFailed, false, true),
            (Ending::SourceFailed, false, true),
            (Ending::StoreFailed, false, true),
        ] {
            assert_eq!(
                (ending.a_restart_may_mend(false), ending.a_restart_may_mend(true)),
                (before, after),
                "{ending:?}"
            );
        }
    }

    #[test]
    fn only_what_may_pass_restarts() {
        for (kind, part, ending) in [
            (ErrorKind::Retry, Part::Sink, Ending::SinkFailed),
            (ErrorKind::Restart, Part::Source, Ending::SourceFailed),
            (ErrorKind::Fenced, Part::Sink, Ending::SinkFailed),
            (ErrorKind::Data, Part::Source, Ending::Failed),
            (ErrorKind::Configuration, Part::Store, Ending::Misconfigured),
        ] {
            assert_eq!(Failure::of(part, Error::new(kind, "x")).ending, ending);
        }
    }
}
