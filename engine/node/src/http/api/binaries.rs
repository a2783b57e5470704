//! The binaries of jobs.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};

use super::{Knowledge, Refused, is_hash};

/// Says whether a binary is there
#[utoipa::path(get, path = "/v1/binaries/{hash}", operation_id = "has_binary",
    responses((status = 200, description = "It is there")))]
pub(super) async fn has_binary(
    State(knowledge): State<Knowledge>,
    Path(hash): Path<String>,
) -> Result<StatusCode, Refused> {
    is_hash(&hash)?;
    match knowledge.shelf.has_binary(&hash).await {
        Ok(true) => Ok(StatusCode::OK),
        Ok(false) => Err(Refused::new(StatusCode::NOT_FOUND, format!("the binary {hash} is not there"))),
        Err(error) => Err(Refused::unavailable(&error)),
    }
}

/// Keeps a binary, of which the path holds the SHA-256
#[utoipa::path(put, path = "/v1/binaries/{hash}", operation_id = "put_binary",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "It is kept")))]
pub(super) async fn put_binary(
    State(knowledge): State<Knowledge>,
    Path(hash): Path<String>,
    headers: HeaderMap,
    content: Bytes,
) -> Result<StatusCode, Refused> {
    is_hash(&hash)?;
    // A client that says nothing of it sends bytes.
    if headers.get(CONTENT_TYPE).is_some_and(|kind| kind != "application/octet-stream") {
        let error = "a binary is sent with 'Content-Type: application/octet-stream'";
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    let put = knowledge.shelf.put_binary(&hash, content).await;
    put.map_err(|error| Refused::by_store_or(StatusCode::BAD_REQUEST, &error))?;
    Ok(StatusCode::CREATED)
}
