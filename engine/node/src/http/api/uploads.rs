//! Uploads of binaries, which go on where they were when a connection is lost.
//!
//! It is as in tus and in the registries of container images: the node says from which offset an upload goes on. Another node does not
//! have what has arrived here, and says so, so that the client begins again there.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_RANGE;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::{Knowledge, Refused, is_hash};
use crate::uploads::{Progress, UploadError, Uploads};

/// What is said of a binary before it is uploaded.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUpload {
    /// Its size.
    pub bytes: u64,
}

impl From<UploadError> for Refused {
    fn from(error: UploadError) -> Self {
        let status = match &error {
            UploadError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            UploadError::TooMany | UploadError::File { .. } => StatusCode::SERVICE_UNAVAILABLE,
            UploadError::Unknown => StatusCode::NOT_FOUND,
            UploadError::Busy | UploadError::Elsewhere { .. } | UploadError::Incomplete { .. } => StatusCode::CONFLICT,
            UploadError::TooMuch | UploadError::Lost(_) => StatusCode::BAD_REQUEST,
            UploadError::Stalled(_) => StatusCode::REQUEST_TIMEOUT,
            UploadError::NotKept(error) => return Self::by_store_or(StatusCode::BAD_REQUEST, error),
        };
        Self::new(status, error.to_string())
    }
}

/// Begins the upload of a binary in pieces, or says how far it is
#[utoipa::path(put, path = "/v1/uploads/{hash}", operation_id = "begin_upload",
    responses((status = 200, description = "How far it is", body = Progress)))]
pub(super) async fn begin(
    State(knowledge): State<Knowledge>,
    Path(hash): Path<String>,
    Json(NewUpload { bytes }): Json<NewUpload>,
) -> Result<Json<Progress>, Refused> {
    is_hash(&hash)?;
    Ok(Json(knowledge.uploads.begin(&hash, bytes)?))
}

/// Says how far an upload is
#[utoipa::path(get, path = "/v1/uploads/{hash}", operation_id = "get_upload",
    responses((status = 200, description = "How far it is", body = Progress)))]
pub(super) async fn progress(
    State(knowledge): State<Knowledge>,
    Path(hash): Path<String>,
) -> Result<Json<Progress>, Refused> {
    is_hash(&hash)?;
    Ok(Json(knowledge.uploads.progress(&hash).ok_or(UploadError::Unknown)?))
}

/// Sends what follows in an upload
#[utoipa::path(patch, path = "/v1/uploads/{hash}", operation_id = "continue_upload",
    params(("content-range" = String, Header, description = "Where it begins: bytes FIRST-LAST/ALL")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "How far it is", body = Progress)))]
pub(super) async fn receive(
    State(knowledge): State<Knowledge>,
    Path(hash): Path<String>,
    headers: HeaderMap,
    content: Body,
) -> Result<Json<Progress>, Refused> {
    is_hash(&hash)?;
    let from = offset_of(&headers)?;
    receive_from(&knowledge.uploads, &hash, from, content).await.map(Json)
}

/// Keeps a binary that was uploaded whole
#[utoipa::path(post, path = "/v1/uploads/{hash}", operation_id = "finish_upload",
    responses((status = 201, description = "It is kept")))]
pub(super) async fn finish(
    State(knowledge): State<Knowledge>,
    Path(hash): Path<String>,
) -> Result<StatusCode, Refused> {
    is_hash(&hash)?;
    finish_whole(&knowledge.uploads, &hash).await
}

/// Gives an upload up
#[utoipa::path(delete, path = "/v1/uploads/{hash}", operation_id = "remove_upload",
    responses((status = 200, description = "It is given up")))]
pub(super) async fn remove(
    State(knowledge): State<Knowledge>,
    Path(hash): Path<String>,
) -> Result<StatusCode, Refused> {
    is_hash(&hash)?;
    knowledge.uploads.remove(&hash)?;
    Ok(StatusCode::OK)
}

/// Receives what follows `from`, in a task of its own: a request whose connection is lost is dropped at once.
pub(super) async fn receive_from(uploads: &Uploads, hash: &str, from: u64, content: Body) -> Result<Progress, Refused> {
    let receiving = uploads.receive(hash, from)?.all(content.into_data_stream());
    let received = tokio::spawn(receiving).await.map_err(|error| Refused::unavailable(&error.into()))?;
    Ok(received?)
}

/// Keeps what is whole, also if the client does not wait for it.
pub(super) async fn finish_whole(uploads: &Uploads, hash: &str) -> Result<StatusCode, Refused> {
    let (uploads, hash) = (uploads.clone(), hash.to_owned());
    let finished = tokio::spawn(async move { uploads.finish(&hash).await });
    finished.await.map_err(|error| Refused::unavailable(&error.into()))??;
    Ok(StatusCode::CREATED)
}

/// The first byte that a request sends, as `Content-Range: bytes FIRST-LAST/ALL` says.
fn offset_of(headers: &HeaderMap) -> Result<u64, Refused> {
    let range = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let range = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('/'));
    let first = range.and_then(|(range, _)| range.split_once('-')?.0.trim().parse().ok());
    first.ok_or_else(|| Refused::wrong("the header Content-Range has to say what is sent: bytes FIRST-LAST/ALL"))
}
