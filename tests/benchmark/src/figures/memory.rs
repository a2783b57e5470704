//! The memory of a durable count with many keys and checkpoints under way, beside a bare table's.

use std::time::{Duration, Instant};

use anyhow::Result;
use fluvial_kafka_apache::child::Folder;

use super::{quantile, stages};
use crate::report::{Aim, Report, Value};
use crate::running::{Running, pause};
use crate::subject::{bare_table, job};

/// The time between two ticks; a tenth of a second's records each.
const BEAT: Duration = Duration::from_millis(100);
/// Records a second.
const RATE: u64 = 1_000_000;
/// How many checkpoints are seen after all keys are there.
const CHECKPOINTS: usize = 3;

pub(crate) fn measure() -> Result<Report> {
    let mut report = Report::new("Resident memory of a durable count, checkpoint each 10 s");
    for millions in [1, 10] {
        let keys = millions * 1_000_000;
        let (median, peak) = engine(keys)?;
        let theirs = bare(keys)?;
        let aim = Aim::AtMost(2.0);
        report.compare(format!("{millions} M keys, median"), Value::Bytes(median), Value::Bytes(theirs), aim);
        report.compare(format!("{millions} M keys, peak"), Value::Bytes(peak), Value::Bytes(theirs), aim);
    }
    report.note(format!(
        "ours: both processes, the supervisor and the one that works, over {CHECKPOINTS} checkpoints at {} M records/s; \
         no librdkafka in it",
        RATE / 1_000_000
    ));
    Ok(report)
}

/// Median and peak over some checkpoints once all keys are there.
fn engine(keys: u64) -> Result<(u64, u64)> {
    let folder = Folder::new("fluvial-benchmark-")?;
    let tick_records = RATE * BEAT.as_millis() as u64 / 1000;
    let arguments = job::count_arguments(folder.path(), keys, tick_records, BEAT);
    let running = Running::start(job::COUNT, &arguments, folder.path(), stages::SELDOM)?;
    let full = running.wait_for_records(keys, Duration::from_secs(120))?;
    let mut samples = Vec::new();
    let start = Instant::now();
    loop {
        samples.push(running.resident_bytes());
        pause(Duration::from_millis(50));
        running.check()?;
        if samples.len() % 20 == 0 {
            let events = stages::read(running.log())?;
            let complete = |e: &&stages::Event| e.message == "checkpoint complete" && e.at_us > full.at_us;
            if events.iter().filter(complete).count() >= CHECKPOINTS {
                break;
            }
        }
        anyhow::ensure!(start.elapsed() < Duration::from_secs(120), "checkpoints are not completed");
    }
    samples.sort_unstable();
    Ok((quantile(&samples, 0.5), quantile(&samples, 1.0)))
}

fn bare(keys: u64) -> Result<u64> {
    let folder = Folder::new("fluvial-benchmark-")?;
    let tick_records = RATE * BEAT.as_millis() as u64 / 1000;
    let arguments = bare_table::arguments("table", keys, tick_records, keys * 2);
    let running = Running::start(bare_table::NAME, &arguments, folder.path(), "info")?;
    running.wait_for_records(keys * 2, Duration::from_secs(120))?;
    Ok(running.resident_bytes())
}
