//! The logs of jobs.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use fluvial_protocol::group::Refusal;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{Sender, channel};

use super::log_answer::{self, TAKEN_WITHIN};
use super::{Knowledge, Refused, is_name};
use crate::logs::{Follower, Found, Line, Positions, Sought, Unanswered};
use crate::status::State as JobState;

/// The most lines of an answer.
const MOST_LINES: usize = 10_000;
/// The lines of an answer, if nothing else is said.
const LINES: usize = 1000;
/// How many events wait for a reader.
const MOST_WAITING: usize = 256;
/// The time between two looks at what is new, while there is something new.
const SOON: Duration = Duration::from_millis(500);
/// The longest time between two looks.
const LATER: Duration = Duration::from_secs(2);

/// What is wanted of a log.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// The only attempt that is meant.
    pub attempt: Option<u64>,
    /// The number of lines, of which the newest are meant.
    #[param(maximum = 10_000)]
    pub tail: Option<usize>,
    /// Lines before this time are left out, in milliseconds since the Unix epoch.
    pub since: Option<u64>,
    /// Whether new lines are sent as events until the job has ended.
    #[serde(default)]
    pub follow: bool,
    /// Of a follower that goes on: the id of the last event that it has received. The header `Last-Event-ID` says the same.
    pub after: Option<String>,
}

/// The log of a job.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogAnswer {
    /// Its lines, by time.
    pub lines: Vec<Line>,
    /// Who has not answered, so that lines may be missing.
    pub unanswered: Vec<Unanswered>,
    /// Whether there are older lines that did not fit into the answer.
    pub left_out: bool,
}

/// The last event of a log that is followed: how the job is.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogEnd {
    /// Its state; `None` if it was deleted, or nobody who knows has answered.
    pub state: Option<JobState>,
    /// What is to be said of that state.
    pub why: String,
}

/// Returns the newest lines of a job's processes, or sends them as they come
///
/// With `follow=true` the answer is a stream of events until the job has ended: `line`, `unanswered`, which says who does not
/// answer, and `end`.
#[utoipa::path(get, path = "/v1/jobs/{name}/logs", operation_id = "get_logs",
    params(LogQuery, ("last-event-id" = Option<String>, Header, description = "As `after`")),
    responses((status = 200, description = "The lines", content((LogAnswer = "application/json"), (String = "text/event-stream")))))]
pub(super) async fn logs(
    State(knowledge): State<Knowledge>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Query(query): Query<LogQuery>,
) -> Result<Response, Refused> {
    let job = name;
    is_name(&job)?;
    let tail = query.tail.unwrap_or(LINES);
    if tail > MOST_LINES {
        return Err(Refused::wrong(format!("an answer has at most {MOST_LINES} lines, not {tail}")));
    }
    let header = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?").to_owned());
    let after = query.after.or(header).filter(|after| !after.is_empty());
    let after = after.map(|after| after.parse::<Positions>()).transpose().map_err(Refused::wrong)?;
    let sought = Sought { job: job.clone(), attempt: query.attempt, tail, since_ms: query.since.unwrap_or_default() };
    let permit = if query.follow { Some(knowledge.readers.follow()?) } else { None };
    let turn = knowledge.readers.turn().await?;
    let view = knowledge.view()?;
    let (found, positions) = match (after, query.follow) {
        (Some(after), true) => (Found::default(), after),
        _ => {
            let found = knowledge.logs.find(&view, &sought).await.ok_or(Refusal::Unknown(job.clone()))?;
            if let (false, Some(attempt)) = (found.is_known, sought.attempt) {
                let error = format!(
                    "nothing is kept of attempt {attempt} of the job '{job}': the logs of its newest 20 attempts are kept"
                );
                return Err(Refused::new(StatusCode::NOT_FOUND, error));
            }
            let positions = found.positions.clone();
            (found, positions)
        }
    };
    let Some(permit) = permit else { return Ok(log_answer::send(found, turn)) };
    let (events, mut waiting) = channel(MOST_WAITING);
    let follower = Follower::new(knowledge.logs.clone(), sought, positions);
    tokio::spawn(follow(knowledge, follower, found, events, (permit, turn)));
    let stream = futures::stream::poll_fn(move |context| waiting.poll_recv(context));
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

impl Knowledge {
    /// How a job is, for the reader of its log.
    async fn end_of(&self, job: &str) -> LogEnd {
        match self.job(job).await {
            Ok(report) => LogEnd { state: Some(report.state), why: report.why },
            Err(refused) => LogEnd { state: None, why: refused.error },
        }
    }
}

/// Why nothing more is sent: the reader has gone.
struct Gone;

type Events = Sender<Result<Event, Infallible>>;

async fn send(events: &Events, event: Event) -> Result<(), Gone> {
    events.send(Ok(event)).await.map_err(|_| Gone)
}

/// An event with JSON as its data.
fn event(kind: &str, data: &impl Serialize) -> Event {
    Event::default().event(kind).data(serde_json::to_string(data).unwrap_or_default())
}

/// Sends the log of a job until the job has ended or the reader has gone.
async fn follow(
    knowledge: Knowledge,
    mut follower: Follower,
    found: Found,
    events: Events,
    (permit, turn): (OwnedSemaphorePermit, OwnedSemaphorePermit),
) {
    let sent = async {
        send_found(found, &events).await?;
        drop(turn);
        send_news(&knowledge, &mut follower, &events).await
    };
    // An error says that the reader has gone.
    let _ = sent.await;
    drop(permit);
}

/// Sends what there was before. A reader that does not take it in time is given up, because others wait for their turn.
async fn send_found(found: Found, events: &Events) -> Result<(), Gone> {
    let Found { lines, unanswered, positions, .. } = found;
    let sent = async {
        for unanswered in &unanswered {
            send(events, event("unanswered", unanswered)).await?;
        }
        // These are read, whichever comes last: a follower that goes on has received all of them, or begins again.
        let last = lines.len().saturating_sub(1);
        for (at, line) in lines.into_iter().enumerate() {
            let event = event("line", &line);
            send(events, if at == last { event.id(positions.to_string()) } else { event }).await?;
        }
        Ok(())
    };
    tokio::time::timeout(TAKEN_WITHIN, sent).await.unwrap_or(Err(Gone))
}

/// Sends what is new.
async fn send_news(knowledge: &Knowledge, follower: &mut Follower, events: &Events) -> Result<(), Gone> {
    let mut said: Vec<Unanswered> = Vec::new();
    let mut pause = SOON;
    loop {
        // The loop of a node that is stuck shows no new view; what it knew is enough here.
        let Some((view, _)) = knowledge.board.read() else { return Ok(()) };
        let news = follower.read(&view).await;
        for unanswered in news.unanswered.iter().filter(|unanswered| !said.contains(unanswered)) {
            send(events, event("unanswered", unanswered)).await?;
        }
        said = news.unanswered;
        for line in &news.lines {
            let id = follower.pass(line).to_string();
            send(events, event("line", line).id(id)).await?;
        }
        if news.over {
            return send(events, event("end", &knowledge.end_of(follower.job()).await)).await;
        }
        pause = if news.lines.is_empty() { LATER.min(pause * 2) } else { SOON };
        if !news.more {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = events.closed() => return Err(Gone),
            }
        }
    }
}
