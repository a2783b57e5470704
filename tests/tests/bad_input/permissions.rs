//! Permissions that are missing or removed: the resource, the operation and the principal are named.

use std::sync::OnceLock;
use std::time::Duration;

use fluvial_tests::apache::secured::{Listener, PASSWORD, USER};
use fluvial_tests::apache::{ApacheKafka, Options};
use fluvial_tests::client::Endpoint;
use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;

use super::{assert_refused, assert_right};

/// How soon a job ends that is not permitted something.
const SOON: Duration = Duration::from_secs(30);

/// An Apache Kafka with access control lists, in which the jobs' user may do everything.
fn guarded() -> &'static ApacheKafka {
    static GUARDED: OnceLock<ApacheKafka> = OnceLock::new();
    GUARDED.get_or_init(|| {
        let kafka = ApacheKafka::start(&Options { secured: true, heap_mib: 512, ..Options::default() }).unwrap();
        let everything = "--topic * --transactional-id * --group * --cluster";
        kafka.acl(&format!("--add --allow-principal User:{USER} --operation All {everything}")).unwrap();
        kafka
    })
}

/// Removes a permission until this is dropped.
struct Denied(String);

impl Denied {
    fn new(operation: &str, resource: &str) -> Self {
        let denied = format!("--deny-principal User:{USER} --operation {operation} {resource}");
        guarded().acl(&format!("--add {denied}")).unwrap();
        Self(denied)
    }
}

impl Drop for Denied {
    fn drop(&mut self) {
        guarded().acl(&format!("--remove --force {}", self.0)).unwrap();
    }
}

#[test]
fn a_permission_that_is_missing_or_taken_away_is_told_with_resource_operation_and_principal() {
    let kafka = guarded();
    let endpoint = Endpoint::new(kafka.bootstrap());
    let stage = Stage::on(&endpoint, kafka.at(Listener::Sasl), Subject::Orders, 2).unwrap();
    let login = format!(
        "-X security.protocol=sasl_plaintext -X sasl.mechanisms=PLAIN -X sasl.username={USER} -X sasl.password={PASSWORD}"
    );
    let (input, output) = (stage.input(), stage.outputs().swap_remove(0));
    let progress = format!("{}.fluvial-progress", stage.name());
    stage.feed(0..50).unwrap();
    stage.complete(&format!("{login} --stop-at-end")).unwrap();

    // Under a running job: the permission to write, and all that there is.
    let mut fed = 50;
    for (operation, topic) in [("Write", &output), ("Write", &progress), ("All", &progress)] {
        let job = stage.start(&login).unwrap();
        stage.wait_until_caught_up(&job).unwrap();
        let denied = Denied::new(operation, &format!("--topic {topic}"));
        stage.feed(fed..fed + 20).unwrap();
        fed += 20;
        let ended = job.finish(SOON).unwrap();
        let cure = format!("kafka-acls.sh --add --allow-principal User:job --operation Write --topic {topic}`");
        let parts = ["User:job is not authorized for the operation Write", &format!("on topic '{topic}'"), &cure];
        assert_refused(&ended, 2, &parts);
        drop(denied);
    }

    // Before it begins.
    for (operation, resource, said) in [
        ("Read", format!("--topic {input}"), format!("the operation Read on topic '{input}'")),
        ("Describe", format!("--topic {input}"), format!("the operation Describe on topic '{input}'")),
        (
            "Write",
            "--transactional-id *".to_owned(),
            format!("the operation Write on transactional id '{}-", stage.name()),
        ),
    ] {
        let denied = Denied::new(operation, &resource);
        let ended = stage.start(&format!("{login} --stop-at-end")).unwrap().finish(SOON).unwrap();
        assert_refused(&ended, 2, &["User:job is not authorized for", &said, "kafka-acls.sh --add"]);
        drop(denied);
    }
    let new = Stage::on(&endpoint, kafka.at(Listener::Sasl), Subject::Orders, 1).unwrap();
    let denied = Denied::new("Create", "--topic * --cluster");
    let ended = new.start(&login).unwrap().finish(SOON).unwrap();
    let said = format!("not authorized for the operation Create on topic '{}'", new.outputs().swap_remove(0));
    assert_refused(&ended, 2, &["User:job is ", &said, "kafka-acls.sh --add"]);
    drop(denied);

    let ended = stage.start(&format!("{login} --stop-at-end")).unwrap().finish(MOST).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_right(&stage);
}
