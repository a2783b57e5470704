//! Puts the log of a job together from what nodes hold and what is in the store.
//!
//! Nodes are asked first, and the store for the processes of which no node has told anything, the newest attempt first: a node
//! forgets the lines of a process only when they are in the store. What cannot be had is named, and is no reason to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvial_protocol::group::{Attempt, JobRecord, NodeId};
use futures::future::join_all;
use serde::{Deserialize, Serialize};

use super::held::Process;
use super::stored::StoredLog;
use super::{Line, Logs, Page, Part, Positions, Question, StoredLogs, merge};
use crate::links::{ask_for_logs, ask_for_view};
use crate::status::View;
use crate::trust::Trust;

/// The most bytes of lines in an answer, as JSON.
const MOST_BYTES: usize = 8 << 20;
/// How many objects are read from the store at a time, and how many nodes are asked at a time for the newest lines: what has come is
/// merged before the next ones are asked, so that memory does not grow with their number.
const READ_AT_ONCE: usize = 4;
/// How long the last lines of a job that has ended are waited for.
const LAST_WITHIN: Duration = Duration::from_secs(5);

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Sought {
    /// The name of the job.
    pub job: String,
    /// The only attempt that is meant.
    pub attempt: Option<u64>,
    /// The number of lines; the newest are meant.
    pub tail: usize,
    /// Lines before this time are left out.
    pub since_ms: u64,
}

/// What could not be had.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Unanswered {
    /// The node, or `store`.
    pub node: String,
    /// Why it has not answered.
    pub why: String,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The lines, by time.
    pub lines: Vec<Line>,
    /// Who has not answered.
    pub unanswered: Vec<Unanswered>,
    /// Whether there are older lines that did not fit into the answer.
    pub left_out: bool,
    /// How far the log has been read.
    pub positions: Positions,
    /// Whether anything is known of the attempt that is meant.
    pub is_known: bool,
}

/// How the job is, as far as its log is concerned.
struct Look {
    /// `None` if there is no such job.
    job: Option<JobRecord>,
    /// The nodes that are heard.
    heard: Vec<NodeId>,
    /// The coordinator, if it does not answer.
    unanswered: Vec<Unanswered>,
}

impl Look {
    fn attempt(&self, sought: &Sought) -> Option<&Attempt> {
        let attempt = self.job.as_ref()?.attempt.as_ref()?;
        sought.attempt.is_none_or(|meant| meant == attempt.number.0).then_some(attempt)
    }

    /// The processes of the newest attempt, if it is meant, with their nodes.
    fn places(&self, sought: &Sought) -> Vec<(Process, &NodeId)> {
        let Some(attempt) = self.attempt(sought) else { return Vec::new() };
        let nodes = attempt.placement.places.iter().flat_map(|(node, count)| (0..*count).map(move |_| node));
        (0..).zip(nodes).map(|(process, node)| ((attempt.number.0, process), node)).collect()
    }

    /// Whether the job prints nothing more that is meant.
    fn is_over(&self, sought: &Sought) -> bool {
        if !self.unanswered.is_empty() {
            return false;
        }
        let Some(job) = &self.job else { return true };
        let newest = job.attempt.as_ref().map(|attempt| attempt.number.0);
        job.outcome.is_some() || sought.attempt.is_some_and(|meant| newest.is_some_and(|newest| newest > meant))
    }
}

/// Reads the logs of jobs, wherever they are. Cheap to clone.
#[derive(Clone)]
pub struct Gathered {
    logs: Logs,
    stored: StoredLogs,
    trust: Arc<Trust>,
}

impl Gathered {
    /// The logs that this node, all others and the store have.
    #[must_use]
    pub fn new(logs: Logs, stored: StoredLogs, trust: Arc<Trust>) -> Self {
        Self { logs, stored, trust }
    }

