//! Fluvial itself is upgraded, one node after the other, while jobs run.

use fluvial_tests::cluster::{Cluster, ClusterOptions, Fleet, check_logs};
use fluvial_tests::group::{Kafka, Store};

/// Each node leaves, and comes back as one of the next version, whose messages have the next version, and whose records the others
/// cannot read. Two nodes have room for all jobs.
#[test]
fn a_rolling_upgrade_of_all_nodes_interrupts_a_job_only_with_its_own_nodes() {
    let cluster =
        Cluster::start(ClusterOptions { hosts: 3, slots: 6, kafka: Kafka::Apache, store: Store::Folder, key: true })
            .unwrap();
    let fleet = Fleet::start(&cluster, 5, 3).unwrap();
    for host in cluster.hosts() {
        let before = fleet.generations().unwrap();
        let jobs: Vec<_> = fleet.tenants().iter().map(|tenant| fleet.hosts_of(tenant.name()).unwrap()).collect();
        cluster.stop_node(host).unwrap_or_else(|error| panic!("{error:#}"));
        fleet.wait_until_all_run().unwrap_or_else(|error| panic!("{error:#}"));
        cluster.set_options(host, &["--later-by", "1"]);
        cluster.start_node(host).unwrap();
        cluster.wait_for_nodes().unwrap_or_else(|error| panic!("{error:#}"));
        fleet.wait_until_all_run().unwrap_or_else(|error| panic!("{error:#}"));
        let after = fleet.generations().unwrap();
        for (((tenant, hosts), before), after) in fleet.tenants().iter().zip(jobs).zip(&before).zip(&after) {
            let most = u64::from(hosts.contains(&host));
            assert!(after - before <= most, "{} ran on {hosts:?}, and began {before} → {after}", tenant.name());
        }
    }
    fleet.finish().unwrap_or_else(|error| panic!("{error:#}"));
    check_logs(&cluster).unwrap();
}
