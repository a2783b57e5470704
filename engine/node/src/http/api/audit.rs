//! What was changed by whom.

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::{Knowledge, Refused};
use crate::access::AuditEntry;

/// How many entries are returned, if nothing is said.
const SOME: usize = 100;
/// How many are returned at most: each is an object that is read.
const MOST: usize = 1000;

/// Which entries are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// How many, the newest ones.
    limit: Option<usize>,
}

pub(super) async fn newest(
    State(knowledge): State<Knowledge>,
    Query(Which { limit }): Query<Which>,
) -> Result<Json<Vec<AuditEntry>>, Refused> {
    let found = knowledge.gate.audit.newest(limit.unwrap_or(SOME).min(MOST)).await;
    found.map(Json).map_err(|error| Refused::unavailable(&anyhow::Error::new(error)))
}