    /// Deletes the log of a job, which has ended.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn delete(&self, job: &str) -> anyhow::Result<()> {
        self.logs.forget_job(job);
        self.stored.prune(job, 0).await
    }

    /// The number of processes of a job whose logs are in the store.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn stored(&self, job: &str) -> anyhow::Result<u64> {
        Ok(self.stored.list(job).await?.values().map(|processes| processes.len() as u64).sum())
    }

    /// Finds the newest lines. `view` is that of this node. `None` if there is no such job.
    pub async fn find(&self, view: &View, sought: &Sought) -> Option<Found> {
        let look = self.look(view, &sought.job).await;
        if look.job.is_none() && look.unanswered.is_empty() {
            return None;
        }
        let mut found = Found { unanswered: look.unanswered.clone(), ..Found::default() };
        let after = Positions::default();
        let mut told = BTreeSet::new();
        for some in look.heard.chunks(READ_AT_ONCE) {
            let pages = self.ask(view, some.to_vec(), sought, &after, true, &mut found.unanswered).await;
            for page in pages.into_values() {
                told.extend(page.parts.iter().map(|part| (part.attempt, part.process)));
                advance(&mut found.positions, &page.parts);
                found.lines.extend(page.lines);
                found.left_out |= page.more;
            }
            found.left_out |= merge(&mut found.lines, sought.tail, MOST_BYTES);
        }
        let missing = look.places(sought).iter().any(|(process, _)| !told.contains(process));
        found.is_known = !told.is_empty() || look.attempt(sought).is_some();
        if missing || found.lines.len() < sought.tail {
            self.add_stored(&look, sought, &told, &mut found).await;
        }
        found.left_out |= merge(&mut found.lines, sought.tail, MOST_BYTES);
        Some(found)
    }

    async fn look(&self, view: &View, job: &str) -> Look {
        let mut unanswered = Vec::new();
        let other = match &view.coordinator {
            Some((node, _)) if !view.coordinates() => {
                let answer = ask_for_view(&node.address, &self.trust, &view.job, None).await;
                let answer = answer.and_then(|view| match view.coordinates() {
                    true => Ok(view),
                    false => Err(std::io::Error::other("it does not coordinate any more")),
                });
                let failed = |error: &std::io::Error| {
                    let why = format!("the coordinator does not answer: {error}");
                    unanswered.push(Unanswered { node: node.address.clone(), why });
                };
                answer.inspect_err(failed).ok()
            }
            Some(_) => None,
            None => {
                unanswered.push(Unanswered { node: view.me.address.clone(), why: "no node coordinates".to_owned() });
                None
            }
        };
        let informed = other.as_ref().unwrap_or(view);
        let members = informed.members.iter().flatten().filter(|member| member.status.is_some());
        let mut heard: Vec<_> = members.map(|member| member.node.clone()).collect();
        if !heard.contains(&view.me) {
            heard.push(view.me.clone());
        }
        Look { job: informed.record_of(job).cloned(), heard, unanswered }
    }

    /// Asks nodes for lines. Returns their answers, and notes those that do not answer.
    async fn ask(
        &self,
        view: &View,
        nodes: Vec<NodeId>,
        sought: &Sought,
        after: &Positions,
        newest: bool,
        unanswered: &mut Vec<Unanswered>,
    ) -> BTreeMap<NodeId, Page> {
        let Sought { job, attempt, since_ms, .. } = sought;
        let question =
            Question { job: job.clone(), attempt: *attempt, after: after.clone(), since_ms: *since_ms, newest };
        let ask = async |node: NodeId| {
            let page = if node == view.me {
                Ok(self.logs.answer(&question))
            } else {
                ask_for_logs(&node, &self.trust, question.clone()).await
            };
            (node, page)
        };
        let mut pages = BTreeMap::new();
        for (node, page) in join_all(nodes.into_iter().map(ask)).await {
            match page {
                Ok(page) => drop(pages.insert(node, page)),
                Err(error) => {
                    unanswered.push(Unanswered { node: node.address, why: format!("it does not answer: {error}") });
                }
            }
        }
        pages
    }

    /// Adds what is in the store of the processes of which no node has told anything.
    async fn add_stored(&self, look: &Look, sought: &Sought, told: &BTreeSet<Process>, found: &mut Found) {
        let stored = match self.stored.list(&sought.job).await {
            Ok(stored) => stored,
            Err(error) => return found.unanswered.push(of_store(&error)),
        };
        let newest = look.attempt(sought).map(|attempt| attempt.number.0);
        let mut complete = told.clone();
        for (attempt, processes) in stored.into_iter().rev() {
            if sought.attempt.is_some_and(|meant| meant != attempt) {
                continue;
            }
            found.is_known = true;
            if Some(attempt) != newest && found.lines.len() >= sought.tail {
                found.left_out = true;
                break;
            }
            let missing: Vec<_> = processes.into_iter().map(|process| (attempt, process)).collect();
            let missing: Vec<_> = missing.into_iter().filter(|process| !told.contains(process)).collect();
            let mut last_ms = None;
            for some in missing.chunks(READ_AT_ONCE) {
                let read = self.read(&sought.job, some, &mut found.unanswered).await;
                last_ms = last_ms.max(read.values().filter_map(|log| Some(log.lines.last()?.time_ms)).max());
                for (process, log) in read {
                    if log.ended {
                        complete.insert(process);
                    }
                    advance(&mut found.positions, &part_of(process, &log));
                    found.lines.extend(log.lines.into_iter().filter(|line| line.time_ms >= sought.since_ms));
                }
                found.left_out |= merge(&mut found.lines, sought.tail, MOST_BYTES);
            }
            if last_ms.is_some_and(|last_ms| last_ms < sought.since_ms) {
                break;
            }
        }
        for (process, node) in look.places(sought) {
            let named = found.unanswered.iter().any(|unanswered| unanswered.node == node.address);
            if !complete.contains(&process) && !look.heard.contains(node) && !named {
                let why =
                    "it is gone, and its last lines with it: the store has those before its last write".to_owned();
                found.unanswered.push(Unanswered { node: node.address.clone(), why });
            }
        }
    }

    /// Reads the logs of processes from the store, all at a time.
    async fn read(
        &self,
        job: &str,
        processes: &[Process],
        unanswered: &mut Vec<Unanswered>,
    ) -> BTreeMap<Process, StoredLog> {
        let mut read = BTreeMap::new();
        let of_process = async |process: &Process| (*process, self.stored.read(job, *process).await);
        for (process, log) in join_all(processes.iter().map(of_process)).await {
            match log {
                Ok(log) => read.extend(log.map(|log| (process, log))),
                Err(error) => unanswered.push(of_store(&error)),
            }
        }
        read
    }
}

