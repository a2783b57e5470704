//! The sessions of browsers.
//!
//! A browser shows a token once and then has it in a cookie that no script can read and that is sent to this origin alone, by TLS alone.
//! Nothing is stored for a session, so every node of the cluster takes the cookie, and it ends with its token.

use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::{Knowledge, Refused, gate};
use crate::access::{Caller, Role, now_ms};

/// The name of the cookie. Browsers accept one that begins so only by TLS, and from this host alone.
pub(super) const COOKIE_NAME: &str = "__Host-fluvial";
/// How long a browser keeps the cookie at most, in seconds.
const KEPT_S: u64 = 30 * 24 * 3600;

/// A token that is shown to sign in.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The token.
    pub token: String,
}

/// Who makes requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Session {
    /// The name of the token.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// When it expires, if it does, in milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
    /// Whether requests have to show tokens.
    pub tokens: bool,
    /// The version of the node.
    pub version: String,
}

impl Session {
    fn of(caller: Caller, tokens: bool) -> Self {
        let Caller { name, role, expires_ms } = caller;
        Self { name, role, expires_ms, tokens, version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// Says who makes the request
#[utoipa::path(get, path = "/v1/session", operation_id = "get_session",
    responses((status = 200, description = "Who makes the request", body = Session)))]
pub(super) async fn whose(State(knowledge): State<Knowledge>, Extension(caller): Extension<Caller>) -> Json<Session> {
    Json(Session::of(caller, knowledge.gate.authenticator.is_some()))
}

/// Signs a browser in with a token, which is then in a cookie
#[utoipa::path(post, path = "/v1/session", operation_id = "sign_in",
    responses((status = 200, description = "The answer sets the cookie", body = Session)))]
pub(super) async fn sign_in(
    State(knowledge): State<Knowledge>,
    Json(SignIn { token }): Json<SignIn>,
) -> Result<Response, Refused> {
    let Some(authenticator) = &knowledge.gate.authenticator else {
        return Ok(Json(Session::of(Caller::of_this_host(), false)).into_response());
    };
    let caller = gate::authenticate(authenticator, token.trim()).await?;
    let left_s = caller.expires_ms.map_or(KEPT_S, |expires_ms| expires_ms.saturating_sub(now_ms()) / 1000);
    let headers = cookie(token.trim(), left_s.min(KEPT_S))?;
    tracing::info!(by = caller.name, "signed in");
    Ok((headers, Json(Session::of(caller, true))).into_response())
}

/// Signs a browser out
#[utoipa::path(delete, path = "/v1/session", operation_id = "sign_out",
    responses((status = 200, description = "The answer removes the cookie")))]
pub(super) async fn sign_out() -> Result<Response, Refused> {
    Ok((StatusCode::OK, cookie("", 0)?).into_response())
}

fn cookie(value: &str, kept_s: u64) -> Result<HeaderMap, Refused> {
    let cookie = format!("{COOKIE_NAME}={value}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={kept_s}");
    let cookie =
        HeaderValue::try_from(cookie).map_err(|_| Refused::wrong("the token has characters that no token has"))?;
    Ok(HeaderMap::from_iter([(SET_COOKIE, cookie)]))
}
