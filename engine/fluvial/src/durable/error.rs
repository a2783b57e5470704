//! Errors of operators at work.

use fluvial_connector::Offset;

use fluvial_protocol::journal::SplitNumber;

/// The reason for which a job's dataflow cannot continue. The operator that failed keeps its capability, so that no frontier
/// passes the tick.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DataflowError {
    /// One input record became more records than can be numbered.
    #[error("flat_map or a join made more than 16777216 records of the record at offset {offset} of split {}: split \
         that record up before it is produced, or join it with fewer rows", split.0)]
    TooManyRecords {
        /// The split.
        split: SplitNumber,
        /// The record's offset.
        offset: Offset,
    },
    /// The exact result of an aggregate does not fit its type.
    #[error("the durable operator '{operator}' cannot go on at tick {tick}, key {key}: {overflow}")]
    Overflow {
        /// The operator.
        operator: String,
        /// The tick.
        tick: u64,
        /// The key, as its `Debug` shows it.
        key: String,
        /// What did not fit.
        overflow: super::Overflow,
    },
    /// A closure of the job refused a row (`try_map`).
    #[error("operator '{operator}' cannot go on at tick {tick}, key {key}: {reason}{}", of_input(input.as_deref()))]
    Refused {
        /// The operator.
        operator: String,
        /// The tick.
        tick: u64,
        /// The key, as its `Debug` shows it.
        key: String,
        /// The whole chain of causes.
        reason: String,
        /// The input that the row was computed from, as narrowly as it is known.
        input: Option<String>,
    },
    /// The state could not be restored.
    #[error("the durable operator '{operator}' cannot be restored: {reason}")]
    Restore {
        /// The operator.
        operator: String,
        /// The whole chain of causes.
        reason: String,
    },
}

fn of_input(input: Option<&str>) -> String {
    input.map_or_else(String::new, |input| format!(" ({input})"))
}
