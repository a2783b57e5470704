//! The Kafka connector passes what every connector passes, on the embedded broker. The tests of the whole system run
//! the same on Apache Kafka.
//!
//! `FLUVIAL_TEST_BROKERS=host:port` runs it on another cluster.

mod subject;

use std::sync::Arc;

use fluvial_connector::conformance::{sink, source};
use fluvial_kafka_embedded::{Broker, Config};
use subject::{Input, Outputs};

/// Another cluster, if there is one to test on, or the embedded broker.
fn cluster() -> Result<String, Arc<Broker>> {
    let embedded = || Arc::new(Broker::start(Config::default()).expect("a port is free"));
    std::env::var("FLUVIAL_TEST_BROKERS").map_err(|_| embedded())
}

#[test]
fn the_source_conforms() {
    let no_parts = "a_partly_written_record_is_not_delivered";
    let (report, skipped) = match cluster() {
        Ok(brokers) => {
            let no_outages = "an_unavailable_split_holds_up_no_other";
            (source::all(|| Input::new(&brokers)), vec![no_parts, no_outages])
        }
        Err(broker) => (source::all(|| Input::on(&broker)), vec![no_parts]),
    };
    assert_eq!(report.skipped, skipped);
}

#[test]
fn the_sink_conforms() {
    let report = match cluster() {
        Ok(brokers) => sink::all(|| Outputs::new(&brokers)),
        Err(broker) => sink::all(|| Outputs::new(&broker.bootstrap())),
    };
    assert_eq!(report.skipped, [""; 0]);
}
