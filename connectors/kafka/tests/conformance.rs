//! The Kafka connector passes what every connector passes, on the embedded broker. The tests of the whole system run
//! the same on Apache Kafka.
//!
//! `FLUVIAL_TEST_BROKERS=host:port` runs it on another cluster.

mod subject;

use fluvial_connector::conformance::{sink, source};
use fluvial_kafka_embedded::{Broker, Config};
use subject::{Input, Outputs};

fn with_broker(test: impl FnOnce(&str)) {
    match std::env::var("FLUVIAL_TEST_BROKERS") {
        Ok(brokers) => test(&brokers),
        Err(_) => {
            let broker = Broker::start(Config::default()).expect("a port is free");
            test(&broker.bootstrap());
        }
    }
}

#[test]
fn the_source_conforms() {
    with_broker(|brokers| source::all(|| Input::new(brokers)));
}

#[test]
fn the_sink_conforms() {
    with_broker(|brokers| sink::all(|| Outputs::new(brokers)));
}
