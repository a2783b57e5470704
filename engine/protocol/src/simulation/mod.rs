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
//! the other.

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