fn of_store(error: &anyhow::Error) -> Unanswered {
    Unanswered { node: "store".to_owned(), why: format!("{error:#}") }
}

fn advance(positions: &mut Positions, parts: &[Part]) {
    // The newest first: older attempts must not take the place of newer ones.
    for part in parts {
        positions.advance(part.attempt, part.process, part.next);
    }
}

fn part_of((attempt, process): Process, log: &StoredLog) -> [Part; 1] {
    let next = log.lines.last().map_or(0, |line| line.number + 1);
    [Part { attempt, process, next, ended: log.ended }]
}

/// A reader that follows a log.
pub struct Follower {
    gathered: Gathered,
    sought: Sought,
    positions: Positions,
    /// The nodes that have told something.
    tellers: BTreeSet<NodeId>,
    /// The newest attempt, once something has been read.
    newest: Option<Option<u64>>,
    over_since: Option<Instant>,
}

/// What a follower has read.
pub struct News {
    /// The lines, by time.
    pub lines: Vec<Line>,
    /// Who has not answered.
    pub unanswered: Vec<Unanswered>,
    /// Whether there is more to read at once.
    pub more: bool,
    /// Whether these are the last ones.
    pub over: bool,
}

impl Follower {
    /// One that has read so far.
    #[must_use]
    pub fn new(gathered: Gathered, sought: Sought, positions: Positions) -> Self {
        Self { gathered, sought, positions, tellers: BTreeSet::new(), newest: None, over_since: None }
    }

