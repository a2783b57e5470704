//! Errors of stored state.

use fluvial_connector::{BoxError, Error, ErrorKind, Tick};

/// The reason for which stored state cannot be written, read or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// Two durable operators of a job have the same name.
    #[error("two durable operators are named '{operator}': give each its own name, and keep it across versions")]
    Duplicate {
        /// The name.
        operator: String,
    },
    /// The name of a durable operator cannot be part of an object's path.
    #[error(
        "'{operator}' is not a valid name for a durable operator: use 1 to 100 letters, digits, '-', '_' and \
         '.', not beginning with '.'"
    )]
    BadName {
        /// The name.
        operator: String,
    },
    /// An operator is told to keep the greatest 0 records of each key.
    #[error("operator '{operator}' keeps the 0 greatest records of each key: keep at least one")]
    KeepsNothing {
        /// The name.
        operator: String,
    },
    /// The checkpoint has an operator that the binary lacks.
    #[error(
        "the checkpoint holds a durable operator '{operator}' ({kind}) that this binary does not have: \
         run the binary that wrote it, or bring the operator back under that name"
    )]
    Missing {
        /// The operator in the checkpoint.
        operator: String,
        /// What it is there.
        kind: String,
    },
    /// The binary has an operator that the checkpoint lacks. Its state would contain only the input after the checkpoint, which is
    /// not the result for any prefix of the input.
    #[error(
        "the durable operator '{operator}' is new, and the job has a checkpoint (of tick {as_of}) without it: the \
         operator would lack all earlier input. Run the binary that wrote the checkpoint, or start a new job under \
         another --name"
    )]
    Added {
        /// The operator of the binary.
        operator: String,
        /// The checkpoint's tick.
        as_of: Tick,
    },
    /// The checkpoint's operator is of another kind or has other types.
    #[error(
        "the durable operator '{operator}' is {stored} in the checkpoint and {wanted} in this binary: run the binary \
         that wrote it, or start a new job under another --name"
    )]
    Changed {
        /// The operator.
        operator: String,
        /// What it is in the checkpoint.
        stored: String,
        /// What it is in the binary.
        wanted: String,
    },
    /// Rows could not be written into a state file.
    #[error("cannot encode the state of the durable operator '{operator}' as parquet")]
    Encode {
        /// The operator.
        operator: String,
        /// What serde, Arrow or Parquet said.
        #[source]
        source: BoxError,
    },
    /// A call to the store failed. It may have had its effect.
    #[error(transparent)]
    Store(Error),
    /// A state file to which a manifest refers does not exist.
    #[error(
        "the state file '{object}' does not exist, although a checkpoint refers to it: it must not be deleted by \
         hand; restore it from a copy of the store"
    )]
    Gone {
        /// The object.
        object: String,
    },
    /// The content of a state file differs from what was written.
    #[error("the state file '{object}' is damaged: {what}; restore it from a copy of the store")]
    Damaged {
        /// The object.
        object: String,
        /// What does not match.
        what: String,
    },
    /// The object is not a state file of Fluvial, or its format is of a version that this binary does not know.
    #[error("the state file '{object}' cannot be used: {what}")]
    Unknown {
        /// The object.
        object: String,
        /// Why it cannot be used.
        what: String,
    },
    /// The rows of a state file cannot be converted to the binary's types.
    #[error(
        "the rows of the state file '{object}' do not match the binary's types; a field that was added needs \
         #[serde(default)]"
    )]
    Decode {
        /// The object.
        object: String,
        /// What serde or Arrow said.
        #[source]
        source: BoxError,
    },
}

impl StateError {
    /// The durable operator that does not fit, if that is the error.
    pub(crate) fn operator(&self) -> Option<&str> {
        match self {
            Self::Duplicate { operator }
            | Self::BadName { operator }
            | Self::KeepsNothing { operator }
            | Self::Missing { operator, .. }
            | Self::Added { operator, .. }
            | Self::Changed { operator, .. }
            | Self::Encode { operator, .. } => Some(operator),
            Self::Store(_) | Self::Gone { .. } | Self::Damaged { .. } | Self::Unknown { .. } | Self::Decode { .. } => {
                None
            }
        }
    }

    /// What the caller should do.
    #[must_use]
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind,
            Self::Duplicate { .. }
            | Self::BadName { .. }
            | Self::KeepsNothing { .. }
            | Self::Missing { .. }
            | Self::Added { .. }
            | Self::Changed { .. }
            | Self::Decode { .. } => ErrorKind::Configuration,
            Self::Encode { .. } => ErrorKind::Bug,
            Self::Gone { .. } | Self::Damaged { .. } | Self::Unknown { .. } => ErrorKind::Data,
        }
    }
}
