//! The nodes.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use fluvial_protocol::group::Change;

use super::pages::{Page, Paged};
use super::{Knowledge, Refused};
use crate::status::{MemberReport, gather_cluster};

/// Lists the nodes, by address
#[utoipa::path(get, path = "/v1/nodes", operation_id = "list_nodes", params(Page),
    responses((status = 200, description = "The nodes", body = Vec<MemberReport>)))]
pub(super) async fn nodes(
    State(knowledge): State<Knowledge>,
    Query(page): Query<Page>,
) -> Result<Paged<MemberReport>, Refused> {
    let nodes = gather_cluster(knowledge.view()?, &knowledge.trust).await.nodes;
    page.of("/v1/nodes", nodes, |node| node.node.clone())
}

/// Drains a node, or ends that
///
/// A node that is drained gets no more processes, and those that it has move to other nodes as far as these have room.
#[utoipa::path(post, path = "/v1/nodes/{node}/{action}", operation_id = "act_on_node",
    responses((status = 200, description = "The request is accepted, and jobs move")))]
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
