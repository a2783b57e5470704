//! Clusters, whose users submit jobs and change them.

use std::collections::{BTreeMap, BTreeSet};

use super::histories::{Weather, disturb, for_each_seed, heal};
use super::world::{ABORTS, BAD, DYING, SPOILS, UNFIT, World};
use crate::Exit;
use crate::group::control::MOST_FAILURES;
use crate::group::{Change, GroupRecord, JobRecord, NodeId, Refusal, Room, Workers, place};
use crate::simulation::dice::Dice;

/// A cluster of hosts with these slots on which nothing was submitted yet.
pub(super) fn cluster(slots: &[u32]) -> World {
    let mut world = World::of_cluster(7, slots);
    world.tells = true;
    world.start_all();
    world.run_for(20_000);
    world
}

pub(super) fn coordinator(world: &World) -> usize {
    let record = world.newest().expect("there is a record");
    record.coordinator.address["host-".len()..].parse().expect("a host's number")
}

/// Makes a change, and returns what is said of it.
pub(super) fn change(world: &mut World, change: Change) -> Result<(), Refusal> {
    let number = world.change(coordinator(world), change);
    for _ in 0..200 {
        if let Some(answer) = world.answers.get(&number) {
            return answer.clone();
        }
        world.step();
    }
    panic!("change {number} is not answered");
}

pub(super) fn submit(world: &mut World, job: &str, version: &str, workers: u32) {
    let submit = Change::Submit { job: job.to_owned(), version: version.to_owned(), workers, require: none() };
    assert_eq!(change(world, submit), Ok(()));
}

pub(super) fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

/// The label that some nodes have.
pub(super) fn ssd() -> BTreeMap<String, String> {
    BTreeMap::from([("disk".to_owned(), "ssd".to_owned())])
}

pub(super) fn drain(host: usize) -> Change {
    Change::Drain { node: format!("host-{host}") }
}

pub(super) fn undrain(host: usize) -> Change {
    Change::Undrain { node: format!("host-{host}") }
}

pub(super) fn stop(job: &str) -> Change {
    Change::Stop { job: job.to_owned(), force: false }
}

fn start(job: &str) -> Change {
    Change::Start { job: job.to_owned() }
}

pub(super) fn update(job: &str, version: Option<&str>, workers: Option<u32>) -> Change {
    Change::Update {
        job: job.to_owned(),
        version: version.map(str::to_owned),
        workers,
        require: None,
        of: None,
        back: None,
    }
}

pub(super) fn job<'a>(world: &'a World, name: &str) -> &'a JobRecord {
    &world.newest().expect("there is a record").jobs[name]
}

/// How many workers run of a job, of which version; `None` if it does not run.
pub(super) fn runs<'a>(world: &'a World, name: &str) -> Option<(&'a str, u32)> {
    let attempt = job(world, name).attempt.as_ref().filter(|attempt| world.runs(name, attempt))?;
    Some((attempt.version.as_str(), attempt.layout().workers))
}

/// Runs until this holds, for a minute at most. Returns how long it took, in milliseconds.
#[track_caller]
pub(super) fn until(world: &mut World, what: &str, mut holds: impl FnMut(&World) -> bool) -> u64 {
    let since_ms = world.now_ms;
    while !holds(world) {
        assert!(world.now_ms < since_ms + 60_000, "{what}: {:?}", world.newest());
        world.step();
    }
    world.now_ms - since_ms
}

#[test]
fn a_job_that_is_submitted_runs_within_some_seconds() {
    let mut world = cluster(&[2, 2, 2]);
    submit(&mut world, "orders", "v1", 4);
    let took_ms = until(&mut world, "it runs", |world| runs(world, "orders") == Some(("v1", 4)));
    assert!(took_ms < 5000, "{took_ms}");
    world.run_for(30_000);
    assert_eq!(world.started.len(), 1);
}

#[test]
fn a_job_without_room_waits_and_runs_once_there_is_some() {
    let mut world = cluster(&[2, 2]);
    world.kill(1);
    world.run_for(20_000);
    submit(&mut world, "orders", "v1", 3);
    world.run_for(20_000);
    assert_eq!((runs(&world, "orders"), world.started.len()), (None, 0));
    world.start(1);
    until(&mut world, "it runs", |world| runs(world, "orders") == Some(("v1", 3)));
}

