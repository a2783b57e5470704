//! Brokers and topics that are not there, or not for this job: told after a bounded wait, and by name.

use std::ffi::OsString;
use std::sync::OnceLock;
use std::time::Duration;

use fluvial_kafka_embedded::{ApiKey, Fault};
use fluvial_tests::apache::{ApacheKafka, Options};
use fluvial_tests::client::Endpoint;
use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;
use serde_json::Value;

use super::{SOON, args_with, assert_refused, assert_right};

#[test]
fn an_unknown_topic_is_named() {
    let stage = Stage::new(Subject::Orders, 1).unwrap();
    let ended = stage.start_with(args_with(&stage, "--input", "no-such-topic", "")).unwrap().finish(SOON).unwrap();
    assert_refused(&ended, 2, &["'no-such-topic'", stage.endpoint().bootstrap(), "create it, or check its name"]);
}

#[test]
fn an_unknown_topic_is_named_on_apache_kafka() {
    let endpoint = Endpoint::new(ApacheKafka::shared().bootstrap());
    let stage = Stage::on(&endpoint, endpoint.bootstrap(), Subject::Orders, 1).unwrap();
    let ended = stage.start_with(args_with(&stage, "--input", "no-such-topic", "")).unwrap().finish(SOON).unwrap();
    assert_refused(&ended, 2, &["'no-such-topic'", "create it, or check its name"]);
}

#[test]
fn a_broker_that_is_not_there_ends_the_run_after_the_patience() {
    let stage = Stage::new(Subject::Orders, 1).unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let args = args_with(&stage, "--brokers", &nobody, "--patience 2s");
    let ended = stage.start_with(args).unwrap().finish(SOON).unwrap();
    // A person who has mistyped it must see that; so there is no restart before anything has worked.
    assert_refused(&ended, 6, &[&nobody, &stage.input(), "check --brokers", "refused"]);
    assert!(ended.took > Duration::from_secs(2), "{:?}", ended.took);
    assert!(!ended.said.contains("starting the next"), "{}", ended.said);
}

#[test]
fn a_broker_that_goes_away_is_waited_for_by_one_generation_after_the_other() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let job = stage.start("--patience 1s").unwrap();
    stage.feed(0..50).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    stage.broker().fault(Fault::drop(None).always());
    for _ in 0..2 {
        let before = std::fs::read_to_string(job.process().log()).unwrap().matches("starting the next").count();
        let more = || Ok(std::fs::read_to_string(job.process().log())?.matches("starting the next").count() > before);
        stage.wait_until(&job, "another generation", more).unwrap();
    }
    stage.broker().clear_faults();
    stage.feed(50..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    assert_eq!(job.terminate(SOON).unwrap().code, Some(0));
    assert_right(&stage);
}

/// The lag stayed 0, as of the last answer.
#[test]
fn a_broker_that_hangs_does_not_look_like_one_without_input() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let job = stage.start("--log-format json").unwrap();
    stage.feed(0..50).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    let lags = || {
        let log = std::fs::read_to_string(job.process().log())?;
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let status = lines.map(|line| line["fields"].clone()).filter(|fields| fields["message"] == "running");
        let status: Vec<Value> = status.collect();
        let knows = |fields: &Value| {
            let unknown = fields.get("lag_unknown_for_s").is_some();
            let known = fields.get("lag_records").is_some() && fields.get("lag_ms").is_some();
            assert!(known != unknown, "{fields}");
            known
        };
        anyhow::Ok(status.iter().map(knows).collect::<Vec<_>>())
    };
    stage.wait_until(&job, "a lag", || Ok(lags()?.last() == Some(&true))).unwrap();
    stage.broker().fault(Fault::delay(ApiKey::ListOffsets, Duration::from_secs(3600)).always());
    stage.wait_until(&job, "an unknown lag", || Ok(lags()?.last() == Some(&false))).unwrap();
    stage.broker().clear_faults();
    stage.broker().disconnect_all();
    stage.wait_until(&job, "a lag again", || Ok(lags()?.last() == Some(&true))).unwrap();
}

#[test]
fn the_error_is_a_line_of_json_where_the_logs_are() {
    let stage = Stage::new(Subject::Orders, 1).unwrap();
    let args = args_with(&stage, "--input", "no-such-topic", "--log-format json");
    let ended = stage.start_with(args).unwrap().finish(SOON).unwrap();
    assert_eq!(ended.code, Some(2));
    let store: Vec<OsString> = ["--store", "no-such-store", "--log-format", "json"].map(OsString::from).into();
    let asked = format!("{:#}", stage.ask_with("state", store, "").unwrap_err());
    for (said, why) in [(&*ended.said, "'no-such-topic'"), (&asked, "'no-such-store'")] {
        let lines = said.lines().filter(|line| !line.starts_with("state"));
        let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).expect(line)).collect();
        let last = lines.last().unwrap();
        assert_eq!(last["level"], "ERROR", "{said}");
        assert!(last["timestamp"].is_string(), "{said}");
        assert!(last["fields"]["message"].as_str().unwrap().contains(why), "{said}");
    }
}

/// A stage on an Apache Kafka that asks for a name and a password.
fn on_guarded(partitions: i32) -> Stage {
    static GUARDED: OnceLock<ApacheKafka> = OnceLock::new();
    let kafka = GUARDED.get_or_init(|| {
        let login = "org.apache.kafka.common.security.plain.PlainLoginModule required";
        let users = "username=\"broker\" password=\"broker-secret\" user_broker=\"broker-secret\" user_job=\"right\"";
        let properties = [
            // The listener keeps its name; what is spoken there does not.
            ("listener.security.protocol.map", "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT"),
            ("sasl.enabled.mechanisms", "PLAIN"),
            ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
            ("listener.name.plaintext.plain.sasl.jaas.config", &format!("{login} {users};")),
        ];
        let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        ApacheKafka::start(&Options { properties, heap_mib: 512, ..Options::default() }).unwrap()
    });
    let endpoint = Endpoint::new(kafka.bootstrap()).with(&[
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanisms", "PLAIN"),
        ("sasl.username", "job"),
        ("sasl.password", "right"),
    ]);
    Stage::on(&endpoint, kafka.bootstrap(), Subject::Orders, partitions).unwrap()
}

const SASL: &str = "-X security.protocol=sasl_plaintext -X sasl.mechanisms=PLAIN -X sasl.username=job";

#[test]
fn refused_credentials_are_told_at_once_and_right_ones_work() {
    let stage = on_guarded(2);
    let ended = stage.start(&format!("{SASL} -X sasl.password=wrong")).unwrap().finish(SOON).unwrap();
    assert_refused(&ended, 2, &[stage.endpoint().bootstrap(), "refuses", "Authentication failed", "sasl.password"]);
    stage.feed(0..50).unwrap();
    stage.complete(&format!("{SASL} -X sasl.password=right --stop-at-end")).unwrap();
    assert_right(&stage);
}

#[test]
fn a_broker_that_asks_for_credentials_which_are_not_given_is_told_within_seconds() {
    let stage = on_guarded(1);
    let ended = stage.start("").unwrap().finish(MOST).unwrap();
    assert_refused(&ended, 6, &[stage.endpoint().bootstrap(), "security.protocol", "expects SASL"]);
    assert!(ended.took < SOON, "{:?}", ended.took);
}
