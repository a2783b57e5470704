//! Nodes are killed at each place of each change.

use std::collections::BTreeSet;

use fluvial_node::fail_point::FailPoint;
use fluvial_tests::cluster::{Change, Cluster, ClusterOptions, Fleet, check_logs, strike_at};
use fluvial_tests::group::{Kafka, Store};

use Change::{Drain, Rescale, Savepoint, Submit, Upgrade};
use FailPoint::{
    AfterAttempt, AfterBinary, AfterCheck, AfterEnd, AfterFetch, AfterIntroduction, AfterPin, AfterRecord,
    AfterSavepoint, AfterSpecification, AfterStart, BeforeAnswer, BeforeAttempt, BeforeBinary, BeforeFetch,
    BeforeIntroduction, BeforeInvitation, BeforeRecord, BeforeSavepoint, BeforeSpecification, BeforeStart, BeforeStop,
};

/// Each place once, with a change that passes it. `campaign --cluster 3 --fail-points` tries every place of every change.
const BY_THE_COORDINATOR: [(FailPoint, Change); 11] = [
    (BeforeBinary, Submit),
    (AfterBinary, Upgrade),
    (AfterPin, Savepoint),
    (BeforeSavepoint, Savepoint),
    (AfterSavepoint, Upgrade),
    (BeforeSpecification, Submit),
    (AfterSpecification, Upgrade),
    (BeforeRecord, Drain),
    (AfterRecord, Upgrade),
    (BeforeAnswer, Submit),
    (BeforeAttempt, Rescale),
];
const BY_THE_NODES: [(FailPoint, Change); 11] = [
    (BeforeFetch, Submit),
    (AfterFetch, Upgrade),
    (AfterCheck, Submit),
    (BeforeStop, Rescale),
    (AfterEnd, Drain),
    (AfterAttempt, Upgrade),
    (BeforeStart, Submit),
    (BeforeInvitation, Rescale),
    (AfterStart, Drain),
    (BeforeIntroduction, Upgrade),
    (AfterIntroduction, Rescale),
];

fn survives(places: &[(FailPoint, Change)]) {
    let options = ClusterOptions { hosts: 3, slots: 12, kafka: Kafka::Embedded, store: Store::Folder, key: true };
    let cluster = Cluster::start(options).unwrap();
    let mut fleet = Fleet::start_small(&cluster, 2).unwrap();
    for (number, (point, change)) in places.iter().enumerate() {
        strike_at(&mut fleet, *change, number, *point).unwrap_or_else(|error| panic!("{error:#}"));
    }
    fleet.finish().unwrap_or_else(|error| panic!("{error:#}"));
    check_logs(&cluster).unwrap();
}

#[test]
fn a_coordinator_that_is_killed_at_any_step_of_a_change_loses_nothing() {
    survives(&BY_THE_COORDINATOR);
}

#[test]
fn a_node_that_is_killed_at_any_step_of_a_change_loses_nothing() {
    survives(&BY_THE_NODES);
}

#[test]
fn every_fail_point_is_tried() {
    let tried: BTreeSet<_> = BY_THE_COORDINATOR.iter().chain(&BY_THE_NODES).map(|(point, _)| *point).collect();
    assert_eq!(tried, FailPoint::ALL.iter().copied().collect());
}
