//! How much input a subject has read, when, and at what cost: marks in a file that the benchmark reads.
//!
//! A mark is written with the first record and whenever the number of records passes a multiple of the step. It holds
//! the time and the CPU time of the whole process, so that any stretch between two marks can be measured, and nothing
//! of start and end is in it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// How far a subject was at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// The records read so far.
    pub(crate) records: u64,
    /// When, microseconds since the Unix epoch.
    pub(crate) at_us: u64,
    /// The CPU time of the process.
    pub(crate) cpu_s: f64,
    /// The median age of the records since the last mark when they were read, by their timestamps, if they have any.
    pub(crate) age_ms: Option<u64>,
}

impl Mark {
    /// CPU seconds per million records from an earlier mark to this one.
    pub(crate) fn cpu_per_million_since(&self, from: &Self) -> f64 {
        (self.cpu_s - from.cpu_s) / ((self.records - from.records) as f64 / 1e6)
    }
}

/// Writes marks.
#[derive(Debug)]
pub(crate) struct Meter(Mutex<State>);

#[derive(Debug)]
struct State {
    path: PathBuf,
    file: Option<File>,
    step: u64,
    records: u64,
    next: u64,
    ages: Histogram<u32>,
}

impl Meter {
    /// Writes to `path`, at every `step` records. The file is created with the first record: of several processes of a job,
    /// only one that reads may do so.
    pub(crate) fn new(path: &Path, step: u64) -> Result<Self> {
        let ages = Histogram::new_with_bounds(1, 60_000, 2).context("make a histogram")?;
        Ok(Self(Mutex::new(State { path: path.to_owned(), file: None, step, records: 0, next: 1, ages })))
    }

    /// So many records more have been read, the first of which bears this timestamp.
    pub(crate) fn read(&self, records: usize, timestamp_ms: Option<i64>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.records += records as u64;
        if let Some(written) = timestamp_ms.and_then(|ms| u64::try_from(ms).ok()) {
            state.ages.saturating_record((now_us() / 1000).saturating_sub(written));
        }
        if state.records < state.next {
            return;
        }
        state.next = (state.records / state.step + 1) * state.step;
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let mark = Mark {
            records: state.records,
            at_us: now_us(),
            cpu_s: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            age_ms: (!state.ages.is_empty()).then(|| state.ages.value_at_quantile(0.5)),
        };
        state.ages.reset();
        let mut line = serde_json::to_vec(&mark).unwrap_or_default();
        line.push(b'\n');
        if state.file.is_none() {
            state.file = File::create(&state.path).ok();
        }
        // The benchmark misses the mark and says so; what is measured goes on.
        let _ = state.file.as_mut().map(|file| file.write_all(&line));
    }
}

/// All marks in a file; none where there is no file yet.
pub(crate) fn read_marks(path: &Path) -> Result<Vec<Mark>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // The last line may not be whole yet.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).with_context(|| format!("read {}", path.display()))).collect()
}

/// Microseconds since the Unix epoch.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn marks_are_written_with_the_first_record_and_at_every_step() {
        let folder = fluvial_kafka_apache::child::Folder::new("fluvial-benchmark-test-").unwrap();
        let path = folder.path().join("marks");
        assert_eq!(read_marks(&path).unwrap(), []);
        let meter = Meter::new(&path, 10).unwrap();
        for _ in 0..8 {
            meter.read(4, None);
        }
        let records: Vec<u64> = read_marks(&path).unwrap().iter().map(|mark| mark.records).collect();
        assert_eq!(records, [4, 12, 20, 32]);
    }
}