#[test]
fn jobs_share_the_slots_and_do_not_disturb_each_other() {
    let mut world = cluster(&[2, 2, 2]);
    for name in ["a", "b", "c"] {
        submit(&mut world, name, "v1", 2);
    }
    until(&mut world, "all run", |world| ["a", "b", "c"].iter().all(|name| runs(world, name).is_some()));
    let mut taken: BTreeMap<usize, u32> = BTreeMap::new();
    world
        .live()
        .flat_map(|(.., workers)| workers)
        .for_each(|(host, workers)| *taken.entry(host).or_default() += workers);
    assert_eq!(taken, BTreeMap::from([(0, 2), (1, 2), (2, 2)]));
    submit(&mut world, "d", "v1", 1);
    world.run_for(10_000);
    assert_eq!(runs(&world, "d"), None);
    let of_b = job(&world, "b").attempt.clone();
    assert_eq!(change(&mut world, stop("a")), Ok(()));
    until(&mut world, "d runs in the place of a", |world| runs(world, "d").is_some());
    assert_eq!((job(&world, "b").attempt.clone(), world.started.len()), (of_b, 4));
}

#[test]
fn a_job_is_stopped_at_a_checkpoint_and_begins_a_new_run_when_it_is_started() {
    let mut world = cluster(&[2]);
    submit(&mut world, "orders", "v1", 2);
    until(&mut world, "it runs", |world| runs(world, "orders").is_some());
    let first = job(&world, "orders").run;
    assert_eq!(change(&mut world, stop("orders")), Ok(()));
    until(&mut world, "its end", |world| job(world, "orders").outcome.is_some());
    assert_eq!(job(&world, "orders").outcome.as_ref().map(|outcome| outcome.exit), Some(Exit::Done));
    assert_eq!(change(&mut world, Change::Delete { job: "other".to_owned(), state: false }), Ok(()));
    world.run_for(20_000);
    assert_eq!(world.live().count(), 0);
    assert_eq!(change(&mut world, start("orders")), Ok(()));
    until(&mut world, "it runs", |world| runs(world, "orders").is_some());
    assert_ne!(job(&world, "orders").run, first);
    assert_eq!(
        change(&mut world, Change::Delete { job: "orders".to_owned(), state: false }),
        Err(Refusal::Runs("orders".to_owned()))
    );
}

#[test]
fn a_job_gets_another_number_of_workers_and_another_program_once_each() {
    let mut world = cluster(&[2, 2, 2]);
    submit(&mut world, "orders", "v1", 2);
    until(&mut world, "it runs", |world| runs(world, "orders").is_some());
    for (version, workers) in [("v1", 6), ("v1", 1), ("v2", 1)] {
        assert_eq!(change(&mut world, update("orders", Some(version), Some(workers))), Ok(()));
        until(&mut world, "it has changed", |world| runs(world, "orders") == Some((version, workers)));
    }
    let restart = Change::Restart { job: "orders".to_owned(), force: false };
    assert_eq!(change(&mut world, restart), Ok(()));
    until(&mut world, "it has restarted", |world| world.started.len() == 5 && runs(world, "orders").is_some());
    world.run_for(30_000);
    assert_eq!(world.started.len(), 5);
}

#[test]
fn a_program_that_no_node_can_run_leaves_the_old_one_running() {
    let mut world = cluster(&[2, 2]);
    submit(&mut world, "orders", "v1", 2);
    until(&mut world, "it runs", |world| runs(world, "orders").is_some());
    for wanted in [update("orders", Some(UNFIT), None), update("orders", Some("v1"), Some(9))] {
        assert_eq!(change(&mut world, wanted), Ok(()));
        world.run_for(20_000);
        assert_eq!((runs(&world, "orders"), world.started.len()), (Some(("v1", 2)), 1));
    }
    // Nor does it take the old one down when a process dies.
    world.kill_a_process();
    until(&mut world, "the old one again", |world| world.started.len() == 2 && runs(world, "orders").is_some());
    assert_eq!(runs(&world, "orders"), Some(("v1", 2)));
    // What was wanted first again is another revision, and no other program.
    assert_eq!(change(&mut world, update("orders", None, Some(2))), Ok(()));
    until(&mut world, "the next revision", |world| world.started.len() == 3 && runs(world, "orders").is_some());
}

