//! The rate from Kafka to Kafka with texts as keys, beside a loop that decodes the same records, keeps the same table and
//! encodes the same output, and has nothing that makes it exactly once.

use std::time::Duration;

use anyhow::Result;
use fluvial_kafka_apache::child::Folder;

use super::stages;
use super::throughput::{Run, run, run_bare};
use crate::kafka::{self, feed};
use crate::report::{Aim, Report, Value};
use crate::running::Running;
use crate::subject::bare_loop::Work;
use crate::subject::job;

/// How many keys there are.
const KEYS: u64 = 1_000_000;
/// How many records lie ready.
const RECORDS: u64 = 6_000_000;

/// How many records a tick has at the most where they come from memory.
const TICK_RECORDS: u64 = 10_000;
/// How many of them are measured.
const FROM_MEMORY: u64 = 5_000_000;

/// How many orders there are.
const ORDERS: u64 = 1_000_000;

pub(crate) fn measure() -> Result<Report> {
    let mut report = Report::new(format!(
        "Kafka to Kafka with texts as keys, {} M records of JSON of 200 bytes, count and sum over {} M keys, one worker",
        RECORDS / 1_000_000,
        KEYS / 1_000_000
    ));
    for key_bytes in [7, 36] {
        let kafka = kafka::start()?;
        let brokers = kafka.bootstrap();
        kafka::make_topic(brokers, kafka::INPUT)?;
        eprintln!("  producing {} M records with keys of {key_bytes} bytes", RECORDS / 1_000_000);
        feed::load_sales(brokers, 0..RECORDS, KEYS, key_bytes)?;
        // The broker is warm by what it was fed; still, ours stand between two of the others'.
        let before = run_bare(Work::Sum, brokers, "bare-1", RECORDS)?;
        let each_second = engine(job::SALES, brokers, "each-1", "1s", "1")?;
        let each_ten = engine(job::SALES, brokers, "each-10", "10s", "1")?;
        let two_workers = engine(job::SALES, brokers, "two", "1s", "2")?;
        let after = run_bare(Work::Sum, brokers, "bare-2", RECORDS)?;
        let mean = |of: fn(&Run) -> f64| (of(&before) + of(&after)) / 2.0;
        let cpu = Value::CpuPerMillion(mean(|run| run.cpu_per_million));
        let ours = |run: &Run| Value::CpuPerMillion(run.cpu_per_million);
        let what = |what: &str| format!("{key_bytes} bytes: {what}");
        report.compare(what("CPU, a checkpoint each second"), ours(&each_second), cpu, Aim::AtMost(1.5));
        report.compare(what("CPU, one each ten seconds"), ours(&each_ten), cpu, Aim::AtMost(1.35));
        let rate = Value::Rate(mean(|run| run.rate));
        report.compare(what("rate, one each second"), Value::Rate(each_second.rate), rate, Aim::AtLeast(0.8));
        let one = ours(&each_second);
        report.compare(what("CPU of two workers, beside one"), ours(&two_workers), one, Aim::AtMost(1.1));
        let (two, one) = (Value::Rate(two_workers.rate), Value::Rate(each_second.rate));
        report.compare(what("rate of two workers, beside one"), two, one, Aim::None);
        let most = Value::Bytes(before.peak_bytes.max(after.peak_bytes));
        report.compare(what("most memory"), Value::Bytes(each_second.peak_bytes), most, Aim::None);
        report.note(format!(
            "the bare loop before and after, {key_bytes} bytes: {:.3} and {:.3} CPU s/M",
            before.cpu_per_million, after.cpu_per_million
        ));
        report.note(format!(
            "records written, {key_bytes} bytes: {:.2} M, and {:.2} M by the bare loop",
            each_second.written as f64 / 1e6,
            before.written as f64 / 1e6
        ));
    }
    for key_bytes in [7, 36] {
        let one = from_memory(key_bytes, 1)?;
        let two = from_memory(key_bytes, 2)?;
        let what = |what: &str| format!("{key_bytes} bytes, from memory to memory: {what} of two workers, beside one");
        let cpu = |run: &FromMemory| Value::CpuPerMillion(run.cpu_per_million);
        report.compare(what("CPU"), cpu(&two), cpu(&one), Aim::AtMost(1.1));
        report.compare(what("rate"), Value::Rate(two.rate), Value::Rate(one.rate), Aim::AtLeast(1.6));
    }
    report.note("theirs has the same table, decoding and encoding; no journal, no checkpoints, no progress");
    Ok(report)
}

