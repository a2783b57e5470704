//! The nodes.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use fluvial_protocol::group::Change;

use super::{Knowledge, Refused};
use crate::status::{MemberReport, gather_cluster};

pub(super) async fn nodes(State(knowledge): State<Knowledge>) -> Result<Json<Vec<MemberReport>>, Refused> {
    Ok(Json(gather_cluster(knowledge.view()?, &knowledge.trust).await.nodes))
}

/// `POST /v1/nodes/{node}/drain` and `…/undrain`.
pub(super) async fn act(
    State(knowledge): State<Knowledge>,
    Path((node, action)): Path<(String, String)>,
) -> Result<StatusCode, Refused> {
    let change = match action.as_str() {
        "drain" => Change::Drain { node },
        "undrain" => Change::Undrain { node },
        _ => {
            let error = format!("a node is drained or undrained, not '{action}'");
            return Err(Refused::new(StatusCode::NOT_FOUND, error));
        }
    };
    knowledge.change(change).await?;
    Ok(StatusCode::OK)
}