#[test]
fn a_job_whose_program_fails_ends_and_the_others_do_not() {
    let mut world = cluster(&[2, 2]);
    submit(&mut world, "good", "v1", 2);
    submit(&mut world, "bad", BAD, 2);
    until(&mut world, "the end", |world| job(world, "bad").outcome.is_some());
    world.run_for(20_000);
    let started = world.started.iter().filter(|(name, _)| name == "bad").count();
    assert_eq!((runs(&world, "good"), started), (Some(("v1", 2)), 1));
    assert_eq!(job(&world, "bad").outcome.as_ref().map(|outcome| outcome.exit), Some(Exit::Failed));
    assert_eq!(change(&mut world, update("bad", Some("v1"), None)), Ok(()));
    until(&mut world, "it runs", |world| runs(world, "bad").is_some());
}

#[test]
fn a_job_that_fails_at_once_again_and_again_ends_failed_and_says_how_often() {
    let mut world = cluster(&[2, 2]);
    submit(&mut world, "good", "v1", 2);
    submit(&mut world, "dying", DYING, 2);
    world.run_for(200_000);
    let outcome = job(&world, "dying").outcome.clone().expect("it has failed");
    assert_eq!(outcome.exit, Exit::GenerationLost);
    let said = "signal 11; the job has failed 10 times in a row within ";
    assert!(outcome.why.starts_with(said), "{}", outcome.why);
    let started = world.started.iter().filter(|(name, _)| name == "dying").count();
    assert_eq!((started, runs(&world, "good")), (MOST_FAILURES as usize, Some(("v1", 2))));
    // Nothing of that counts when a person starts it again.
    assert_eq!(change(&mut world, start("dying")), Ok(()));
    world.run_for(5000);
    assert_eq!(job(&world, "dying").outcome, None);
    assert_eq!(change(&mut world, update("dying", Some("v1"), None)), Ok(()));
    until(&mut world, "it runs", |world| runs(world, "dying") == Some(("v1", 2)));
}

/// Another coordinator counts on.
#[test]
fn a_job_that_fails_again_and_again_ends_failed_although_its_coordinators_are_lost() {
    let mut world = cluster(&[0, 0, 2]);
    submit(&mut world, "dying", DYING, 2);
    for attempts in [3, 6, 8] {
        until(&mut world, "attempts", |world| world.started.len() >= attempts);
        let host = coordinator(&world);
        if host != 2 {
            world.kill(host);
            until(&mut world, "another one", |world| coordinator(world) != host);
            world.start(host);
        }
    }
    world.run_for(150_000);
    assert!(job(&world, "dying").outcome.is_some());
    assert!((10..=12).contains(&world.started.len()), "{:?}", world.started);
}

#[test]
fn a_job_whose_processes_die_seldom_or_with_their_nodes_never_fails() {
    let mut world = cluster(&[2, 2]);
    submit(&mut world, "orders", "v1", 2);
    for _ in 0..15 {
        until(&mut world, "it runs", |world| runs(world, "orders").is_some());
        world.run_for(12_000);
        world.kill_a_process();
        world.step();
    }
    for _ in 0..15 {
        until(&mut world, "it runs", |world| runs(world, "orders").is_some());
        let host = world.live().flat_map(|(.., workers)| workers.into_keys()).next().expect("a host");
        world.kill(host);
        world.run_for(1000);
        world.start(host);
    }
    until(&mut world, "it runs", |world| runs(world, "orders").is_some());
}

#[test]
fn a_job_keeps_its_slots_while_it_restarts() {
    let mut world = cluster(&[2]);
    submit(&mut world, "z", "v1", 2);
    until(&mut world, "it runs", |world| runs(world, "z").is_some());
    submit(&mut world, "a", "v1", 2);
    for restarts in 1..6 {
        world.kill_a_process();
        until(&mut world, "the next attempt", |world| world.started.len() == 1 + restarts);
        // It dies before it opens, so the next one waits longer.
    }
    until(&mut world, "it runs", |world| runs(world, "z").is_some());
    assert!(world.started.iter().all(|(name, _)| name == "z"), "{:?}", world.started);
}

