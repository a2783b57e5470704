//! Detects a worker that does not return from its dataflow, because a closure of the job does not return or a tick takes very
//! long. The worker itself cannot report this, so a thread of its process does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fluvial_protocol::{REPORT_AFTER_MS, REPORT_EVERY_MS};

use super::ambient;

/// How often the workers are checked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The time at which each worker of a process began the current pass of its loop. Clones share the times.
#[derive(Clone)]
pub(crate) struct Pulses {
    started: Instant,
    /// Milliseconds after the start; 0 if the worker is not in a pass of its loop.
    turns: Arc<[AtomicU64]>,
}

impl Pulses {
    /// Creates the times of `workers` workers, none of which has begun.
    pub(crate) fn new(workers: usize) -> Self {
        Self { started: ambient::instant(), turns: (0..workers).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Notes that a worker of this process, counted from 0, begins a pass of its loop.
    pub(crate) fn turn(&self, worker: usize) {
        self.turns[worker % self.turns.len()].store(self.now_ms().max(1), Ordering::Relaxed);
    }

    /// Notes that the worker has ended its last pass.
    pub(crate) fn ended(&self, worker: usize) {
        self.turns[worker % self.turns.len()].store(0, Ordering::Relaxed);
    }

    /// For how long the worker that began its pass first has not ended it.
    pub(crate) fn longest_turn_ms(&self) -> u64 {
        let first = self.turns.iter().map(|turn| turn.load(Ordering::Relaxed)).filter(|turn| *turn > 0).min();
        first.map_or(0, |turn| self.now_ms().saturating_sub(turn))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Watches from now on; `first` is the number of the process's first worker.
    pub(crate) fn watch(&self, first: usize) -> std::io::Result<()> {
        let pulses = self.clone();
        let watch = move || {
            let mut reported = vec![0; pulses.turns.len()];
            loop {
                ambient::pause(LOOK_EVERY);
                let now_ms = pulses.now_ms();
                for (worker, (turn, reported)) in pulses.turns.iter().zip(&mut reported).enumerate() {
                    if let Some(for_ms) = late(now_ms, turn.load(Ordering::Relaxed), reported) {
                        tracing::warn!(
                            for_s = for_ms / 1000,
                            "worker {} has been computing without a pause: a closure of the job does not return, or a tick \
                             takes long",
                            first + worker
                        );
                    }
                }
            }
        };
        std::thread::Builder::new().name("pulse".to_owned()).spawn(watch).map(drop)
    }
}

/// For how long a turn that began at `turn_ms` has lasted, if that is to be reported now. `reported_ms` is when that was
/// done last.
fn late(now_ms: u64, turn_ms: u64, reported_ms: &mut u64) -> Option<u64> {
    let due = if *reported_ms > turn_ms { *reported_ms + REPORT_EVERY_MS } else { turn_ms + REPORT_AFTER_MS };
    (turn_ms > 0 && now_ms >= due).then(|| {
        *reported_ms = now_ms;
        now_ms - turn_ms
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_reported_after_ten_seconds_and_again_each_minute() {
        let mut reported_ms = 0;
        let mut reports = |turn_ms: u64, seconds: std::ops::Range<u64>| -> Vec<u64> {
            seconds.filter(|second| late(second * 1000, turn_ms, &mut reported_ms).is_some()).collect()
        };
        assert_eq!(reports(0, 0..100), [0; 0], "no turn has begun");
        assert_eq!(reports(100_000, 100..200), [110, 170]);
        assert_eq!(reports(200_000, 200..220), [210], "another turn");
    }
}
