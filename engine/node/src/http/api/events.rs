//! The cluster as it changes: `GET /v1/events` sends it.
//!
//! ```text
//!   Live: gathers once ──Snapshot──► stream of a browser ──what differs from what this browser has──► event `cluster`
//! ```
//!
//! One task of the node gathers, each second while somebody watches, and not at all otherwise. It gathers once for all
//! streams. A slow stream skips intermediate states and is sent the newest.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::{Knowledge, Refused};
use crate::http::newest;
use crate::status::{Board, ClusterReport, MemberReport, Report, gather_cluster};
use crate::trust::Trust;

/// The least time between two events of a stream.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// After this time without an event a stream sends a comment, so that its reader sees that it works.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// How many streams a node serves. The other half of its connections is left for requests.
const MOST_STREAMS: usize = 32;

/// What the streams of a node share.
pub(super) struct Live {
    newest: watch::Sender<Arc<Snapshot>>,
    streams: Arc<Semaphore>,
    /// Somebody watches who was not there before.
    wanted: Notify,
}

/// The cluster at one time.
#[derive(Clone, Debug)]
struct Snapshot {
    at: Instant,
    /// The reports of the jobs in JSON, by name.
    jobs: BTreeMap<String, Box<RawValue>>,
    nodes: Vec<MemberReport>,
    /// Why all of this may be old, if so.
    problem: Option<String>,
}

/// What an event says.
#[derive(Debug, Serialize)]
struct Changed<'a> {
    /// The jobs that differ from those of the event before, by name. Of the nodes each holds only those on which it has failed.
    jobs: BTreeMap<&'a str, &'a RawValue>,
    /// The names of the jobs that are there no more.
    gone: Vec<&'a str>,
    nodes: &'a [MemberReport],
    problem: Option<&'a str>,
}

impl Live {
    /// Begins to gather, until the runtime ends.
    pub(super) fn start(board: Arc<Board>, trust: Arc<Trust>, runtime: &Handle) -> Arc<Self> {
        let problem = Some("this node has not asked the others yet".to_owned());
        // A time that is long ago: the first stream waits for the first answers.
        let at = Instant::now().checked_sub(AT_MOST_EVERY * 2).unwrap_or_else(Instant::now);
        let first = Snapshot { at, jobs: BTreeMap::new(), nodes: Vec::new(), problem };
        let live = Arc::new(Self {
            newest: watch::Sender::new(Arc::new(first)),
            streams: Arc::new(Semaphore::new(MOST_STREAMS)),
            wanted: Notify::new(),
        });
        runtime.spawn(Arc::clone(&live).gather(board, trust));
        live
    }

    async fn gather(self: Arc<Self>, board: Arc<Board>, trust: Arc<Trust>) {
        loop {
            if self.newest.receiver_count() == 0 {
                self.wanted.notified().await;
                continue;
            }
            let known = match newest(&board) {
                Ok(view) => {
                    let ClusterReport { jobs, nodes } = gather_cluster(view, &trust).await;
                    jobs.map(|jobs| (jobs, nodes)).ok_or_else(|| "the coordinator does not answer".to_owned())
                }
                Err(why) => Err(why),
            };
            let at = Instant::now();
            let before = Arc::clone(&self.newest.borrow());
            self.newest.send_replace(Arc::new(before.next(at, known)));
            tokio::time::sleep(AT_MOST_EVERY).await;
        }
    }

    /// The events for one more reader; `None` if there are too many.
    fn stream(&self) -> Option<impl Stream<Item = Result<Event, Infallible>> + use<>> {
        let permit = Arc::clone(&self.streams).try_acquire_owned().ok()?;
        let mut newest = self.newest.subscribe();
        if newest.borrow_and_update().at.elapsed() < AT_MOST_EVERY * 2 {
            newest.mark_changed();
        }
        self.wanted.notify_one();
        let reader = Reader { newest, has: None, _permit: permit };
        Some(futures::stream::unfold(reader, |mut reader| async {
            let event = reader.next().await?;
            Some((Ok(event), reader))
        }))
    }
}

/// The reader of one stream.
struct Reader {
    newest: watch::Receiver<Arc<Snapshot>>,
    /// What it has been sent.
    has: Option<Arc<Snapshot>>,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        self.newest.changed().await.ok()?;
        let snapshot = Arc::clone(&self.newest.borrow_and_update());
        let event = Event::default().event("cluster").json_data(snapshot.since(self.has.as_deref())).ok()?;
        self.has = Some(snapshot);
        Some(event)
    }
}

