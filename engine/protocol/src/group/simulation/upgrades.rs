//! Upgrades that fail, ends that are forced, and deletions of state.

use super::cluster::{change, cluster, coordinator, job, none, runs, stop, submit, until, update};
use super::world::{ABORTS, BAD, HANGS, SPOILS, STUCK, UNFIT, World};
use crate::Exit;
use crate::group::control::MOST_FAILURES_ON_TRIAL;
use crate::group::{Change, Refusal};

/// How many attempts of a version have begun.
fn attempts_of(world: &World, version: &str) -> usize {
    world.started_versions().filter(|started| *started == version).count()
}

/// A cluster in which the first version of a job has read input.
fn with_a_good_job(slots: &[u32]) -> World {
    let mut world = cluster(slots);
    submit(&mut world, "orders", "v1", 2);
    until(&mut world, "it has read input", |world| job(world, "orders").proven.as_deref() == Some("v1"));
    world
}

#[test]
fn a_job_returns_by_itself_from_a_version_that_fails_before_it_has_read_input() {
    let aborts = "signal 6; the job has failed 3 times in a row within ";
    for (version, most, within_ms, why) in [
        (BAD, 1, 10_000, "a bad record"),
        (ABORTS, MOST_FAILURES_ON_TRIAL as usize, 20_000, aborts),
        (HANGS, 1, 610_000, "it had not begun to read input within 600 s"),
    ] {
        let mut world = with_a_good_job(&[2, 2]);
        submit(&mut world, "other", "v1", 2);
        until(&mut world, "it runs", |world| runs(world, "other").is_some());
        let of_other = job(&world, "other").attempt.clone();
        assert_eq!(change(&mut world, update("orders", Some(version), None)), Ok(()));
        let since_ms = world.now_ms;
        while job(&world, "orders").returned.is_none() || runs(&world, "orders") != Some(("v1", 2)) {
            assert!(world.now_ms < since_ms + within_ms, "{version}: {:?}", job(&world, "orders"));
            world.step();
        }
        let returned = job(&world, "orders").returned.clone().expect("it has returned");
        assert!(returned.why.starts_with(why) && returned.version == version, "{returned:?}");
        let said = job(&world, "orders").attempt.as_ref().map(|attempt| attempt.why.clone()).unwrap_or_default();
        assert!(said.starts_with(why) && said.ends_with("the job has returned to the program before it"), "{said}");
        // It is not tried again.
        world.kill_a_process();
        world.run_for(120_000);
        assert_eq!((attempts_of(&world, version), runs(&world, "orders")), (most, Some(("v1", 2))), "{version}");
        assert_eq!(job(&world, "other").attempt, of_other);
    }
}

#[test]
fn a_job_stays_down_with_a_version_that_fails_after_it_has_read_input() {
    let mut world = with_a_good_job(&[2, 2]);
    assert_eq!(change(&mut world, update("orders", Some(SPOILS), None)), Ok(()));
    until(&mut world, "its end", |world| job(world, "orders").outcome.is_some());
    assert_eq!((job(&world, "orders").returned.clone(), attempts_of(&world, SPOILS)), (None, 1));
    // A person goes back.
    assert_eq!(change(&mut world, update("orders", Some("v1"), None)), Ok(()));
    until(&mut world, "it runs", |world| runs(world, "orders") == Some(("v1", 2)));
}

#[test]
fn a_version_that_has_never_read_input_is_nothing_to_return_to() {
    let mut world = cluster(&[2]);
    submit(&mut world, "orders", ABORTS, 1);
    until(&mut world, "an attempt", |world| !world.started.is_empty());
    assert_eq!(change(&mut world, update("orders", Some(BAD), None)), Ok(()));
    until(&mut world, "its end", |world| job(world, "orders").outcome.is_some());
    assert_eq!(job(&world, "orders").returned, None);
    // What failed before it was stopped is nothing to return to either.
    assert_eq!(change(&mut world, update("orders", Some("v1"), None)), Ok(()));
    until(&mut world, "it runs", |world| runs(world, "orders") == Some(("v1", 1)));
}