#[test]
fn a_change_that_was_made_of_an_older_revision_is_refused() {
    let mut world = cluster(&[2]);
    submit(&mut world, "orders", "v1", 1);
    let of_the_first = |version: &str| Change::Update {
        job: "orders".to_owned(),
        version: Some(version.to_owned()),
        workers: None,
        require: None,
        of: Some(1),
        back: None,
    };
    assert_eq!(change(&mut world, of_the_first("v2")), Ok(()));
    assert_eq!(change(&mut world, of_the_first("v3")), Err(Refusal::Changed("orders".to_owned())));
}

/// It has been superseded, and does not know it yet: what it takes for true may not be so any more.
#[test]
fn a_coordinator_that_is_cut_off_says_of_nothing_that_it_is_so_already() {
    let mut world = cluster(&[2, 2, 2]);
    submit(&mut world, "orders", "v1", 1);
    until(&mut world, "it runs", |world| runs(world, "orders").is_some());
    assert_eq!(change(&mut world, stop("orders")), Ok(()));
    until(&mut world, "its end", |world| job(world, "orders").outcome.is_some());
    let first = coordinator(&world);
    for other in (0..3).filter(|other| *other != first) {
        world.cut(first, other);
        world.cut(other, first);
    }
    until(&mut world, "the next coordinator", |world| coordinator(world) != first);
    // It learns that its record is stored. The first one has not looked meanwhile.
    world.run_for(300);
    let stopped = world.change(first, stop("orders"));
    assert_eq!(change(&mut world, start("orders")), Ok(()));
    until(&mut world, "an answer", |world| world.answers.contains_key(&stopped));
    assert_eq!(world.answers[&stopped], Err(Refusal::NotCoordinator));
}

#[test]
fn a_coordinator_that_does_not_reach_the_store_takes_no_changes() {
    let mut world = cluster(&[2]);
    submit(&mut world, "orders", "v1", 1);
    until(&mut world, "it runs", |world| runs(world, "orders").is_some());
    world.storeless.insert(0);
    // A look fails, and goes on failing.
    world.run_for(25_000);
    let asked = world.change(0, stop("orders"));
    until(&mut world, "an answer", |world| world.answers.contains_key(&asked));
    assert_eq!(world.answers[&asked], Err(Refusal::NotCoordinator));
    world.storeless.clear();
    world.run_for(20_000);
    assert!(runs(&world, "orders").is_some(), "what was refused was made");
}

#[test]
fn a_job_that_was_mended_before_it_failed_runs() {
    let mut world = cluster(&[2]);
    submit(&mut world, "orders", BAD, 1);
    until(&mut world, "an attempt", |world| !world.started.is_empty());
    assert_eq!(change(&mut world, update("orders", Some("v1"), None)), Ok(()));
    until(&mut world, "it runs", |world| runs(world, "orders") == Some(("v1", 1)));
}

/// Each would have room for itself.
#[test]
fn of_two_jobs_that_want_the_same_free_slots_only_one_is_interrupted() {
    let mut world = cluster(&[2, 2, 2]);
    world.kill(2);
    world.run_for(20_000);
    for name in ["a", "b"] {
        submit(&mut world, name, "v1", 2);
        until(&mut world, "it runs", |world| runs(world, name).is_some());
    }
    for name in ["a", "b"] {
        assert_eq!(change(&mut world, update(name, None, Some(4))), Ok(()));
    }
    world.start(2);
    until(&mut world, "one of them", |world| ["a", "b"].iter().any(|name| runs(world, name) == Some(("v1", 4))));
    world.run_for(60_000);
    assert_eq!(world.started.len(), 3, "{:?}", world.started);
    let workers: u32 = ["a", "b"].iter().filter_map(|name| runs(&world, name)).map(|(_, workers)| workers).sum();
    assert_eq!(workers, 6);
}

#[test]
fn a_job_that_has_failed_keeps_no_node_from_leaving() {
    let mut world = cluster(&[1]);
    submit(&mut world, "failed", BAD, 1);
    until(&mut world, "its end", |world| job(world, "failed").outcome.is_some());
    world.leave(0);
    until(&mut world, "it has left", |world| world.hosts[0].node.is_none());
}

