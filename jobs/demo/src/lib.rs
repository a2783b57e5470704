//! What the demos of the jobs share: a broker, the job, a generator, consumers, and the verdict.
//!
//! ```text
//!                        ┌────────────────── run (child process, store in a temporary folder)
//!                        ▼                │
//!  generator ──► embedded broker: input ──┘   outputs ──┬─► consistent cuts ───► live table
//!      │ probes: when they were sent                    └─► plain consumer ────► latency from produce to visible
//!      └────────────────────────────────────────────────────────▲
//!  at the end: both topics read back by a plain consumer ──► recomputation ──► verdict
//! ```
//!
//! **Guarantees**: nothing is left behind, however the demo ends, also by `kill -9`: the job ends with it, and then the
//! temporary folder is removed. The exit code is 0 only if the outputs, read by consumers that are not the engine's,
//! are what a naive recomputation from the input topic says.
//!
//! **Does not** measure how fast the engine can be: the rate is chosen, and broker, generator, job and three consumers
//! share one machine.

mod child;
mod feeder;
mod figures;
mod folder;
mod options;
mod plain;
mod probes;
mod run;
mod screen;
mod table;
mod verdict;
mod viewer;
mod watcher;

pub use figures::{grouped, table};
pub use options::DemoOptions;
pub use run::run;
pub use table::{Rows, differences};

use fluvial_kafka::Cut;

/// A record for the input topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRecord {
    /// The partition that it goes to: records of one key always to the same.
    pub partition: u32,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; none deletes the key.
    pub value: Option<Vec<u8>>,
}

/// Makes the input. The same seed makes the same records, but for times.
pub trait Generate: Send {
    /// The next record, made at `now_ms` (milliseconds since the Unix epoch).
    fn next(&mut self, now_ms: i64) -> InputRecord;

    /// The probe of this number, counted from 0 in each partition of the input: a record whose way to the output can
    /// be seen, see [`Demo::probes_in`].
    fn probe(&mut self, partition: u32, number: u64, now_ms: i64) -> InputRecord;
}

/// What is shown while the demo runs: the outputs as of one tick.
pub trait View: Send {
    /// Goes on to the next tick.
    ///
    /// # Errors
    /// An output holds what the job cannot have written.
    fn apply(&mut self, cut: &Cut) -> anyhow::Result<()>;

    /// The table as of the last tick.
    fn table(&self) -> comfy_table::Table;

    /// What the summary says of the cuts: labels and figures.
    fn figures(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// What was wrong with the cuts, if anything.
    fn faults(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Judges the run from what the topics hold, read by a plain consumer, by the simplest means.
pub trait Audit {
    /// A record of the input; those of a partition come in their order.
    ///
    /// # Errors
    /// The record is not one that the generator makes.
    fn input(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> anyhow::Result<()>;

    /// A record of an output; those of a partition come in their order.
    fn output(&mut self, _topic: &str, _value: Option<&[u8]>) {}

    /// The rows that the outputs must hold in the end.
    ///
    /// # Errors
    /// A row cannot be written as JSON.
    fn expected(&self) -> anyhow::Result<Rows>;

    /// What the summary says of it: labels and figures.
    fn figures(&self) -> Vec<(&'static str, String)>;

    /// What was wrong with the records of the outputs, if anything, besides the last row of each key.
    fn faults(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What one job's demo has of its own.
pub trait Demo: Sync {
    /// The job's name.
    fn job(&self) -> &'static str;

    /// What the records of its input are called.
    fn records(&self) -> &'static str;

    /// The input topic.
    fn input(&self) -> &'static str;

    /// The output topics.
    fn outputs(&self) -> &'static [&'static str];

    /// The output in which probes can be seen.
    fn probed(&self) -> &'static str;

    /// What a record of that output says about probes: so many of this input partition are in it, the first ones.
    fn probes_in(&self, key: &[u8], value: &[u8]) -> Option<(u32, u64)>;

    /// The generator of its input, for this many partitions.
    fn generator(&self, seed: u64, partitions: u32) -> Box<dyn Generate>;

    /// A view of its outputs before any record.
    fn view(&self) -> Box<dyn View>;

    /// An audit that has seen no record.
    fn audit(&self) -> Box<dyn Audit>;
}
