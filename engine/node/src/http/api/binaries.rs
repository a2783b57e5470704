//! The binaries of jobs.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};

use super::uploads::{finish_whole, receive_from};
use super::{Knowledge, Refused, is_hash};

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

/// An upload by one request.
pub(super) async fn put_binary(
    State(knowledge): State<Knowledge>,
    Path(hash): Path<String>,
    headers: HeaderMap,
    content: Body,
) -> Result<StatusCode, Refused> {
    is_hash(&hash)?;
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let why = "the header Content-Length has to say how large the binary is";
    let bytes = length.ok_or_else(|| Refused::new(StatusCode::LENGTH_REQUIRED, why))?;
    let uploads = &knowledge.uploads;
    uploads.remove(&hash)?;
    uploads.begin(&hash, bytes)?;
    receive_from(uploads, &hash, 0, content).await?;
    finish_whole(uploads, &hash).await
}
