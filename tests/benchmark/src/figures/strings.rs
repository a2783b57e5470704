//! The rate from Kafka to Kafka with texts as keys, beside a loop that decodes the same records, keeps the same table and
//! encodes the same output, and has nothing that makes it exactly once.

use anyhow::Result;
use fluvial_kafka_apache::child::Folder;

use super::throughput::{Run, run};
use crate::kafka::{self, feed};
use crate::report::{Aim, Report, Value};
use crate::subject::{bare_loop, job};

/// How many keys there are.
const KEYS: u64 = 1_000_000;
/// How many records lie ready.
const RECORDS: u64 = 6_000_000;

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
        let before = bare(brokers, "bare-1")?;
        let each_second = engine(brokers, "each-1", "1s")?;
        let each_ten = engine(brokers, "each-10", "10s")?;
        let after = bare(brokers, "bare-2")?;
        let mean = |of: fn(&Run) -> f64| (of(&before) + of(&after)) / 2.0;
        let cpu = Value::CpuPerMillion(mean(|run| run.cpu_per_million));
        let ours = |run: &Run| Value::CpuPerMillion(run.cpu_per_million);
        let what = |what: &str| format!("{key_bytes} bytes: {what}");
        report.compare(what("CPU, a checkpoint each second"), ours(&each_second), cpu, Aim::AtMost(1.5));
        report.compare(what("CPU, one each ten seconds"), ours(&each_ten), cpu, Aim::AtMost(1.35));
        let rate = Value::Rate(mean(|run| run.rate));
        report.compare(what("rate, one each second"), Value::Rate(each_second.rate), rate, Aim::AtLeast(0.8));
        let most = Value::Bytes(before.peak_bytes.max(after.peak_bytes));
        report.compare(what("most memory"), Value::Bytes(each_second.peak_bytes), most, Aim::None);
        report.note(format!(
            "the bare loop before and after, {key_bytes} bytes: {:.3} and {:.3} CPU s/M",
            before.cpu_per_million, after.cpu_per_million
        ));
    }
    report.note("theirs has the same table, decoding and encoding; no journal, no checkpoints, no progress");
    Ok(report)
}

fn engine(brokers: &str, output: &str, checkpoint_every: &str) -> Result<Run> {
    eprintln!("  ours, a checkpoint each {checkpoint_every}");
    let folder = Folder::new("fluvial-benchmark-")?;
    let mut arguments = job::sales_arguments(folder.path(), brokers, output, RECORDS, checkpoint_every);
    // Each has progress of its own.
    arguments.extend(["--name", output].map(str::to_owned));
    run(brokers, output, RECORDS, &arguments, folder.path())
}

fn bare(brokers: &str, output: &str) -> Result<Run> {
    eprintln!("  theirs");
    let folder = Folder::new("fluvial-benchmark-")?;
    kafka::make_topic(brokers, output)?;
    let mut arguments = bare_loop::arguments(brokers, output, RECORDS);
    arguments.push("--sales".to_owned());
    run(brokers, output, RECORDS, &arguments, folder.path())
}
