//! Timestamps that Kafka refuses, because the clocks of host and broker differ.

use fluvial_tests::apache::ApacheKafka;
use fluvial_tests::client::Endpoint;
use fluvial_tests::stage::{MOST, OUTPUT_PARTITIONS, Stage};
use fluvial_tests::subject::Subject;

use super::{assert_refused, assert_right};

/// A topic that takes no timestamp from before stands for a clock that differs.
#[test]
fn a_timestamp_that_the_broker_refuses_is_told_with_the_clocks_and_the_setting() {
    let kafka = ApacheKafka::shared();
    let endpoint = Endpoint::new(kafka.bootstrap());
    let stage = Stage::on(&endpoint, kafka.bootstrap(), Subject::Orders, 2).unwrap();
    let output = stage.outputs().swap_remove(0);
    let strict = [("message.timestamp.before.max.ms", "0"), ("cleanup.policy", "compact")];
    endpoint.create_topic(&output, OUTPUT_PARTITIONS, &strict).unwrap();
    stage.feed(0..50).unwrap();
    let ended = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
    let parts = [
        &*format!("topic '{output}' partition "),
        "refuses the timestamp of a record: the clock of this host, which reads ",
        "raise the topic's limits (message.timestamp.after.max.ms=",
        "message.timestamp.before.max.ms=0)",
    ];
    assert_refused(&ended, 2, &parts);
    // With the limit raised it goes on.
    let raised = [("message.timestamp.before.max.ms", "86400000"), ("cleanup.policy", "compact")];
    assert_eq!(endpoint.alter_topic(&output, &raised).unwrap(), "ok");
    stage.complete("--stop-at-end").unwrap();
    assert_right(&stage);
}
