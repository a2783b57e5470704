//! What a job costs whose input is empty.

use std::time::{Duration, Instant};

use anyhow::Result;
use fluvial_kafka_apache::child::Folder;

use super::stages;
use crate::kafka;
use crate::report::{Report, Value};
use crate::running::{Running, pause_whole};
use crate::subject::job;

/// How long is measured.
const MEASURED: Duration = Duration::from_secs(20);
/// How long it has been running by then.
const WARM: Duration = Duration::from_secs(5);

pub(crate) fn measure() -> Result<Report> {
    let kafka = kafka::start()?;
    let brokers = kafka.bootstrap();
    kafka::make_topic(brokers, kafka::INPUT)?;
    let folder = Folder::new("fluvial-benchmark-")?;
    let arguments = job::totals_arguments(folder.path(), brokers, "totals", 1);
    let running = Running::start(job::TOTALS, &arguments, folder.path(), stages::SELDOM)?;
    running.wait_until("the job runs", Duration::from_secs(60), |this| {
        Ok(stages::read(this.log())?.iter().any(|event| event.message == "input flows"))
    })?;
    pause_whole(WARM);
    let (cpu, start) = (running.cpu(), Instant::now());
    pause_whole(MEASURED);
    let share = (running.cpu() - cpu).as_secs_f64() / start.elapsed().as_secs_f64();
    let resident = running.resident_bytes();
    running.stop()?;
    let mut report = Report::new("An idle job on Kafka, one worker");
    report.limit("CPU", Value::Core(share), Value::Core(0.01));
    report.limit("resident memory", Value::Bytes(resident), Value::Bytes(60_000_000));
    report.note("both processes, the supervisor and the one that works, with librdkafka's threads and queues");
    Ok(report)
}
