//! How the jobs of a cluster were in the last hour, as one node has seen them since it began.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::status::{Report, State};

/// Between two samples.
pub(super) const EVERY: Duration = Duration::from_secs(15);
/// The samples of an hour.
const MOST_SAMPLES: usize = 240;

/// The last hour.
#[derive(Debug, Default)]
pub(super) struct History {
    newest: Option<Instant>,
    jobs: BTreeMap<String, VecDeque<Sample>>,
}

/// How a job was at one time. What was not known is `None`.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    lag_records: Option<u64>,
    records_in_per_s: Option<f64>,
    records_out_per_s: Option<f64>,
}

/// The last hour, as the API says it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct HistoryReport {
    /// The time between two samples.
    every_ms: u64,
    /// The samples of each job, oldest first.
    #[schema(value_type = BTreeMap<String, Vec<Vec<Option<f64>>>>)]
    jobs: BTreeMap<String, Vec<SampleReport>>,
}

/// One sample: its age in milliseconds, the lag in records, the records read and the records committed a second.
#[derive(Debug, Serialize)]
struct SampleReport(u64, Option<u64>, Option<f64>, Option<f64>);

impl History {
    /// Takes a sample of each job if it is time, and forgets jobs that are there no more.
    pub(super) fn take(&mut self, at: Instant, jobs: &[Report]) {
        if self.newest.is_some_and(|newest| at.duration_since(newest) < EVERY) {
            return;
        }
        self.newest = Some(at);
        let mut before = std::mem::take(&mut self.jobs);
        for job in jobs {
            let mut samples = before.remove(&job.job).unwrap_or_default();
            if samples.len() == MOST_SAMPLES {
                samples.pop_front();
            }
            // What a process has said last is no news of a job that is over.
            let over = matches!(job.state, State::Stopped | State::Ended);
            let of = job.progress.as_ref().filter(|_| !over);
            samples.push_back(Sample {
                at,
                lag_records: of.and_then(|of| of.lag_records),
                records_in_per_s: of.map(|of| of.records_in_per_s),
                records_out_per_s: of.map(|of| of.records_out_per_s),
            });
            self.jobs.insert(job.job.clone(), samples);
        }
    }

    pub(super) fn report(&self, now: Instant) -> HistoryReport {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // Three digits are more than a chart shows.
        let short = |rate: f64| (rate * 10.0).round() / 10.0;
        let sample = |sample: &Sample| {
            let (read, committed) = (sample.records_in_per_s.map(short), sample.records_out_per_s.map(short));
            SampleReport(ms(now.duration_since(sample.at)), sample.lag_records, read, committed)
        };
        let jobs = self.jobs.iter().map(|(job, samples)| (job.clone(), samples.iter().map(sample).collect())).collect();
        HistoryReport { every_ms: ms(EVERY), jobs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Progress;

    fn report(job: &str, lag: u64) -> Report {
        let progress = Some(Progress { lag_records: Some(lag), ..Progress::default() });
        Report { progress, ..Report::of_store(job.to_owned(), String::new(), None) }
    }

    #[test]
    fn an_hour_is_kept_of_each_job_that_is_there() {
        let (mut history, begin) = (History::default(), Instant::now());
        for sample in 0..300_u32 {
            let jobs = [report("a", sample.into()), report("b", 0)];
            let jobs = if sample < 299 { &jobs[..] } else { &jobs[..1] };
            history.take(begin + EVERY * sample, jobs);
            history.take(begin + EVERY * sample + EVERY / 2, jobs);
        }
        let report = history.report(begin + EVERY * 299);
        assert_eq!(report.jobs.keys().collect::<Vec<_>>(), ["a"], "b was deleted");
        let of_a = &report.jobs["a"];
        assert_eq!((of_a.len(), of_a[0].0, of_a[0].1), (240, 239 * 15_000, Some(60)));
        assert_eq!(of_a[239].1, Some(299));
    }
}