#[test]
fn a_node_that_leaves_hands_its_jobs_to_the_others_and_all_can_leave() {
    let mut world = cluster(&[2, 2, 2]);
    submit(&mut world, "a", "v1", 2);
    submit(&mut world, "b", "v1", 2);
    until(&mut world, "both run", |world| ["a", "b"].iter().all(|name| runs(world, name).is_some()));
    let host = world.live().flat_map(|(.., workers)| workers.into_keys()).next().expect("a host");
    world.leave(host);
    until(&mut world, "it has left", |world| world.hosts[host].node.is_none());
    until(&mut world, "both run", |world| ["a", "b"].iter().all(|name| runs(world, name).is_some()));
    assert_eq!(world.started.len(), 3);
    world.start(host);
    world.run_for(10_000);
    (0..3).for_each(|host| world.leave(host));
    until(&mut world, "all have left", |world| world.hosts.iter().all(|host| host.node.is_none()));
    assert!(job(&world, "a").outcome.is_none(), "a cluster without nodes forgets nothing");
    world.start_all();
    until(&mut world, "both run", |world| ["a", "b"].iter().all(|name| runs(world, name).is_some()));
}

#[test]
fn a_change_at_a_node_that_does_not_coordinate_is_refused() {
    let mut world = cluster(&[2, 2]);
    let other = 1 - coordinator(&world);
    let number = world.change(other, stop("orders"));
    world.run_for(1000);
    assert_eq!(world.answers.get(&number), Some(&Err(Refusal::NotCoordinator)));
}

/// A change that its coordinator could not confirm is made again, and has one effect.
#[test]
fn a_change_during_which_the_coordinator_dies_can_be_repeated() {
    for steps in 0..12 {
        let mut world = cluster(&[2, 2]);
        let first = coordinator(&world);
        let wanted = Change::Submit { job: "orders".to_owned(), version: "v1".to_owned(), workers: 2, require: none() };
        let number = world.change(first, wanted.clone());
        (0..steps).for_each(|_| world.step());
        world.kill(first);
        until(&mut world, "the next coordinator", |world| coordinator(world) != first);
        if let Some(Ok(())) = world.answers.get(&number) {
            assert!(world.newest().is_some_and(|record| record.jobs.contains_key("orders")), "after {steps} steps");
        }
        world.run_for(2000);
        assert_eq!(change(&mut world, wanted), Ok(()), "after {steps} steps");
        until(&mut world, "it runs", |world| runs(world, "orders").is_some());
    }
}

const JOBS: [&str; 3] = ["a", "b", "c"];

/// Something that a user may want.
fn any_change(dice: &mut Dice) -> Change {
    let job = JOBS[dice.below(JOBS.len())];
    let version = |dice: &mut Dice| ["v1", "v2", "v3", BAD, UNFIT, DYING, ABORTS, SPOILS][dice.below(8)].to_owned();
    match dice.below(8) {
        0..3 => {
            let require = if dice.one_in(4) { ssd() } else { none() };
            let workers = dice.between(1, 4) as u32;
            Change::Submit { job: job.to_owned(), version: version(dice), workers, require }
        }
        3 => update(job, Some(&version(dice)), None),
        4 => update(job, None, Some(dice.between(1, 4) as u32)),
        5 => Change::Stop { job: job.to_owned(), force: dice.one_in(3) },
        6 => start(job),
        _ if dice.one_in(2) => Change::Restart { job: job.to_owned(), force: dice.one_in(3) },
        _ => Change::Delete { job: job.to_owned(), state: false },
    }
}

