//! What an output does not take: a record, a batch, for its size; and a job that cannot commit says what it waits for.

use std::time::{Duration, SystemTime};

use fluvial_kafka_embedded::{ApiKey, Fault, ResponseError};
use fluvial_tests::client::Message;
use fluvial_tests::stage::{MOST, OUTPUT_PARTITIONS, Stage, Started};
use fluvial_tests::subject::Subject;

use super::code::rows;
use super::{SOON, assert_refused, faulty, written_after};

const ORDER: &str = r#"{"order_id":7,"customer":"c","region":"eu","product":"p","quantity":1,"price_cents":5,"at":0}"#;

/// A stage of the job that has one row for each order, whose output topic exists and takes batches of so many bytes.
fn stage(max_message_bytes: &str) -> (Stage, String) {
    let stage = faulty(Stage::new(Subject::Orders, 2).unwrap());
    let output = stage.outputs().swap_remove(0);
    let settings = [("max.message.bytes", max_message_bytes), ("cleanup.policy", "compact")];
    stage.endpoint().create_topic(&output, OUTPUT_PARTITIONS, &settings).unwrap();
    (stage, output)
}

/// So many orders at once.
fn burst(stage: &Stage, orders: std::ops::Range<u32>) {
    let input = stage.input();
    let keys: Vec<String> = orders.map(|number| format!("order-{number}")).collect();
    let messages: Vec<_> = keys.iter().map(|key| Message::text(&input, 0, key, ORDER)).collect();
    stage.endpoint().writer(&[]).unwrap().write(&messages).unwrap();
}

fn log(job: &Started) -> String {
    std::fs::read_to_string(job.process().log()).unwrap()
}

#[test]
fn a_record_that_is_too_large_for_its_topic_is_named_with_its_size_and_the_limit() {
    let (stage, output) = stage("2000");
    let (input, key) = (stage.input(), "k".repeat(3000));
    stage.endpoint().writer(&[]).unwrap().write(&[Message::text(&input, 0, &key, ORDER)]).unwrap();
    let ended = stage.start("--stop-at-end").unwrap().finish(SOON).unwrap();
    let shown = format!("the record with the key \"\\\"{}…\" for topic '{output}' partition ", "k".repeat(63));
    let cure = format!(" --alter --entity-type topics --entity-name {output} --add-config");
    // 61 bytes of a batch, 7 and a half of a record (the lengths of the record and of the key take two bytes), the key
    // as JSON, and the value "5".
    let size = 61 + 2 + 4 + 2 + 3002 + 1 + 1;
    let parts = [&*shown, &format!("it has {size} bytes, and the topic's max.message.bytes is 2000"), &cure];
    assert_refused(&ended, 1, &parts);
    // With the limit raised as it says, it goes on.
    assert_eq!(stage.endpoint().alter_topic(&output, &[("max.message.bytes", "5000")]).unwrap(), "ok");
    stage.complete("--stop-at-end").unwrap();
    assert_eq!(rows(&stage).0, rows(&stage).1);
}

#[test]
fn a_record_that_is_too_large_for_the_client_is_named_with_the_clients_limit() {
    let (stage, output) = stage("100000");
    let (input, key) = (stage.input(), "k".repeat(3000));
    stage.endpoint().writer(&[]).unwrap().write(&[Message::text(&input, 0, &key, ORDER)]).unwrap();
    let ended = stage.start("--stop-at-end -X message.max.bytes=2000").unwrap().finish(SOON).unwrap();
    let parts = [&*format!("for topic '{output}' partition "), "the client's message.max.bytes is 2000", "-X"];
    assert_refused(&ended, 1, &parts);
}

/// 20,000 small rows at once are far more than the topic takes in one batch, and each is far below its limit.
#[test]
fn batches_are_kept_below_the_limit_of_the_topic() {
    let (stage, _) = stage("20000");
    burst(&stage, 0..20_000);
    let ended = stage.complete("--stop-at-end").unwrap();
    assert!(!ended.said.contains("a transaction was not committed"), "{}", ended.said);
    let (expected, seen) = rows(&stage);
    assert_eq!(expected.len(), 20_000);
    assert_eq!(expected, seen);
}

#[test]
fn a_limit_that_is_lowered_under_a_running_job_is_told_and_kept() {
    let (stage, output) = stage("1000000");
    burst(&stage, 0..10);
    let job = stage.start("").unwrap();
    stage.wait_for_more_than(0, &job).unwrap();
    assert_eq!(stage.endpoint().alter_topic(&output, &[("max.message.bytes", "20000")]).unwrap(), "ok");
    burst(&stage, 10..20_000);
    stage.wait_until(&job, "all rows", || Ok(rows(&stage).0 == rows(&stage).1)).unwrap();
    let ended = job.terminate(MOST).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    let told = ended.said.lines().find(|line| line.contains("the topic's limit was lowered")).unwrap_or_default();
    assert!(told.contains(&output) && told.contains("20000"), "{}", ended.said);
    assert_eq!(stage.journal().unwrap().generations, 1);
}

/// librdkafka tries again for ever, without a word: nothing was said before.
#[test]
fn a_job_that_cannot_commit_says_after_ten_seconds_what_it_waits_for_and_goes_on() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    stage.feed(0..100).unwrap();
    let job = stage.start("-X client.id=held-up").unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    assert!(!log(&job).contains("nothing has been committed"), "{}", log(&job));
    let held_up = Fault::fail(ApiKey::Produce, ResponseError::NotLeaderOrFollower).always().client("held-up");
    let since = SystemTime::now();
    stage.broker().fault(held_up);
    stage.feed(100..200).unwrap();
    let warned = || Ok(log(&job).contains("nothing has been committed"));
    stage.wait_until(&job, "a warning", warned).unwrap();
    let said = log(&job);
    let line = said.lines().find(|line| line.contains("nothing has been committed")).unwrap();
    let output = stage.outputs().swap_remove(0);
    for part in ["WARN", "waits for the records of a transaction to be acknowledged", &output, "not acknowledged: "] {
        assert!(line.contains(part), "the warning does not say {part:?}: {line}");
    }
    // The ten seconds are counted from when the job, then idle, last checked for something to commit: up to a second before.
    let after = written_after(since, line);
    assert!((Duration::from_secs(8)..Duration::from_secs(20)).contains(&after), "{after:?}: {line}");
    assert_eq!(said.lines().filter(|line| line.contains("nothing has been committed")).count(), 1, "{said}");
    stage.broker().clear_faults();
    stage.wait_until_caught_up(&job).unwrap();
    let ended = job.terminate(Duration::from_secs(30)).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(stage.table().unwrap(), stage.table_of_input().unwrap());
}
