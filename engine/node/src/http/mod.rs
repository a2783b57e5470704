//! The HTTP server of a copy: for Prometheus, for a platform that starts and ends copies, and for people.
//!
//! | path | answer |
//! | --- | --- |
//! | `/healthz` | 200 as long as the copy itself works: its loop makes steps. No outage of Kafka or of the store changes that |
//! | `/readyz` | 200 if the copy could run the job now, otherwise 503 with the reason |
//! | `/metrics` | what this copy knows, in the text format of Prometheus |
//! | `/status` | what the group knows, as `status --json` prints it |
//!
//! It is plain HTTP: kubelets and Prometheus have no certificates. Nothing that it serves is secret, and nothing acts.

pub mod api;
mod bounded;
mod console;
mod serving;
#[cfg(test)]
mod tests;

use std::net::TcpListener;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use tokio::runtime::Handle;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::status::{Board, Report, STUCK_AFTER, View, gather, metrics};
use crate::trust::Trust;
use bounded::Bounded;

/// What the server reads.
#[derive(Clone)]
struct Knowledge {
    board: Arc<Board>,
    trust: Arc<Trust>,
}

/// Serves a copy's views on `listener`, until the runtime ends.
///
/// # Errors
/// The listener cannot be used.
pub fn serve(listener: TcpListener, board: Arc<Board>, trust: Arc<Trust>, runtime: &Handle) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = {
        let _in_runtime = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let router: Router = routes().split_for_parts().0.with_state(Knowledge { board, trust });
    runtime.spawn(async move {
        if let Err(error) = axum::serve(Bounded::new(listener), router).await {
            tracing::warn!(%error, "the HTTP server of this copy has ended");
        }
    });
    Ok(())
}

/// The routes, which are also their document.
fn routes() -> OpenApiRouter<Knowledge> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(prometheus))
        .routes(routes!(status))
}

/// An answer that says why there is none.
fn unavailable(why: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response()
}

/// The newest view, or why there is none that counts.
fn newest(board: &Board) -> Result<Arc<View>, String> {
    match board.read() {
        None => Err("the copy is being started".to_owned()),
        Some((_, age)) if age >= STUCK_AFTER => Err(format!("the copy has made no step for {} s", age.as_secs())),
        Some((view, _)) => Ok(view),
    }
}

/// Says whether the node works
#[utoipa::path(get, path = "/healthz", operation_id = "get_health",
    responses((status = 200, description = "It does", body = String), (status = 503, description = "Why it does not", body = String)))]
async fn healthz(State(knowledge): State<Knowledge>) -> Response {
    match knowledge.board.read() {
        // It waits for the store; a restart would not mend that.
        None => "starting\n".into_response(),
        Some(_) => newest(&knowledge.board).map_or_else(unavailable, |_| "healthy\n".into_response()),
    }
}

/// Says whether the node could run jobs now
#[utoipa::path(get, path = "/readyz", operation_id = "get_readiness",
    responses((status = 200, description = "It could", body = String), (status = 503, description = "Why it could not", body = String)))]
async fn readyz(State(knowledge): State<Knowledge>) -> Response {
    let ready = newest(&knowledge.board).and_then(|view| match &view.offer.unready {
        Some(why) => Err(why.clone()),
        None if view.offer.leaving => Err("the copy is leaving".to_owned()),
        None => Ok(()),
    });
    ready.map_or_else(unavailable, |()| "ready\n".into_response())
}

/// Returns what the node knows, in the text format of Prometheus
#[utoipa::path(get, path = "/metrics", operation_id = "get_metrics",
    responses((status = 200, description = "The metrics", body = String), (status = 503, description = "Why there are none", body = String)))]
async fn prometheus(State(knowledge): State<Knowledge>) -> Response {
    let text = newest(&knowledge.board).map(|view| metrics(&view));
    text.map_or_else(unavailable, |text| ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

/// Returns what the nodes of the group know together
#[utoipa::path(get, path = "/status", operation_id = "get_status",
    responses((status = 200, description = "The state", body = Report), (status = 503, description = "Why there is none", body = String)))]
async fn status(State(knowledge): State<Knowledge>) -> Response {
    match newest(&knowledge.board) {
        Ok(view) => Json(gather(view, &knowledge.trust).await).into_response(),
        Err(why) => unavailable(why),
    }
}
