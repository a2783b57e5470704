//! Topics that are not what they were: recreated, deleted, grown, too short, or compacted too soon.

use fluvial_kafka_embedded::ApiKey;
use fluvial_tests::apache::ApacheKafka;
use fluvial_tests::client::{Endpoint, Isolation, Message};
use fluvial_tests::stage::{Finished, MOST, OUTPUT_PARTITIONS, Stage};
use fluvial_tests::subject::Subject;

use super::code::rows;
use super::{KEPT, SOON, args_with, assert_refused, assert_right, completed, faulty};

/// Deletes a topic and creates it again.
pub(super) fn recreate(stage: &Stage, topic: &str, partitions: i32) {
    assert_eq!(stage.endpoint().delete_topic(topic).unwrap(), "ok");
    stage.endpoint().create_topic(topic, partitions, &[]).unwrap();
}

/// Checks that an input was recognised as another by its id. Either the reader notices it or the leader, which asks for the
/// partitions; their messages differ in wording.
#[track_caller]
fn assert_recreated(stage: &Stage, ended: &Finished) {
    assert_refused(ended, 11, &[&format!("'{}'", stage.input()), "deleted and recreated", "another --name"]);
    let error = ended.error().unwrap();
    let ids = [("(its id is ", " and was "), ("(it has the id ", " and had ")].iter().find_map(|(is, was)| {
        let ids = error.split_once(is)?.1.split_once(')')?.0;
        ids.split_once(was)
    });
    let (is, was) = ids.unwrap_or_else(|| panic!("the error does not name both ids: {error}"));
    assert!(!is.is_empty() && !was.is_empty() && is != was, "{error}");
}

/// Every way to go on with an input that was recreated is refused, and says what to do.
fn assert_refused_as_recreated(stage: &Stage) {
    let before = stage.table().unwrap();
    for options in ["", "--reconcile", "--workers 2"] {
        let refused = stage.start(&format!("--stop-at-end {options}")).unwrap().finish(MOST).unwrap();
        assert_recreated(stage, &refused);
    }
    assert_eq!(stage.table().unwrap(), before, "a run that was refused has written something");
}

#[test]
fn an_input_that_was_recreated_is_refused_whatever_is_in_it() {
    // Shorter; equal in every record; longer, so that every offset is there.
    for records in [5_000..5_010, 0..100, 5_000..5_300] {
        let stage = completed(100);
        recreate(&stage, &stage.input(), 2);
        stage.feed(records).unwrap();
        assert_refused_as_recreated(&stage);
    }
}

#[test]
fn an_input_that_was_recreated_on_apache_kafka_is_refused_whatever_is_in_it() {
    for records in [5_000..5_010, 0..100, 5_000..5_300] {
        let endpoint = Endpoint::new(ApacheKafka::shared().bootstrap());
        let stage = Stage::on(&endpoint, endpoint.bootstrap(), Subject::Orders, 2).unwrap();
        stage.feed(0..100).unwrap();
        stage.complete("--stop-at-end").unwrap();
        recreate(&stage, &stage.input(), 2);
        stage.feed(records).unwrap();
        assert_refused_as_recreated(&stage);
    }
}

#[test]
fn an_input_that_is_recreated_under_a_running_job_ends_it() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let job = stage.start("").unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    recreate(&stage, &stage.input(), 2);
    assert_recreated(&stage, &job.finish(MOST).unwrap());
    assert_refused_as_recreated(&stage);
}

/// The job went on without a word to its end, and a partition of the other input that came back was never read.
#[test]
fn an_input_that_is_deleted_under_a_running_job_ends_it_and_the_other_input_is_read_until_then() {
    let stage = faulty(Stage::new(Subject::Orders, 2).unwrap());
    let also = format!("{}-also", stage.input());
    stage.endpoint().create_topic(&also, 1, &[]).unwrap();
    stage.feed(0..50).unwrap();
    stage.broker().set_leader(&stage.input(), 1, false);
    let job = stage.start(&format!("--also {also}")).unwrap();
    job.process().wait_for_line("partition 1 is unavailable", MOST).unwrap();
    job.process().wait_for_line("the job is open", MOST).unwrap();
    assert_eq!(stage.endpoint().delete_topic(&also).unwrap(), "ok");
    job.process().wait_for_line("could not look for new splits of source 'also'", MOST).unwrap();
    stage.broker().set_leader(&stage.input(), 1, true);
    let all_rows = || {
        let (expected, seen) = rows(&stage);
        Ok(expected == seen)
    };
    stage.wait_until(&job, "the rows of the partition that came back", all_rows).unwrap();
    let ended = job.finish(MOST).unwrap();
    let gone = format!("topic '{also}' does not exist on ");
    assert_refused(&ended, 2, &["source 'also'", &gone, "was deleted", "another --name"]);
}

/// What was read of the other topic until the next look was committed.
#[test]
fn nothing_is_read_of_an_input_that_is_recreated_under_a_running_job_on_apache_kafka() {
    let endpoint = Endpoint::new(ApacheKafka::shared().bootstrap());
    let stage = Stage::on(&endpoint, endpoint.bootstrap(), Subject::Orders, 2).unwrap();
    let job = stage.start("").unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    let before = stage.visible().unwrap();
    // It does not see the topic gone or empty: every offset that it wants is there again.
    job.job().pause().unwrap();
    recreate(&stage, &stage.input(), 2);
    stage.feed_in_a_transaction(5_000..5_500, true).unwrap();
    job.job().resume().unwrap();
    let ended = job.finish(MOST).unwrap();
    // That is what the reader says.
    let recreated = format!("topic '{}' was deleted and recreated (it has the id ", stage.input());
    assert_refused(&ended, 11, &[&recreated, "another --name"]);
    assert_eq!(stage.visible().unwrap(), before, "input of another topic has been taken");
    assert_refused_as_recreated(&stage);
}

