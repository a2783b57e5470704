//! A job is a function of its journal: any number of workers gives the same records, in the same order, with the same
//! digests, as those that several generations of other sizes have committed.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use fluvial_tests::campaign::Subject;
use fluvial_tests::history::compare;
use fluvial_tests::stage::Stage;
use serde_json::Value;

const KEPT: &str = "--keep-journal --tick-header --checkpoint-every 300ms";

/// A digest line of each output partition that has records.
type Digests = BTreeMap<(String, u64), Value>;

fn replayed_digests(stage: &Stage, workers: u32) -> Digests {
    let printed = stage.ask("replay", &format!("--digest --workers {workers}")).unwrap();
    let lines = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines = lines.filter(|line| line["records"] != 0);
    lines
        .map(|line| {
            let at = (line["output"].as_str().unwrap().to_owned(), line["partition"].as_u64().unwrap());
            (at, line["digest"].clone())
        })
        .collect()
}

/// The digests that the newest checkpoint's manifest holds.
fn checkpointed_digests(stage: &Stage) -> Digests {
    let args = vec!["--store".into(), stage.store().into(), "--name".into(), stage.name().into()];
    let listed: Value = serde_json::from_str(&stage.ask_with("state", args, "--json").unwrap()).unwrap();
    let manifest = listed.as_array().unwrap().last().unwrap()["manifest"].as_str().unwrap();
    let manifest = PathBuf::from(manifest.strip_prefix("file://").unwrap_or(manifest));
    let text = std::fs::read_to_string(&manifest).unwrap();
    let manifest: Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
    let outputs = manifest["outputs"].as_array().unwrap().iter();
    outputs
        .map(|output| {
            let at = &output["at"];
            let at = (at["output"].as_str().unwrap().to_owned(), at["partition"].as_u64().unwrap());
            (at, output["digest"].clone())
        })
        .collect()
}

fn replays_to_the_same(subject: Subject) {
    let stage = Stage::new(subject, 3).unwrap();
    for (round, size) in ["--workers 4 --processes 2", "--workers 1", "--workers 3 --processes 3"].iter().enumerate() {
        let job = stage.start(&format!("{KEPT} {size}")).unwrap();
        for part in 0..10 {
            // Each part is fed when the last one is out, so that each has a tick of its own.
            let (before, first) = (stage.visible().unwrap(), (round as u64 * 10 + part) * 40);
            stage.feed(first..first + 40).unwrap();
            stage.wait_for_more_than(before, &job).unwrap();
        }
        job.job().kill_all().unwrap();
    }
    stage.complete(&format!("{KEPT} --workers 2 --stop-at-end")).unwrap();
    assert!(stage.journal().unwrap().ticks.len() > 20, "there is little to compare");
    let one = replayed_digests(&stage, 1);
    assert_eq!(one, replayed_digests(&stage, 3));
    let mut stored = checkpointed_digests(&stage);
    stored.retain(|at, _| one.contains_key(at));
    assert_eq!(one, stored, "the digests are not those that the job has committed");
    let (seen, alone) = (stage.seen().unwrap(), stage.replay("--workers 1").unwrap());
    let verdict = compare(&alone, &seen);
    assert!(verdict.is_clean(), "{verdict}");
    stage.check().unwrap();
    // Up to a tick in the middle: the records of the ticks through it, and no others.
    let middle = seen[seen.len() / 2].tick;
    let until = stage.replay(&format!("--workers 2 --until {middle}")).unwrap();
    let through: Vec<_> = alone.into_iter().filter(|record| record.tick <= middle).collect();
    let verdict = compare(&through, &until);
    assert!(verdict.is_clean(), "{verdict}");
}

#[test]
fn orders_replay_to_what_was_committed() {
    replays_to_the_same(Subject::Orders);
}

#[test]
fn the_bank_replays_to_what_was_committed() {
    replays_to_the_same(Subject::Bank);
}

#[test]
fn a_journal_that_is_not_kept_is_not_replayed() {
    let stage = Stage::new(Subject::Bank, 1).unwrap();
    let job = stage.start("--checkpoint-every 100ms").unwrap();
    stage.feed(0..50).unwrap();
    stage.wait_for_more_than(0, &job).unwrap();
    stage.feed(50..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    assert_eq!(job.terminate(Duration::from_secs(20)).unwrap().code, Some(0));
    stage.complete("--stop-at-end").unwrap();
    let error = stage.ask("replay", "").unwrap_err().to_string();
    assert!(error.contains("--keep-journal"), "{error}");
}
