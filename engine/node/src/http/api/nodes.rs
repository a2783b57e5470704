//! The nodes.

use axum::Json;
use axum::extract::State;

use super::{Knowledge, Refused};
use crate::status::{MemberReport, gather_cluster};

pub(super) async fn nodes(State(knowledge): State<Knowledge>) -> Result<Json<Vec<MemberReport>>, Refused> {
    Ok(Json(gather_cluster(knowledge.view()?, &knowledge.trust).await.nodes))
}