#[test]
fn of_several_versions_in_a_row_that_fail_the_job_returns_to_the_last_that_has_read_input() {
    let mut world = with_a_good_job(&[2, 2]);
    assert_eq!(change(&mut world, update("orders", Some(ABORTS), Some(1))), Ok(()));
    until(&mut world, "an attempt", |world| attempts_of(world, ABORTS) == 1);
    assert_eq!(change(&mut world, update("orders", Some(BAD), None)), Ok(()));
    until(&mut world, "it has returned", |world| runs(world, "orders") == Some(("v1", 2)));
    assert_eq!(job(&world, "orders").returned.as_ref().map(|returned| returned.version.as_str()), Some(BAD));
    // The next one is a new trial.
    assert_eq!(change(&mut world, update("orders", Some("v2"), None)), Ok(()));
    until(&mut world, "it has read input", |world| job(world, "orders").proven.as_deref() == Some("v2"));
    assert_eq!((job(&world, "orders").returned.clone(), job(&world, "orders").back.clone()), (None, None));
}

/// Whoever coordinates next knows what the job returns to, and whether it still may.
#[test]
fn a_job_returns_although_its_coordinator_is_lost_at_any_moment() {
    for after_steps in (0..240).step_by(12) {
        // The first two hosts run nothing, so that what is lost is the coordinator alone.
        let mut world = cluster(&[0, 0, 0, 2]);
        submit(&mut world, "orders", "v1", 2);
        until(&mut world, "it has read input", |world| job(world, "orders").proven.is_some());
        assert_eq!(change(&mut world, update("orders", Some(ABORTS), None)), Ok(()));
        (0..after_steps).for_each(|_| world.step());
        let host = coordinator(&world);
        if host != 3 {
            world.kill(host);
        }
        until(&mut world, "it has returned", |world| {
            job(world, "orders").returned.is_some() && runs(world, "orders") == Some(("v1", 2))
        });
        assert!(attempts_of(&world, ABORTS) <= 1 + MOST_FAILURES_ON_TRIAL as usize, "after {after_steps} steps");
    }
}

/// Its end was not heard: it may have read input.
#[test]
fn a_job_does_not_return_once_the_node_of_the_new_versions_first_process_was_lost() {
    let mut world = with_a_good_job(&[2, 2]);
    assert_eq!(change(&mut world, update("orders", Some(HANGS), None)), Ok(()));
    until(&mut world, "an attempt", |world| attempts_of(world, HANGS) == 1);
    world.run_for(3000);
    let host = world.live().flat_map(|(.., workers)| workers.into_keys()).next().expect("a host");
    world.kill(host);
    world.run_for(15_000);
    assert_eq!((job(&world, "orders").back.clone(), job(&world, "orders").returned.clone()), (None, None));
}

#[test]
fn a_stopped_job_that_is_started_with_a_version_that_no_node_can_run_returns() {
    let mut world = with_a_good_job(&[2, 2]);
    assert_eq!(change(&mut world, stop("orders")), Ok(()));
    until(&mut world, "its end", |world| job(world, "orders").outcome.is_some());
    assert_eq!(change(&mut world, update("orders", Some(UNFIT), None)), Ok(()));
    assert_eq!(change(&mut world, Change::Start { job: "orders".to_owned() }), Ok(()));
    until(&mut world, "it has returned", |world| runs(world, "orders") == Some(("v1", 2)));
    let why = job(&world, "orders").returned.as_ref().map(|returned| returned.why.clone()).unwrap_or_default();
    assert!(why.contains("could not run it: it needs another libc"), "{why}");
}

