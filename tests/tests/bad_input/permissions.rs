//! Permissions that are missing or taken away: the resource, the operation and the principal are named.

use std::sync::OnceLock;
use std::time::Duration;

use fluvial_tests::apache::{ApacheKafka, Options};
use fluvial_tests::client::Endpoint;
use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;

use super::{assert_refused, assert_right};

/// How soon a job ends that is not permitted something.
const SOON: Duration = Duration::from_secs(30);

const LOGIN: &str =
    "-X security.protocol=sasl_plaintext -X sasl.mechanisms=PLAIN -X sasl.username=job -X sasl.password=right";

fn login(user: &str) -> [(&str, &str); 4] {
    [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanisms", "PLAIN"),
        ("sasl.username", user),
        ("sasl.password", "right"),
    ]
}

/// An Apache Kafka with access control lists, in which the user `job` may do everything.
fn guarded() -> &'static ApacheKafka {
    static GUARDED: OnceLock<ApacheKafka> = OnceLock::new();
    GUARDED.get_or_init(|| {
        let module = "org.apache.kafka.common.security.plain.PlainLoginModule required";
        let users =
            "username=\"broker\" password=\"right\" user_broker=\"right\" user_admin=\"right\" user_job=\"right\"";
        let properties = [
            // The listener keeps its name; what is spoken there does not.
            ("listener.security.protocol.map", "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT"),
            ("sasl.enabled.mechanisms", "PLAIN"),
            ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
            ("listener.name.plaintext.plain.sasl.jaas.config", &format!("{module} {users};")),
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
            ("super.users", "User:broker;User:admin;User:ANONYMOUS"),
        ];
        let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let kafka = ApacheKafka::start(&Options { properties, heap_mib: 512, ..Options::default() }).unwrap();
        let admin = format!(
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config={module} username=\"admin\" \
             password=\"right\";\n"
        );
        std::fs::write(kafka.folder().join("admin.properties"), admin).unwrap();
        let everything = ["--topic", "*", "--transactional-id", "*", "--group", "*", "--cluster"];
        acl(&kafka, "--add", "--allow-principal", "All", &everything);
        kafka
    })
}

fn acl(kafka: &ApacheKafka, change: &str, principal: &str, operation: &str, resources: &[&str]) {
    let config = kafka.folder().join("admin.properties");
    let mut args = vec!["--bootstrap-server", kafka.bootstrap(), "--command-config", config.to_str().unwrap()];
    args.extend([change, principal, "User:job", "--operation", operation]);
    args.extend(resources);
    if change == "--remove" {
        args.push("--force");
    }
    kafka.tool("org.apache.kafka.tools.AclCommand", &args).unwrap();
}

/// Takes a permission away until this is dropped.
struct Denied<'a> {
    operation: &'a str,
    resource: [&'a str; 2],
}

impl<'a> Denied<'a> {
    fn new(operation: &'a str, resource: [&'a str; 2]) -> Self {
        acl(guarded(), "--add", "--deny-principal", operation, &resource);
        Self { operation, resource }
    }
}

impl Drop for Denied<'_> {
    fn drop(&mut self) {
        acl(guarded(), "--remove", "--deny-principal", self.operation, &self.resource);
    }
}

#[test]
fn a_permission_that_is_missing_or_taken_away_is_told_with_resource_operation_and_principal() {
    let kafka = guarded();
    let endpoint = Endpoint::new(kafka.bootstrap()).with(&login("admin"));
    let stage = Stage::on(&endpoint, kafka.bootstrap(), Subject::Orders, 2).unwrap();
    let (input, output) = (stage.input(), stage.outputs().swap_remove(0));
    let progress = format!("{}.fluvial-progress", stage.name());
    stage.feed(0..50).unwrap();
    stage.complete(&format!("{LOGIN} --stop-at-end")).unwrap();

    // Under a running job: the permission to write, and all that there is.
    let mut fed = 50;
    for (operation, topic) in [("Write", &output), ("Write", &progress), ("All", &progress)] {
        let job = stage.start(LOGIN).unwrap();
        stage.wait_until_caught_up(&job).unwrap();
        let denied = Denied::new(operation, ["--topic", topic]);
        stage.feed(fed..fed + 20).unwrap();
        fed += 20;
        let ended = job.finish(SOON).unwrap();
        let cure = format!("kafka-acls.sh --add --allow-principal User:job --operation Write --topic {topic}`");
        let parts = ["User:job is not authorized for the operation Write", &format!("on topic '{topic}'"), &cure];
        assert_refused(&ended, 2, &parts);
        drop(denied);
    }

    // Before it begins.
    let everywhere = ["--transactional-id", "*"];
    for (operation, resource, said) in [
        ("Read", ["--topic", &input], format!("the operation Read on topic '{input}'")),
        ("Describe", ["--topic", &input], format!("the operation Describe on topic '{input}'")),
        ("Write", everywhere, "the operation Write on transactional id '".to_owned()),
    ] {
        let denied = Denied::new(operation, resource);
        let ended = stage.start(&format!("{LOGIN} --stop-at-end")).unwrap().finish(SOON).unwrap();
        assert_refused(&ended, 2, &["User:job is not authorized for", &said, "kafka-acls.sh --add"]);
        drop(denied);
    }
    let ended = stage.start(&format!("{LOGIN} --stop-at-end")).unwrap().finish(MOST).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_right(&stage);
}
