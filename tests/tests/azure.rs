//! A job whose store is a container of Azure Blob Storage does what it does on a folder and on S3.
#![allow(clippy::unwrap_used)]

use fluvial_tests::history::compare;
use fluvial_tests::s3::Azurite;
use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;

#[test]
fn a_job_is_killed_and_goes_on_and_can_be_replayed() {
    let azurite = Azurite::start().unwrap();
    azurite.make_container("jobs").unwrap();
    let environment = azurite.environment().into_iter().map(|(name, value)| format!("{name}={value}"));
    let stage = Stage::new(Subject::Orders, 2).unwrap().with_store_at("az://jobs/some/prefix");
    let stage = stage.with_launcher(["env".to_owned()].into_iter().chain(environment));
    let kept = "--keep-journal --tick-header --checkpoint-every 1s";
    let job = stage.start(&format!("{kept} --workers 2 --processes 2")).unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    stage.feed(100..150).unwrap();
    assert!(job.job().kill_peer(1).unwrap());
    job.process().wait_for_line("starting the next", MOST).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    stage.feed(150..200).unwrap();
    job.job().kill_all().unwrap();
    // Another number of workers restores the state from the container.
    let job = stage.start(&format!("{kept} --workers 3")).unwrap();
    stage.feed(200..300).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    let ended = job.terminate(MOST).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(stage.table().unwrap(), stage.table_of_input().unwrap());
    let verdict = compare(&stage.replay("--workers 3").unwrap(), &stage.seen().unwrap());
    assert!(verdict.is_clean(), "against replay: {verdict}");
}
