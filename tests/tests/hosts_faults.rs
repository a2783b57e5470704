//! Three hosts run a job over a real Kafka while processes, copies and hosts are killed, stopped and cut off. The group goes
//! on by itself after each blow, and the output is what an undisturbed replay gives.
//!
//! `campaign --hosts 3` does so for as long as it is told, and for one minute here.

use std::time::Duration;

use fluvial_tests::group::campaign;

#[test]
fn a_minute_of_random_blows_changes_nothing() {
    assert!(campaign(3, 1, Duration::from_secs(60)));
}
