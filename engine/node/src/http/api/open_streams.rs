//! Answers without an end, such as events: they end when the token does by which they were asked for.
//!
//! Without this, whoever has opened a stream in time would read on for as long as the connection holds.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use futures::StreamExt as _;

use super::gate::Gate;
use crate::access::{Authenticator, Denied, Token, now_ms};

/// How often it is looked whether a token still is valid. The authenticator reads it once in ten seconds.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Lets an answer end with the token that was shown for it, if the answer has no end of its own.
pub(super) fn ends_with(token: Option<Token>, gate: &Arc<Gate>, response: Response) -> Response {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let (Some(token), true) = (token, kind.starts_with("text/event-stream")) else { return response };
    let gate = Arc::clone(gate);
    let ends = Box::pin(async move {
        match &gate.authenticator {
            Some(authenticator) => is_over(authenticator, &token).await,
            None => std::future::pending().await,
        }
    });
    response.map(|content| Body::from_stream(content.into_data_stream().take_until(ends)))
}

/// Returns when a token is not valid any more.
async fn is_over(authenticator: &Authenticator, token: &Token) {
    loop {
        let wait = match authenticator.authenticate(token).await {
            Ok(caller) => caller.expires_ms.map_or(LOOK_EVERY, |expires_ms| {
                LOOK_EVERY.min(Duration::from_millis(expires_ms.saturating_sub(now_ms()).max(1)))
            }),
            // A token that was valid stays so while the store does not answer.
            Err(Denied::Unavailable(_)) => LOOK_EVERY,
            Err(Denied::Unknown | Denied::Expired(_)) => return,
        };
        tokio::time::sleep(wait).await;
    }
}
