//! What was changed by whom.

use axum::extract::{Query, State};

use super::pages::{Page, Paged};
use super::{Knowledge, Refused};
use crate::access::AuditEntry;

/// Returns what was changed by whom, the newest first
#[utoipa::path(get, path = "/v1/audit", operation_id = "list_audit", params(Page),
    responses((status = 200, description = "The entries", body = Vec<AuditEntry>)))]
pub(super) async fn newest(
    State(knowledge): State<Knowledge>,
    Query(page): Query<Page>,
) -> Result<Paged<AuditEntry>, Refused> {
    let (limit, before) = page.read()?;
    let found = knowledge.gate.audit.newest(limit, before.as_deref()).await;
    let (entries, next) = found.map_err(|error| Refused::unavailable(&anyhow::Error::new(error)))?;
    Ok(Paged::new("/v1/audit", entries, limit, next.as_deref()))
}