#[test]
fn a_job_that_would_write_its_own_input_is_refused() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let args = args_with(&stage, "--output", &stage.input(), "");
    let parts = [&*format!("kafka topic '{}'", stage.input()), "reads", "writes", "a topic of its own"];
    assert_refused(&stage.start_with(args).unwrap().finish(SOON).unwrap(), 2, &parts);
}

#[test]
fn a_new_job_goes_on_with_an_input_that_was_recreated_and_clears_the_output_of_the_old_one() {
    let stage = completed(100);
    recreate(&stage, &stage.input(), 2);
    stage.feed(5_000..5_010).unwrap();
    let args = args_with(&stage, "--name", &format!("{}-again", stage.name()), "--reconcile --stop-at-end");
    let ended = stage.start_with(args).unwrap().finish(MOST).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_right(&stage);
}

#[test]
fn partitions_that_an_input_gets_are_found_while_the_job_runs_and_at_its_next_start() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let input = stage.input();
    let one_to = |partition: i32, id: u32| {
        let value = format!(
            r#"{{"order_id":{id},"customer":"c","region":"r{id}","product":"p","quantity":1,"price_cents":{id},"at":0}}"#
        );
        let key = id.to_string();
        let messages = [Message::text(&input, partition, &key, &value)];
        stage.endpoint().writer(&[]).unwrap().write(&messages).unwrap();
    };
    let job = stage.start(&format!("{KEPT} --processes 2 --workers 4")).unwrap();
    stage.feed(0..50).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    assert_eq!(stage.endpoint().add_partitions(&input, 3).unwrap(), "ok");
    one_to(2, 9_001);
    stage.wait_until_caught_up(&job).unwrap();
    job.job().kill_all().unwrap();
    assert_eq!(stage.endpoint().add_partitions(&input, 4).unwrap(), "ok");
    one_to(3, 9_002);
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    assert_right(&stage);
    stage.check().unwrap();
}

#[test]
fn partitions_that_an_output_gets_are_left_alone_with_a_warning() {
    let stage = completed(50);
    let output = stage.outputs().swap_remove(0);
    assert_eq!(stage.endpoint().add_partitions(&output, 7).unwrap(), "ok");
    stage.feed(50..200).unwrap();
    let ended = stage.complete(&format!("{KEPT} --stop-at-end --workers 3")).unwrap();
    let warning = format!("'{output}' has 7 partitions; the job goes on with the {OUTPUT_PARTITIONS}");
    assert!(ended.said.lines().any(|line| line.contains("WARN") && line.contains(&warning)), "{}", ended.said);
    let seen = stage.endpoint().read(&output, Isolation::Committed).unwrap();
    assert!(seen.iter().all(|record| record.partition < OUTPUT_PARTITIONS));
    stage.check().unwrap();
}

#[test]
fn an_output_that_was_recreated_is_refused_and_written_again_where_a_person_asks() {
    let stage = completed(100);
    let output = stage.outputs().swap_remove(0);
    recreate(&stage, &output, OUTPUT_PARTITIONS - 1);
    let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
    assert_refused(&refused, 2, &[&output, "has 3 partitions and had 4", "deleted and recreated"]);
    recreate(&stage, &output, OUTPUT_PARTITIONS);
    for _ in 0..2 {
        let refused = stage.start("--stop-at-end --workers 2").unwrap().finish(MOST).unwrap();
        assert_refused(&refused, 11, &[&output, "has the id ", "deleted and recreated", "run --reconcile"]);
    }
    stage.complete("--reconcile --stop-at-end").unwrap();
    assert_right(&stage);
    stage.feed(100..200).unwrap();
    stage.complete("--stop-at-end").unwrap();
    assert_right(&stage);
}

#[test]
fn an_input_that_may_be_compacted_too_soon_is_warned_of() {
    let stage = Stage::new(Subject::Orders, 1).unwrap();
    let run = |lag: &str| {
        let settings = [("cleanup.policy", "compact"), ("min.compaction.lag.ms", lag)];
        assert_eq!(stage.endpoint().alter_topic(&stage.input(), &settings).unwrap(), "ok");
        let before = stage.broker().requests(ApiKey::DescribeConfigs);
        let job = stage.start("--checkpoint-every 12s").unwrap();
        let asked = || Ok(stage.broker().requests(ApiKey::DescribeConfigs) > before);
        stage.wait_until(&job, "a look at the settings", asked).unwrap();
        job.process().wait_for_line("running", MOST).unwrap();
        job.terminate(SOON).unwrap().said
    };
    let said = run("59999");
    let warning = format!("'{}' is compacted with min.compaction.lag.ms=59999", stage.input());
    let line = said.lines().find(|line| line.contains(&warning)).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("WARN") && line.contains("at least 60000"), "{line}");
    let said = run("60000");
    assert!(!said.contains("is compacted"), "{said}");
}
