//! The logs that a node holds in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::page::{Page, Part, Question, page_of};
use super::ring::Ring;
use super::{Line, Stream};

/// How long lines stay in memory after their process has ended and they are in the store: those who follow a log find them here.
const HELD_FOR: Duration = Duration::from_secs(60);
/// The most bytes of lines of processes that have ended. They are that many only while the store is unreachable.
const MOST_ENDED_BYTES: usize = 64 << 20;

/// The attempt and the number of a process.
pub(super) type Process = (u64, u32);

/// The logs that a node holds. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Logs(Arc<Held>);

#[derive(Debug)]
struct Held {
    /// The address of this node.
    node: String,
    /// By the name of the job.
    logs: Mutex<BTreeMap<String, BTreeMap<Process, Arc<Log>>>>,
}

/// The log of one process.
#[derive(Debug)]
pub(super) struct Log {
    process: Process,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) ring: Ring,
    /// When all had been read that the process has printed.
    pub(super) ended: Option<Instant>,
    /// Whether a line since the last write is more than routine.
    pub(super) notable: bool,
    /// The number of the line after the last one that the store holds.
    pub(super) stored: u64,
    /// Whether the store holds that the log has ended.
    pub(super) finished: bool,
    /// When it was last written, or tried to be, or began.
    pub(super) tried: Instant,
}

impl State {
    fn new() -> Self {
        let (ring, tried) = (Ring::default(), Instant::now());
        Self { ring, ended: None, notable: false, stored: 0, finished: false, tried }
    }
}

impl Log {
    pub(super) fn process(&self) -> Process {
        self.process
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its lines from number `from` on.
    pub(super) fn lines(&self, node: &str, from: u64) -> Vec<Line> {
        let (attempt, process) = self.process;
        let line = |(number, entry): (u64, &super::ring::Entry)| Line {
            time_ms: entry.time_ms,
            node: node.to_owned(),
            attempt,
            process,
            stream: entry.stream,
            number,
            text: entry.text.to_string(),
        };
        self.state().ring.from(from).into_iter().map(line).collect()
    }
}

/// The logs of one attempt's processes on this node.
#[derive(Clone, Debug)]
pub struct AttemptLogs {
    logs: Logs,
    job: String,
    attempt: u64,
}

impl AttemptLogs {
    /// The log of a process that begins now.
    #[must_use]
    pub fn process(&self, process: u32) -> ProcessLog {
        let key = (self.attempt, process);
        let log = Arc::new(Log { process: key, state: Mutex::new(State::new()) });
        self.logs.held().entry(self.job.clone()).or_default().insert(key, Arc::clone(&log));
        ProcessLog(Arc::new(Open(log)))
    }
}

/// Takes the lines of a process. The log has ended when all clones are dropped.
#[derive(Clone, Debug)]
pub struct ProcessLog(Arc<Open>);

#[derive(Debug)]
struct Open(Arc<Log>);

impl ProcessLog {
    /// Adds a line that was read now. Never blocks.
    pub fn push(&self, stream: Stream, text: String) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut state = self.0.0.state();
        state.notable |= !is_routine(&text);
        state.ring.push(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), stream, text);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.state().ended = Some(Instant::now());
    }
}

/// Whether a line is one of a log that says nothing unusual.
fn is_routine(text: &str) -> bool {
    // The level is at the beginning, after the time.
    let beginning = text.char_indices().nth(100).map_or(text, |(end, _)| &text[..end]);
    ["INFO", "DEBUG", "TRACE"].into_iter().any(|level| {
        beginning.split([' ', '"']).filter(|word| !word.is_empty()).take(5).any(|word| word == level)
            || beginning.contains(&format!("\"level\":\"{level}\""))
    })
}

