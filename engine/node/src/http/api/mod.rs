//! The API of a cluster's node: HTTP and JSON, for the command `fluvial` and the console.
//!
//! | request | what it does |
//! | --- | --- |
//! | `GET /v1/jobs`, `GET /v1/jobs/{name}` | the jobs, each as a [`Report`] |
//! | `GET /v1/jobs/{name}/graph` | the dataflow of the job: a [`Graph`](crate::status::Graph) |
//! | `PUT /v1/binaries/{hash}` | keeps a binary, whose SHA-256 this is; `GET` says by 200 or 404 whether it is there |
//! | `PUT /v1/uploads/{hash}` | begins the upload of a binary in pieces, or says how far it is: a [`NewUpload`], answered by a [`Progress`](crate::uploads::Progress); `GET` says the same |
//! | `PATCH /v1/uploads/{hash}` | sends what follows; `Content-Range: bytes FIRST-LAST/ALL` says where that begins |
//! | `POST /v1/uploads/{hash}`, `DELETE` | keeps the binary, which is whole; gives the upload up |
//! | `POST /v1/jobs` | submits a job: a [`Submission`] |
//! | `PATCH /v1/jobs/{name}` | another binary, other options or another number of workers: an [`Update`] |
//! | `POST /v1/jobs/{name}/start`, `…/stop`, `…/restart` | what they say |
//! | `POST /v1/jobs/{name}/plan` | says what an [`Update`] would change, by a check with the new program on this node: a [`Plan`] |
//! | `POST /v1/jobs/{name}/rollback` | back to what the job ran before the last upgrade, and to the savepoint from before it |
//! | `GET /v1/jobs/{name}/savepoints` | its savepoints, each as a [`SavepointReport`] |
//! | `POST /v1/jobs/{name}/savepoints` | takes one of the newest checkpoint: a [`NewSavepoint`] |
//! | `DELETE /v1/jobs/{name}/savepoints/{savepoint}` | drops it |
//! | `GET /v1/jobs/{name}/logs?attempt=&tail=&since=` | the newest lines of its processes: a [`LogAnswer`] |
//! | `GET /v1/jobs/{name}/logs?follow=true` | events (`text/event-stream`) until the job has ended: `line` is a [`Line`](crate::logs::Line), `unanswered` says who does not answer, `end` is a [`LogEnd`]. Who goes on says by `Last-Event-ID` or `after=` which id it received last |
//! | `DELETE /v1/jobs/{name}` | forgets a job that has ended, and deletes its logs; its state in the store stays |
//! | `GET /v1/nodes` | the nodes, each as a [`MemberReport`] |
//! | `POST /v1/nodes/{node}/drain`, `…/undrain` | gives a node no more processes and moves those that it has, and the opposite |
//! | `GET /v1/tokens`, `POST /v1/tokens`, `DELETE /v1/tokens/{name}` | the tokens, each as a [`TokenRecord`]; creates one: a [`NewToken`]; revokes one |
//! | `GET /v1/keys` | the authorities of the cluster keys, and which keys each node has: a [`KeyReport`] |
//! | `GET /v1/audit?limit=` | what was changed by whom, newest first, each as an [`AuditEntry`] |
//! | `GET /v1/session` | who makes the request: a [`Session`] |
//! | `POST /v1/session`, `DELETE /v1/session` | signs a browser in with a token ([`SignIn`]), and out |
//! | `GET /v1/events` | jobs and nodes as they change, as server-sent events |
//! | `GET /v1/history` | lag and rates of the jobs in the last hour |
//! | `GET /` | the console: pages for a browser, which use nothing but this API |
//!
//! Every node answers; a change is passed on to the coordinator. An error has a status of 4xx if the request is wrong, and 503 if
//! it may succeed later; its body is `{"error": "…"}`, or a line of text if the request is no HTTP or JSON of this kind.
//!
//! A node that has a cluster key or certificates serves the API by TLS, on any interface, also on loopback, and every request needs a
//! token, in the header `Authorization: Bearer` or in the cookie of a session. Without, it is plain HTTP without tokens on the
//! loopback interface only, and any user of this host can run programs as the user of the node. The module `gate` decides which
//! role a request needs.
//!
//! [`TokenRecord`]: crate::access::TokenRecord
//! [`AuditEntry`]: crate::access::AuditEntry
//! [`MemberReport`]: crate::status::MemberReport

mod audit;
mod binaries;
mod events;
mod gate;
mod graph;
mod history;
mod jobs;
mod keys;
mod log_answer;
mod logs;
mod nodes;
mod open_streams;
mod savepoints;
mod sessions;
#[cfg(test)]
mod tests;
mod tokens;
mod upgrades;
mod uploads;

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::DefaultBodyLimit;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use fluvial_protocol::group::{Change, Refusal};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

pub use gate::CLIENT;
pub use jobs::{Submission, Update};
pub use keys::{AUTHORITIES, AuthorityReport, KeyReport, NodeKeys};
pub use logs::{LogAnswer, LogEnd, LogQuery};
pub use savepoints::{NewSavepoint, SavepointReport};
pub use sessions::{Session, SignIn};
pub use tokens::{CreatedToken, NewToken};
pub use upgrades::Plan;
pub use uploads::NewUpload;

use events::Live;

use super::bounded::Bounded;
use super::{console, newest, serving};
use crate::access::{Audit, Authenticator, Tokens};
use crate::changes::Changes;
use crate::check_job_name;
use crate::group::{CLUSTER, Shelf, Specification};
use crate::logs::Gathered;
use crate::status::{Board, Report, View, gather_cluster, gather_job};
use crate::trust::Trust;
use crate::uploads::{Bounds, Uploads};
use gate::Gate;

