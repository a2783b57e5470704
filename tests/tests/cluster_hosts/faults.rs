//! Faults while many jobs run and users change them.

use std::time::Duration;

use fluvial_tests::cluster::{Blow, Change, Cluster, ClusterOptions, Fleet, check_logs, strike};
use fluvial_tests::group::{Kafka, Role, Store};

use Role::{Coordinator, Other};

fn survives(cluster: &Cluster, mut fleet: Fleet<'_>, blows: &[(Blow, Change, u64)]) {
    for (number, (blow, change, after_ms)) in blows.iter().enumerate() {
        let struck = strike(&mut fleet, *change, number, *blow, Duration::from_millis(*after_ms));
        struck.unwrap_or_else(|error| panic!("{error:#}"));
    }
    fleet.finish().unwrap_or_else(|error| panic!("{error:#}"));
    check_logs(cluster).unwrap();
}

#[test]
fn many_jobs_survive_faults_while_users_submit_rescale_save_and_drain() {
    let options = ClusterOptions { hosts: 3, slots: 12, kafka: Kafka::Apache, store: Store::Folder, key: true };
    let cluster = Cluster::start(options).unwrap();
    let fleet = Fleet::start(&cluster, 6, 1).unwrap();
    survives(
        &cluster,
        fleet,
        &[
            (Blow::Kill(Coordinator), Change::Submit, 300),
            (Blow::CutPower(Other), Change::Rescale, 700),
            (Blow::RestartKafka, Change::Savepoint, 0),
            (Blow::Isolate(Coordinator), Change::Drain, 900),
        ],
    );
}

#[test]
fn uploads_and_changes_survive_a_store_that_cannot_be_reached() {
    let options = ClusterOptions { hosts: 3, slots: 4, kafka: Kafka::Embedded, store: Store::Bucket, key: true };
    let cluster = Cluster::start(options).unwrap();
    let fleet = Fleet::start_small(&cluster, 2).unwrap();
    survives(
        &cluster,
        fleet,
        &[(Blow::StoreAway, Change::Upgrade, 200), (Blow::CutFromStore(Coordinator), Change::Submit, 500)],
    );
}
