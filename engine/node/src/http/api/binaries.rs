//! The binaries of jobs.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;

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

pub(super) async fn put_binary(
    State(knowledge): State<Knowledge>,
    Path(hash): Path<String>,
    content: Bytes,
) -> Result<StatusCode, Refused> {
    is_hash(&hash)?;
    let put = knowledge.shelf.put_binary(&hash, content).await;
    put.map_err(|error| Refused::by_store_or(StatusCode::BAD_REQUEST, &error))?;
    Ok(StatusCode::CREATED)
}
