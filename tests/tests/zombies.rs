//! Zombies: a generation that was paused while a newer one took over changes nothing when it goes on, and says that it
//! is fenced.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fluvial::FailPoint;
use fluvial_tests::apache::ApacheKafka;
use fluvial_tests::campaign::Subject;
use fluvial_tests::client::{Endpoint, Isolation};
use fluvial_tests::stage::{MOST, Stage, Started};

const OPTIONS: &str = "--processes 2 --workers 4 --keep-journal --tick-header --checkpoint-every 500ms";
const FENCED: i32 = 3;

fn stage(subject: Subject) -> Stage {
    let kafka = ApacheKafka::shared();
    Stage::on(&Endpoint::new(kafka.bootstrap()), kafka.bootstrap(), subject, 3).unwrap()
}

/// All that a job can change: every object of the store, every record of every topic that it writes.
#[derive(Debug)]
struct Everything {
    objects: BTreeMap<PathBuf, Vec<u8>>,
    topics: BTreeMap<String, (Vec<String>, Vec<i64>)>,
}

fn everything(stage: &Stage) -> Everything {
    let mut objects = BTreeMap::new();
    collect(&stage.store(), &mut objects);
    let mut topics = BTreeMap::new();
    for topic in stage.outputs().into_iter().chain([fluvial_kafka::progress_topic(stage.name())]) {
        let endpoint = stage.endpoint();
        let records = endpoint.lines(&topic, Isolation::Uncommitted).unwrap();
        let partitions = 0..endpoint.partitions(&topic).unwrap();
        // Markers are not records, but they take offsets.
        let end = |partition| endpoint.watermarks(&topic, partition, Isolation::Uncommitted).unwrap().1;
        topics.insert(topic.clone(), (records, partitions.map(end).collect()));
    }
    Everything { objects, topics }
}

