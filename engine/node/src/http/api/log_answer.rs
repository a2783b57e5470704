//! How many readers of logs a node serves, and the answer to one of them.
//!
//! What is gathered for a reader is some MiB. A reader waits for its turn before anything is gathered, and has it until the
//! answer is sent, so that no number of requests takes more memory than that of a few.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Refused;
use crate::logs::{Found, Line, Unanswered};

/// How many readers may follow logs at one node.
const MOST_FOLLOWERS: usize = 32;
/// For how many readers a log is gathered at a time, or an answer is being sent.
const MOST_READERS: usize = 4;
/// How long a reader waits for its turn.
const WAITS_FOR: Duration = Duration::from_secs(5);
/// How long a reader may take to receive its answer.
pub(super) const TAKEN_WITHIN: Duration = Duration::from_secs(60);
/// How much of an answer is encoded at a time.
const PIECE: usize = 64 << 10;

/// The readers of logs at this node. Cheap to clone.
#[derive(Clone)]
pub(super) struct Readers {
    followers: Arc<Semaphore>,
    gathering: Arc<Semaphore>,
}

impl Default for Readers {
    fn default() -> Self {
        Self { followers: Arc::new(Semaphore::new(MOST_FOLLOWERS)), gathering: Arc::new(Semaphore::new(MOST_READERS)) }
    }
}

impl Readers {
    /// Takes the place of a follower.
    pub(super) fn follow(&self) -> Result<OwnedSemaphorePermit, Refused> {
        Arc::clone(&self.followers).try_acquire_owned().map_err(|_| {
            let error = format!("{MOST_FOLLOWERS} readers follow logs at this node already: ask another node");
            Refused::new(StatusCode::TOO_MANY_REQUESTS, error)
        })
    }

    /// Waits for the turn of a reader for whom a log is gathered.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let turn = tokio::time::timeout(WAITS_FOR, Arc::clone(&self.gathering).acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            let error = format!("{MOST_READERS} readers are reading logs at this node: try again, or ask another node");
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, error)
        })
    }
}

/// An answer that is being sent.
struct Sending {
    lines: std::iter::Peekable<std::vec::IntoIter<Line>>,
    /// What follows the lines, until it is sent.
    rest: Option<(Vec<Unanswered>, bool)>,
    begun: bool,
    until: Instant,
    _turn: OwnedSemaphorePermit,
}

/// Sends a [`LogAnswer`](super::LogAnswer), of which no more than a piece is encoded at a time.
pub(super) fn send(found: Found, turn: OwnedSemaphorePermit) -> Response {
    send_until(found, turn, Instant::now() + TAKEN_WITHIN)
}

fn send_until(found: Found, turn: OwnedSemaphorePermit, until: Instant) -> Response {
    let Found { lines, unanswered, left_out, .. } = found;
    let sending = Sending {
        lines: lines.into_iter().peekable(),
        rest: Some((unanswered, left_out)),
        begun: false,
        until,
        _turn: turn,
    };
    let pieces = futures::stream::unfold(sending, |mut sending| async {
        let piece = sending.next().transpose()?;
        Some((piece, sending))
    });
    ([(CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response()
}

impl Sending {
    /// The next piece; `None` after the last one.
    fn next(&mut self) -> Result<Option<Bytes>, std::io::Error> {
        if self.rest.is_none() {
            return Ok(None);
        }
        if Instant::now() >= self.until {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        let mut piece = Vec::with_capacity(PIECE);
        if !std::mem::replace(&mut self.begun, true) {
            piece.extend_from_slice(br#"{"lines":["#);
        }
        while piece.len() < PIECE
            && let Some(line) = self.lines.next()
        {
            serde_json::to_writer(&mut piece, &line)?;
            if self.lines.peek().is_some() {
                piece.push(b',');
            }
        }
        if self.lines.peek().is_none()
            && let Some((unanswered, left_out)) = self.rest.take()
        {
            piece.extend_from_slice(br#"],"unanswered":"#);
            serde_json::to_writer(&mut piece, &unanswered)?;
            piece.extend_from_slice(format!(r#","left_out":{left_out}}}"#).as_bytes());
        }
        Ok(Some(Bytes::from(piece)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::LogAnswer;
    use super::*;
    use crate::logs::Stream;

    fn line(number: u64) -> Line {
        let (node, text) = ("a".to_owned(), "\"x\"\n".repeat(50));
        Line { time_ms: 1, node, attempt: 1, process: 0, stream: Stream::Stdout, number, text }
    }

    async fn turn(readers: &Readers) -> OwnedSemaphorePermit {
        readers.turn().await.ok().unwrap()
    }

    #[tokio::test]
    async fn an_answer_is_one_document_and_keeps_others_waiting_until_it_is_sent() {
        let readers = Readers::default();
        for lines in [0, 1, 5000] {
            let unanswered = vec![Unanswered { node: "b".to_owned(), why: "silent".to_owned() }];
            let lines: Vec<_> = (0..lines).map(line).collect();
            let found = Found { lines: lines.clone(), unanswered: unanswered.clone(), ..Found::default() };
            let response = send(found, turn(&readers).await);
            let content = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            let answer: LogAnswer = serde_json::from_slice(&content).unwrap();
            assert_eq!((answer.lines, answer.unanswered, answer.left_out), (lines, unanswered, false));
        }
        let mut taken = Vec::new();
        for _ in 0..MOST_READERS {
            let found = Found { lines: (0..5000).map(line).collect(), ..Found::default() };
            // They have taken too long already.
            taken.push(send_until(found, turn(&readers).await, Instant::now()));
        }
        let refused = readers.turn().await.err().unwrap();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        for slow in taken {
            assert!(axum::body::to_bytes(slow.into_body(), usize::MAX).await.is_err());
        }
        assert!(readers.turn().await.is_ok());
    }
}
