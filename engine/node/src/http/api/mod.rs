//! The API of a cluster's node: HTTP and JSON, for the command `fluvial` and the console.
//!
//! | request | what it does |
//! | --- | --- |
//! | `GET /v1/jobs`, `GET /v1/jobs/{name}` | the jobs, each as a [`Report`] |
//! | `PUT /v1/binaries/{hash}` | keeps a binary, whose SHA-256 this is; `GET` says by 200 or 404 whether it is there |
//! | `POST /v1/jobs` | submits a job: a [`Submission`] |
//! | `PATCH /v1/jobs/{name}` | another binary, other options or another number of workers: an [`Update`] |
//! | `POST /v1/jobs/{name}/start`, `…/stop`, `…/restart` | what they say |
//! | `DELETE /v1/jobs/{name}` | forgets a job that has ended; its state in the store stays |
//! | `GET /v1/nodes` | the nodes, each as a [`MemberReport`](crate::status::MemberReport) |
//! | `GET /v1/events` | jobs and nodes as they change, as server-sent events |
//! | `GET /v1/history` | lag and rates of the jobs in the last hour |
//! | `GET /` | the console: pages for a browser, which use nothing but this API |
//!
//! Every node answers; a change is passed on to the coordinator. An error has a status of 4xx if the request is wrong, and 503 if
//! it may succeed later; its body is `{"error": "…"}`, or a line of text if the request is no HTTP or JSON of this kind.
//!
//! The API is plain HTTP without tokens, so it listens on the loopback interface only: any user of this host who reaches it can run programs as the
//! user of the node. A web page in a browser of this host reaches it, too. Therefore only requests to a name of this host are
//! answered, and every request that changes something has to have the header [`CLIENT`], which a page of another origin cannot
//! set.

mod binaries;
mod events;
mod history;
mod jobs;
mod nodes;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::ensure;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header::HOST;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use fluvial_protocol::group::{Change, Refusal};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

pub use jobs::{Submission, Update};

use events::Live;

use super::bounded::Bounded;
use super::{console, newest};
use crate::changes::Changes;
use crate::check_job_name;
use crate::group::{Shelf, Specification};
use crate::status::{Board, Report, View, gather_cluster};
use crate::trust::Trust;

/// The header that a request which changes something must have.
pub const CLIENT: &str = "fluvial-client";
/// The largest binary.
const MOST_BYTES: usize = 512 << 20;

/// An error, as the API says it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What is wrong, and what can be done.
    pub error: String,
}

#[derive(Clone)]
struct Knowledge {
    board: Arc<Board>,
    trust: Arc<Trust>,
    shelf: Shelf,
    changes: Changes,
    live: Arc<Live>,
}

/// Serves the API on `listener` until the runtime ends.
///
/// # Errors
/// The listener is not on the loopback interface, or cannot be used.
pub fn serve(
    listener: TcpListener,
    board: Arc<Board>,
    trust: Arc<Trust>,
    shelf: Shelf,
    changes: Changes,
    runtime: &Handle,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    ensure!(address.ip().is_loopback(), "the API has no tokens yet, so it listens on the loopback interface only");
    listener.set_nonblocking(true)?;
    let listener = {
        let _in_runtime = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let live = Live::start(Arc::clone(&board), Arc::clone(&trust), runtime);
    let router = Router::new()
        .route("/v1/jobs", get(jobs::jobs).post(jobs::submit))
        .route("/v1/jobs/{name}", get(jobs::job).patch(jobs::update).delete(jobs::delete))
        .route("/v1/jobs/{name}/{action}", post(jobs::act))
        .route("/v1/binaries/{hash}", put(binaries::put_binary).get(binaries::has_binary))
        .route("/v1/nodes", get(nodes::nodes))
        .route("/v1/events", get(events::events))
        .route("/v1/history", get(events::history))
        .merge(console::routes())
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(from_fn(move |request, next| guard(address, request, next)))
        .with_state(Knowledge { board, trust, shelf, changes, live });
    runtime.spawn(async move {
        if let Err(error) = axum::serve(Bounded::new(listener), router).await {
            tracing::warn!(%error, "the API of this node has ended");
        }
    });
    Ok(())
}

/// Why a request gets no answer.
struct Refused {
    status: StatusCode,
    error: String,
}

impl Refused {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into() }
    }

    /// It may succeed later.
    fn unavailable(error: &anyhow::Error) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}"))
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Exists(_) | Refusal::Runs(_) | Refusal::Changed(_) => StatusCode::CONFLICT,
            Refusal::Unknown(_) => StatusCode::NOT_FOUND,
            Refusal::NoWorkers => StatusCode::BAD_REQUEST,
            Refusal::NotCoordinator => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, refusal.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(Failure { error: self.error })).into_response()
    }
}

