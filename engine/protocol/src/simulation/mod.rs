//! Random histories of the protocol's machines over a simulated store and a simulated Kafka.
//!
//! ```text
//!   FLUVIAL_SEED=17 cargo test -p fluvial-protocol simulation -- --nocapture       one history, told step by step
//!   FLUVIAL_SEEDS=1000000 cargo test --release -p fluvial-protocol simulation      more of them
//! ```
//!
//! What runs here is what runs in a job, both halves of the protocol: the leader, the participants, and all that they are
//! made of. Only the dataflow (a count by key, which shows in its messages), the store and Kafka are simulated. The history
//! of a seed is always the same, and has a weather of its own: what goes wrong how often. `without` takes out one rule after
//! the other. In some histories the job keeps no state: it writes what each tick says of a key, to an output that nobody can
//! correct.

pub(crate) mod dice;
mod generation;
mod input;
mod kafka;
mod mesh;
mod oracle;
mod requests;
mod store;
mod turn;
mod weather;
mod without;
mod worker;
mod world;

use std::fmt;

use super::Ended;
use super::rules::Rules;

/// How many partitions the output has.
const OUTPUT_PARTITIONS: usize = 3;
/// How many partitions the progress topic has.
const PROGRESS_PARTITIONS: usize = 2;
/// How many histories are tried where nothing else is asked for: a few seconds. `tests/run` asks for many more.
const DEFAULT_SEEDS: u64 = 500;
/// The output's name.
const OUTPUT: &str = "out";
/// The durable operator's name.
const OPERATOR: &str = "count";

/// Something that must never be.
#[derive(Debug)]
struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a process makes no further step.
enum Over {
    Ended(Ended),
    Violation(Violation),
}

impl From<Ended> for Over {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

impl From<Violation> for Over {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

/// What a person who runs the tests asks for by an environment variable.
#[allow(clippy::disallowed_methods, reason = "no part of the protocol: it chooses what the tests run")]
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// What the job of a history computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Computes {
    /// A count by key, or the newest record of each, to an upsert output.
    Counts,
    /// What the records of each tick say of a key, to an upsert output that is written from a stream.
    Stream,
}

#[test]
fn no_history_of_a_job_without_state_loses_or_doubles_a_record_or_gets_stuck() {
    let seeds = match number("FLUVIAL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FLUVIAL_SEEDS").unwrap_or(DEFAULT_SEEDS),
    };
    for seed in seeds {
        if let Err(violation) = world::run_stream(seed, Rules::default(), number("FLUVIAL_SEED").is_some()) {
            panic!("seed {seed}: {violation}\nFLUVIAL_SEED={seed} tells how it came to this");
        }
    }
}

#[test]
fn no_history_loses_or_doubles_a_record_or_gets_stuck() {
    if let Some(seed) = number("FLUVIAL_SEED") {
        if let Err(violation) = world::run(seed, Rules::default(), true) {
            panic!("seed {seed}: {violation}");
        }
        return;
    }
    for seed in 0..number("FLUVIAL_SEEDS").unwrap_or(DEFAULT_SEEDS) {
        if let Err(violation) = world::run(seed, Rules::default(), false) {
            panic!("seed {seed}: {violation}\nFLUVIAL_SEED={seed} tells how it came to this");
        }
    }
}
