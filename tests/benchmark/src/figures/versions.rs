//! This build beside another one, in turns: the jobs with numbers as keys, from memory and from Kafka.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use fluvial_kafka_apache::child::Folder;

use super::{stages, throughput};
use crate::kafka::{self, feed};
use crate::report::{Aim, Report, Value};
use crate::running::{Running, other_build, this_build};
use crate::subject::job;

/// How many times each build is measured.
const TURNS: usize = 5;
/// How many keys there are.
const KEYS: u64 = 1_000_000;
/// How many records a tick has that come from memory.
const TICK_RECORDS: u64 = 10_000;
/// How many records from memory are measured, after each key has come twice.
const FROM_MEMORY: u64 = 40_000_000;
/// How many records lie ready in Kafka.
const RECORDS: u64 = 6_000_000;

pub(crate) fn measure() -> Result<Report> {
    let other =
        other_build().context("set FLUVIAL_JOB_BINARIES to the folder of the other build's fluvial-benchmark")?;
    let builds = [this_build()?, other];
    let kafka = kafka::start()?;
    kafka::make_topic(kafka.bootstrap(), kafka::INPUT)?;
    eprintln!("  producing {} M records", RECORDS / 1_000_000);
    feed::load(kafka.bootstrap(), 0..RECORDS, KEYS)?;
    let mut report =
        Report::new(format!("This build beside another, {TURNS} turns, medians, {} M keys", KEYS / 1_000_000));
    for (what, measure) in [
        (
            "from memory, a durable count",
            &(|program: &Path, _: &str| from_memory(program)) as &dyn Fn(&Path, &str) -> _,
        ),
        ("from Kafka to Kafka, a count and a sum", &|program, output| from_kafka(program, kafka.bootstrap(), output)),
    ] {
        let mut costs = [Vec::new(), Vec::new()];
        for turn in 0..TURNS {
            // A trend of the machine adds to both equally.
            for build in if turn % 2 == 0 { [0, 1] } else { [1, 0] } {
                eprintln!("  {what}: turn {} of {TURNS}, {}", turn + 1, ["this build", "the other"][build]);
                costs[build].push(measure(&builds[build], &format!("totals-{turn}-{build}"))?);
            }
        }
        let [ours, theirs] = costs.map(|mut costs: Vec<f64>| {
            costs.sort_by(f64::total_cmp);
            Value::CpuPerMillion(costs[TURNS / 2])
        });
        report.compare(format!("CPU, {what}"), ours, theirs, Aim::AtMost(1.03));
    }
    Ok(report)
}

fn from_memory(program: &Path) -> Result<f64> {
    let folder = Folder::new("fluvial-benchmark-")?;
    let arguments = job::count_arguments(folder.path(), KEYS, TICK_RECORDS, Duration::ZERO);
    let running = Running::start_build(program.to_owned(), &[], job::COUNT, &arguments, folder.path(), stages::SELDOM)?;
    let to = running.wait_for_records(2 * KEYS + FROM_MEMORY, Duration::from_secs(120))?;
    let from = running.wait_for_records(2 * KEYS, Duration::ZERO)?;
    Ok(to.cpu_per_million_since(&from))
}

fn from_kafka(program: &Path, brokers: &str, output: &str) -> Result<f64> {
    let folder = Folder::new("fluvial-benchmark-")?;
    let mut arguments = job::totals_arguments(folder.path(), brokers, output, RECORDS);
    arguments.extend(["--name", output].map(str::to_owned));
    let running = Running::start_build(program.to_owned(), &[], job::TOTALS, &arguments, folder.path(), "info")?;
    Ok(throughput::follow(&running, brokers, output, RECORDS)?.cpu_per_million)
}