impl Logs {
    /// Those of the node at this address.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self(Arc::new(Held { node: node.to_owned(), logs: Mutex::default() }))
    }

    /// The address of this node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.0.node
    }

    /// The logs of an attempt that begins here.
    #[must_use]
    pub fn of_attempt(&self, job: &str, attempt: u64) -> AttemptLogs {
        AttemptLogs { logs: self.clone(), job: job.to_owned(), attempt }
    }

    /// The lines that are asked for, as far as this node holds them.
    #[must_use]
    pub fn answer(&self, question: &Question) -> Page {
        let logs: Vec<_> =
            self.held().get(&question.job).into_iter().flatten().map(|(_, log)| Arc::clone(log)).collect();
        let asked = |log: &Arc<Log>| question.attempt.is_none_or(|attempt| attempt == log.process.0);
        let (mut lines, mut parts) = (Vec::new(), Vec::new());
        for log in logs.iter().filter(|log| asked(log)) {
            let (attempt, process) = log.process;
            // In this order: a log that has ended gets no more lines.
            let ended = log.state().ended.is_some();
            let new = question.after.next(attempt, process).map_or(Vec::new(), |from| log.lines(self.node(), from));
            let next = new.last().map_or_else(|| log.state().ring.next(), |last| last.number + 1);
            lines.extend(new.into_iter().filter(|line| line.time_ms >= question.since_ms));
            parts.push(Part { attempt, process, next, ended });
        }
        page_of(lines, parts, question.newest)
    }

    /// All logs, with the names of their jobs.
    pub(super) fn all(&self) -> Vec<(String, Arc<Log>)> {
        let logs = self.held();
        let of_job = |(job, logs): (&String, &BTreeMap<Process, Arc<Log>>)| {
            logs.values().map(|log| (job.clone(), Arc::clone(log))).collect::<Vec<_>>()
        };
        logs.iter().flat_map(of_job).collect()
    }

    /// Forgets the logs of processes that ended a while ago, and whose lines are in the store; and while those that have ended
    /// are too many, also others.
    pub(super) fn forget(&self, now: Instant) {
        let mut logs = self.held();
        let mut ended = Vec::new();
        for (job, of_job) in logs.iter_mut() {
            of_job.retain(|process, log| {
                let state = log.state();
                let Some(since) = state.ended else { return true };
                let old = now.saturating_duration_since(since) >= HELD_FOR;
                let keep = !(old && state.finished);
                if keep {
                    ended.push((since, job.clone(), *process, state.ring.bytes()));
                }
                keep
            });
        }
        ended.sort();
        let mut bytes: usize = ended.iter().map(|(_, _, _, bytes)| bytes).sum();
        for (_, job, process, of_log) in ended {
            if bytes <= MOST_ENDED_BYTES {
                break;
            }
            bytes -= of_log;
            logs.entry(job).or_default().remove(&process);
        }
        logs.retain(|_, of_job| !of_job.is_empty());
    }

    /// Forgets a job that was deleted.
    pub fn forget_job(&self, job: &str) {
        self.held().remove(job);
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<Process, Arc<Log>>>> {
        self.0.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Positions;

    #[test]
    fn a_line_that_is_no_info_of_a_log_is_notable() {
        for (line, routine) in [
            ("2026-11-30T11:38:37.123Z  INFO running lag_ms=0", true),
            ("\u{1b}[2m2026-11-30T11:38:37.123Z\u{1b}[0m \u{1b}[33m WARN x", false),
            ("2026-11-30T11:38:37.123Z  WARN INFORMED", false),
            ("{\"process\":3,\"timestamp\":\"2026-11-30T11:38:37.123Z\",\"level\":\"INFO\"}", true),
            ("{\"timestamp\":\"2026-11-30T11:38:37.123Z\",\"level\":\"ERROR\"}", false),
            ("thread 'main' panicked at src/main.rs:3:5:", false),
            ("", false),
        ] {
            assert_eq!(is_routine(line), routine, "{line}");
        }
    }

    #[test]
    fn a_node_answers_with_the_lines_after_those_that_were_read() {
        let logs = Logs::new("a");
        let (first, second) = (logs.of_attempt("orders", 3).process(0), logs.of_attempt("orders", 4).process(1));
        first.push(Stream::Stdout, "one".to_owned());
        first.push(Stream::Stderr, "two".to_owned());
        second.push(Stream::Stdout, "three".to_owned());
        drop(first);
        let ask = |attempt, after: &str| {
            let after = after.parse::<Positions>().unwrap_or_default();
            logs.answer(&Question { job: "orders".to_owned(), attempt, after, since_ms: 0, newest: true })
        };
        let texts = |page: &Page| page.lines.iter().map(|line| line.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&ask(None, "")), ["one", "two", "three"]);
        assert_eq!(texts(&ask(Some(4), "")), ["three"]);
        let page = ask(None, "3.0.1");
        assert_eq!(texts(&page), ["two", "three"]);
        let parts = [
            Part { attempt: 3, process: 0, next: 2, ended: true },
            Part { attempt: 4, process: 1, next: 1, ended: false },
        ];
        assert_eq!(page.parts, parts);
        assert_eq!(texts(&ask(None, "4.1.1")), Vec::<String>::new());
    }

    #[test]
    fn what_is_in_the_store_is_forgotten_after_a_minute_and_what_is_too_much_at_once() {
        let logs = Logs::new("a");
        let later = Instant::now() + HELD_FOR * 2;
        let runs = logs.of_attempt("orders", 1).process(0);
        runs.push(Stream::Stdout, "x".to_owned());
        for attempt in 2..102 {
            let process = logs.of_attempt("orders", attempt).process(0);
            (0..100).for_each(|_| process.push(Stream::Stdout, "x".repeat(10_000)));
        }
        logs.forget(Instant::now());
        let left = logs.all();
        let bytes: usize = left.iter().map(|(_, log)| log.state().ring.bytes()).sum();
        assert!(bytes <= MOST_ENDED_BYTES + 1000 && bytes > MOST_ENDED_BYTES - (2 << 20), "{bytes}");
        assert_eq!(left[0].1.process(), (1, 0), "a process that runs keeps its lines");
        left.iter().for_each(|(_, log)| log.state().finished = true);
        logs.forget(Instant::now());
        assert_eq!(logs.all().len(), left.len());
        logs.forget(later);
        assert_eq!(logs.all().len(), 1);
        logs.forget_job("orders");
        assert!(logs.all().is_empty());
    }
}
