//! What durability costs: a keyed count from memory with journal and checkpoints, beside a bare table and differential.

use std::time::Duration;

use anyhow::{Context, Result};
use fluvial_kafka_apache::child::Folder;

use super::stages;
use crate::report::{Aim, Report, Value};
use crate::running::{Running, pause_whole};
use crate::subject::{bare_table, job};

/// How many keys there are.
const KEYS: u64 = 1_000_000;
/// What is read before the measurement begins: every key once, and as much again.
const WARM: u64 = 2 * KEYS;
/// How long the engine is measured.
const MEASURED: Duration = Duration::from_secs(35);
/// How many records the others are given after the first.
const OTHERS: u64 = 60_000_000;
/// How many checkpoints have to be complete within the measurement.
const CHECKPOINTS: usize = 3;
/// Records become available as fast as they are read, as those of the others do: none of them waits for a clock.
const BEAT: Duration = Duration::ZERO;

pub(crate) fn measure() -> Result<Report> {
    let mut report = Report::new(format!("Durable count of {} M keys, checkpoint each 10 s", KEYS / 1_000_000));
    for tick_records in [10_000, 100_000] {
        let of = |what: &str| format!("{} k records a tick, {what}", tick_records / 1000);
        let ours = Value::CpuPerMillion(engine(tick_records)?);
        report.compare(of("bare table with changes"), ours, bare("table", tick_records)?, Aim::AtMost(1.5));
        report.compare(of("bare table, silent"), ours, bare("silent-table", tick_records)?, Aim::None);
        report.compare(of("count_total"), ours, bare("count-total", tick_records)?, Aim::AtMost(1.0));
    }
    report.note(format!(
        "each reads as fast as it can; ours completes at least {CHECKPOINTS} checkpoints while it is measured, journal and \
         checkpoints with fsync"
    ));
    Ok(report)
}

fn engine(tick_records: u64) -> Result<f64> {
    let folder = Folder::new("fluvial-benchmark-")?;
    let arguments = job::count_arguments(folder.path(), KEYS, tick_records, BEAT);
    let running = Running::start(job::COUNT, &arguments, folder.path(), stages::SELDOM)?;
    let from = running.wait_for_records(WARM, Duration::from_secs(60))?;
    pause_whole(MEASURED);
    let to = running.marks()?.pop().context("nothing was read")?;
    let events = stages::read(running.log())?;
    let within = |event: &&stages::Event| {
        event.message == "checkpoint complete" && (from.at_us..to.at_us).contains(&event.at_us)
    };
    let complete = events.iter().filter(within).count();
    anyhow::ensure!(complete >= CHECKPOINTS, "only {complete} checkpoints were completed in the measurement");
    Ok(to.cpu_per_million_since(&from))
}

fn bare(by: &str, tick_records: u64) -> Result<Value> {
    let folder = Folder::new("fluvial-benchmark-")?;
    let records = WARM + OTHERS;
    let running = Running::start(
        bare_table::NAME,
        &bare_table::arguments(by, KEYS, tick_records, records),
        folder.path(),
        "info",
    )?;
    let to = running.wait_for_records(records, Duration::from_secs(120))?;
    let from = running.wait_for_records(WARM, Duration::ZERO)?;
    Ok(Value::CpuPerMillion(to.cpu_per_million_since(&from)))
}