#[test]
fn a_job_that_does_not_stop_ends_at_once_when_that_is_forced() {
    let forced = |stops: bool| {
        let job = "orders".to_owned();
        if stops { Change::Stop { job, force: true } } else { Change::Restart { job, force: true } }
    };
    let mut world = cluster(&[2]);
    submit(&mut world, "orders", STUCK, 2);
    until(&mut world, "it runs", |world| runs(world, "orders").is_some());
    assert_eq!(change(&mut world, stop("orders")), Ok(()));
    world.run_for(50_000);
    assert!(runs(&world, "orders").is_some());
    assert_eq!(change(&mut world, forced(true)), Ok(()));
    let took_ms = until(&mut world, "its end", |world| job(world, "orders").outcome.is_some());
    assert!(took_ms < 3000, "{took_ms}");
    let outcome = job(&world, "orders").outcome.clone().expect("it has ended");
    assert_eq!(outcome.exit, Exit::StoppedUncommitted);
    assert!(outcome.why.contains("as a user has asked"), "{outcome:?}");
    assert_eq!(change(&mut world, forced(true)), Ok(()), "it is so already");
    assert_eq!(change(&mut world, Change::Start { job: "orders".to_owned() }), Ok(()));
    until(&mut world, "it runs", |world| runs(world, "orders").is_some());
    assert_eq!(change(&mut world, forced(false)), Ok(()));
    until(&mut world, "it runs again", |world| world.started.len() == 3 && runs(world, "orders").is_some());
    world.run_for(30_000);
    assert_eq!((world.started.len(), runs(&world, "orders")), (3, Some((STUCK, 2))));
    assert!(job(&world, "orders").deaths.is_empty(), "no node is at fault");
}

#[test]
fn the_name_of_a_deleted_job_is_free_once_its_state_is_removed() {
    let mut world = cluster(&[2]);
    submit(&mut world, "orders", "v1", 1);
    until(&mut world, "it runs", |world| runs(world, "orders").is_some());
    let delete = Change::Delete { job: "orders".to_owned(), state: true };
    assert_eq!(change(&mut world, delete.clone()), Err(Refusal::Runs("orders".to_owned())));
    assert_eq!(change(&mut world, stop("orders")), Ok(()));
    until(&mut world, "its end", |world| job(world, "orders").outcome.is_some());
    assert_eq!(change(&mut world, delete), Ok(()));
    let again = Change::Submit { job: "orders".to_owned(), version: "v1".to_owned(), workers: 1, require: none() };
    assert_eq!(change(&mut world, again.clone()), Err(Refusal::Removing("orders".to_owned())));
    let record = world.newest().cloned().expect("there is a record");
    assert!(record.removing["orders"] <= record.clock_ms, "all of its processes have ended");
    // The next coordinator knows, too.
    world.kill(0);
    world.start(0);
    world.run_for(15_000);
    assert_eq!(change(&mut world, again.clone()), Err(Refusal::Removing("orders".to_owned())));
    assert_eq!(change(&mut world, Change::Removed { job: "orders".to_owned() }), Ok(()));
    assert_eq!(change(&mut world, again), Ok(()));
}

/// They may still write to the store.
#[test]
fn the_state_of_a_deleted_job_stays_for_a_while_if_its_processes_may_still_run() {
    let mut world = cluster(&[0, 0, 2]);
    submit(&mut world, "orders", "v1", 2);
    until(&mut world, "it runs", |world| runs(world, "orders").is_some());
    let host = coordinator(&world);
    for other in (0..3).filter(|other| *other != host) {
        let (a, b) = if host == 2 { (other, 2) } else { (2, other) };
        world.cut(a, b);
        world.cut(b, a);
    }
    world.cut(2, host);
    world.cut(host, 2);
    until(&mut world, "another coordinator", |world| coordinator(world) != 2);
    assert_eq!(change(&mut world, stop("orders")), Ok(()));
    until(&mut world, "its end", |world| job(world, "orders").outcome.is_some());
    assert_eq!(change(&mut world, Change::Delete { job: "orders".to_owned(), state: true }), Ok(()));
    let record = world.newest().cloned().expect("there is a record");
    assert!(record.removing["orders"] >= record.clock_ms + 590_000, "{record:?}");
}
