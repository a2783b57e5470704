//! How long a job of many partitions takes to open, and what it costs then without input.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fluvial_kafka_apache::child::Folder;

use super::stages;
use crate::kafka;
use crate::kafka::feed::{Fed, Feed};
use crate::report::{Report, Value};
use crate::running::{Running, pause_whole};
use crate::subject::{job, meter};

/// How many partitions the output has where it has many.
const OUTPUT_PARTITIONS: u32 = 200;
/// How many partitions the input has where it has many.
const INPUT_PARTITIONS: u32 = 2000;
/// How long the processor time of an idle job is measured.
const MEASURED: Duration = Duration::from_secs(20);
/// How long it has been running by then.
const WARM: Duration = Duration::from_secs(10);
/// How long there is input before a job is stopped or killed, and how many records a second.
const FED: Duration = Duration::from_secs(5);
const RATE: u64 = 2000;
/// From how many keys.
const KEYS: u64 = 10_000;
/// What the log says on the way.
const STAGES: [&str; 8] = ["joined", "found", "opened", "restored", "fenced", "all fenced", "ready", "input flows"];

pub(crate) fn measure() -> Result<Report> {
    let mut report = Report::new("A job of many partitions on Kafka, one worker, from its start to reading input");
    outputs(&mut report)?;
    inputs(&mut report)?;
    Ok(report)
}

fn outputs(report: &mut Report) -> Result<()> {
    let kafka = kafka::start()?;
    let brokers = kafka.bootstrap();
    kafka::make_topic(brokers, kafka::INPUT)?;
    let store = Folder::new("fluvial-benchmark-")?;
    let arguments = arguments(store.path(), brokers, OUTPUT_PARTITIONS);
    let aim = Duration::from_secs(2);
    // The first time the broker makes what it keeps for all transactions.
    kafka::bare_first_start(brokers, "bare-1", OUTPUT_PARTITIONS)?;
    let theirs = kafka::bare_first_start(brokers, "bare-2", OUTPUT_PARTITIONS)?;
    for (how, begin) in [("first start", 0), ("after a stop", 1), ("after kill -9", 2)] {
        eprintln!("  {OUTPUT_PARTITIONS} partitions of output: {how}");
        let run = Folder::new("fluvial-benchmark-")?;
        let running =
            open(report, format!("{OUTPUT_PARTITIONS} partitions of output, {how}"), &arguments, run.path(), aim)?;
        if begin == 0 {
            report.show("… the same topics and claims by a plain client", Value::Time(theirs));
        }
        let feed = Feed::start(brokers, Fed::Payments, begin * KEYS, KEYS, RATE, meter::now_us())?;
        pause_whole(FED);
        if begin == 0 {
            feed.stop()?;
            running.stop()?;
        }
        // Otherwise it is dropped, which kills it and its processes in the middle of its work.
    }
    Ok(())
}

fn inputs(report: &mut Report) -> Result<()> {
    let kafka = kafka::start_with_partitions(INPUT_PARTITIONS)?;
    let brokers = kafka.bootstrap();
    kafka::make_topic_of(brokers, kafka::INPUT, INPUT_PARTITIONS)?;
    kafka::wait_until_served(brokers, kafka::INPUT, INPUT_PARTITIONS)?;
    let store = Folder::new("fluvial-benchmark-")?;
    let arguments = arguments(store.path(), brokers, kafka::PARTITIONS);
    let aim = Duration::from_secs(3);
    for how in ["first start", "after a stop"] {
        eprintln!("  {INPUT_PARTITIONS} partitions of input: {how}");
        let run = Folder::new("fluvial-benchmark-")?;
        let running =
            open(report, format!("{INPUT_PARTITIONS} partitions of input, {how}"), &arguments, run.path(), aim)?;
        pause_whole(WARM);
        let (cpu, start) = (running.cpu(), Instant::now());
        pause_whole(MEASURED);
        let share = (running.cpu() - cpu).as_secs_f64() / start.elapsed().as_secs_f64();
        report.limit("… idle then, CPU", Value::Core(share), Value::Core(0.03));
        running.stop()?;
    }
    Ok(())
}

fn arguments(store: &Path, brokers: &str, output_partitions: u32) -> Vec<String> {
    let mut arguments = job::totals_arguments(store, brokers, "totals", 1_000_000);
    let name = arguments.iter().position(|argument| argument == "--output-partitions");
    if let Some(value) = name.and_then(|name| arguments.get_mut(name + 1)) {
        *value = output_partitions.to_string();
    }
    arguments
}

/// Starts a job and waits until it reads input.
fn open(report: &mut Report, what: String, arguments: &[String], run: &Path, aim: Duration) -> Result<Running> {
    let started_us = meter::now_us();
    let running = Running::start(job::TOTALS, arguments, run, stages::SELDOM)?;
    let flows = |this: &Running| -> Result<Vec<stages::Event>> {
        let events = stages::read(this.log())?;
        Ok(if events.iter().any(|event| event.message == "input flows") { events } else { Vec::new() })
    };
    let mut events = Vec::new();
    running.wait_until("the job runs", Duration::from_secs(90), |this| {
        events = flows(this)?;
        Ok(!events.is_empty())
    })?;
    let at = |event: &stages::Event| Duration::from_micros(event.at_us.saturating_sub(started_us));
    let last = events.iter().find(|event| event.message == "input flows").context("it has just been there")?;
    report.limit(what, Value::Time(at(last)), Value::Time(aim));
    for stage in STAGES {
        if let Some(event) = events.iter().rfind(|event| event.message == stage) {
            report.show(format!("… {stage}, after"), Value::Time(at(event)));
        }
    }
    Ok(running)
}
