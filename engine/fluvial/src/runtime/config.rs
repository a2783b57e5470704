//! The configuration of a job's runtime, as plain values: a command line, a test or a node of a cluster creates it.

use std::time::Duration;

use fluvial_protocol::Layout;

/// The configuration of `run`.
#[derive(Clone, Debug)]
pub(crate) struct RunConfig {
    /// The job's name, after which its folder in the store and its progress topic are named.
    pub(crate) job: String,
    /// The URL of the store, which holds journal, state and checkpoints.
    pub(crate) store: String,
    /// The numbers of workers and processes.
    pub(crate) layout: Layout,
    /// The minimum time between two ticks.
    pub(crate) tick: Duration,
    /// A soft limit on the records of one tick.
    pub(crate) tick_records: u64,
    /// The least time between two appends to the journal; `None` for what suits the store.
    pub(crate) append_every: Option<Duration>,
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
    /// Whether to accept the input as it is now and to correct upsert outputs.
    pub(crate) reconcile: bool,
    /// The hash of the program that a person has approved: if this program has it, and another one wrote the outputs, they
    /// are corrected.
    pub(crate) upgrade: Option<String>,
    /// The savepoint that the job is to go back to, unless it has done so.
    pub(crate) go_back: Option<fluvial_protocol::GoBack>,
    /// Whether a reconciliation or an upgrade leaves the records of append outputs as they are.
    pub(crate) leave_append_outputs: bool,
    /// The job's own options, which together with the binary decide what the job computes, encoded as bytes that are
    /// equal if the options are.
    pub(crate) own_options: Vec<u8>,
    /// How long an object of the store is kept after nothing refers to it any more. A process whose loop makes no step for this
    /// time ends.
    pub(crate) deletion_grace: Duration,
    /// Whether to measure what operators do.
    pub(crate) metrics: bool,
}

/// The configuration of `replay`.
#[derive(Clone, Debug)]
pub(crate) struct ReplayConfig {
    /// The job's name.
    pub(crate) job: String,
    /// The URL of the store, which holds the journal.
    pub(crate) store: String,
    /// The number of workers that replay.
    pub(crate) workers: u32,
    /// The last tick that is replayed; all ticks if there is none.
    pub(crate) until: Option<fluvial_connector::Tick>,
    /// Whether to print each output partition's digest at the end instead of the records.
    pub(crate) digest: bool,
}
