//! A host whose clock differs from the broker's: Kafka refuses records from the future.

use fluvial_tests::apache::ApacheKafka;
use fluvial_tests::client::Endpoint;
use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;

use super::{assert_refused, assert_right};

#[test]
fn a_clock_that_is_hours_ahead_of_the_brokers_is_told_with_the_difference_and_the_setting() {
    let kafka = ApacheKafka::shared();
    let endpoint = Endpoint::new(kafka.bootstrap());
    let stage = Stage::on(&endpoint, kafka.bootstrap(), Subject::Orders, 2).unwrap();
    // Only what time of day it is differs; timeouts are measured as ever.
    let stage = stage.with_launcher(["faketime", "--exclude-monotonic", "-f", "+3h"]);
    stage.feed(0..50).unwrap();
    let ended = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
    let parts = [
        "refuses the timestamp of a record",
        ".fluvial-progress'",
        "the clock of this host is 3 h 0 min ahead of the clock of the broker",
        "message.timestamp.after.max.ms=3600000",
    ];
    assert_refused(&ended, 2, &parts);
    // With the clock put right, it goes on.
    let stage = stage.with_launcher(Vec::<String>::new());
    stage.complete("--stop-at-end").unwrap();
    assert_right(&stage);
}
