//! The binaries of jobs.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};

use super::uploads::{finish_whole, receive_from};
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
///
/// It is sent whole; `/v1/uploads` takes it in pieces.
#[utoipa::path(put, path = "/v1/binaries/{hash}", operation_id = "put_binary",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "It is kept"), (status = 411, description = "Content-Length is missing", body = super::Failure)))]
pub(super) async fn put_binary(
    State(knowledge): State<Knowledge>,
    Path(hash): Path<String>,
    headers: HeaderMap,
    content: Body,
) -> Result<StatusCode, Refused> {
    is_hash(&hash)?;
    // A client that says nothing of it sends bytes.
    if headers.get(CONTENT_TYPE).is_some_and(|kind| kind != "application/octet-stream") {
        let error = "a binary is sent with 'Content-Type: application/octet-stream'";
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let why = "the header Content-Length has to say how large the binary is";
    let bytes = length.ok_or_else(|| Refused::new(StatusCode::LENGTH_REQUIRED, why))?;
    let uploads = &knowledge.uploads;
    uploads.remove(&hash)?;
    uploads.begin(&hash, bytes)?;
    receive_from(uploads, &hash, 0, content).await?;
    finish_whole(uploads, &hash).await
}
