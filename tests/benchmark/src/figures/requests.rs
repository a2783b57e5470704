//! What a job asks of a store that charges for each request, and what that costs.

use std::time::{Duration, Instant};

use anyhow::Result;
use fluvial_kafka_apache::child::Folder;
use fluvial_s3::{Front, Requests, Server, environment};
use fluvial_store::cost;

use super::stages;
use crate::kafka::feed::{Fed, Feed};
use crate::kafka::{self, INPUT};
use crate::report::{Report, Value};
use crate::running::{Running, pause_whole};
use crate::subject::{job, meter};

/// How long an idle job has been running when it is measured: its heartbeats are 30 s apart by then.
const WARM_IDLE: Duration = Duration::from_secs(75);
/// How long an idle job is measured: from a checkpoint without input to the next one.
const MEASURED_IDLE: Duration = Duration::from_secs(150);
/// The same for a busy job.
const WARM_BUSY: Duration = Duration::from_secs(10);
const MEASURED_BUSY: Duration = Duration::from_secs(60);
/// How many keys there are.
const KEYS: u64 = 10_000;
/// Records a second.
const RATE: u64 = 5_000;
/// What an idle job may cost in a month, in dollars.
const MOST_IDLE: f64 = 1.0;
const BUCKET: &str = "bucket";

pub(crate) fn measure() -> Result<Report> {
    let kafka = kafka::start()?;
    let brokers = kafka.bootstrap();
    kafka::make_topic(brokers, INPUT)?;
    let server = Server::start()?;
    server.make_bucket(BUCKET)?;
    let front = Front::start(&server)?;
    let folder = Folder::new("fluvial-benchmark-")?;
    let mut arguments = job::totals_arguments(folder.path(), brokers, "totals", RATE);
    let store = arguments.iter().position(|argument| argument == "--store").map(|at| at + 1);
    arguments[store.expect("a job has a store")] = format!("s3://{BUCKET}/fluvial");
    let environment = environment(&front.endpoint());
    let running = Running::start_in(&environment, job::TOTALS, &arguments, folder.path(), stages::SELDOM)?;
    running.wait_until("the job runs", Duration::from_secs(60), |this| {
        Ok(stages::read(this.log())?.iter().any(|event| event.message == "input flows"))
    })?;
    pause_whole(WARM_IDLE);
    let idle = within(&front, MEASURED_IDLE);
    let feed = Feed::start(brokers, Fed::Payments, 0, KEYS, RATE, meter::now_us())?;
    pause_whole(WARM_BUSY);
    let busy = within(&front, MEASURED_BUSY);
    feed.stop()?;
    running.stop()?;
    let mut report =
        Report::new("Requests to a store on S3's protocol, one worker, all options as they are by default");
    for (name, requests) in [("idle", idle), ("busy", busy)] {
        report.show(format!("{name}: PUT and LIST an hour"), Value::Count(requests.writes.round() as u64));
        report.show(format!("{name}: GET an hour"), Value::Count(requests.reads.round() as u64));
        report.show(format!("{name}: DELETE an hour, which are free"), Value::Count(requests.deletes.round() as u64));
    }
    let dollars = |requests: cost::Requests| Value::DollarsPerMonth(requests.dollars_per_month());
    report.limit("idle: price", dollars(idle), Value::DollarsPerMonth(MOST_IDLE));
    report.show("busy: price", dollars(busy));
    report.note("counted at the store's door for some minutes, at the list prices of S3 Standard (us-east-1)");
    Ok(report)
}

/// The requests an hour, as they come in this time.
fn within(front: &Front, time: Duration) -> cost::Requests {
    let (before, start) = (front.requests(), Instant::now());
    pause_whole(time);
    let Requests { writes, reads, deletes } = front.requests();
    let hours = start.elapsed().as_secs_f64() / 3600.0;
    let an_hour = |after: u64, before: u64| (after - before) as f64 / hours;
    cost::Requests {
        writes: an_hour(writes, before.writes),
        reads: an_hour(reads, before.reads),
        deletes: an_hour(deletes, before.deletes),
    }
}
