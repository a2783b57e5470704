//! How the jobs of a cluster were in the last hour, as the API says it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;

use super::{Knowledge, Refused};
use crate::access::now_ms;
use crate::history::{EVERY_MS, History, PastAttempt, Sample};
use crate::http::newest;
use crate::status::Board;

/// Between two looks at what this node knows.
const LOOKS_EVERY: Duration = Duration::from_secs(1);

/// The last hour.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct HistoryReport {
    /// The time between two samples.
    every_ms: u64,
    /// The samples of each job, oldest first.
    #[schema(value_type = BTreeMap<String, Vec<Vec<serde_json::Value>>>)]
    jobs: BTreeMap<String, Vec<SampleReport>>,
}

/// One sample: its age in milliseconds, the lag in records, the records read and the records committed a second, and the newest
/// checkpoint: its tick, its size in bytes, and how many milliseconds it took.
#[derive(Debug, Serialize)]
struct SampleReport(u64, Option<u64>, f64, f64, Option<(u64, u64, u64)>);

/// Takes what this node knows into its history, until the runtime ends. It asks no other node.
pub(super) async fn look(history: History, board: Arc<Board>) {
    loop {
        if let Ok(view) = newest(&board) {
            history.look(now_ms(), &view);
        }
        tokio::time::sleep(LOOKS_EVERY).await;
    }
}

/// Returns lag, rates and checkpoints of the jobs in the last hour
#[utoipa::path(get, path = "/v1/history", operation_id = "get_history",
    responses((status = 200, description = "The last hour", body = HistoryReport)))]
pub(super) async fn history(State(knowledge): State<Knowledge>) -> Json<HistoryReport> {
    let now = now_ms();
    let report = |(at, sample): &(u64, Sample)| {
        let Sample { lag_records, read_in_10_s, committed_in_10_s, checkpoint } = sample;
        let a_second = |in_10_s: u64| in_10_s as f64 / 10.0;
        let checkpoint = checkpoint.map(|of| (of.tick, of.bytes, of.duration_ms));
        let (read, committed) = (a_second(*read_in_10_s), a_second(*committed_in_10_s));
        SampleReport(now.saturating_sub(*at), *lag_records, read, committed, checkpoint)
    };
    let samples = knowledge.history.samples(now);
    let jobs = samples.iter().map(|(job, samples)| (job.clone(), samples.iter().map(report).collect())).collect();
    Json(HistoryReport { every_ms: EVERY_MS, jobs })
}

/// Returns the newest attempts to run a job, newest first
#[utoipa::path(get, path = "/v1/jobs/{name}/attempts", operation_id = "list_attempts",
    responses((status = 200, description = "The attempts", body = Vec<PastAttempt>)))]
pub(super) async fn attempts(
    State(knowledge): State<Knowledge>,
    Path(name): Path<String>,
) -> Result<Json<Vec<PastAttempt>>, Refused> {
    knowledge.job(&name).await?;
    Ok(Json(knowledge.history.attempts(&name)))
}
