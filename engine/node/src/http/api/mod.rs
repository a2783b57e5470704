//! The API of a cluster's node: HTTP and JSON, for the command `fluvial` and the console.
//!
//! The document of all requests and answers in OpenAPI 3.1 is `GET /v1/openapi.json`, for viewers. It is made of the routes themselves
//! (`document`): a handler says beside its code what it answers, and the types of bodies derive their schemas.
//! `GET /` is the console: pages for a browser, which use nothing but this API.
//!
//! Long lists are answered in pages (`pages`).
//!
//! Every node answers; a change is passed on to the coordinator. An error has a status of 4xx if the request is wrong, and 503 if
//! it may succeed later; its body is `{"error": "…"}` (`strict`). What is no HTTP has no answer but a status.
//!
//! A node that has a cluster key or certificates serves the API by TLS, on any interface, also on loopback, and every request needs a
//! token, in the header `Authorization: Bearer` or in the cookie of a session. Without, it is plain HTTP without tokens on the
//! loopback interface only, and any user of this host can run programs as the user of the node. The module `gate` decides which
//! role a request needs.

mod audit;
mod binaries;
mod document;
mod events;
mod gate;
mod graph;
mod history;
mod holdings;
mod jobs;
mod keys;
mod log_answer;
mod logs;
mod nodes;
mod open_streams;
mod pages;
mod savepoints;
mod sessions;
mod strict;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_document;
#[cfg(test)]
mod tests_of_strangers;
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
use axum::{Json, Router};
use fluvial_protocol::group::{Change, Refusal};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use document::{ReturnedJob, WantedJob};
pub use gate::CLIENT;
pub use holdings::Holdings;
pub use jobs::{Deletion, Stopping, Submission, Update};
pub use keys::{AUTHORITIES, AuthorityReport, KeyReport, NodeKeys};
pub use logs::{LogAnswer, LogEnd, LogQuery};
pub use savepoints::{NewSavepoint, SavepointReport};
pub use sessions::{Session, SignIn};
pub use tokens::{CreatedToken, NewToken};
pub use upgrades::Plan;
pub use uploads::NewUpload;

use document::Document;
use events::Live;

use super::bounded::Bounded;
use super::{console, newest, serving};
use crate::access::{Audit, Authenticator, Tokens};
use crate::changes::Changes;
use crate::check_job_name;
use crate::group::{CLUSTER, Kept, Shelf, Specification};
use crate::history::History;
use crate::logs::Gathered;
use crate::status::{Board, Report, View, gather_cluster, gather_job};
use crate::trust::Trust;
use crate::uploads::{Bounds, Uploads};
use gate::Gate;

/// The most workers of a job.
const MOST_WORKERS: u32 = 1024;
/// The largest body of a request that does not upload a binary.
const MOST_BYTES_OF_JSON: usize = 1 << 20;

/// An error, as the API says it.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
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
    document: Arc<Document>,
    history: History,
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
    (logs, history): (Gathered, History),
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
    runtime.spawn(history::look(history.clone(), Arc::clone(&board)));
    let live = Live::start(Arc::clone(&board), Arc::clone(&trust), runtime);
    let (api, document) = routes().split_for_parts();
    let document = Arc::new(Document::new(document)?);
    let uploads = Uploads::open(shelf.clone(), Bounds::default()).context("cannot use the folder of uploads")?;
    uploads.clean(runtime);
    let knowledge = Knowledge {
        board,
        trust: trusted,
        shelf,
        changes,
        tokens,
        gate,
        logs,
        readers,
        live,
        document,
        history,
        uploads,
    };
    let router = router(api, knowledge);
    runtime.spawn(serving::serve(Bounded::new(listener), trust, router));
    Ok(())
}

/// The routes of the API, which are also its document: a route that is not in the document cannot be added here.
fn routes() -> OpenApiRouter<Knowledge> {
    OpenApiRouter::new()
        .routes(routes!(jobs::jobs, jobs::submit))
        .routes(routes!(jobs::job, jobs::update, jobs::delete))
        .routes(routes!(upgrades::plan))
        .routes(routes!(upgrades::rollback))
        .routes(routes!(savepoints::savepoints, savepoints::take))
        .routes(routes!(savepoints::drop_savepoint))
        .routes(routes!(logs::logs))
        .routes(routes!(graph::graph))
        .routes(routes!(graph::layout))
        .routes(routes!(history::attempts))
        .routes(routes!(holdings::holdings))
        .routes(routes!(jobs::act))
        .routes(routes!(binaries::put_binary, binaries::has_binary))
        .routes(routes!(uploads::begin, uploads::progress, uploads::receive, uploads::finish, uploads::remove))
        .routes(routes!(nodes::nodes))
        .routes(routes!(nodes::act))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(audit::newest))
        .routes(routes!(keys::keys))
        .routes(routes!(events::events))
        .routes(routes!(history::history))
        .routes(routes!(sessions::whose, sessions::sign_in, sessions::sign_out))
        .routes(routes!(document::document))
}

/// The routes of the API and the pages of the console. Each of them is behind the gate.
fn router(api: Router<Knowledge>, knowledge: Knowledge) -> Router {
    api.merge(console::routes())
        .layer(DefaultBodyLimit::max(MOST_BYTES_OF_JSON))
        .layer(from_fn_with_state(Arc::clone(&knowledge.document), strict::check))
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
            Refusal::Exists(_) | Refusal::Runs(_) | Refusal::Changed(_) | Refusal::Removing(_) => StatusCode::CONFLICT,
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
        let unavailable = |error| Refused::unavailable(&error);
        let version = self.shelf.put(specification).await.map_err(unavailable)?;
        match self.shelf.is_kept(specification).await.map_err(unavailable)? {
            Kept::Whole => Ok(version),
            Kept::WithoutBinary => {
                let error = format!("the binary {} is not there: upload it first", specification.binary);
                Err(Refused::wrong(error))
            }
            Kept::IsCollected => {
                let error =
                    "the binary was not used for long, and is being removed from the store: ask again in a moment";
                Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, error))
            }
        }
    }
}

/// Checks that a text names a binary. Anything else might name another object of the store.
fn check_hash(text: &str) -> Result<(), String> {
    let fits = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if fits { Ok(()) } else { Err(format!("'{text}' is no SHA-256 in hexadecimal digits")) }
}

fn is_hash(text: &str) -> Result<(), Refused> {
    check_hash(text).map_err(Refused::wrong)
}

/// The number of workers of a job.
fn is_number_of_workers(workers: u32) -> Result<(), Refused> {
    let error = || Refused::wrong(format!("a job has 1 to {MOST_WORKERS} workers, not {workers}"));
    if (1..=MOST_WORKERS).contains(&workers) { Ok(()) } else { Err(error()) }
}

fn is_name(text: &str) -> Result<(), Refused> {
    check_job_name(text).map_err(Refused::wrong)
}
