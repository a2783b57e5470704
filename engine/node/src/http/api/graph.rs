//! The graphs of jobs.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use fluvial_protocol::group::Refusal;

use super::{Knowledge, Refused};
use crate::status::{Graph, Layout};

/// Returns the dataflow of a job: of the version that runs, or else of the one that is wanted
#[utoipa::path(get, path = "/v1/jobs/{name}/graph", operation_id = "get_graph",
    responses((status = 200, description = "The dataflow", body = Graph)))]
pub(super) async fn graph(
    State(knowledge): State<Knowledge>,
    Path(name): Path<String>,
) -> Result<Json<Graph>, Refused> {
    let job = knowledge.job(&name).await?;
    let wanted = job.wanted.map(|wanted| wanted.version);
    let version = job.attempt.map(|attempt| attempt.version).or(wanted).ok_or(Refusal::Unknown(name))?;
    let graph = knowledge.shelf.graph(&version).await.map_err(|error| Refused::unavailable(&error))?;
    let unknown = "the graph is known when a node has checked the job's program: ask again";
    graph.map(Json).ok_or_else(|| Refused::new(StatusCode::SERVICE_UNAVAILABLE, unknown))
}

/// Returns where a drawing of a job's dataflow has its nodes and edges
#[utoipa::path(get, path = "/v1/jobs/{name}/layout", operation_id = "get_layout",
    responses((status = 200, description = "The drawing", body = Layout)))]
pub(super) async fn layout(
    State(knowledge): State<Knowledge>,
    Path(name): Path<String>,
) -> Result<Json<Layout>, Refused> {
    let Json(graph) = graph(State(knowledge), Path(name)).await?;
    let too_large = || Refused::new(StatusCode::NOT_FOUND, "the graph is too large to be drawn");
    Layout::of(&graph).map(Json).ok_or_else(too_large)
}