fn run(seed: u64, tells: bool) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let weather = Weather::new(&mut dice);
    let slots: Vec<_> = (0..dice.between(1, 4)).map(|_| dice.between(0, 3) as u32).collect();
    let mut world = World::of_cluster(seed ^ 0x5eed, &slots);
    for host in &mut world.hosts {
        host.offer.labels.insert("zone".to_owned(), ["x", "y"][dice.below(2)].to_owned());
        if dice.one_in(2) {
            host.offer.labels.extend(ssd());
        }
    }
    world.tells = tells;
    world.faults = [0, 10, 50][dice.below(3)];
    world.start_all();
    let wishes = [20, 100, 400][dice.below(3)];
    let drains = [200, 1000, 100_000][dice.below(3)];
    for _ in 0..dice.between(200, 4000) {
        world.step();
        disturb(&mut world, &weather, &mut dice);
        if dice.one_in(wishes) {
            let host = dice.below(slots.len());
            world.change(host, any_change(&mut dice));
        }
        if dice.one_in(drains) {
            let (host, at) = (dice.below(slots.len()), dice.below(slots.len()));
            world.change(at, if dice.one_in(3) { undrain(host) } else { drain(host) });
        }
    }
    heal(&mut world);
    world.run_for(60_000);
    // Some nodes are drained for good, and the others are not.
    for host in 0..slots.len() {
        let wanted = if dice.one_in(4) { drain(host) } else { undrain(host) };
        change(&mut world, wanted.clone()).map_err(|refusal| format!("{wanted:?} is refused: {refusal}"))?;
    }
    // What each job is wanted to be from now on. It is asked for until it is confirmed.
    for job in JOBS {
        let known = world.newest().is_some_and(|record| record.jobs.contains_key(job));
        let wanted = match (known, dice.below(4)) {
            (false, _) => continue,
            (true, 0) => stop(job),
            (true, 1) => start(job),
            (true, 2) => update(job, Some("v2"), Some(dice.between(1, 3) as u32)),
            (true, _) => Change::Restart { job: job.to_owned(), force: false },
        };
        change(&mut world, wanted.clone()).map_err(|refusal| format!("{wanted:?} is refused: {refusal}"))?;
        let of_job = world.newest().and_then(|record| record.jobs[job].wanted.clone());
        let is_so = of_job.is_some_and(|of_job| match &wanted {
            Change::Stop { .. } => !of_job.run,
            Change::Start { .. } | Change::Restart { .. } => of_job.run,
            Change::Update { version, workers, .. } => {
                Some(&of_job.version) == version.as_ref() && Some(of_job.workers) == *workers
            }
            _ => true,
        });
        if !is_so {
            return Err(format!("{wanted:?} was confirmed, and is not so: {:?}", world.newest()));
        }
    }
    // The longest of all is how long it takes until it is sure that a job has failed.
    world.run_for(240_000);
    // One that first had to wait for room needs as long again.
    let fails = |world: &World| {
        let dies = |version: &str| [DYING, ABORTS].contains(&version);
        let of_dying = |job: &JobRecord| job.attempt.as_ref().is_some_and(|attempt| dies(&attempt.version));
        let ends = |job: &JobRecord| job.outcome.is_none() && of_dying(job);
        world.newest().is_some_and(|record| record.jobs.values().any(ends))
    };
    if fails(&world) {
        world.run_for(240_000);
    }
    if let Some(why) = unsettled(&world) {
        return Err(why);
    }
    let (started, records) = (world.started.clone(), world.records.len());
    world.run_for(60_000);
    if let Some(why) = unsettled(&world) {
        return Err(format!("it was settled, and then {why}"));
    }
    if (world.started.as_slice(), world.records.len()) != (started.as_slice(), records) {
        return Err(format!("after {started:?} it went on to {:?} without a reason", world.started));
    }
    Ok(())
}

