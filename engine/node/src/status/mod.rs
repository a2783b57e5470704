//! What a copy knows of its group and of the job: for `status`, for HTTP, and for the log.
//!
//! ```text
//!   loop of the copy ──View──► Board ──► /healthz, /readyz, /metrics
//!        └─ what has changed: log lines    └─ with the Views of the other copies: Report ──► status, /status
//! ```
//!
//! Processes say in their beats what the parts of their job do ([`ProcessFigures`]); [`Figures`] is what they say together.
//!
//! A [`View`] is what one copy knows by itself; a [`Report`] is what several of them know together. **Does not** decide
//! anything, and nothing that decides reads it.

mod changes;
mod cluster;
mod drains;
mod figures;
mod graph;
mod layout;
#[cfg(test)]
pub(crate) mod made_up;
mod merging;
mod metrics;
mod report;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fluvial_protocol::group::{GroupRecord, JobRecord, Member, Node, NodeId, Offer, Outcome, Running, Term};
use serde::{Deserialize, Serialize};

use crate::isolation::IsolationReport;
pub(crate) use changes::why as began_because;
pub use cluster::{ClusterReport, gather_cluster};
pub use drains::{Awaited, DrainReport};
pub use figures::{
    AllHeard, Bucket, CheckpointFigures, EdgeFigures, Figures, Heard, Histogram, OperatorFigures, OperatorReport,
    OutputFigures, ProcessFigures, ProcessUse, SplitFigures, WorkerFigures,
};
pub use graph::{Graph, GraphEdge, GraphNode, NodeKind};
pub use layout::{Layout, PlacedNode, RoutedEdge};
pub use metrics::metrics;
pub use report::{AttemptReport, MemberReport, ProcessReport, Report, State, Stored, gather, gather_job};

/// The age of its newest view at which a copy counts as stuck: its loop shows one at each step.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);

/// How a run ended, in one line.
pub(crate) fn ended_because(outcome: &Outcome) -> String {
    report::ended(outcome).1
}

/// How far the job is, as its process 0 measures it each second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Progress {
    /// The last tick that was minted.
    pub minted: u64,
    /// The last tick that the journal holds.
    pub sealed: u64,
    /// The last tick that every process has committed.
    pub committed: u64,
    /// The tick of the newest checkpoint.
    pub checkpoint: Option<u64>,
    /// The age of that checkpoint.
    pub checkpoint_age_ms: Option<u64>,
    /// For how long nothing has been committed although something is minted.
    pub commits_nothing_for_ms: u64,
    /// The number of input records whose output is not committed; `None` while a source does not say where it ends.
    pub lag_records: Option<u64>,
    /// How long the oldest of these has waited.
    pub lag_ms: Option<u64>,
    /// The records that the generation has read.
    pub records_in: u64,
    /// The records that it has committed.
    pub records_out: u64,
    /// The records that it has read a second, lately.
    pub records_in_per_s: f64,
    /// The records that it has committed a second, lately.
    pub records_out_per_s: f64,
    /// The offsets in output topics that other writers have used.
    pub foreign_records: u64,
    /// The input that is held in memory.
    pub in_flight_bytes: u64,
    /// How long ago this was measured.
    pub age_ms: u64,
}

/// What one copy knows by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// The name of the job, or of the cluster.
    pub job: String,
    /// The location of its store.
    pub store: String,
    /// This node.
    pub me: NodeId,
    /// What it offers.
    pub offer: Offer,
    /// The node that it takes for the coordinator, or took last.
    pub coordinator: Option<(NodeId, Term)>,
    /// Whether the store has answered it lately.
    pub reaches_store: bool,
    /// The newest record of the group's journal that it has read or written.
    pub record: Option<Arc<GroupRecord>>,
    /// The processes that it runs or ran last, by the name of their job.
    pub running: BTreeMap<String, Running>,
    /// The nodes that it hears, if it coordinates.
    pub members: Option<Vec<Member>>,
    /// How far the jobs are whose process 0 runs here.
    pub progress: BTreeMap<String, Progress>,
    /// What its processes say of the parts of their jobs.
    #[serde(default)]
    pub figures: AllHeard,
    /// The requests that it and the processes that it has started have made to a store that charges for them.
    pub store_requests: Option<u64>,
    /// The `host:port` of its API, if it is the node of a cluster.
    #[serde(default)]
    pub api: Option<String>,
    /// How it keeps the processes of jobs apart, if it is a node of a cluster.
    #[serde(default)]
    pub isolation: Option<IsolationReport>,
}

