//! What of the store is a job's, so that a person knows what a deletion removes.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};

use super::{Knowledge, Refused, is_name};

/// What of the store is a job's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Holdings {
    /// The objects of its state and its journal, its savepoints among them.
    pub objects: u64,
    /// Their size.
    pub bytes: u64,
    /// Its savepoints, by name.
    pub savepoints: Vec<String>,
    /// The processes whose logs are stored.
    pub logs: u64,
    /// How many binaries are used by it and by no other job.
    pub binaries: u64,
}

/// Returns what of the store is a job's, so that it is known what a deletion removes
#[utoipa::path(get, path = "/v1/jobs/{name}/holdings", operation_id = "get_holdings",
    responses((status = 200, description = "What it has", body = Holdings)))]
pub(super) async fn holdings(
    State(knowledge): State<Knowledge>,
    Path(name): Path<String>,
) -> Result<Json<Holdings>, Refused> {
    let job = name;
    is_name(&job)?;
    let unavailable = |error: anyhow::Error| Refused::unavailable(&error);
    let jobs = knowledge.jobs().await?;
    knowledge.job(&job).await?;
    let (objects, bytes) = knowledge.shelf.job(&job).size().await.map_err(|error| unavailable(error.into()))?;
    let savepoints = knowledge.shelf.job(&job).savepoints().await.map_err(|error| unavailable(error.into()))?;
    let logs = knowledge.logs.stored(&job).await.map_err(unavailable)?;
    let (mut own, mut others) = (BTreeSet::new(), BTreeSet::new());
    for report in &jobs {
        let versions = report.wanted.iter().map(|wanted| &wanted.version);
        let versions = versions.chain(report.attempt.iter().map(|attempt| &attempt.version)).chain(&report.returns_to);
        for version in versions.collect::<BTreeSet<_>>() {
            let binary = knowledge.shelf.get(version).await.map_err(unavailable)?.binary;
            if report.job == job {
                own.insert(binary)
            } else {
                others.insert(binary)
            };
        }
    }
    Ok(Json(Holdings {
        objects,
        bytes,
        savepoints: savepoints.into_iter().map(|savepoint| savepoint.name).collect(),
        logs,
        binaries: own.difference(&others).count() as u64,
    }))
}