/// What a run without a broker came to.
struct FromMemory {
    rate: f64,
    cpu_per_million: f64,
}

fn from_memory(key_bytes: usize, workers: u32) -> Result<FromMemory> {
    eprintln!("  ours from memory to memory, {workers} workers");
    let folder = Folder::new("fluvial-benchmark-")?;
    let mut arguments = job::sales_from_memory_arguments(folder.path(), key_bytes, KEYS, TICK_RECORDS, Duration::ZERO);
    arguments.extend(["--written", "--workers", &workers.to_string()].map(str::to_owned));
    let running = Running::start(job::SALES_FROM_MEMORY, &arguments, folder.path(), stages::SELDOM)?;
    let from = running.wait_for_records(2 * KEYS, Duration::from_secs(60))?;
    let to = running.wait_for_records(2 * KEYS + FROM_MEMORY, Duration::from_secs(120))?;
    Ok(FromMemory {
        rate: (to.records - from.records) as f64 / ((to.at_us - from.at_us) as f64 / 1e6),
        cpu_per_million: to.cpu_per_million_since(&from),
    })
}

/// Rows of ten fields, five of them texts: the newest of each order, and a count and a sum of them by group.
pub(crate) fn measure_rows() -> Result<Report> {
    let mut report = Report::new(format!(
        "Kafka to Kafka, rows of ten fields, {} M changes of {} M orders, latest and a grouped aggregate, one worker",
        RECORDS / 1_000_000,
        ORDERS / 1_000_000
    ));
    let kafka = kafka::start()?;
    let brokers = kafka.bootstrap();
    kafka::make_topic(brokers, kafka::INPUT)?;
    eprintln!("  producing {} M records", RECORDS / 1_000_000);
    feed::load_orders(brokers, 0..RECORDS, ORDERS)?;
    let before = run_bare(Work::Keep, brokers, "bare-1", RECORDS)?;
    let each_second = engine(job::ORDERS, brokers, "each-1", "1s", "1")?;
    let each_ten = engine(job::ORDERS, brokers, "each-10", "10s", "1")?;
    let after = run_bare(Work::Keep, brokers, "bare-2", RECORDS)?;
    let mean = |of: fn(&Run) -> f64| (of(&before) + of(&after)) / 2.0;
    for (what, ours) in [("a checkpoint each second", each_second), ("one each ten seconds", each_ten)] {
        let (cpu, theirs) = (Value::CpuPerMillion(ours.cpu_per_million), mean(|run| run.cpu_per_million));
        report.compare(format!("CPU, {what}"), cpu, Value::CpuPerMillion(theirs), Aim::AtMost(1.7));
        let theirs = Value::Rate(mean(|run| run.rate));
        report.compare(format!("rate, {what}"), Value::Rate(ours.rate), theirs, Aim::None);
        let theirs = Value::Bytes(before.peak_bytes.max(after.peak_bytes));
        report.compare(format!("most memory, {what}"), Value::Bytes(ours.peak_bytes), theirs, Aim::None);
    }
    report.note(format!(
        "records written: {:.2} M, and {:.2} M by the bare loop, which has no journal, no checkpoints and no progress",
        each_second.written as f64 / 1e6,
        before.written as f64 / 1e6
    ));
    Ok(report)
}

fn engine(job: &str, brokers: &str, output: &str, checkpoint_every: &str, workers: &str) -> Result<Run> {
    eprintln!("  ours, a checkpoint each {checkpoint_every}, {workers} workers");
    let folder = Folder::new("fluvial-benchmark-")?;
    let mut arguments = job::arguments_of(job, folder.path(), brokers, output, RECORDS, checkpoint_every);
    // Each has progress of its own.
    arguments.extend(["--name", output].map(str::to_owned));
    job::set(&mut arguments, "--workers", workers);
    run(brokers, output, RECORDS, &arguments, folder.path())
}