/// Why a cluster is not as its users want it when nothing is wrong with its surroundings.
fn unsettled(world: &World) -> Option<String> {
    let Some(record) = world.newest() else { return Some("the journal is empty".to_owned()) };
    let mut free: BTreeMap<NodeId, u32> = BTreeMap::new();
    let mut of_ssd: BTreeSet<NodeId> = BTreeSet::new();
    for host in &world.hosts {
        let Some(node) = &host.node else { return Some(format!("{:?} does not run", host.offer)) };
        let follows = node.coordinator().map(|(coordinator, term)| (coordinator.clone(), term));
        if follows != Some((record.coordinator.clone(), record.term)) {
            return Some(format!("{:?} follows {follows:?} and not {}", host.offer, record.coordinator));
        }
        free.insert(node.me().clone(), host.offer.slots);
        if host.offer.has_labels(&ssd()) {
            of_ssd.insert(node.me().clone());
        }
    }
    for (name, number, _) in world.live() {
        let of_job = record.jobs.get(name).and_then(|job| job.attempt.as_ref());
        if of_job.is_none_or(|attempt| attempt.number != number || !world.runs(name, attempt)) {
            return Some(format!("processes of attempt {number} of {name} are left over: {record:?}"));
        }
    }
    for (name, job) in &record.jobs {
        if let Some(attempt) = job.attempt.as_ref().filter(|attempt| world.runs(name, attempt)) {
            for (node, processes) in &attempt.placement.places {
                let Some(slots) = free.get_mut(node).filter(|slots| **slots >= processes * attempt.placement.threads)
                else {
                    return Some(format!("{node} runs more workers than it has slots: {record:?}"));
                };
                *slots -= processes * attempt.placement.threads;
            }
        }
    }
    record.jobs.iter().find_map(|(name, job)| {
        let wanted = job.wanted.as_ref()?;
        let running = job.attempt.as_ref().filter(|attempt| world.runs(name, attempt));
        match (&job.outcome, running) {
            (Some(outcome), None) if wanted.run && outcome.exit != Exit::Done && job.may_return_to().is_some() => {
                Some(format!("{name} has failed, and could have returned: {outcome:?}: {job:?}"))
            }
            (Some(outcome), None) => {
                // A program that is sound has only failed if its processes died often enough, and not because nodes were lost.
                let deaths = world.deaths.get(name).copied().unwrap_or_default();
                let often = outcome.exit == Exit::GenerationLost && deaths >= MOST_FAILURES;
                let expected = !wanted.run
                    || [BAD, SPOILS].contains(&&*wanted.version)
                    || outcome.exit == Exit::Misconfigured
                    || often;
                (!expected).then(|| format!("{name} has ended with {outcome:?}: {job:?}"))
            }
            (Some(_), Some(_)) => Some(format!("{name} has ended, and runs")),
            (None, _) if !wanted.run => Some(format!("{name} is to be stopped, and is not: {job:?}")),
            (None, Some(attempt)) if attempt.version == DYING => {
                Some(format!("{name} dies again and again, and has not failed: {job:?}"))
            }
            (None, Some(attempt)) if attempt.revision == wanted.revision => {
                let right = attempt.version == wanted.version && attempt.layout().workers == wanted.workers;
                let places = attempt.placement.places.iter().map(|(node, _)| node);
                let fits = wanted.require.is_empty() || places.clone().all(|node| of_ssd.contains(node));
                // One that has processes on a node that is drained has no room on the others.
                if places.clone().any(|node| record.draining.contains(&node.address)) {
                    let mut free = free.clone();
                    for (node, slots) in attempt.placement.slots() {
                        *free.entry(node).or_default() += slots;
                    }
                    if fits_into(&free, record, job, &of_ssd, wanted.workers) {
                        return Some(format!("{name} is left on a node that is drained: {free:?} {record:?}"));
                    }
                }
                (!right || !fits).then(|| format!("{name} runs as {attempt:?}, and {wanted:?} is wanted"))
            }
            // It waits, beside an earlier revision or alone: there must be no room for it.
            (None, running) => {
                let mut free = free.clone();
                for (node, processes) in running.iter().flat_map(|attempt| &attempt.placement.places) {
                    *free.entry(node.clone()).or_default() += processes * running?.placement.threads;
                }
                let fits = |workers: u32| fits_into(&free, record, job, &of_ssd, workers);
                let earlier = job.attempt.as_ref().filter(|attempt| running.is_none() && attempt.version != BAD);
                let earlier = earlier.is_some_and(|attempt| fits(attempt.layout().workers));
                let waits = (wanted.version != UNFIT && fits(wanted.workers)) || earlier;
                waits.then(|| format!("{name} waits in spite of {free:?}: {job:?}"))
            }
        }
    })
}

/// Whether the nodes that a job may have next have room for so many workers.
fn fits_into(
    free: &BTreeMap<NodeId, u32>,
    record: &GroupRecord,
    job: &JobRecord,
    of_ssd: &BTreeSet<NodeId>,
    workers: u32,
) -> bool {
    let has_failed = |node: &NodeId| job.failed.iter().any(|(failed, _)| failed == node);
    let requires = job.wanted.as_ref().is_some_and(|wanted| !wanted.require.is_empty());
    let may = |node: &NodeId| {
        !has_failed(node) && !record.draining.contains(&node.address) && (!requires || of_ssd.contains(node))
    };
    let rooms = free.iter().filter(|(node, _)| may(node));
    let rooms = rooms.map(|(node, slots)| (node.clone(), Room { slots: *slots, ..Room::default() })).collect();
    place(&rooms, Workers::Fixed(workers)).is_some_and(|room| room.layout().workers == workers)
}

#[test]
fn whatever_has_gone_wrong_a_cluster_is_as_its_users_want_it_once_that_is_mended() {
    // They are longer than those of a group of copies.
    for_each_seed(4, run);
}