impl Snapshot {
    /// The snapshot that follows. Jobs and nodes that are not known now are as they were.
    fn next(&self, at: Instant, known: Result<(Vec<Report>, Vec<MemberReport>), String>) -> Self {
        match known {
            Ok((jobs, nodes)) => Self { at, jobs: jobs.into_iter().filter_map(encode).collect(), nodes, problem: None },
            Err(why) => Self { at, problem: Some(why), ..self.clone() },
        }
    }

    /// What has changed since `before`.
    fn since<'a>(&'a self, before: Option<&'a Self>) -> Changed<'a> {
        let had = |name: &String| before.and_then(|before| before.jobs.get(name)).map(|job| job.get());
        let changed = self.jobs.iter().filter(|(name, job)| had(name) != Some(job.get()));
        let jobs = changed.map(|(name, job)| (name.as_str(), &**job)).collect();
        let of_before = before.into_iter().flat_map(|before| before.jobs.keys());
        let gone = of_before.filter(|name| !self.jobs.contains_key(*name)).map(String::as_str).collect();
        Changed { jobs, gone, nodes: &self.nodes, problem: self.problem.as_deref() }
    }
}

/// A job as events say it. The nodes are said once for all jobs, so a job holds only those that have failed for it.
fn encode(mut job: Report) -> Option<(String, Box<RawValue>)> {
    job.members.retain(|member| member.state == "failed");
    for member in &mut job.members {
        (member.silent_ms, member.store_requests) = (None, None);
    }
    let json = serde_json::value::to_raw_value(&job).ok()?;
    Some((job.job, json))
}

/// Sends jobs and nodes as they change, as server-sent events
///
/// An event `cluster` holds the jobs that differ from those of the event before, the names of those that are gone, and all nodes.
#[utoipa::path(get, path = "/v1/events", operation_id = "watch_cluster",
    responses((status = 200, description = "Events without an end", body = String, content_type = "text/event-stream")))]
pub(super) async fn events(
    State(knowledge): State<Knowledge>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refused> {
    let stream = knowledge.live.stream().ok_or_else(|| {
        let error =
            format!("{MOST_STREAMS} streams are open, which is the limit of a node: close one, or ask another node");
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, error)
    })?;
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(HEARTBEAT)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::StreamExt as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::status::made_up::{JOB, view};
    use crate::trust::ClusterKey;

    fn report(job: &str, why: &str) -> Report {
        Report { why: why.to_owned(), ..Report::of_store(job.to_owned(), String::new(), None) }
    }

    fn snapshot(jobs: Vec<Report>) -> Snapshot {
        let nothing = Snapshot { at: Instant::now(), jobs: BTreeMap::new(), nodes: Vec::new(), problem: None };
        nothing.next(Instant::now(), Ok((jobs, Vec::new())))
    }

    fn said(changed: &Changed<'_>) -> Value {
        serde_json::to_value(changed).unwrap()
    }

    #[test]
    fn an_event_holds_what_its_reader_does_not_have() {
        let before = snapshot(vec![report("a", ""), report("b", ""), report("c", "")]);
        let first = said(&before.since(None));
        assert_eq!(first["jobs"].as_object().unwrap().len(), 3);
        let after = snapshot(vec![report("a", ""), report("b", "lost"), report("d", "")]);
        let second = said(&after.since(Some(&before)));
        assert_eq!(second["jobs"].as_object().unwrap().keys().collect::<Vec<_>>(), ["b", "d"]);
        assert_eq!((&second["gone"], &second["jobs"]["b"]["why"]), (&json!(["c"]), &json!("lost")));
    }

    #[test]
    fn jobs_that_nobody_knows_now_stay_as_they_were_with_the_reason() {
        let before = snapshot(vec![report("a", "")]);
        let after = before.next(Instant::now(), Err("the coordinator does not answer".to_owned()));
        let event = said(&after.since(Some(&before)));
        assert_eq!((&event["jobs"], &event["gone"]), (&json!({}), &json!([])));
        assert_eq!(event["problem"], "the coordinator does not answer");
        assert!(after.jobs.contains_key("a"));
    }

    #[tokio::test]
    async fn a_node_serves_a_bounded_number_of_streams() {
        let trust = Arc::new(Trust::of_cluster_key(&ClusterKey::new()).unwrap());
        let board = Arc::new(Board::default());
        board.show(Arc::new(view()), std::time::Instant::now());
        let live = Live::start(board, trust, &Handle::current());
        let mut streams: Vec<_> = (0..MOST_STREAMS).map(|_| live.stream().unwrap()).collect();
        assert!(live.stream().is_none());
        drop(streams.pop());
        let mut one_more = Box::pin(live.stream().unwrap());
        // It waits for what is known now, although nothing was gathered before it came.
        let event = format!("{:?}", one_more.next().await.unwrap().unwrap());
        assert!(event.contains(JOB), "{event}");
    }
}
