//! Savepoints of jobs.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use fluvial_protocol::Savepoint;
use serde::{Deserialize, Serialize};

use super::pages::{Page, Paged};
use super::{Knowledge, Refused};
use crate::job_store::check_savepoint_name;

/// A savepoint that is to be taken.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSavepoint {
    /// Its name: 1 to 100 letters, digits, `-`, `_` or `.`, not beginning with `.`.
    #[schema(pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$")]
    pub name: String,
}

/// A savepoint of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SavepointReport {
    /// Its name.
    pub name: String,
    /// When it was taken, in milliseconds since the Unix epoch.
    pub taken_ms: u64,
    /// The tick of its state.
    pub tick: u64,
    /// The generation that took its checkpoint.
    pub generation: u64,
    /// The size of its state files in bytes. Savepoints and checkpoints share files.
    pub bytes: u64,
}

impl From<&Savepoint> for SavepointReport {
    fn from(savepoint: &Savepoint) -> Self {
        let Savepoint { name, taken_ms, manifest, .. } = savepoint;
        let files = manifest.operators.iter().flat_map(|operator| &operator.files);
        Self {
            name: name.clone(),
            taken_ms: *taken_ms,
            tick: manifest.tick.0,
            generation: manifest.generation.0,
            bytes: files.map(|file| file.bytes).sum(),
        }
    }
}

/// Lists the savepoints of a job, the oldest first
#[utoipa::path(get, path = "/v1/jobs/{name}/savepoints", operation_id = "list_savepoints", params(Page),
    responses((status = 200, description = "The savepoints", body = Vec<SavepointReport>)))]
pub(super) async fn savepoints(
    State(knowledge): State<Knowledge>,
    Path(name): Path<String>,
    Query(page): Query<Page>,
) -> Result<Paged<SavepointReport>, Refused> {
    super::is_name(&name)?;
    let found = knowledge.shelf.job(&name).savepoints().await;
    let found = found.map_err(|error| Refused::unavailable(&error.into()))?;
    let key = |savepoint: &SavepointReport| format!("{:020}-{}", savepoint.taken_ms, savepoint.name);
    let found = found.iter().map(SavepointReport::from).collect();
    page.of(&format!("/v1/jobs/{name}/savepoints"), found, key)
}

/// Takes a savepoint: the newest checkpoint is kept until the savepoint is dropped
#[utoipa::path(post, path = "/v1/jobs/{name}/savepoints", operation_id = "take_savepoint",
    responses((status = 201, description = "The savepoint", body = SavepointReport)))]
pub(super) async fn take(
    State(knowledge): State<Knowledge>,
    Path(name): Path<String>,
    Json(new): Json<NewSavepoint>,
) -> Result<(StatusCode, Json<SavepointReport>), Refused> {
    let (job, name) = (name, checked(&new.name)?);
    knowledge.job(&job).await?;
    let taken = knowledge.shelf.job(&job).take_savepoint(name).await;
    let taken = taken.map_err(|error| Refused::by_store_or(StatusCode::CONFLICT, &error))?;
    Ok((StatusCode::CREATED, Json(SavepointReport::from(&taken))))
}

/// Drops a savepoint
#[utoipa::path(delete, path = "/v1/jobs/{name}/savepoints/{savepoint}", operation_id = "drop_savepoint",
    responses((status = 200, description = "There is no such savepoint any more")))]
pub(super) async fn drop_savepoint(
    State(knowledge): State<Knowledge>,
    Path((name, savepoint)): Path<(String, String)>,
) -> Result<StatusCode, Refused> {
    let job = name;
    super::is_name(&job)?;
    knowledge.refuse_if_needed(&job, checked(&savepoint)?).await?;
    let dropped = knowledge.shelf.job(&job).drop_savepoint(&savepoint).await;
    dropped.map_err(|error| Refused::unavailable(&error.into()))?;
    Ok(StatusCode::OK)
}

/// A name that names a savepoint, and no other object of the store.
pub(super) fn checked(name: &str) -> Result<&str, Refused> {
    check_savepoint_name(name).map_err(Refused::wrong)?;
    Ok(name)
}
