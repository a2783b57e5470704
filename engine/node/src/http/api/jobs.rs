//! The jobs.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use fluvial_protocol::group::Change;
use serde::{Deserialize, Serialize};

use super::pages::{Page, Paged};
use super::{Knowledge, Refused, is_hash, is_name, is_number_of_workers};
use crate::group::Specification;
use crate::isolation::{Limits, secrets};
use crate::labels::check_labels;
use crate::status::Report;

/// A job that is submitted.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// Its name: 1 to 100 letters, digits, `-`, `_` or `.`, not beginning with `.`.
    #[schema(pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$")]
    pub name: String,
    /// The SHA-256 of its binary, which must be there.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub binary: String,
    /// The job's own options, as its command `run` takes them.
    pub arguments: Vec<String>,
    /// The number of its workers.
    #[schema(minimum = 1, maximum = 1024)]
    pub workers: u32,
    /// The labels that its nodes must have.
    #[serde(default)]
    pub require: BTreeMap<String, String>,
    /// The limits of each of its processes.
    #[serde(default)]
    pub limits: Limits,
}

/// What changes of a job. What is not there stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// The SHA-256 of its binary, which must be there.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub binary: Option<String>,
    /// The job's own options.
    pub arguments: Option<Vec<String>>,
    /// The number of its workers.
    #[schema(minimum = 1, maximum = 1024)]
    pub workers: Option<u32>,
    /// The program that a person has approved to compute other output than the one that runs, as a [`Plan`](super::Plan) names it.
    /// Without it the outputs are compared, and a program that computes other output is refused.
    #[serde(default)]
    pub approved: Option<String>,
    /// The savepoint that the job goes back to.
    #[serde(default)]
    pub from: Option<String>,
    /// With `from`: whether upsert outputs that have moved on since are corrected.
    #[serde(default)]
    pub correct_outputs: bool,
    /// The limits of each of its processes: one that is not there stays, and 0 takes one away.
    #[serde(default)]
    pub limits: Limits,
}

/// Lists the jobs, by name
///
/// The figures of the parts of each job are left out; ask for one job to get them.
#[utoipa::path(get, path = "/v1/jobs", operation_id = "list_jobs", params(Page),
    responses((status = 200, description = "The jobs", body = Vec<Report>)))]
pub(super) async fn jobs(
    State(knowledge): State<Knowledge>,
    Query(page): Query<Page>,
) -> Result<Paged<Report>, Refused> {
    let jobs = knowledge.jobs().await?;
    page.of("/v1/jobs", jobs, |job| job.job.clone())
}

/// Says how a job is, and why
#[utoipa::path(get, path = "/v1/jobs/{name}", operation_id = "get_job",
    responses((status = 200, description = "The job", body = Report)))]
pub(super) async fn job(State(knowledge): State<Knowledge>, Path(name): Path<String>) -> Result<Json<Report>, Refused> {
    knowledge.job(&name).await.map(Json)
}

/// Submits a job
#[utoipa::path(post, path = "/v1/jobs", operation_id = "submit_job",
    responses((status = 201, description = "It is submitted, and nodes are about to run it")))]
pub(super) async fn submit(
    State(knowledge): State<Knowledge>,
    Json(submission): Json<Submission>,
) -> Result<StatusCode, Refused> {
    let Submission { name, binary, arguments, workers, require, limits } = submission;
    is_name(&name)?;
    check_labels(&require).map_err(Refused::wrong)?;
    is_hash(&binary)?;
    is_number_of_workers(workers)?;
    limits.check().map_err(Refused::wrong)?;
    secrets::check(&arguments).map_err(Refused::wrong)?;
    let specification = Specification { job: name.clone(), binary, arguments, limits, ..Specification::default() };
    let version = knowledge.put(&specification).await?;
    knowledge.change(Change::Submit { job: name, version, workers, require }).await?;
    Ok(StatusCode::CREATED)
}

/// Changes what a job runs, its limits, or its number of workers
#[utoipa::path(patch, path = "/v1/jobs/{name}", operation_id = "update_job",
    responses((status = 200, description = "The change is made, and the job follows it")))]
pub(super) async fn update(
    State(knowledge): State<Knowledge>,
    Path(name): Path<String>,
    Json(update): Json<Update>,
) -> Result<StatusCode, Refused> {
    let workers = update.workers;
    workers.map_or(Ok(()), is_number_of_workers)?;
    if !update.changes_program() {
        let change = Change::Update { job: name, version: None, workers, require: None, of: None, back: None };
        knowledge.change(change).await?;
        return Ok(StatusCode::OK);
    }
    let mut taken = Vec::new();
    let updated = async {
        let (before, wanted) = knowledge.specification(&name).await?;
        let next = knowledge.next(&name, &before, &wanted, update, &mut taken).await?;
        let version = Some(knowledge.put(&next).await?);
        let back = knowledge.put_way_back(&before, &next, &taken).await?;
        let (job, of) = (name.clone(), Some(wanted.revision));
        knowledge.change(Change::Update { job, version, workers, require: None, of, back }).await
    };
    let updated = updated.await;
    knowledge.drop_if_refused(&name, &taken, &updated).await;
    updated.map(|()| StatusCode::OK)
}

/// How a job is stopped or restarted.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Stopping {
    /// Whether its processes are ended at once, without a commit and a checkpoint.
    #[serde(default)]
    pub force: bool,
}

/// Starts, stops or restarts a job
#[utoipa::path(post, path = "/v1/jobs/{name}/{action}", operation_id = "act_on_job", params(Stopping),
    responses((status = 200, description = "The request is accepted, and the job follows it")))]
pub(super) async fn act(
    State(knowledge): State<Knowledge>,
    Path((name, action)): Path<(String, String)>,
    Query(Stopping { force }): Query<Stopping>,
) -> Result<StatusCode, Refused> {
    let job = name;
    let change = match action.as_str() {
        "start" => Change::Start { job },
        "stop" => Change::Stop { job, force },
        "restart" => Change::Restart { job, force },
        _ => {
            let error = format!("a job is started, stopped or restarted, not '{action}'");
            return Err(Refused::new(StatusCode::NOT_FOUND, error));
        }
    };
    knowledge.change(change).await?;
    Ok(StatusCode::OK)
}

/// What is removed with a job.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Deletion {
    /// Whether its state, its journal and its savepoints are removed from the store.
    #[serde(default)]
    pub state: bool,
}

/// Forgets a job that has ended, and deletes its logs
///
/// With `state=true` its state, its journal and its savepoints are removed from the store, too. Its topics stay. A job that does not
/// exist is no error.
#[utoipa::path(delete, path = "/v1/jobs/{name}", operation_id = "delete_job", params(Deletion),
    responses((status = 200, description = "It is forgotten")))]
pub(super) async fn delete(
    State(knowledge): State<Knowledge>,
    Path(name): Path<String>,
    Query(Deletion { state }): Query<Deletion>,
) -> Result<StatusCode, Refused> {
    let job = name;
    knowledge.change(Change::Delete { job: job.clone(), state }).await?;
    if is_name(&job).is_ok()
        && let Err(error) = knowledge.logs.delete(&job).await
    {
        let error = format!("{error:#}");
        tracing::warn!(job, error, "could not delete the logs of a job: they stay in the store");
    }
    Ok(StatusCode::OK)
}
