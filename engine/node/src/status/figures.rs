//! What a running job says of its parts: operators, edges, splits, outputs, checkpoints, and the memory of its processes.
//!
//! ```text
//!   process ──ProcessFigures, in its beat──► keeper ──View──► node that is asked ──Figures: all processes together──► user
//! ```
//!
//! Counts (`records`, `busy_ms`) begin at 0 with each generation. Rates and shares are those of the last seconds. The ids of
//! operators and edges are those of the job's [graph](super::Graph).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What all processes of a job say of it together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Figures {
    /// The operators, in the order of the graph's nodes; one without any activity is there, too.
    pub operators: Vec<OperatorReport>,
    /// The edges of the graph.
    pub edges: Vec<EdgeFigures>,
    /// The splits of the sources.
    pub splits: Vec<SplitFigures>,
    /// The outputs.
    pub outputs: Vec<OutputFigures>,
    /// How long the sink's commits have taken.
    pub commits: Histogram,
    /// The newest checkpoint that this generation has completed.
    pub checkpoint: Option<CheckpointFigures>,
    /// The processes that have said something.
    pub processes: Vec<ProcessUse>,
    /// How many operators, edges, splits and outputs are missing above, because a process tells of a bounded number of each.
    pub omitted: u64,
}

/// What all workers say of an operator together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OperatorReport {
    /// The id of its node in the graph.
    pub id: String,
    /// The records, or updates, that it has received.
    pub records_in: u64,
    /// Those that it has sent. What goes to several nodes counts once.
    pub records_out: u64,
    /// The records that it receives a second.
    pub records_in_per_s: f64,
    /// The records that it sends a second.
    pub records_out_per_s: f64,
    /// The share of their time that the workers spend in it: 1 means that all workers do nothing else.
    pub busy_share: f64,
    /// The largest such share of a single worker, divided by the mean: 1 if all are equally busy; `None` if it is idle.
    pub busy_skew: Option<f64>,
    /// The largest number of records that one worker has received, divided by the mean; `None` before the first record.
    pub records_skew: Option<f64>,
    /// The rows of its state in memory; `None` if it keeps none. For an arrangement these are updates.
    pub rows: Option<u64>,
    /// The memory of the tables that hold these rows, without what the rows themselves point to, such as texts; `None` if
    /// it is unknown.
    pub state_bytes: Option<u64>,
    /// The size of its state files in the newest checkpoint.
    pub stored_bytes: Option<u64>,
    /// The same for each worker, by its number.
    pub workers: Vec<WorkerFigures>,
}

/// What a process says of the parts of its job, in a bounded size: with its beat, each second or somewhat more rarely.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessFigures {
    /// The operators on the workers of this process.
    pub operators: Vec<OperatorFigures>,
    /// What the workers of this process send.
    pub edges: Vec<EdgeFigures>,
    /// The splits of all sources; process 0 knows them.
    pub splits: Vec<SplitFigures>,
    /// What this process has committed.
    pub outputs: Vec<OutputFigures>,
    /// How long its commits have taken.
    pub commits: Histogram,
    /// The newest checkpoint that this generation has completed; process 0 knows it.
    pub checkpoint: Option<CheckpointFigures>,
    /// As in [`ProcessUse`].
    pub memory_bytes: Option<u64>,
    /// As in [`ProcessUse`].
    pub cpu_ms: Option<u64>,
    /// As in [`ProcessUse`].
    pub cpu_share: Option<f64>,
    /// How many operators, edges, splits and outputs are missing above.
    pub omitted: u64,
}

impl ProcessFigures {
    /// The same without the parts of the job: what the process uses.
    pub(super) fn without_parts(&self) -> Self {
        let Self { memory_bytes, cpu_ms, cpu_share, .. } = *self;
        Self { memory_bytes, cpu_ms, cpu_share, ..Self::default() }
    }
}

/// What a node has heard of a process of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    /// How long ago it has said this.
    pub age_ms: u64,
    /// What it has said.
    pub figures: Arc<ProcessFigures>,
}

/// What a node has heard of its processes, by job and process.
pub type AllHeard = BTreeMap<String, BTreeMap<u32, Heard>>;

/// An operator on the workers of one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OperatorFigures {
    /// The id of its node in the graph.
    pub id: String,
    /// As in [`OperatorReport`]; process 0 knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// The workers of the process.
    pub workers: Vec<WorkerFigures>,
}

/// What one worker says of an operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WorkerFigures {
    /// The number of the worker, from 0, in the whole job.
    pub worker: u32,
    /// The records, or updates, that the operator has received there.
    pub records_in: u64,
    /// Those that it has sent.
    pub records_out: u64,
    /// The records that it receives a second.
    pub records_in_per_s: f64,
    /// The records that it sends a second.
    pub records_out_per_s: f64,
    /// The time that the worker has spent in it.
    pub busy_ms: u64,
    /// The share of its time that the worker spends in it, from 0 to 1.
    pub busy_share: f64,
    /// As in [`OperatorReport`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// As in [`OperatorReport`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_bytes: Option<u64>,
}

/// An edge of the graph.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EdgeFigures {
    /// The id of the node that sends records.
    pub from: String,
    /// The id of the node that gets them.
    pub to: String,
    /// The records that it has sent this way.
    pub records: u64,
    /// The records that it sends a second.
    pub records_per_s: f64,
}

/// A split of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SplitFigures {
    /// The name of the source.
    pub source: String,
    /// The split, in Kafka the number of the partition.
    pub split: String,
    /// The offset up to which the job's output is committed.
    pub offset: u64,
    /// The records after it; `None` while the source does not say where the split ends.
    pub lag_records: Option<u64>,
    /// For how long the oldest of these has waited at least.
    pub lag_ms: Option<u64>,
}

/// An output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OutputFigures {
    /// Its name.
    pub output: String,
    /// The records that have been committed to it.
    pub records: u64,
    /// The records that are committed a second.
    pub records_per_s: f64,
}

/// How often something took how long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Histogram {
    /// How many there were.
    pub count: u64,
    /// How long all took together.
    pub sum_ms: f64,
    /// How many took at most so long, for ascending limits. Those that took longer than the last limit are in `count` only.
    pub buckets: Vec<Bucket>,
}

/// How many took at most so long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Bucket {
    /// The limit.
    pub le_ms: u64,
    /// How many took no longer, those of smaller limits included.
    pub count: u64,
}

/// A checkpoint that was completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CheckpointFigures {
    /// Its tick.
    pub tick: u64,
    /// How long it took, from the tick's being minted until the journal named the checkpoint.
    pub duration_ms: u64,
    /// The size of all state files that belong to it.
    pub bytes: u64,
    /// How long ago its tick was minted: how much input a restart reads again.
    pub age_ms: u64,
}

/// What a process uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProcessUse {
    /// The number of the process.
    pub process: u32,
    /// The node that runs it.
    pub node: String,
    /// Its resident memory; `None` if the system does not say.
    pub memory_bytes: Option<u64>,
    /// The processor time that it has used.
    pub cpu_ms: Option<u64>,
    /// The processor time that it uses a second, in seconds: 2 means two cores.
    pub cpu_share: Option<f64>,
    /// How long ago it said all this.
    pub age_ms: u64,
}