/// Lets a request through if no web page of another origin can have made it.
async fn guard(address: SocketAddr, request: Request, next: Next) -> Result<Response, Refused> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let own = ["localhost", "127.0.0.1", "[::1]"].contains(&name) || host == address.to_string();
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    if !own {
        return Err(Refused::new(StatusCode::FORBIDDEN, format!("'{host}' is no name of this host")));
    }
    if !reads && !request.headers().contains_key(CLIENT) {
        return Err(Refused::new(StatusCode::FORBIDDEN, format!("the header '{CLIENT}' is missing")));
    }
    Ok(next.run(request).await)
}

impl Knowledge {
    fn view(&self) -> Result<Arc<View>, Refused> {
        newest(&self.board).map_err(|why| Refused::new(StatusCode::SERVICE_UNAVAILABLE, why))
    }

    /// All jobs.
    async fn jobs(&self) -> Result<Vec<Report>, Refused> {
        let jobs = gather_cluster(self.view()?, &self.trust).await.jobs;
        jobs.ok_or_else(|| Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the coordinator does not answer: ask again"))
    }

    /// The job of a name.
    async fn job(&self, name: &str) -> Result<Report, Refused> {
        let found = self.jobs().await?.into_iter().find(|job| job.job == name);
        Ok(found.ok_or_else(|| Refusal::Unknown(name.to_owned()))?)
    }

    /// Makes a change at the coordinator.
    async fn change(&self, change: Change) -> Result<(), Refused> {
        let view = self.view()?;
        let coordinator = view.coordinator.as_ref().map(|(node, _)| node);
        Ok(self.changes.make_anywhere(change, coordinator, &view.me, &self.trust).await?)
    }

    /// Keeps what a job runs. Returns its version.
    async fn put(&self, specification: &Specification) -> Result<String, Refused> {
        let binary = &specification.binary;
        let is_there = self.shelf.has_binary(binary).await.map_err(|error| Refused::unavailable(&error))?;
        if !is_there {
            let error = format!("the binary {binary} is not there: upload it first");
            return Err(Refused::new(StatusCode::BAD_REQUEST, error));
        }
        self.shelf.put(specification).await.map_err(|error| Refused::unavailable(&error))
    }
}

/// Whether a text names a binary. Anything else might name another object of the store.
fn is_hash(text: &str) -> Result<(), Refused> {
    let fits = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let error = || Refused::new(StatusCode::BAD_REQUEST, format!("'{text}' is no SHA-256 in hexadecimal digits"));
    if fits { Ok(()) } else { Err(error()) }
}

fn is_name(text: &str) -> Result<(), Refused> {
    check_job_name(text).map_err(|error| Refused::new(StatusCode::BAD_REQUEST, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_folder_and_a_part_of_a_topic() {
        for (name, fits) in [("orders", true), ("a.b-c_1", true), ("", false), (".cluster", false), ("a/b", false)] {
            assert_eq!(is_name(name).is_ok(), fits, "{name}");
        }
    }
}