/// The largest body of a request that does not upload a binary.
const MOST_BYTES_OF_JSON: usize = 1 << 20;

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
    tokens: Tokens,
    gate: Arc<Gate>,
    logs: Gathered,
    readers: log_answer::Readers,
    live: Arc<Live>,
    uploads: Uploads,
}

/// Serves the API on `listener` until the runtime ends.
///
/// # Errors
/// Others than this host can reach the listener and the node has no trust, or it cannot be used.
pub fn serve(
    listener: TcpListener,
    board: Arc<Board>,
    trust: Arc<Trust>,
    shelf: Shelf,
    changes: Changes,
    gathered: Gathered,
    runtime: &Handle,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    trust.permits_api(address.ip())?;
    listener.set_nonblocking(true)?;
    let listener = {
        let _in_runtime = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let store = shelf.store();
    let tokens = Tokens::new(store.clone(), CLUSTER);
    let audit = Audit::start(store.clone(), CLUSTER, runtime);
    let of_keys = Arc::clone(&trust);
    let authenticator =
        trust.wants_tokens().then(|| Authenticator::new(tokens.clone(), move |token| of_keys.is_root_token(token)));
    let gate = Arc::new(Gate { address, authenticator, audit, board: Arc::clone(&board) });
    let readers = log_answer::Readers::default();
    let trusted = Arc::clone(&trust);
    let live = Live::start(Arc::clone(&board), Arc::clone(&trust), runtime);
    let uploads = Uploads::open(shelf.clone(), Bounds::default()).context("cannot use the folder of uploads")?;
    uploads.clean(runtime);
    let logs = gathered;
    let knowledge = Knowledge { board, trust: trusted, shelf, changes, tokens, gate, logs, readers, live, uploads };
    let router = router(knowledge);
    runtime.spawn(serving::serve(Bounded::new(listener), trust, router));
    Ok(())
}

/// The routes. Each of them is behind the gate.
fn router(knowledge: Knowledge) -> Router {
    Router::new()
        .route("/v1/jobs", get(jobs::jobs).post(jobs::submit))
        .route("/v1/jobs/{name}", get(jobs::job).patch(jobs::update).delete(jobs::delete))
        .route("/v1/jobs/{name}/plan", post(upgrades::plan))
        .route("/v1/jobs/{name}/rollback", post(upgrades::rollback))
        .route("/v1/jobs/{name}/savepoints", get(savepoints::savepoints).post(savepoints::take))
        .route("/v1/jobs/{name}/savepoints/{savepoint}", delete(savepoints::drop_savepoint))
        .route("/v1/jobs/{name}/logs", get(logs::logs))
        .route("/v1/jobs/{name}/graph", get(graph::graph))
        .route("/v1/jobs/{name}/{action}", post(jobs::act))
        .route("/v1/binaries/{hash}", put(binaries::put_binary).get(binaries::has_binary))
        .route(
            "/v1/uploads/{hash}",
            put(uploads::begin)
                .get(uploads::progress)
                .patch(uploads::receive)
                .post(uploads::finish)
                .delete(uploads::remove),
        )
        .route("/v1/nodes", get(nodes::nodes))
        .route("/v1/nodes/{node}/{action}", post(nodes::act))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{name}", delete(tokens::revoke))
        .route("/v1/audit", get(audit::newest))
        .route("/v1/keys", get(keys::keys))
        .route("/v1/events", get(events::events))
        .route("/v1/history", get(events::history))
        .merge(console::routes())
        .route("/v1/session", get(sessions::whose).post(sessions::sign_in).delete(sessions::sign_out))
        .layer(DefaultBodyLimit::max(MOST_BYTES_OF_JSON))
        .layer(from_fn_with_state(Arc::clone(&knowledge.trust), keys::announce))
        .layer(from_fn_with_state(Arc::clone(&knowledge.gate), gate::pass))
        .with_state(knowledge)
}

fn no_coordinator() -> Refused {
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the coordinator does not answer: ask again")
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

    /// The request is wrong.
    fn wrong(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// It may succeed later if the store has failed, and otherwise has this status.
    fn by_store_or(status: StatusCode, error: &anyhow::Error) -> Self {
        let by_store = error.is::<fluvial_connector::Error>();
        if by_store { Self::unavailable(error) } else { Self::new(status, format!("{error:#}")) }
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
            Refusal::Unknown(_) | Refusal::UnknownNode(_) => StatusCode::NOT_FOUND,
            Refusal::NoWorkers => StatusCode::BAD_REQUEST,
            Refusal::NotCoordinator => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, refusal.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(Failure { error: self.error })).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl Knowledge {
    fn view(&self) -> Result<Arc<View>, Refused> {
        newest(&self.board).map_err(|why| Refused::new(StatusCode::SERVICE_UNAVAILABLE, why))
    }

    /// All jobs.
    async fn jobs(&self) -> Result<Vec<Report>, Refused> {
        gather_cluster(self.view()?, &self.trust).await.jobs.ok_or_else(no_coordinator)
    }

    /// The job of a name.
    async fn job(&self, name: &str) -> Result<Report, Refused> {
        let found = gather_job(self.view()?, &self.trust, name).await.ok_or_else(no_coordinator)?;
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
            return Err(Refused::wrong(error));
        }
        self.shelf.put(specification).await.map_err(|error| Refused::unavailable(&error))
    }
}

/// Whether a text names a binary. Anything else might name another object of the store.
fn is_hash(text: &str) -> Result<(), Refused> {
    let fits = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let error = || Refused::wrong(format!("'{text}' is no SHA-256 in hexadecimal digits"));
    if fits { Ok(()) } else { Err(error()) }
}

fn is_name(text: &str) -> Result<(), Refused> {
    check_job_name(text).map_err(Refused::wrong)
}
