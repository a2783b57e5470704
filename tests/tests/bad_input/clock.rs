//! Timestamps that Kafka refuses, because the clocks of host and broker differ.

use fluvial_tests::apache::ApacheKafka;
use fluvial_tests::client::Endpoint;
use fluvial_tests::stage::{MOST, OUTPUT_PARTITIONS, Stage};
use fluvial_tests::subject::Subject;

use super::{assert_refused, assert_right};

/// A topic that takes no timestamp from before stands for a clock that differs: the clocks that are told are those of one
/// machine.
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
        "refuses a record for its timestamp, ",
        "this host's clock is ",
        "raise the topic's message.timestamp.before.max.ms=0",
        "the broker says: Timestamp ",
        " is out of range. The timestamp should be within [",
    ];
    assert_refused(&ended, 2, &parts);
    let said = ended.error().unwrap();
    let between = |before: &str, after: &str| {
        let (_, rest) = said.split_once(before).unwrap_or_else(|| panic!("'{before}' is not in: {said}"));
        rest.split_once(after).unwrap_or_else(|| panic!("'{after}' does not follow in: {said}")).0
    };
    let difference = between("this host's clock is ", " the broker's (");
    let (amount, _) = difference.split_once(' ').unwrap();
    assert!(amount.ends_with("ms") || ["0s", "1s", "2s", "3s"].contains(&amount), "{said}");
    // `2026-09-21T14:13:20.000Z`, twice.
    let (host, broker) = (between("(this host's read ", " when "), between(" when the broker's read ", "): "));
    for clock in [host, broker] {
        assert!(clock.len() == 24 && clock.contains('T') && clock.ends_with('Z'), "{said}");
    }
    // With the limit raised it goes on.
    let raised = [("message.timestamp.before.max.ms", "86400000"), ("cleanup.policy", "compact")];
    assert_eq!(endpoint.alter_topic(&output, &raised).unwrap(), "ok");
    stage.complete("--stop-at-end").unwrap();
    assert_right(&stage);
}
