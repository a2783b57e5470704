//! The harness around Apache Kafka does what the tests that use it rely on.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

use fluvial_tests::apache::secured::{self, Listener};
use fluvial_tests::apache::{ApacheKafka, Options};
use fluvial_tests::client::{Endpoint, Isolation, Message, unique};

/// Set for the process that [`nothing_of_it_outlives_a_killed_test`] starts and kills.
const VICTIM: &str = "FLUVIAL_TESTS_VICTIM";

#[test]
fn it_keeps_ports_and_data_over_a_stop_and_a_kill() {
    let mut kafka = ApacheKafka::start(&Options::default()).unwrap();
    let endpoint = Endpoint::new(kafka.bootstrap());
    let topic = unique("kept");
    endpoint.create_topic(&topic, 1, &[]).unwrap();
    let write = |key| {
        endpoint.writer(&[]).unwrap().write(&[Message::text(&topic, 0, key, "v")]).unwrap();
    };
    write("a");
    kafka.restart().unwrap();
    write("b");
    kafka.kill(0).unwrap();
    kafka.start_again().unwrap();
    write("c");
    assert_eq!(endpoint.lines(&topic, Isolation::Committed).unwrap(), ["0/0 a=v", "0/1 b=v", "0/2 c=v"]);
}

#[test]
fn three_brokers_share_the_leaders_and_survive_the_loss_of_one() {
    let mut kafka = ApacheKafka::start(&Options { brokers: 3, heap_mib: 512, ..Options::default() }).unwrap();
    let endpoint = Endpoint::new(kafka.bootstrap());
    let topic = unique("replicated");
    endpoint.create_topic(&topic, 6, &[]).unwrap();
    let write = |key| {
        let all: Vec<_> = (0..6).map(|partition| Message::text(&topic, partition, key, "v")).collect();
        endpoint.writer(&[]).unwrap().write(&all).unwrap();
    };
    write("a");
    kafka.kill(2).unwrap();
    write("b");
    assert_eq!(endpoint.read(&topic, Isolation::Committed).unwrap().len(), 12);
}

#[test]
fn a_secured_one_lets_users_in_by_password_and_do_what_they_were_allowed() {
    let kafka = ApacheKafka::start(&Options { secured: true, ..Options::default() }).unwrap();
    let topic = unique("secured");
    // Who comes by the plain listener may do anything.
    Endpoint::new(kafka.bootstrap()).create_topic(&topic, 1, &[]).unwrap();
    let settings = |password| {
        let user = [("sasl.username", secured::USER), ("sasl.password", password)];
        [&[("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "PLAIN")][..], &user].concat()
    };
    let user = Endpoint::new(kafka.at(Listener::Sasl)).with(&settings(secured::PASSWORD));
    let write = || user.writer(&[]).unwrap().write(&[Message::text(&topic, 0, "a", "v")]).map_err(|e| format!("{e:#}"));
    let refused = write().unwrap_err();
    assert!(
        refused.contains("TopicAuthorizationFailed") || refused.contains("Topic authorization failed"),
        "{refused}"
    );
    kafka.acl(&format!("--add --allow-principal User:{} --operation Write --topic {topic}", secured::USER)).unwrap();
    write().unwrap();
    kafka
        .acl(&format!("--remove --force --allow-principal User:{} --operation Write --topic {topic}", secured::USER))
        .unwrap();
    assert!(write().is_err());
    let stranger = Endpoint::new(kafka.at(Listener::Sasl)).with(&settings("wrong"));
    assert!(stranger.writer(&[]).unwrap().write(&[Message::text(&topic, 0, "a", "v")]).is_err());
}

#[test]
fn nothing_of_it_outlives_a_killed_test() {
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", "a_test_that_waits_to_be_killed", "--nocapture"]).env(VICTIM, "1");
    let mut test = test.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let said = std::io::BufReader::new(test.stdout.take().unwrap());
    let line = std::io::BufRead::lines(said).map_while(Result::ok).find(|line| line.contains("server="));
    let line = line.expect("the test says which server it has started");
    let word = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap().to_owned();
    let (server, folder) = (word("server="), word("folder="));
    assert!(Path::new(&format!("/proc/{server}")).exists() && Path::new(&folder).exists());
    test.kill().unwrap();
    test.wait().unwrap();
    let gone = || !Path::new(&format!("/proc/{server}")).exists() && !Path::new(&folder).exists();
    let start = std::time::Instant::now();
    while !gone() {
        assert!(start.elapsed().as_secs() < 20, "the server {server} or its folder {folder} is still there");
        std::thread::yield_now();
    }
}

#[test]
fn a_test_that_waits_to_be_killed() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let kafka = ApacheKafka::shared();
    println!("\nserver={} folder={}", kafka.pids()[0], kafka.folder().display());
    loop {
        std::thread::park();
    }
}
