//! A sink that does not commit stops the reading: what is in flight, and the memory, stay within bounds.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use fluvial_kafka_embedded::{ApiKey, Fault};
use fluvial_tests::campaign::Subject;
use fluvial_tests::client::Message;
use fluvial_tests::stage::{Stage, Started};
use serde_json::Value;

const RECORDS: u64 = 6_000;
const RECORD_BYTES: usize = 10_000;
const IN_FLIGHT_BYTES: u64 = 1 << 20;

/// The fields of the job's status lines.
fn status_lines(job: &Started) -> Vec<Value> {
    let log = std::fs::read_to_string(job.process().log()).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|line| line["fields"].clone()).filter(|fields| fields["message"] == "running").collect()
}

/// Memory of the generation's processes that is not shared with files.
fn resident_bytes(job: &Started) -> u64 {
    let of = |pid: &u32| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    job.job().peers().iter().map(of).sum()
}

fn feed(stage: &Stage) {
    let writer = stage.endpoint().writer(&[]).unwrap();
    let (input, customer) = (stage.input(), "c".repeat(RECORD_BYTES));
    for id in 0..RECORDS {
        let (key, product) = (id.to_string(), id % 10);
        let value = format!(
            r#"{{"order_id":{id},"customer":"{customer}","region":"eu","product":"p{product}","quantity":1,"price_cents":1,"at":0}}"#
        );
        let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
        writer.send(&Message { topic: &input, key, value, ..Message::default() }).unwrap();
    }
    for delivered in writer.flush().unwrap() {
        delivered.unwrap();
    }
}

#[test]
fn a_sink_that_does_not_commit_stops_the_reading() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    stage.feed(0..10).unwrap();
    let queues = "-X queued.max.messages.kbytes=1024 -X fetch.max.bytes=1048576 -X message.max.bytes=1048576";
    let options = "--keep-journal --tick-header --log-format json --in-flight 1MiB --workers 2";
    let job = stage.start(&format!("{options} {queues}")).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    let idle = resident_bytes(&job);
    // No transaction ends any more.
    stage.broker().fault(Fault::delay(ApiKey::EndTxn, Duration::from_secs(3600)).always());
    feed(&stage);
    // Two status lines in a row that saw nothing read, while there is much to read.
    let stalled = |lines: &[Value]| {
        let stuck = |line: &Value| line["records_in_per_s"] == 0.0 && line["lag_records"].as_u64() > Some(RECORDS / 2);
        lines.len() >= 2 && lines[lines.len() - 2..].iter().all(stuck)
    };
    stage.wait_until(&job, "stop of the reading", || Ok(stalled(&status_lines(&job)))).unwrap();
    let lines = status_lines(&job);
    let in_flight: Vec<u64> = lines.iter().filter_map(|line| line["in_flight_bytes"].as_u64()).collect();
    println!("in flight {in_flight:?}, resident {idle} then {}", resident_bytes(&job));
    // A worker may have read a poll's worth of records beyond the limit before it knows.
    assert!(in_flight.iter().all(|bytes| *bytes <= 2 * IN_FLIGHT_BYTES), "{in_flight:?}");
    assert!(in_flight.last() > Some(&(IN_FLIGHT_BYTES / 2)), "{in_flight:?}");
    let grown = resident_bytes(&job).saturating_sub(idle);
    assert!(grown < RECORDS * RECORD_BYTES as u64 / 2, "grown by {grown} bytes");
    // The journal binds no more than that either.
    let bound = stage.journal().unwrap().records();
    assert!(bound < RECORDS / 2, "{bound}");
    stage.broker().clear_faults();
    stage.broker().disconnect_all();
    stage.wait_until_caught_up(&job).unwrap();
    assert_eq!(job.terminate(Duration::from_secs(30)).unwrap().code, Some(0));
    stage.check().unwrap();
}
