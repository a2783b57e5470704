//! What holds of every request and answer of the API, whatever its route.
//!
//! A name in a path that cannot be one of its kind is refused before any handler sees it. A query parameter that the document does not
//! name is refused, because it may be a typing error, after which the request would mean something else. An answer that says that a request
//! has failed is JSON, also where the HTTP library answers before any handler does. And no request takes longer than a bounded time to
//! arrive and be answered.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts as _, MatchedPath, Query, RawPathParams, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Refused;
use super::document::{self, Document};

/// How long a request may take to arrive and be answered. A check with a new program takes the longest.
const ANSWERED_WITHIN: Duration = Duration::from_secs(150);
/// How long an upload may take.
const UPLOADED_WITHIN: Duration = Duration::from_secs(600);
/// The longest text of an error that the HTTP library has made.
const LONGEST: usize = 16 << 10;

/// Checks a request and its answer.
pub(super) async fn check(State(document): State<Arc<Document>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    if path != "/v1" && !path.starts_with("/v1/") {
        return next.run(request).await;
    }
    let method = request.method().clone();
    let (mut parts, body) = request.into_parts();
    if let Err(refused) = check_names(&mut parts).await.and_then(|()| check_query(&document, &parts)) {
        return refused.into_response();
    }
    let route = parts.extensions.get::<MatchedPath>().cloned();
    let request = Request::from_parts(parts, body);
    let is_upload = ["/v1/binaries/", "/v1/uploads/"].iter().any(|of| path.starts_with(of));
    let within = if is_upload { UPLOADED_WITHIN } else { ANSWERED_WITHIN };
    match tokio::time::timeout(within, next.run(request)).await {
        Ok(response) => {
            let possible = || route.map(|route| document.methods(route.as_str())).unwrap_or_default();
            in_json(response, &method, &path, possible).await
        }
        Err(_) => {
            let error = "the request did not arrive, or was not carried out, in time";
            Refused::new(StatusCode::REQUEST_TIMEOUT, error).into_response()
        }
    }
}

async fn check_names(parts: &mut Parts) -> Result<(), Refused> {
    let Some(route) = parts.extensions.get::<MatchedPath>().cloned() else { return Ok(()) };
    let given = RawPathParams::from_request_parts(parts, &()).await;
    let given = given.map_err(|error| Refused::wrong(error.body_text()))?;
    let mut given = given.iter();
    given.try_for_each(|(name, text)| document::check_name(route.as_str(), name, text).map_err(Refused::wrong))
}

fn check_query(document: &Document, parts: &Parts) -> Result<(), Refused> {
    let Some(route) = parts.extensions.get::<MatchedPath>() else { return Ok(()) };
    let Some(known) = document.query_parameters(&parts.method, route.as_str()) else { return Ok(()) };
    let given = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
    let Query(given) = given.map_err(|error| Refused::wrong(error.body_text()))?;
    match given.iter().find(|(name, _)| !known.contains(name)) {
        None => Ok(()),
        Some((name, _)) if known.is_empty() => {
            Err(Refused::wrong(format!("this request has no query parameters, so '{name}' is none of them")))
        }
        Some((name, _)) => {
            let known = known.join(", ");
            Err(Refused::wrong(format!("'{name}' is no query parameter of this request; these are: {known}")))
        }
    }
}

/// An answer of a failure as JSON.
async fn in_json(response: Response, method: &Method, path: &str, possible: impl FnOnce() -> String) -> Response {
    let status = response.status();
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, LONGEST).await.unwrap_or_default();
    let error = match status {
        StatusCode::NOT_FOUND => format!("there is nothing at {path}: GET /v1/openapi.json says what there is"),
        StatusCode::METHOD_NOT_ALLOWED => {
            // The router adds the header Allow later.
            format!("{method} is not possible at {path}, only {}", possible())
        }
        _ if text.is_empty() => status.to_string(),
        _ => String::from_utf8_lossy(&text).trim().to_owned(),
    };
    let mut answer = Refused::new(status, error).into_response();
    let kept = parts.headers.into_iter().filter_map(|(name, value)| Some((name?, value)));
    for (name, value) in kept.filter(|(name, _)| ![CONTENT_TYPE, CONTENT_LENGTH].contains(name)) {
        answer.headers_mut().insert(name, value);
    }
    answer
}