    /// The name of the job.
    #[must_use]
    pub fn job(&self) -> &str {
        &self.sought.job
    }

    /// What has been read, with the lines of the last news up to this one.
    pub fn pass(&mut self, line: &Line) -> &Positions {
        self.positions.advance(line.attempt, line.process, line.number + 1);
        &self.positions
    }

    /// Reads what is new. `view` is that of this node.
    pub async fn read(&mut self, view: &View) -> News {
        let (gathered, sought) = (self.gathered.clone(), self.sought.clone());
        let look = gathered.look(view, &sought.job).await;
        let over = look.is_over(&sought);
        if over {
            self.over_since.get_or_insert_with(Instant::now);
        }
        let newest = look.job.as_ref().and_then(|job| job.attempt.as_ref()).map(|attempt| attempt.number.0);
        // All are asked when an attempt has begun or the job has ended: there may have been short attempts between.
        let whole = over || self.newest.replace(newest) != Some(newest);
        let places: BTreeSet<_> = look.places(&sought).into_iter().map(|(_, node)| node.clone()).collect();
        let asked = |node: &NodeId| whole || places.contains(node) || self.tellers.contains(node);
        let nodes: Vec<_> = look.heard.iter().filter(|node| asked(node)).cloned().collect();
        let mut unanswered = look.unanswered.clone();
        let pages = gathered.ask(view, nodes, &sought, &self.positions, false, &mut unanswered).await;
        let parts = || pages.values().flat_map(|page| &page.parts);
        let more = pages.values().any(|page| page.more);
        let told: BTreeSet<_> = parts().map(|part| (part.attempt, part.process)).collect();
        let all_ended = parts().all(|part| part.ended);
        self.tellers.extend(pages.iter().filter(|(_, page)| !page.parts.is_empty()).map(|(node, _)| node.clone()));
        let mut lines: Vec<_> = pages.into_values().flat_map(|page| page.lines).collect();
        if whole {
            lines.extend(self.read_stored(&told, &mut unanswered).await);
        }
        lines.sort_by_key(Line::order);
        // The clock of a newer attempt's node may be behind: what is left of an older one is not read because of that.
        let processes: BTreeSet<_> = lines.iter().map(|line| (line.attempt, line.process)).collect();
        processes.into_iter().for_each(|(attempt, process)| self.positions.advance(attempt, process, 0));
        let late = self.over_since.is_some_and(|since| since.elapsed() >= LAST_WITHIN);
        News { lines, unanswered, more, over: over && !more && (all_ended || late) }
    }

    /// The lines in the store that have not been read, of the processes of which no node has told anything.
    async fn read_stored(&self, told: &BTreeSet<Process>, unanswered: &mut Vec<Unanswered>) -> Vec<Line> {
        let stored = match self.gathered.stored.list(&self.sought.job).await {
            Ok(stored) => stored,
            Err(error) => {
                unanswered.push(of_store(&error));
                return Vec::new();
            }
        };
        let processes = stored.into_iter().flat_map(|(attempt, of_it)| of_it.into_iter().map(move |it| (attempt, it)));
        let meant = |(attempt, process): &Process| {
            self.sought.attempt.is_none_or(|meant| meant == *attempt)
                && !told.contains(&(*attempt, *process))
                && self.positions.next(*attempt, *process).is_some()
        };
        let processes: Vec<_> = processes.filter(meant).collect();
        let is_new = |line: &Line| {
            line.time_ms >= self.sought.since_ms
                && self.positions.next(line.attempt, line.process).is_some_and(|next| line.number >= next)
        };
        let mut lines = Vec::new();
        for some in processes.chunks(READ_AT_ONCE) {
            let read = self.gathered.read(&self.sought.job, some, unanswered).await;
            lines.extend(read.into_values().flat_map(|log| log.lines).filter(is_new));
        }
        lines
    }
}
