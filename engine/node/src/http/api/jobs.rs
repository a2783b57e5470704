//! The jobs.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use fluvial_protocol::group::Change;
use serde::{Deserialize, Serialize};

use super::{Knowledge, Refused, is_hash, is_name};
use crate::group::Specification;
use crate::isolation::{Limits, secrets};
use crate::labels::check_labels;
use crate::status::Report;

/// A job that is submitted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// Its name: 1 to 100 letters, digits, `-`, `_` or `.`, not beginning with `.`.
    pub name: String,
    /// The SHA-256 of its binary, which must be there.
    pub binary: String,
    /// The job's own options, as its command `run` takes them.
    pub arguments: Vec<String>,
    /// The number of its workers.
    pub workers: u32,
    /// The labels that its nodes must have.
    #[serde(default)]
    pub require: BTreeMap<String, String>,
    /// The limits of each of its processes.
    #[serde(default)]
    pub limits: Limits,
}

/// What changes of a job. What is not there stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// The SHA-256 of its binary, which must be there.
    pub binary: Option<String>,
    /// The job's own options.
    pub arguments: Option<Vec<String>>,
    /// The number of its workers.
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

pub(super) async fn jobs(State(knowledge): State<Knowledge>) -> Result<Json<Vec<Report>>, Refused> {
    knowledge.jobs().await.map(Json)
}

pub(super) async fn job(State(knowledge): State<Knowledge>, Path(name): Path<String>) -> Result<Json<Report>, Refused> {
    knowledge.job(&name).await.map(Json)
}

pub(super) async fn submit(
    State(knowledge): State<Knowledge>,
    Json(submission): Json<Submission>,
) -> Result<StatusCode, Refused> {
    let Submission { name, binary, arguments, workers, require, limits } = submission;
    is_name(&name)?;
    check_labels(&require).map_err(Refused::wrong)?;
    is_hash(&binary)?;
    limits.check().map_err(Refused::wrong)?;
    secrets::check(&arguments).map_err(Refused::wrong)?;
    let specification = Specification { job: name.clone(), binary, arguments, limits, ..Specification::default() };
    let version = knowledge.put(&specification).await?;
    knowledge.change(Change::Submit { job: name, version, workers, require }).await?;
    Ok(StatusCode::CREATED)
}

pub(super) async fn update(
    State(knowledge): State<Knowledge>,
    Path(name): Path<String>,
    Json(update): Json<Update>,
) -> Result<StatusCode, Refused> {
    let workers = update.workers;
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
        let back = knowledge.put_way_back(&before, version.as_deref()).await?;
        let (job, of) = (name.clone(), Some(wanted.revision));
        knowledge.change(Change::Update { job, version, workers, require: None, of, back }).await
    };
    let updated = updated.await;
    knowledge.drop_if_refused(&name, &taken, &updated).await;
    updated.map(|()| StatusCode::OK)
}

/// How a job is stopped or restarted.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stopping {
    /// Whether its processes are ended at once, without a commit and a checkpoint.
    #[serde(default)]
    pub force: bool,
}

pub(super) async fn act(
    State(knowledge): State<Knowledge>,
    Path((job, action)): Path<(String, String)>,
    Query(Stopping { force }): Query<Stopping>,
) -> Result<StatusCode, Refused> {
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
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deletion {
    /// Whether its state, its journal and its savepoints are removed from the store.
    #[serde(default)]
    pub state: bool,
}

pub(super) async fn delete(
    State(knowledge): State<Knowledge>,
    Path(job): Path<String>,
    Query(Deletion { state }): Query<Deletion>,
) -> Result<StatusCode, Refused> {
    knowledge.change(Change::Delete { job: job.clone(), state }).await?;
    if is_name(&job).is_ok()
        && let Err(error) = knowledge.logs.delete(&job).await
    {
        let error = format!("{error:#}");
        tracing::warn!(job, error, "could not delete the logs of a job: they stay in the store");
    }
    Ok(StatusCode::OK)
}