impl View {
    /// What another node is told: the parts of one job only, because the parts of all would be too much.
    #[must_use]
    pub fn with_figures_of(&self, job: Option<&str>) -> Self {
        let short = |heard: &Heard| Heard { age_ms: heard.age_ms, figures: Arc::new(heard.figures.without_parts()) };
        let of_job = |(name, heard): (&String, &BTreeMap<u32, Heard>)| {
            let all = job == Some(name);
            let told = |(process, heard): (&u32, &Heard)| (*process, if all { heard.clone() } else { short(heard) });
            (name.clone(), heard.iter().map(told).collect())
        };
        Self { figures: self.figures.iter().map(of_job).collect(), ..self.clone() }
    }

    /// The generation that the newest attempt of a job has become, if this node coordinates.
    #[must_use]
    pub fn generation_of(&self, job: &str) -> Option<u64> {
        let attempt = self.record_of(job)?.attempt.as_ref()?;
        let running = self.members.iter().flatten().filter_map(|member| member.status.as_ref()?.running.get(job));
        let of_attempt = running.filter(|running| running.attempt == attempt.number);
        of_attempt.filter_map(|running| running.generation).max().map(|generation| generation.0)
    }

    /// What that record says of a job.
    #[must_use]
    pub fn record_of(&self, job: &str) -> Option<&JobRecord> {
        self.record.as_ref()?.jobs.get(job)
    }

    /// What that record says of the job whose copy this is.
    #[must_use]
    pub fn job_record(&self) -> Option<&JobRecord> {
        self.record_of(&self.job)
    }

    /// Whether this copy coordinates.
    #[must_use]
    pub fn coordinates(&self) -> bool {
        self.members.is_some()
    }
}

/// The newest view of a copy, for those who ask.
#[derive(Debug, Default)]
pub struct Board(Mutex<Option<(Arc<View>, Instant)>>);

impl Board {
    /// Shows the view that a copy has had at `at`.
    pub(crate) fn show(&self, view: Arc<View>, at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((view, at));
    }

    /// The newest view and its age; `None` before the first.
    #[must_use]
    pub fn read(&self) -> Option<(Arc<View>, Duration)> {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.as_ref().map(|(view, at)| (Arc::clone(view), at.elapsed()))
    }
}

/// Puts the views of a copy on its board, and logs what has changed between two of them.
#[derive(Debug)]
pub struct Observer {
    job: String,
    store: String,
    api: Option<String>,
    board: Arc<Board>,
    last: Option<Arc<View>>,
}

impl Observer {
    /// An observer of a copy of `job`, whose store is at the location `store`, and whose API, if it is the node of a cluster, is
    /// at `api`.
    #[must_use]
    pub fn new(job: String, store: String, api: Option<String>, board: Arc<Board>) -> Self {
        Self { job, store, api, board, last: None }
    }

    /// Takes the state of the copy; to be called at each step of its loop.
    pub fn look(
        &mut self,
        me: &NodeId,
        offer: &Offer,
        node: &Node,
        (progress, figures): (BTreeMap<String, Progress>, AllHeard),
        store_requests: Option<u64>,
        isolation: Option<IsolationReport>,
    ) {
        let coordinator = node.coordinator().map(|(node, term)| (node.clone(), term));
        let view = Arc::new(View {
            job: self.job.clone(),
            store: self.store.clone(),
            me: me.clone(),
            offer: offer.clone(),
            coordinator: coordinator.or_else(|| self.last.as_ref().and_then(|last| last.coordinator.clone())),
            reaches_store: node.reaches_store(),
            // The loop shows a view at each step, and a record holds all jobs.
            record: node.shared_record().cloned(),
            running: node.running().clone(),
            members: node.members(),
            progress,
            figures,
            store_requests,
            api: self.api.clone(),
            isolation,
        });
        for change in changes::between(self.last.as_deref(), &view) {
            if change.is_loss { tracing::warn!("{}", change.line) } else { tracing::info!("{}", change.line) }
        }
        self.board.show(Arc::clone(&view), Instant::now());
        self.last = Some(view);
    }
}