fn collect(folder: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // What the store writes to before it makes it an object; a process that ends at that moment leaves it.
        let staged = path.to_string_lossy().contains('#');
        if path.is_dir() {
            collect(&path, into);
        } else if !staged {
            into.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}

impl Everything {
    /// What is not as it was. A run or a manifest more is no change: until a record of the journal names it, it is nothing,
    /// and goes with the next cleaning.
    fn changes(&self, before: &Self) -> Vec<String> {
        let paths: BTreeSet<&PathBuf> = self.objects.keys().chain(before.objects.keys()).collect();
        let of_journal = |path: &Path| path.components().any(|part| part.as_os_str() == "journal");
        let changed = |path: &Path| match (before.objects.get(path), self.objects.get(path)) {
            (None, Some(_)) => of_journal(path),
            (before, now) => before != now,
        };
        let objects = paths.into_iter().filter(|path| changed(path)).map(|path| path.display().to_string());
        let topics = self.topics.iter().filter(|(topic, content)| before.topics.get(*topic) != Some(content));
        objects.chain(topics.map(|(topic, content)| format!("{topic}: {content:?}"))).collect()
    }
}

/// Lets a paused job go on, which must find out that it is fenced, and nothing else.
fn goes_on_as_a_zombie(job: &Started) {
    let start = Instant::now();
    while job.process().status().is_none() && start.elapsed() < MOST {
        // Again and again: another process may come to the same fail point, and stand still there, only now.
        job.job().resume().unwrap();
        let _ = job.process().wait(Duration::from_millis(20));
    }
    job.finish(Duration::ZERO).unwrap().failed_with(FENCED, &["superseded by generation"]).unwrap();
}

/// The same, while nothing else runs: then everything must be as it was.
fn changes_nothing(stage: &Stage, zombie: &Started, paused: &str) {
    let before = everything(stage);
    goes_on_as_a_zombie(zombie);
    let changes = everything(stage).changes(&before);
    assert!(changes.is_empty(), "a zombie that was paused {paused} has changed {changes:#?}");
}

#[test]
fn a_generation_that_is_paused_at_any_step_of_its_opening_changes_nothing_when_it_goes_on() {
    let stage = stage(Subject::Bank);
    stage.feed(0..200).unwrap();
    stage.complete(&format!("{OPTIONS} --stop-at-end")).unwrap();
    let opening = FailPoint::ALL.iter().filter(|point| **point <= FailPoint::BeforeReady);
    for (number, point) in (1..).zip(opening) {
        let name = point.name();
        let zombie = stage.start(&format!("{OPTIONS} --fail-point {name}=stop")).unwrap();
        zombie.process().wait_for_line(&format!("fail point {name} reached"), MOST).unwrap();
        zombie.job().pause().unwrap();
        stage.feed(number * 200..(number + 1) * 200).unwrap();
        stage.complete(&format!("{OPTIONS} --stop-at-end")).unwrap();
        changes_nothing(&stage, &zombie, &name);
    }
    stage.check().unwrap();
}

#[test]
fn a_running_generation_that_is_paused_changes_nothing_when_it_goes_on() {
    let stage = stage(Subject::Orders);
    stage.feed(0..500).unwrap();
    let zombie = stage.start(OPTIONS).unwrap();
    stage.wait_until_caught_up(&zombie).unwrap();
    // In the midst of work.
    stage.feed(500..2_000).unwrap();
    zombie.job().pause().unwrap();
    stage.complete(&format!("{OPTIONS} --stop-at-end")).unwrap();
    changes_nothing(&stage, &zombie, "in the midst of work");
    stage.check().unwrap();
}

#[test]
fn a_run_that_was_paused_for_longer_than_its_generation_survives_does_not_begin_another() {
    let stage = stage(Subject::Bank);
    let options = format!("{OPTIONS} --deletion-grace 1s");
    stage.feed(0..500).unwrap();
    let zombie = stage.start(&options).unwrap();
    stage.wait_until_caught_up(&zombie).unwrap();
    let paused = Instant::now();
    zombie.job().pause().unwrap();
    stage.feed(500..1_000).unwrap();
    stage.complete(&format!("{OPTIONS} --stop-at-end")).unwrap();
    std::thread::sleep(Duration::from_millis(1_500).saturating_sub(paused.elapsed()));
    changes_nothing(&stage, &zombie, "for longer than its generation survives");
    stage.check().unwrap();
}

#[test]
fn a_generation_that_is_paused_at_any_step_of_its_work_changes_nothing_when_it_goes_on() {
    let stage = stage(Subject::Orders);
    let options = OPTIONS.replace("500ms", "100ms");
    let mut next = 0;
    let work = FailPoint::ALL.iter().filter(|point| {
        // A deletion is of what no newer generation needs: it may go on.
        **point > FailPoint::BeforeReady && **point != FailPoint::DuringDeletion
    });
    for point in work {
        let name = point.name();
        let zombie = stage.start(&format!("{options} --fail-point {name}=stop")).unwrap();
        let start = Instant::now();
        while !zombie.process().log_holds(&format!("fail point {name} reached")) {
            assert!(start.elapsed() < MOST, "{name} is never reached");
            stage.feed(next..next + 50).unwrap();
            next += 50;
            let _ = zombie.process().wait(Duration::from_millis(20));
        }
        zombie.job().pause().unwrap();
        stage.complete(&format!("{options} --stop-at-end")).unwrap();
        changes_nothing(&stage, &zombie, &name);
    }
    stage.check().unwrap();
}

#[test]
fn a_zombie_does_not_disturb_the_generation_that_runs() {
    let stage = stage(Subject::Bank);
    for (number, options) in (0..).zip([OPTIONS.to_owned(), format!("{OPTIONS} --fail-point before-fencing=stop")]) {
        let base = number * 2_000;
        let zombie = stage.start(&options).unwrap();
        if number == 0 {
            stage.feed(base..base + 500).unwrap();
            stage.wait_until_caught_up(&zombie).unwrap();
        } else {
            zombie.process().wait_for_line("fail point before-fencing reached", MOST).unwrap();
        }
        zombie.job().pause().unwrap();
        let newer = stage.start(OPTIONS).unwrap();
        stage.feed(base + 500..base + 1_000).unwrap();
        stage.wait_until_caught_up(&newer).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| goes_on_as_a_zombie(&zombie));
            for part in 0..20 {
                let from = base + 1_000 + part * 50;
                stage.feed(from..from + 50).unwrap();
            }
        });
        stage.wait_until_caught_up(&newer).unwrap();
        assert_eq!(newer.terminate(MOST).unwrap().code, Some(0));
    }
    stage.check().unwrap();
}

#[test]
fn of_two_copies_of_one_job_the_newer_fences_the_older() {
    let stage = stage(Subject::Orders);
    stage.feed(0..500).unwrap();
    let older = stage.start(OPTIONS).unwrap();
    stage.wait_until_caught_up(&older).unwrap();
    let newer = std::thread::scope(|scope| {
        let newer = scope.spawn(|| stage.start(OPTIONS).unwrap());
        stage.feed(500..1_000).unwrap();
        newer.join().unwrap()
    });
    older.finish(MOST).unwrap().failed_with(FENCED, &["superseded by generation"]).unwrap();
    stage.wait_until_caught_up(&newer).unwrap();
    // Both at the same moment: one of them is the newer.
    let (one, other) = (stage.start(OPTIONS).unwrap(), stage.start(OPTIONS).unwrap());
    newer.finish(MOST).unwrap().failed_with(FENCED, &["superseded by generation"]).unwrap();
    stage.feed(1_000..1_500).unwrap();
    let first_to_end = || [&one, &other].into_iter().position(|job| job.process().status().is_some());
    let start = Instant::now();
    let lost = loop {
        if let Some(lost) = first_to_end() {
            break lost;
        }
        assert!(start.elapsed() < MOST, "both copies go on");
        let _ = one.process().wait(Duration::from_millis(10));
    };
    let (lost, won) = if lost == 0 { (one, other) } else { (other, one) };
    lost.finish(MOST).unwrap().failed_with(FENCED, &["superseded by generation"]).unwrap();
    stage.wait_until_caught_up(&won).unwrap();
    assert_eq!(won.terminate(MOST).unwrap().code, Some(0));
    stage.check().unwrap();
}
