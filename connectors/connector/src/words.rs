//! A newtype for each number and name that is stored.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The dataflow's logical time: milliseconds since the Unix epoch, totally ordered. Not event time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tick(pub u64);

impl Tick {
    /// The tick after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A position in a split or an output partition: always the *next to read* or to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The offsets from `from` up to and without `end`, as people read them: `offset 5`, `offsets 5 to 9`.
#[must_use]
pub fn describe_offsets(from: Offset, end: Offset) -> String {
    match end.0.saturating_sub(from.0) {
        0 => format!("no offsets from {from} on"),
        1 => format!("offset {from}"),
        _ => format!("offsets {from} to {}", end.0 - 1),
    }
}

/// Names one split of a source, for ever: a Kafka partition's number, a file's path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SplitId(pub String);

impl fmt::Display for SplitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A job's identity for as long as its journal lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub Uuid);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A process of a job, by which other systems tell the connections of one process from those of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobProcess {
    /// The job's name.
    pub job: String,
    /// Which of the job's processes it is.
    pub index: u32,
}

impl fmt::Display for JobProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.job, self.index)
    }
}

/// One run of a job's processes; a number that only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_named_with_both_ends() {
        let check = |from, end, said: &str| assert_eq!(describe_offsets(Offset(from), Offset(end)), said);
        check(5, 10, "offsets 5 to 9");
        check(5, 7, "offsets 5 to 6");
        check(5, 6, "offset 5");
        check(5, 5, "no offsets from 5 on");
        check(5, 4, "no offsets from 5 on");
    }
}
