//! The tokens of users.

use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::pages::{Page, Paged};
use super::{Knowledge, Refused};
use crate::access::{Caller, NotDone, Role, TokenRecord};

/// The longest time until a token expires, in seconds: a hundred years.
const LONGEST_S: u64 = 100 * 366 * 24 * 3600;

/// A token that is to be created.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Its name: 1 to 100 letters, digits, `-`, `_`, `.` or `@`, not beginning with `.`.
    #[schema(pattern = "^[A-Za-z0-9_@-][A-Za-z0-9._@-]{0,99}$")]
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// After how many seconds it expires, if it does.
    #[schema(minimum = 1, maximum = 3_162_240_000_i64)]
    pub expires_s: Option<u64>,
}

/// A token that was created. Its text is shown this once.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CreatedToken {
    /// The text.
    pub token: String,
    /// What is stored.
    #[serde(flatten)]
    pub record: TokenRecord,
}

impl From<NotDone> for Refused {
    fn from(error: NotDone) -> Self {
        let status = match &error {
            NotDone::Name => StatusCode::BAD_REQUEST,
            NotDone::Exists(_) | NotDone::TooMany => StatusCode::CONFLICT,
            NotDone::Unknown(_) => StatusCode::NOT_FOUND,
            NotDone::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, format!("{:#}", anyhow::Error::new(error)))
    }
}

/// Lists the tokens, by name
#[utoipa::path(get, path = "/v1/tokens", operation_id = "list_tokens", params(Page),
    responses((status = 200, description = "What is stored of the tokens", body = Vec<TokenRecord>)))]
pub(super) async fn list(
    State(knowledge): State<Knowledge>,
    Query(page): Query<Page>,
) -> Result<Paged<TokenRecord>, Refused> {
    let tokens = knowledge.tokens.list().await.map_err(NotDone::Store)?;
    // Two tokens may have one name. No name holds a space.
    page.of("/v1/tokens", tokens, |token| format!("{} {:020}", token.name, token.created_ms))
}

/// Creates a token
#[utoipa::path(post, path = "/v1/tokens", operation_id = "create_token",
    responses((status = 201, description = "The token, which is shown this once", body = CreatedToken)))]
pub(super) async fn create(
    State(knowledge): State<Knowledge>,
    Extension(caller): Extension<Caller>,
    Json(new): Json<NewToken>,
) -> Result<(StatusCode, Json<CreatedToken>), Refused> {
    if knowledge.gate.authenticator.is_none() {
        let error =
            "the nodes use no tokens: start them with --cluster-key-file, or with --tls-cert, --tls-key and --tls-ca";
        return Err(Refused::new(StatusCode::CONFLICT, error));
    }
    let NewToken { name, role, expires_s } = new;
    if expires_s.is_some_and(|seconds| !(1..=LONGEST_S).contains(&seconds)) {
        return Err(Refused::wrong(format!("a token expires within 1 to {LONGEST_S} seconds")));
    }
    let expires_in = expires_s.map(Duration::from_secs);
    let (token, record) = knowledge.tokens.create(&name, role, expires_in, &caller.name).await?;
    Ok((StatusCode::CREATED, Json(CreatedToken { token: token.to_text(), record })))
}

/// Revokes a token. Every node refuses it within ten seconds
#[utoipa::path(delete, path = "/v1/tokens/{name}", operation_id = "revoke_token",
    responses((status = 200, description = "It is revoked")))]
pub(super) async fn revoke(
    State(knowledge): State<Knowledge>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refused> {
    let revoked = knowledge.tokens.revoke(&name).await;
    if let Some(authenticator) = &knowledge.gate.authenticator {
        authenticator.forget();
    }
    revoked?;
    Ok(StatusCode::OK)
}
