//! How a process, a generation and a run end: the exit codes, and which end is followed by a restart.

use fluvial_connector::ErrorKind;
use serde::{Deserialize, Serialize};

/// How something ended. Each has an exit code of its own, which is a contract: scripts and platforms decide by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// Everything that was asked for is done.
    Done,
    /// The job's data or its code is at fault: a record that cannot be decoded, a sum that overflows, other output than
    /// before for the same input. The same would happen again.
    Failed,
    /// A person must change an option, a setting or a permission.
    Misconfigured,
    /// Superseded by a newer generation.
    Fenced,
    /// The generation was lost and nothing is wrong with the job: a process died, the clock jumped, or another generation
    /// opened at the same time.
    GenerationLost,
    /// A sink failed in a way that the next generation may mend.
    SinkFailed,
    /// A source failed in a way that the next generation may mend.
    SourceFailed,
    /// The store failed in a way that the next generation may mend.
    StoreFailed,
    /// Asked to stop, and not everything that was read could be committed in time.
    StoppedUncommitted,
    /// Asked to stop: all output is committed, and the last checkpoint could not be completed in time.
    StoppedWithoutCheckpoint,
    /// A closure of the job panicked.
    Panicked,
    /// What is stored is not what the job left there: its journal, its state, its outputs, or input that it has read.
    StateRefused,
    /// A fault in the engine.
    EngineFault,
}

/// The external system that an error came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// A source or its reader.
    Source,
    /// A sink.
    Sink,
    /// The object store.
    Store,
}

impl Exit {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 13] = [
        Self::Done,
        Self::Failed,
        Self::Misconfigured,
        Self::Fenced,
        Self::GenerationLost,
        Self::SinkFailed,
        Self::SourceFailed,
        Self::StoreFailed,
        Self::StoppedUncommitted,
        Self::StoppedWithoutCheckpoint,
        Self::Panicked,
        Self::StateRefused,
        Self::EngineFault,
    ];

    /// The end that an error of a connector or of the store is.
    #[must_use]
    pub fn of(kind: ErrorKind, system: System) -> Self {
        match (kind, system) {
            (ErrorKind::Configuration | ErrorKind::Host, _) => Self::Misconfigured,
            (ErrorKind::Data, _) => Self::StateRefused,
            (ErrorKind::Bug, _) => Self::EngineFault,
            (ErrorKind::Retry | ErrorKind::Restart | ErrorKind::Fenced, System::Source) => Self::SourceFailed,
            (ErrorKind::Retry | ErrorKind::Restart | ErrorKind::Fenced, System::Sink) => Self::SinkFailed,
            (ErrorKind::Retry | ErrorKind::Restart | ErrorKind::Fenced, System::Store) => Self::StoreFailed,
        }
    }

    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Misconfigured => 2,
            Self::Fenced => 3,
            Self::GenerationLost => 4,
            Self::SinkFailed => 5,
            Self::SourceFailed => 6,
            Self::StoreFailed => 7,
            Self::StoppedUncommitted => 8,
            Self::StoppedWithoutCheckpoint => 9,
            Self::Panicked => 10,
            Self::StateRefused => 11,
            Self::EngineFault => 12,
        }
    }

    /// What the code means, in a few words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "the job's data or code failed",
            Self::Misconfigured => "wrong usage, settings or permissions",
            Self::Fenced => "superseded by a newer run",
            Self::GenerationLost => "a process was lost",
            Self::SinkFailed => "a sink failed",
            Self::SourceFailed => "a source failed",
            Self::StoreFailed => "the store failed",
            Self::StoppedUncommitted => "stopped before all output was committed",
            Self::StoppedWithoutCheckpoint => "stopped without a last checkpoint",
            Self::Panicked => "the job's code panicked",
            Self::StateRefused => "stored state, input or output is not as the job left it",
            Self::EngineFault => "a fault in the engine",
        }
    }

    /// Whether the next generation may succeed. If no generation of this run has opened yet (`ever_opened`), an outage is
    /// less likely than a wrong setting, so the run ends and does not retry. The loss of a generation has nothing to do with
    /// settings and is always followed by the next.
    #[must_use]
    pub const fn may_restart(self, ever_opened: bool) -> bool {
        match self {
            Self::GenerationLost => true,
            Self::SinkFailed | Self::SourceFailed | Self::StoreFailed => ever_opened,
            Self::Done
            | Self::Failed
            | Self::Misconfigured
            | Self::Fenced
            | Self::StoppedUncommitted
            | Self::StoppedWithoutCheckpoint
            | Self::Panicked
            | Self::StateRefused
            | Self::EngineFault => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_a_code_of_its_own_in_their_order() {
        for (code, exit) in (0..).zip(Exit::ALL) {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }

    #[test]
    fn only_what_may_pass_is_followed_by_a_restart() {
        for exit in Exit::ALL {
            let expected = match exit {
                Exit::GenerationLost => (true, true),
                Exit::SinkFailed | Exit::SourceFailed | Exit::StoreFailed => (false, true),
                _ => (false, false),
            };
            assert_eq!((exit.may_restart(false), exit.may_restart(true)), expected, "{exit:?}");
        }
    }

    #[test]
    fn the_end_that_an_error_is() {
        for (kind, system, exit) in [
            (ErrorKind::Retry, System::Sink, Exit::SinkFailed),
            (ErrorKind::Restart, System::Source, Exit::SourceFailed),
            (ErrorKind::Fenced, System::Sink, Exit::SinkFailed),
            (ErrorKind::Data, System::Source, Exit::StateRefused),
            (ErrorKind::Configuration, System::Store, Exit::Misconfigured),
            (ErrorKind::Host, System::Sink, Exit::Misconfigured),
            (ErrorKind::Bug, System::Sink, Exit::EngineFault),
        ] {
            assert_eq!(Exit::of(kind, system), exit, "{kind:?} {system:?}");
        }
    }
}
