//! The rate from Kafka to Kafka: a keyed count and sum with everything that makes it exactly once, beside a loop that only
//! consumes, decodes, encodes and produces.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use fluvial_kafka_apache::child::Folder;
use fluvial_kafka_apache::secured::{self, Listener};

use crate::kafka::{self, feed, view::Ends};
use crate::report::{Aim, Report, Value};
use crate::running::{Running, pause};
use crate::subject::bare_loop::{self, Work};
use crate::subject::job;

/// How many keys there are.
const KEYS: u64 = 1_000_000;
/// How many records lie ready.
const RECORDS: u64 = 12_000_000;
/// How often the end of the output is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The output is at its end when nothing has come for so long.
const QUIET: Duration = Duration::from_millis(1500);

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) rate: f64,
    pub(super) cpu_per_million: f64,
    pub(super) peak_bytes: u64,
    /// How many records the output has, with the markers of transactions.
    pub(super) written: u64,
}

pub(crate) fn measure() -> Result<Report> {
    let kafka = kafka::start()?;
    let brokers = kafka.bootstrap();
    kafka::make_topic(brokers, kafka::INPUT)?;
    eprintln!("  producing {} M records", RECORDS / 1_000_000);
    feed::load(brokers, 0..RECORDS, KEYS)?;
    // The broker is warm by what it was fed; still, ours stands between two of the others'.
    let before = bare(brokers, "bare-1")?;
    let ours = engine(brokers, "totals", &[])?;
    let after = bare(brokers, "bare-2")?;
    let mean = |of: fn(&Run) -> f64| (of(&before) + of(&after)) / 2.0;
    let mut report = Report::new(format!(
        "Kafka to Kafka, {} M records of 200 bytes, count and sum over {} M keys, one worker",
        RECORDS / 1_000_000,
        KEYS / 1_000_000
    ));
    report.compare("input rate", Value::Rate(ours.rate), Value::Rate(mean(|run| run.rate)), Aim::AtLeast(0.7));
    let cpu = Value::CpuPerMillion(mean(|run| run.cpu_per_million));
    report.compare("CPU", Value::CpuPerMillion(ours.cpu_per_million), cpu, Aim::None);
    report.compare(
        "most memory",
        Value::Bytes(ours.peak_bytes),
        Value::Bytes(before.peak_bytes.max(after.peak_bytes)),
        Aim::None,
    );
    report.note(format!("the bare loop before and after: {:.0} and {:.0} k/s", before.rate / 1e3, after.rate / 1e3));
    report.note("theirs keeps nothing: no table, no journal, no checkpoints, no progress");
    Ok(report)
}

/// The same job on the same records, by SASL over TLS and without.
pub(crate) fn measure_secured() -> Result<Report> {
    let kafka = kafka::start_secured()?;
    let brokers = kafka.bootstrap();
    kafka::make_topic(brokers, kafka::INPUT)?;
    eprintln!("  producing {} M records", RECORDS / 1_000_000);
    feed::load(brokers, 0..RECORDS, KEYS)?;
    let file = kafka.client_properties(secured::ADMIN)?.display().to_string();
    let before = engine(brokers, "plain-1", &[])?;
    let by_tls = engine(brokers, "by-tls", &["--brokers", kafka.at(Listener::SaslTls), "--kafka-config", &file])?;
    let after = engine(brokers, "plain-2", &[])?;
    let mean = |of: fn(&Run) -> f64| (of(&before) + of(&after)) / 2.0;
    let mut report =
        Report::new(format!("Kafka to Kafka by SASL over TLS, beside plain, {} M records", RECORDS / 1_000_000));
    report.compare("input rate", Value::Rate(by_tls.rate), Value::Rate(mean(|run| run.rate)), Aim::None);
    let cpu = Value::CpuPerMillion(mean(|run| run.cpu_per_million));
    report.compare("CPU", Value::CpuPerMillion(by_tls.cpu_per_million), cpu, Aim::None);
    report.note(format!("plain before and after: {:.0} and {:.0} k/s", before.rate / 1e3, after.rate / 1e3));
    Ok(report)
}

/// `more` are options of the job, which replace those of the same name.
fn engine(brokers: &str, output: &str, more: &[&str]) -> Result<Run> {
    eprintln!("  ours");
    let folder = Folder::new("fluvial-benchmark-")?;
    let mut arguments = job::totals_arguments(folder.path(), brokers, output, RECORDS);
    // Each has progress of its own.
    for option in ["--name", output].iter().chain(more).collect::<Vec<_>>().chunks(2) {
        let [name, value] = option else { continue };
        job::set(&mut arguments, name, value);
    }
    run(brokers, output, RECORDS, &arguments, folder.path())
}

fn bare(brokers: &str, output: &str) -> Result<Run> {
    run_bare(Work::Pass, brokers, output, RECORDS)
}

/// The bare loop on `all` records.
pub(super) fn run_bare(work: Work, brokers: &str, output: &str, all: u64) -> Result<Run> {
    eprintln!("  theirs");
    let folder = Folder::new("fluvial-benchmark-")?;
    kafka::make_topic(brokers, output)?;
    run(brokers, output, all, &bare_loop::arguments(work, brokers, output, all), folder.path())
}

/// From the first record that is read to the last that is visible, of `all` records.
pub(super) fn run(brokers: &str, output: &str, all: u64, arguments: &[String], folder: &Path) -> Result<Run> {
    follow(&Running::start(&arguments[0], arguments, folder, "info")?, brokers, output, all)
}

/// As [`run`], of what has just been started.
pub(super) fn follow(running: &Running, brokers: &str, output: &str, all: u64) -> Result<Run> {
    let first = running.wait_for_records(1, Duration::from_secs(30))?;
    let (first_cpu, began) = (running.cpu(), Instant::now());
    let ends = Ends::new(brokers, output)?;
    let (mut end, mut moved, mut cpu, mut peak_bytes) = (0, began, first_cpu, 0);
    loop {
        let now = ends.sum()?;
        if now > end {
            (end, moved, cpu) = (now, Instant::now(), running.cpu());
        }
        peak_bytes = peak_bytes.max(running.resident_bytes());
        let all_read = running.marks()?.last().is_some_and(|mark| mark.records >= all);
        if all_read && moved.elapsed() > QUIET {
            break;
        }
        anyhow::ensure!(moved.elapsed() < Duration::from_secs(30), "the output does not grow any more");
        pause(LOOK_EVERY);
    }
    let records = (all - first.records) as f64;
    Ok(Run {
        rate: records / (moved - began).as_secs_f64(),
        cpu_per_million: (cpu - first_cpu).as_secs_f64() / (records / 1e6),
        peak_bytes,
        written: end.unsigned_abs(),
    })
}
