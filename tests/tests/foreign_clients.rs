//! kcat and a Python client talk to both brokers, and see what rdkafka sees.
#![allow(clippy::unwrap_used)]

use fluvial_kafka_embedded::{Broker, Config};
use fluvial_tests::apache::ApacheKafka;
use fluvial_tests::client::{Endpoint, Isolation, unique};
use fluvial_tests::foreign::{Kcat, Python};

fn kcat_talks_to(broker: &Endpoint) {
    let kcat = Kcat::new(broker).unwrap();
    let topic = unique("kcat");
    broker.create_topic(&topic, 2, &[]).unwrap();
    assert!(kcat.list(&topic).unwrap().contains(&format!("topic \"{topic}\" with 2 partitions:")));
    kcat.produce(&topic, 0, None, "a:1\nb:2\n").unwrap();
    kcat.produce(&topic, 1, Some(&unique("id")), "c:3\nd:4\n").unwrap();
    let open = broker.transactional(&unique("id"), &[]).unwrap();
    open.begin().unwrap();
    open.write(&[fluvial_tests::client::Message::text(&topic, 0, "open", "5")]).unwrap();
    assert_eq!(kcat.read(&topic, Isolation::Committed).unwrap(), ["0/0 a=1", "0/1 b=2", "1/0 c=3", "1/1 d=4"]);
    open.abort().unwrap();
    broker.settle(&topic).unwrap();
    for isolation in [Isolation::Committed, Isolation::Uncommitted] {
        assert_eq!(kcat.read(&topic, isolation).unwrap(), broker.lines(&topic, isolation).unwrap());
    }
}

fn python_talks_to(broker: &Endpoint) {
    let python = Python::new(broker).unwrap();
    let topic = unique("python");
    python.create_topic(&topic, 2).unwrap();
    broker.wait_for_partitions(&topic, 2).unwrap();
    python.produce(&topic, "0:a:1\n0:b:2\n1:c:3\n").unwrap();
    python.transact(&topic, &unique("id"), false, "0:never:0\n1:never:0\n").unwrap();
    python.transact(&topic, &unique("id"), true, "0:d:4\n1:e:5\n").unwrap();
    broker.settle(&topic).unwrap();
    let committed = python.read(&topic, Isolation::Committed).unwrap();
    assert_eq!(committed, ["0/0 a=1", "0/1 b=2", "0/4 d=4", "1/0 c=3", "1/3 e=5"]);
    for isolation in [Isolation::Committed, Isolation::Uncommitted] {
        assert_eq!(python.read(&topic, isolation).unwrap(), broker.lines(&topic, isolation).unwrap());
    }
    let group = unique("group");
    assert_eq!(python.consume_in_group(&topic, &group, 5).unwrap(), committed);
    // The group goes on where it has committed.
    python.produce(&topic, "0:f:6\n").unwrap();
    assert_eq!(python.consume_in_group(&topic, &group, 1).unwrap(), ["0/6 f=6"]);
}

#[test]
fn kcat_talks_to_apache_kafka() {
    kcat_talks_to(&Endpoint::new(ApacheKafka::shared().bootstrap()));
}

#[test]
fn python_talks_to_apache_kafka() {
    python_talks_to(&Endpoint::new(ApacheKafka::shared().bootstrap()));
}

#[test]
fn kcat_talks_to_the_embedded_broker() {
    let broker = Broker::start(Config::default()).unwrap();
    kcat_talks_to(&Endpoint::new(broker.bootstrap()));
}

#[test]
fn python_talks_to_the_embedded_broker() {
    let broker = Broker::start(Config::default()).unwrap();
    python_talks_to(&Endpoint::new(broker.bootstrap()));
}
