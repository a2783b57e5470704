//! How often a job writes to its store, and what that costs.

use std::time::Duration;

use fluvial_store::Store;
use fluvial_store::cost::Requests;

use super::config::RunConfig;

/// A generation ends when its last complete checkpoint is older than both this many checkpoint intervals and
/// [`CHECKPOINT_AGE`].
const CHECKPOINT_AGE_INTERVALS: u32 = 20;
/// The age that a checkpoint may reach however short the checkpoint interval is.
const CHECKPOINT_AGE: Duration = Duration::from_secs(300);
/// The time after input until the first tick without any.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// The time between two ticks of a job that has had no input for long.
pub(crate) const LONGEST_HEARTBEAT: Duration = Duration::from_secs(30);

/// The age of the last complete checkpoint at which a generation ends.
pub(crate) fn checkpoint_age_limit(checkpoint_every: Duration) -> Duration {
    CHECKPOINT_AGE.max(checkpoint_every * CHECKPOINT_AGE_INTERVALS)
}

/// How often a generation writes to the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestRate {
    /// The least time between two appends to the journal.
    pub(crate) append_every: Duration,
    /// The least time between two checkpoints.
    pub(crate) checkpoint_every: Duration,
    /// The same while there is no input. A checkpoint must not come near the age at which the generation ends.
    pub(crate) idle_checkpoint_every: Duration,
}

impl RequestRate {
    /// The rate of a run on this store.
    pub(crate) fn new(config: &RunConfig, store: &Store) -> Self {
        let checkpoint_every = config.checkpoint_every;
        Self {
            append_every: config.append_every.unwrap_or_else(|| store.appends_every()),
            checkpoint_every,
            idle_checkpoint_every: checkpoint_every.max(checkpoint_age_limit(checkpoint_every) / 2),
        }
    }

    /// The requests an hour of a job without input.
    fn idle(self) -> Requests {
        // A checkpoint is its tick, its manifest, and the record that names it.
        let writes = per_hour(LONGEST_HEARTBEAT) + 3.0 * per_hour(self.idle_checkpoint_every);
        Requests { writes, ..Requests::default() }
    }

    /// The most requests an hour of a job whose input never pauses: one append after the other, and in each checkpoint a
    /// state file of each worker's part of each operator. Merged state files are left out, which are few.
    fn busy(self, tick: Duration, state_files: usize) -> Requests {
        let checkpoints = per_hour(self.checkpoint_every) * (2 + state_files) as f64;
        Requests { writes: per_hour(self.append_every.max(tick)) + checkpoints, ..Requests::default() }
    }

    /// Says what to expect of a store that costs money for each request.
    pub(crate) fn say(self, config: &RunConfig, store: &Store, operators: usize) {
        if !store.is_remote() {
            return;
        }
        let (idle, busy) = (self.idle(), self.busy(config.tick, operators * config.layout.workers as usize));
        tracing::info!(
            "the store '{}' will get about {:.0} requests an hour while the job is idle ({} a month at the list prices of \
             S3) and up to {:.0} while it is busy ({}); --append-every {} and --checkpoint-every {} decide how many",
            store.describe(),
            idle.sum(),
            dollars(idle),
            busy.sum(),
            dollars(busy),
            humantime::format_duration(self.append_every),
            humantime::format_duration(self.checkpoint_every),
        );
    }
}

fn per_hour(every: Duration) -> f64 {
    3600.0 / every.as_secs_f64().max(0.001)
}

fn dollars(requests: Requests) -> String {
    format!("${:.2}", requests.dollars_per_month())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(append_every_ms: u64, checkpoint_every_s: u64) -> RequestRate {
        let checkpoint_every = Duration::from_secs(checkpoint_every_s);
        RequestRate {
            append_every: Duration::from_millis(append_every_ms),
            checkpoint_every,
            idle_checkpoint_every: checkpoint_every.max(checkpoint_age_limit(checkpoint_every) / 2),
        }
    }

    #[test]
    fn an_idle_job_costs_less_than_a_dollar_a_month_and_a_busy_one_what_its_appends_cost() {
        let by_default = rate(100, 10);
        assert!(by_default.idle().dollars_per_month() < 1.0, "{:?}", by_default.idle());
        let busy = by_default.busy(Duration::from_millis(10), 2);
        assert_eq!(busy.writes, 36_000.0 + 360.0 * 4.0);
        let slow_ticks = by_default.busy(Duration::from_secs(1), 2);
        assert_eq!(slow_ticks.writes, 3_600.0 + 360.0 * 4.0);
    }

    #[test]
    fn a_checkpoint_of_an_idle_job_is_made_long_before_the_job_ends_for_its_age() {
        for checkpoint_every_s in [1, 10, 60, 3600] {
            let rate = rate(100, checkpoint_every_s);
            let limit = checkpoint_age_limit(rate.checkpoint_every);
            assert!(rate.idle_checkpoint_every >= rate.checkpoint_every);
            assert!(rate.idle_checkpoint_every + 2 * LONGEST_HEARTBEAT < limit, "{rate:?}");
        }
    }
}
