//! The gate through which every request goes: who makes it, and may they?
//!
//! The rule is here alone, by method and route, and what no rule names is closed: everything below `/v1/` needs a token, everything
//! but reading needs an operator's. Only signing in and out needs none, and the pages of a console, which lie outside of `/v1/`
//! and are the same for everybody.
//!
//! A browser sends cookies by itself, and reaches the loopback interface, for whichever page asks it to. A request that is not
//! made by a token in a header therefore has to have the header [`CLIENT`] if it changes something: a page of another origin
//! cannot set it. Without trust, only requests to a name of this host are answered, so that no page can read anything under a name
//! that its owner has pointed at this host.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Refused;
use super::open_streams;
use super::sessions::COOKIE_NAME;
use crate::access::{Audit, AuditEntry, Authenticator, Caller, Denied, Role, Token, now_ms, without_tokens};
use crate::http::bounded::Standing;
use crate::status::Board;

/// The header that a request which changes something must have, unless it shows a token in a header.
pub const CLIENT: &str = "fluvial-client";
/// How long a request may take that needs no token.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// How much of a path is recorded.
const LONGEST_PATH: usize = 300;

/// What the gate knows.
pub(super) struct Gate {
    /// The address of the API.
    pub(super) address: SocketAddr,
    /// Says who holds a token, where tokens are used.
    pub(super) authenticator: Option<Authenticator>,
    /// Where changes are recorded.
    pub(super) audit: Audit,
    /// Says which node this is.
    pub(super) board: Arc<Board>,
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// No token.
    Nothing,
    /// A token of this role, or of a higher one.
    Token(Role),
}

fn reads(method: &Method) -> bool {
    [Method::GET, Method::HEAD].contains(method)
}

/// What a request needs, by its method and by its route, which is the path of a request for which there is no route.
pub(super) fn needs(method: &Method, route: &str) -> Needs {
    match route {
        "/v1/session" if [Method::POST, Method::DELETE].contains(method) => Needs::Nothing,
        "/v1/tokens" | "/v1/audit" => Needs::Token(Role::Operator),
        _ if !reads(method) => Needs::Token(Role::Operator),
        _ if route == "/v1" || route.starts_with("/v1/") => Needs::Token(Role::Viewer),
        _ => Needs::Nothing,
    }
}

/// Lets a request through, or refuses it.
pub(super) async fn pass(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    let chunked = headers.contains_key(TRANSFER_ENCODING);
    if chunked && headers.contains_key(CONTENT_LENGTH) {
        // Whoever passes this on could take the end of one request for the beginning of the next.
        let error = "a request has either the header Content-Length or Transfer-Encoding";
        return closing(Refused::wrong(error).into_response());
    }
    let route = request.extensions().get::<MatchedPath>().map_or(request.uri().path(), MatchedPath::as_str);
    let needs = needs(request.method(), route);
    let of_api = route.starts_with("/v1");
    let recorded = (!reads(request.method()) && matches!(needs, Needs::Token(_)))
        .then(|| (request.method().to_string(), path_of(&request)));
    let standing = request.extensions().get::<Standing>();
    let (caller, allowed) = match gate.caller(request.method(), request.headers(), standing, needs).await {
        Ok((caller, allowed)) => (caller, allowed),
        Err(refused) => return refused.into_response(),
    };
    let by = caller.as_ref().map(|caller| caller.name.clone());
    let token = shown_in(request.headers()).ok().and_then(|(text, _)| text.parse().ok());
    let mut response = match allowed {
        Err(refused) => refused.into_response(),
        Ok(()) => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
                open_streams::ends_with(token, &gate, next.run(request).await)
            } else {
                let late = || Refused::new(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time");
                let run = tokio::time::timeout(OPEN_WITHIN, next.run(request)).await;
                run.unwrap_or_else(|_| late().into_response())
            }
        }
    };
    if let (Some((method, path)), Some(by), StatusCode::FORBIDDEN) = (&recorded, &by, response.status()) {
        // It has changed nothing, and must not push out of the record what has.
        tracing::warn!(by, method, path, "a request to change something was refused");
    } else if let (Some((method, path)), Some(by)) = (recorded, by) {
        let node = gate.board.read().map_or_else(String::new, |(view, _)| view.me.address.clone());
        let status = response.status().as_u16();
        gate.audit.record(AuditEntry { at_ms: now_ms(), by, method, path, status, node });
    }
    if of_api {
        response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    if chunked { closing(response) } else { response }
}

/// The path of a request as it is recorded. It holds no query, and no token that somebody has taken for a name.
fn path_of(request: &Request) -> String {
    without_tokens(&request.uri().path().chars().take(LONGEST_PATH).collect::<String>())
}

fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Whether a caller may go on.
type Allowed = Result<(), Refused>;

impl Gate {
    /// Who makes a request, if it needs somebody, and whether they may.
    async fn caller(
        &self,
        method: &Method,
        headers: &HeaderMap,
        standing: Option<&Standing>,
        needs: Needs,
    ) -> Result<(Option<Caller>, Allowed), Refused> {
        let Some(authenticator) = &self.authenticator else {
            self.is_own(headers)?;
            is_no_foreign_page(method, headers)?;
            return Ok((Some(Caller::of_this_host()), Ok(())));
        };
        let Needs::Token(role) = needs else {
            is_no_foreign_page(method, headers)?;
            return Ok((None, Ok(())));
        };
        let (text, in_header) = shown_in(headers)?;
        let caller = authenticate(authenticator, text).await?;
        if let Some(standing) = standing {
            standing.is_known();
        }
        if !in_header {
            is_no_foreign_page(method, headers)?;
        }
        let allowed = if caller.role >= role {
            Ok(())
        } else {
            let Caller { name, role: has, .. } = &caller;
            let error = format!(
                "the token '{name}' is of a {has}, and this needs an {role}: an operator makes such a token by `fluvial tokens \
                 create NAME --role {role}`"
            );
            Err(Refused::new(StatusCode::FORBIDDEN, error))
        };
        Ok((Some(caller), allowed))
    }

    /// Whether a request is made to a name of this host.
    fn is_own(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        if ["localhost", "127.0.0.1", "[::1]"].contains(&name) || host == self.address.to_string() {
            return Ok(());
        }
        Err(Refused::new(StatusCode::FORBIDDEN, format!("'{host}' is no name of this host")))
    }
}

/// Refuses a change that a page of another origin may have made.
fn is_no_foreign_page(method: &Method, headers: &HeaderMap) -> Result<(), Refused> {
    if reads(method) || headers.contains_key(CLIENT) {
        return Ok(());
    }
    Err(Refused::new(StatusCode::FORBIDDEN, format!("the header '{CLIENT}' is missing")))
}

/// The text of the token that a request shows, and whether it does so in its own header.
fn shown_in(headers: &HeaderMap) -> Result<(&str, bool), Refused> {
    if let Some(shown) = headers.get(AUTHORIZATION) {
        let shown = shown.to_str().unwrap_or_default();
        let (scheme, token) = shown.split_once(' ').unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("Bearer") {
            return Err(unauthorized("the header Authorization is not 'Bearer TOKEN'"));
        }
        return Ok((token.trim(), true));
    }
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|cookies| cookies.to_str().ok());
    let mut cookies = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    let session = cookies.find(|(name, _)| *name == COOKIE_NAME);
    session.map(|(_, token)| (token, false)).ok_or_else(|| unauthorized("this needs a token"))
}

/// The holder of a token.
pub(super) async fn authenticate(authenticator: &Authenticator, text: &str) -> Result<Caller, Refused> {
    let token: Token = text.parse().map_err(|_| unauthorized("what was shown is no token"))?;
    authenticator.authenticate(&token).await.map_err(|denied| match denied {
        Denied::Unknown | Denied::Expired(_) => unauthorized(&denied.to_string()),
        Denied::Unavailable(_) => Refused::new(StatusCode::SERVICE_UNAVAILABLE, denied.to_string()),
    })
}

fn unauthorized(why: &str) -> Refused {
    let error = format!(
        "{why}: `fluvial login HOST:PORT` with a token that an operator has made by `fluvial tokens create`, or give \
         --cluster-key-file"
    );
    Refused::new(StatusCode::UNAUTHORIZED, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_rule_names_is_closed() {
        let (viewer, operator) = (Needs::Token(Role::Viewer), Needs::Token(Role::Operator));
        for (method, route, expected) in [
            ("GET", "/v1/jobs", viewer),
            ("HEAD", "/v1/jobs", viewer),
            ("GET", "/v1/session", viewer),
            ("POST", "/v1/session", Needs::Nothing),
            ("DELETE", "/v1/session", Needs::Nothing),
            ("PUT", "/v1/session", operator),
            ("GET", "/v1/tokens", operator),
            ("GET", "/v1/audit", operator),
            ("POST", "/v1/jobs", operator),
            ("PATCH", "/v1/jobs/{name}", operator),
            ("OPTIONS", "/v1/jobs", operator),
            ("BREW", "/v1/tea", operator),
            ("GET", "/v1/anything", viewer),
            ("GET", "/v1", viewer),
            ("GET", "/", Needs::Nothing),
            ("POST", "/", operator),
        ] {
            let method = Method::from_bytes(method.as_bytes()).expect("these are methods");
            assert_eq!(needs(&method, route), expected, "{method} {route}");
        }
    }
}
