//! A NAT, a firewall or a load balancer forgets the connections of a job: their packets vanish, and nobody is told.
#![allow(clippy::unwrap_used)]

use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use fluvial_kafka_embedded::{Broker, Config};
use fluvial_tests::client::Endpoint;
use fluvial_tests::hosts::{Network, Place};
use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;

/// It was librdkafka's time-out of a request, a minute, until the next output came. The aim is ten seconds; a busy machine
/// is given twice that.
const COMMITS_AGAIN_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn output_goes_on_within_seconds_after_every_connection_was_dropped_without_a_word() {
    let network = Network::new(1).unwrap();
    let listen = SocketAddr::from((network.address(Place::Broker), 0));
    let config = Config { listen, ..Config::default() };
    let broker = network.within(Place::Broker, || Broker::start(config)).unwrap().unwrap();
    let address = SocketAddrV4::new(network.address(Place::Broker), broker.address().port());
    let endpoint = Endpoint::new(broker.bootstrap());
    let launcher = network.launcher(Place::Host(0)).unwrap();
    let stage = Stage::on(&endpoint, &broker.bootstrap(), Subject::Orders, 2).unwrap().with_launcher(launcher);
    let job = stage.start("--workers 2 --processes 2 --keep-journal --tick-header").unwrap();
    stage.feed(0..200).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    let before = stage.visible().unwrap();
    let dropped = network.drop_established(Place::Host(0), address).unwrap();
    let since = Instant::now();
    stage.feed(200..400).unwrap();
    stage.wait_for_more_than(before, &job).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    let after = since.elapsed();
    println!("{dropped} connections dropped; all committed again after {after:?}\n{}", job.process().log_end());
    assert!(after < COMMITS_AGAIN_WITHIN, "{after:?}; the log ends with\n{}", job.process().log_end());
    assert!(job.job().stop(MOST).unwrap().success());
    stage.check().unwrap();
}
