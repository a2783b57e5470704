//! All metrics: `engine/deploy/metrics.md` lists the same, which a test compares.

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric with all its labels.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The names of the labels besides `job_name`.
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $constant: Family =
            Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        /// All of them, in the order of the page.
        pub(super) const ALL: &[Family] = &[$($constant),*];
    };
}

families! {
    READY = Gauge "fluvial_node_ready" [] "Whether this node could run the job of its copy now, and does not leave";
    COORDINATES = Gauge "fluvial_node_coordinates" [] "Whether this node coordinates";
    SLOTS = Gauge "fluvial_node_slots" [] "The workers that this node can run";
    STORE_REACHABLE = Gauge "fluvial_node_store_reachable" [] "Whether the store has answered this node lately";
    PROCESSES = Gauge "fluvial_node_processes" [] "The processes of jobs on this node";
    STORE_REQUESTS = Counter "fluvial_node_store_requests_total" []
        "Requests of this node and its processes to a store that charges for them";
    TERM = Gauge "fluvial_group_term" [] "The term of the coordinator";
    MEMBERS = Gauge "fluvial_group_members" [] "The nodes that the coordinator hears; the coordinator says it";
    JOB_WANTED = Gauge "fluvial_job_wanted" [] "Whether the job is to run; the coordinator says it";
    JOB_RUNNING = Gauge "fluvial_job_running" []
        "Whether the job's processes read input and commit output; the coordinator says it";
    ATTEMPT = Gauge "fluvial_group_attempt" [] "The number of the newest attempt; the coordinator says it";
    WORKERS = Gauge "fluvial_group_workers" [] "The workers of the newest attempt; the coordinator says it";
    GENERATION = Gauge "fluvial_generation" [] "The generation that runs";
    RECORDS_IN = Counter "fluvial_records_in_total" [] "Input records that the generation has read";
    RECORDS_OUT = Counter "fluvial_records_out_total" [] "Output records that it has committed";
    FOREIGN_RECORDS = Counter "fluvial_foreign_records_total" []
        "Offsets in output topics that other writers have used";
    LAG_KNOWN = Gauge "fluvial_lag_known" [] "Whether every source says where it ends, so that the lag is known";
    LAG_RECORDS = Gauge "fluvial_lag_records" [] "Input records whose output is not committed; absent while unknown";
    LAG_SECONDS = Gauge "fluvial_lag_seconds" [] "How long the oldest of these has waited";
    IN_FLIGHT_BYTES = Gauge "fluvial_in_flight_bytes" [] "Input that is held in memory";
    MINTED = Gauge "fluvial_minted_timestamp_seconds" [] "The last tick that was minted";
    SEALED = Gauge "fluvial_sealed_timestamp_seconds" [] "The last tick that the journal holds";
    COMMITTED = Gauge "fluvial_committed_timestamp_seconds" [] "The last tick that is committed";
    COMMITS_NOTHING = Gauge "fluvial_commits_nothing_seconds" []
        "For how long nothing has been committed although something is minted";
    CHECKPOINT = Gauge "fluvial_checkpoint_timestamp_seconds" [] "The tick of the newest checkpoint";
    CHECKPOINT_AGE = Gauge "fluvial_checkpoint_age_seconds" []
        "How long ago that tick was minted; absent before the first checkpoint";
    CHECKPOINT_DURATION = Gauge "fluvial_checkpoint_duration_seconds" []
        "How long the newest checkpoint of this generation has taken";
    CHECKPOINT_BYTES = Gauge "fluvial_checkpoint_bytes" []
        "The size of the state files that belong to the newest checkpoint of this generation";
    SPLIT_OFFSET = Gauge "fluvial_split_offset" ["source", "split"]
        "The offset up to which the output of a split is committed";
    SPLIT_LAG_RECORDS = Gauge "fluvial_split_lag_records" ["source", "split"]
        "Records of a split whose output is not committed; absent while unknown";
    SPLIT_LAG_SECONDS = Gauge "fluvial_split_lag_seconds" ["source", "split"]
        "How long the oldest of these has waited at least";
    OPERATOR_RECORDS_IN = Counter "fluvial_operator_records_in_total" ["operator", "worker"]
        "Records or updates that an operator has received";
    OPERATOR_RECORDS_OUT = Counter "fluvial_operator_records_out_total" ["operator", "worker"]
        "Records or updates that an operator has sent";
    OPERATOR_BUSY = Counter "fluvial_operator_busy_seconds_total" ["operator", "worker"]
        "The time that a worker has spent in an operator";
    OPERATOR_ROWS = Gauge "fluvial_operator_rows" ["operator", "worker"]
        "The rows of an operator's state in memory; of an arrangement, its updates";
    OPERATOR_STATE_BYTES = Gauge "fluvial_operator_state_bytes" ["operator", "worker"]
        "The memory of the tables that hold these rows, without what the rows point to";
    OPERATOR_STORED_BYTES = Gauge "fluvial_operator_stored_bytes" ["operator"]
        "The size of a durable operator's state files in the newest checkpoint";
    OUTPUT_RECORDS = Counter "fluvial_output_records_total" ["output", "process"]
        "Records that a process has committed to an output";
    COMMIT_SECONDS = Histogram "fluvial_commit_seconds" ["process"]
        "How long the commits of a process to the sink have taken";
    RESIDENT = Gauge "fluvial_process_resident_memory_bytes" ["process"] "The resident memory of a process of a job";
    CPU = Counter "fluvial_process_cpu_seconds_total" ["process"] "The processor time that a process of a job has used";
    OMITTED = Gauge "fluvial_omitted_parts" ["process"]
        "Operators, edges, splits and outputs that are missing because a process tells of a bounded number";
}
