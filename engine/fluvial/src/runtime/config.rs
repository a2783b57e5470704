//! How a job runs, as plain values: what a command line, a test or a node of a cluster hands to the runtime.

use std::time::Duration;

use fluvial_protocol::Layout;

/// How a job runs.
#[derive(Clone, Debug)]
pub(crate) struct RunConfig {
    /// The job's name, after which its folder in the store and its progress topic are named.
    pub(crate) job: String,
    /// Where journal, state and checkpoints are kept.
    pub(crate) store: String,
    /// How many workers there are, and in how many processes.
    pub(crate) layout: Layout,
    /// The least time between two ticks.
    pub(crate) tick: Duration,
    /// A soft limit of the records of one tick.
    pub(crate) tick_records: u64,
    /// The time between two checkpoints.
    pub(crate) checkpoint_every: Duration,
    /// Whether to end once everything is committed that the input held at the start.
    pub(crate) stop_at_end: bool,
    /// How long to wait for a broker or a store that is unreachable.
    pub(crate) patience: Duration,
    /// How long the last commit and checkpoint may take when told to stop.
    pub(crate) stop_within: Duration,
    /// The most bytes of input that may wait for their tick.
    pub(crate) in_flight_bytes: u64,
    /// Whether to keep the whole journal, so that the job can be replayed from its beginning.
    pub(crate) keep_journal: bool,
    /// Whether to take the input as it is now and to correct upsert outputs.
    pub(crate) reconcile: bool,
    /// Whether a reconciliation goes on with append outputs after what they hold.
    pub(crate) leave_append_outputs: bool,
    /// The options that decide beside the binary what the job computes, as bytes that are equal where the options are.
    pub(crate) own_options: Vec<u8>,
    /// How long an object of the store stays after nothing names it any more, and the longest step that a process survives.
    pub(crate) deletion_grace: Duration,
}

/// How a job is replayed.
#[derive(Clone, Debug)]
pub(crate) struct ReplayConfig {
    /// The job's name.
    pub(crate) job: String,
    /// Where its journal is kept.
    pub(crate) store: String,
    /// How many workers replay.
    pub(crate) workers: u32,
    /// The last tick that is replayed; all of them where there is none.
    pub(crate) until: Option<fluvial_connector::Tick>,
    /// Whether to print each output partition's digest at the end instead of the records.
    pub(crate) digest: bool,
}
