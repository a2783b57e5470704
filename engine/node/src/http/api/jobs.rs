//! The jobs.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use fluvial_protocol::group::{Change, Refusal};
use serde::{Deserialize, Serialize};

use super::{Knowledge, Refused, is_hash, is_name};
use crate::group::Specification;
use crate::isolation::{Limits, secrets};
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
    let Submission { name, binary, arguments, workers, limits } = submission;
    is_name(&name)?;
    is_hash(&binary)?;
    limits.check().map_err(|error| Refused::new(StatusCode::BAD_REQUEST, error))?;
    secrets::check(&arguments).map_err(|error| Refused::new(StatusCode::BAD_REQUEST, error))?;
    let version = knowledge.put(&Specification { job: name.clone(), binary, arguments, limits }).await?;
    knowledge.change(Change::Submit { job: name, version, workers }).await?;
    Ok(StatusCode::CREATED)
}

pub(super) async fn update(
    State(knowledge): State<Knowledge>,
    Path(name): Path<String>,
    Json(update): Json<Update>,
) -> Result<StatusCode, Refused> {
    let Update { binary, arguments, workers, limits } = update;
    let (version, of) = if binary.is_some() || arguments.is_some() || !limits.is_empty() {
        let wanted = knowledge.job(&name).await?.wanted.ok_or_else(|| Refusal::Unknown(name.clone()))?;
        let before = knowledge.shelf.get(&wanted.version).await.map_err(|error| Refused::unavailable(&error))?;
        binary.as_deref().map_or(Ok(()), is_hash)?;
        let specification = Specification {
            binary: binary.unwrap_or(before.binary),
            arguments: arguments.unwrap_or(before.arguments),
            limits: before.limits.changed_by(limits),
            job: before.job,
        };
        secrets::check(&specification.arguments).map_err(|error| Refused::new(StatusCode::BAD_REQUEST, error))?;
        specification.limits.check().map_err(|error| Refused::new(StatusCode::BAD_REQUEST, error))?;
        (Some(knowledge.put(&specification).await?), Some(wanted.revision))
    } else {
        (None, None)
    };
    knowledge.change(Change::Update { job: name, version, workers, of }).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn act(
    State(knowledge): State<Knowledge>,
    Path((job, action)): Path<(String, String)>,
) -> Result<StatusCode, Refused> {
    let change = match action.as_str() {
        "start" => Change::Start { job },
        "stop" => Change::Stop { job },
        "restart" => Change::Restart { job },
        _ => {
            let error = format!("a job is started, stopped or restarted, not '{action}'");
            return Err(Refused::new(StatusCode::NOT_FOUND, error));
        }
    };
    knowledge.change(change).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn delete(State(knowledge): State<Knowledge>, Path(job): Path<String>) -> Result<StatusCode, Refused> {
    knowledge.change(Change::Delete { job }).await?;
    Ok(StatusCode::OK)
}
