//! Writes the logs of processes to the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;

use super::held::{Log, Logs, State};
use super::stored::{MOST_ATTEMPTS, StoredLogs};

/// Between two looks at what is to be written.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The time until a write that failed is tried again, of a process that has ended.
const AGAIN: Duration = Duration::from_secs(5);
/// How many times longer lines that say nothing unusual wait.
const ROUTINE: u32 = 10;
/// How long the writes at the end of a node may take.
const LAST_WITHIN: Duration = Duration::from_secs(10);

impl Logs {
    /// Writes to the store what is to be kept, for as long as the node lives. `every` is the least time between two writes of a
    /// process that runs.
    pub async fn write(self, stored: StoredLogs, every: Duration) {
        loop {
            self.write_due(&stored, every, Instant::now()).await;
            self.forget(Instant::now());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Writes what has not been written: the node ends.
    pub async fn write_last(&self, stored: &StoredLogs) {
        let written = tokio::time::timeout(LAST_WITHIN, self.write_due(stored, Duration::ZERO, Instant::now() + AGAIN));
        if written.await.is_err() {
            tracing::warn!("the last lines of jobs could not be written to the store in time");
        }
    }

    async fn write_due(&self, stored: &StoredLogs, every: Duration, now: Instant) {
        let due = |(_, log): &(String, Arc<Log>)| is_due(&log.state(), every, now);
        let due: Vec<_> = self.all().into_iter().filter(due).collect();
        join_all(due.iter().map(|(job, log)| self.write_one(stored, job, log))).await;
    }

    async fn write_one(&self, stored: &StoredLogs, job: &str, log: &Log) {
        let (attempt, process) = log.process();
        let (ended, next) = {
            let mut state = log.state();
            state.tried = Instant::now();
            state.notable = false;
            (state.ended.is_some(), state.ring.next())
        };
        // Lines that come meanwhile are written the next time.
        let mut lines = log.lines(self.node(), 0);
        lines.retain(|line| line.number < next);
        let written = async {
            if next > 0 {
                stored.write(job, (attempt, process), lines, ended).await?;
            }
            if ended && process == 0 {
                stored.prune(job, MOST_ATTEMPTS).await?;
            }
            anyhow::Ok(())
        };
        match written.await {
            Ok(()) => {
                let mut state = log.state();
                (state.stored, state.finished) = (next, ended);
            }
            Err(error) => {
                log.state().notable = true;
                let error = format!("{error:#}");
                tracing::warn!(job, attempt, process, error, "could not write the log of a process to the store");
            }
        }
    }
}

/// Whether a log is to be written now.
fn is_due(state: &State, every: Duration, now: Instant) -> bool {
    let waited = now.saturating_duration_since(state.tried);
    match state.ended {
        _ if state.finished => false,
        // It was not tried since.
        Some(ended) if state.tried <= ended => true,
        Some(_) => waited >= AGAIN,
        None if state.ring.next() == state.stored => false,
        None => waited >= if state.notable { every } else { every * ROUTINE },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use fluvial_store::Store;
    use object_store::memory::InMemory;

    use super::*;
    use crate::logs::Stream;

    const EVERY: Duration = Duration::from_secs(60);

    #[test]
    fn a_log_is_written_when_it_ends_and_not_more_often_than_its_lines_are_worth() {
        let logs = Logs::new("a");
        let process = logs.of_attempt("orders", 1).process(0);
        let log = Arc::clone(&logs.all()[0].1);
        let after = |seconds| is_due(&log.state(), EVERY, Instant::now() + Duration::from_secs(seconds));
        assert!(!after(10_000), "there is no line");
        process.push(Stream::Stdout, "2026-11-30T11:38:37.123Z  INFO running".to_owned());
        assert_eq!([after(61), after(601)], [false, true]);
        process.push(Stream::Stdout, "2026-11-30T11:38:37.123Z  WARN slow".to_owned());
        assert_eq!([after(1), after(61)], [false, true]);
        {
            let mut state = log.state();
            (state.stored, state.notable) = (2, false);
        }
        assert!(!after(10_000), "all is written");
        drop(process);
        assert!(after(0), "it has ended");
        log.state().tried = Instant::now();
        assert_eq!([after(1), after(6)], [false, true]);
        log.state().finished = true;
        assert!(!after(10_000));
    }

    #[tokio::test]
    async fn the_logs_of_a_node_are_in_the_store_after_its_end_and_the_newest_attempts_stay() {
        let logs = Logs::new("a");
        let stored = StoredLogs::new(Store::over(Arc::new(InMemory::new()), "memory"), ".cluster");
        for attempt in 1..=30 {
            let process = logs.of_attempt("orders", attempt).process(0);
            process.push(Stream::Stderr, format!("last word of {attempt}"));
        }
        let runs = logs.of_attempt("orders", 31).process(0);
        runs.push(Stream::Stderr, "still there".to_owned());
        logs.write_last(&stored).await;
        // The order in which they are written together is open, so one more end has the last word.
        drop(runs);
        logs.write_last(&stored).await;
        let kept: Vec<_> = stored.list("orders").await.unwrap().into_keys().collect();
        assert_eq!(kept, (12..=31).collect::<Vec<_>>());
        let last = stored.read("orders", (31, 0)).await.unwrap().unwrap();
        assert!(last.ended && last.lines[0].text == "still there", "{last:?}");
    }
}
