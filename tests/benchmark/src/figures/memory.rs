//! The memory of a durable count with many keys and checkpoints under way, beside a bare table's.

use std::path::Path;
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
/// Records a second whose keys are texts.
const RATE_OF_TEXTS: u64 = 200_000;
/// How many of the checkpoints that are made each second.
const CHECKPOINTS_OF_TEXTS: usize = 15;

pub(crate) fn measure() -> Result<Report> {
    let mut report = Report::new("Resident memory of a durable count, checkpoint each 10 s");
    for millions in [1, 10] {
        let keys = millions * 1_000_000;
        let tick_records = RATE * BEAT.as_millis() as u64 / 1000;
        let arguments = |folder: &Path| job::count_arguments(folder, keys, tick_records, BEAT);
        let (median, peak) = engine(job::COUNT, arguments, keys, CHECKPOINTS)?;
        let theirs = bare(bare_table::arguments("table", keys, tick_records, keys * 2), keys)?;
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

/// The same with texts as keys, a count and a sum, and a checkpoint each second. (Of ten million short keys, most have 8 bytes.)
pub(crate) fn measure_texts() -> Result<Report> {
    let mut report = Report::new("Resident memory of a durable count and sum by texts, checkpoint each second");
    let tick_records = RATE_OF_TEXTS * BEAT.as_millis() as u64 / 1000;
    for key_bytes in [7, 36] {
        for millions in [1, 10] {
            let keys = millions * 1_000_000;
            eprintln!("  {millions} M keys of {key_bytes} bytes");
            let arguments =
                |folder: &Path| job::sales_from_memory_arguments(folder, key_bytes, keys, tick_records, BEAT);
            let (median, peak) = engine(job::SALES_FROM_MEMORY, arguments, keys, CHECKPOINTS_OF_TEXTS)?;
            let mut theirs = bare_table::arguments("texts", keys, tick_records, keys * 2);
            job::set(&mut theirs, "--key-bytes", &key_bytes.to_string());
            let theirs = Value::Bytes(bare(theirs, keys)?);
            let what = |what: &str| format!("{millions} M keys of {key_bytes} bytes, {what}");
            report.compare(what("median"), Value::Bytes(median), theirs, Aim::AtMost(1.6));
            report.compare(what("peak"), Value::Bytes(peak), theirs, Aim::None);
        }
    }
    report.note(format!(
        "ours: both processes, the supervisor and the one that works, over {CHECKPOINTS_OF_TEXTS} checkpoints at {} k records/s \
         of JSON of 200 bytes; no librdkafka in it",
        RATE_OF_TEXTS / 1000
    ));
    report.note("theirs: a HashMap<CompactString, (u64, i64)> and nothing else");
    Ok(report)
}

/// Median and peak over so many checkpoints once all keys are there.
fn engine(name: &str, arguments: impl Fn(&Path) -> Vec<String>, keys: u64, checkpoints: usize) -> Result<(u64, u64)> {
    let folder = Folder::new("fluvial-benchmark-")?;
    let running = Running::start(name, &arguments(folder.path()), folder.path(), stages::SELDOM)?;
    let full = running.wait_for_records(keys, Duration::from_secs(240))?;
    let mut samples = Vec::new();
    let start = Instant::now();
    loop {
        samples.push(running.resident_bytes());
        pause(Duration::from_millis(50));
        running.check()?;
        if samples.len() % 20 == 0 {
            let events = stages::read(running.log())?;
            let complete = |e: &&stages::Event| e.message == "checkpoint complete" && e.at_us > full.at_us;
            if events.iter().filter(complete).count() >= checkpoints {
                break;
            }
        }
        anyhow::ensure!(start.elapsed() < Duration::from_secs(120), "checkpoints are not completed");
    }
    samples.sort_unstable();
    Ok((quantile(&samples, 0.5), quantile(&samples, 1.0)))
}

fn bare(arguments: Vec<String>, keys: u64) -> Result<u64> {
    let folder = Folder::new("fluvial-benchmark-")?;
    let running = Running::start(bare_table::NAME, &arguments, folder.path(), "info")?;
    running.wait_for_records(keys * 2, Duration::from_secs(120))?;
    Ok(running.resident_bytes())
}
