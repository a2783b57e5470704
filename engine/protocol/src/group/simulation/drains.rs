//! Clusters of which nodes are drained, and where processes of jobs are placed.

use std::collections::BTreeSet;

use super::cluster::{change, cluster, coordinator, drain, job, none, runs, ssd, stop, submit, undrain, until, update};
use super::world::{DYING, World};
use crate::group::{Change, Refusal};

/// The hosts on which processes of a job live.
fn hosts_of(world: &World, name: &str) -> BTreeSet<usize> {
    world.live().filter(|(job, ..)| *job == name).flat_map(|(.., workers)| workers.into_keys()).collect()
}

/// The hosts on which any processes live.
fn busy(world: &World) -> BTreeSet<usize> {
    world.live().flat_map(|(.., workers)| workers.into_keys()).collect()
}

fn attempts_of(world: &World, name: &str) -> usize {
    world.started.iter().filter(|(job, _)| job == name).count()
}

/// Runs jobs with one worker each.
fn run_all(world: &mut World, names: &[&str]) {
    for name in names {
        submit(world, name, "v1", 1);
        until(world, "it runs", |world| runs(world, name).is_some());
    }
}

#[test]
fn a_drained_node_gives_each_of_its_jobs_to_the_others_and_interrupts_each_once() {
    let names = ["a", "b", "c", "d", "e"];
    for host in 0..3 {
        let mut world = cluster(&[4, 4, 4]);
        run_all(&mut world, &names);
        let moved: Vec<_> = names.iter().filter(|name| hosts_of(&world, name).contains(&host)).collect();
        assert!(!moved.is_empty(), "the jobs are on all nodes");
        assert_eq!(change(&mut world, drain(host)), Ok(()));
        let took_ms = until(&mut world, "it is drained", |world| !busy(world).contains(&host));
        assert!(took_ms < 10_000, "jobs that have room move together: {took_ms}");
        until(&mut world, "all run", |world| names.iter().all(|name| runs(world, name).is_some()));
        world.run_for(60_000);
        for name in &names {
            assert_eq!(attempts_of(&world, name), 1 + usize::from(moved.contains(&name)), "{name}");
        }
        // A restart does not make it a node that is not drained, nor does the loss of the coordinator.
        world.kill(host);
        world.start(host);
        world.run_for(20_000);
        run_all(&mut world, &["late"]);
        let first = coordinator(&world);
        world.kill(first);
        world.start(first);
        world.run_for(10_000);
        until(&mut world, "all run", |world| names.iter().all(|name| runs(world, name).is_some()));
        assert!(!busy(&world).contains(&host));
        assert_eq!(change(&mut world, undrain(host)), Ok(()));
        run_all(&mut world, &["later"]);
        assert_eq!(hosts_of(&world, "later"), BTreeSet::from([host]), "it has the most free slots");
    }
}

#[test]
fn a_job_without_room_elsewhere_stays_until_there_is_some() {
    let mut world = cluster(&[2, 2]);
    world.kill(1);
    world.run_for(10_000);
    submit(&mut world, "orders", "v1", 2);
    until(&mut world, "it runs", |world| runs(world, "orders").is_some());
    assert_eq!(change(&mut world, drain(0)), Ok(()));
    world.run_for(60_000);
    assert_eq!((runs(&world, "orders"), world.started.len()), (Some(("v1", 2)), 1));
    world.start(1);
    until(&mut world, "it has moved", |world| hosts_of(world, "orders") == BTreeSet::from([1]));
    until(&mut world, "it runs", |world| runs(world, "orders").is_some());
    world.run_for(30_000);
    assert_eq!(world.started.len(), 2);
}

/// Each would have room for itself.
#[test]
fn of_two_jobs_that_a_drain_would_move_to_the_same_slot_only_one_is_interrupted() {
    let mut world = cluster(&[2, 1]);
    world.kill(1);
    world.run_for(10_000);
    run_all(&mut world, &["a", "b"]);
    world.start(1);
    world.run_for(10_000);
    assert_eq!(change(&mut world, drain(0)), Ok(()));
    world.run_for(60_000);
    assert_eq!(world.started.len(), 3, "{:?}", world.started);
    assert_eq!(busy(&world), BTreeSet::from([0, 1]));
    assert!(["a", "b"].iter().all(|name| runs(&world, name).is_some()));
    // The other one moves when the first has been stopped.
    let on_1 = *["a", "b"].iter().find(|name| hosts_of(&world, name).contains(&1)).expect("one has moved");
    assert_eq!(change(&mut world, stop(on_1)), Ok(()));
    until(&mut world, "the other one has moved", |world| busy(world) == BTreeSet::from([1]));
}

#[test]
fn two_nodes_that_are_drained_within_seconds_interrupt_a_job_once() {
    let mut world = cluster(&[2, 2, 2]);
    run_all(&mut world, &["orders"]);
    let first = *hosts_of(&world, "orders").first().expect("a host");
    let next = (first + 1) % 3;
    // It would move to the next one, whose number is lower or whose slots are as many.
    assert_eq!(change(&mut world, drain(first)), Ok(()));
    world.run_for(1500);
    assert_eq!(change(&mut world, drain(next)), Ok(()));
    until(&mut world, "it has moved", |world| hosts_of(world, "orders") == BTreeSet::from([3 - first - next]));
    world.run_for(30_000);
    assert_eq!(world.started.len(), 2);
}

#[test]
fn a_drain_during_which_the_coordinator_dies_goes_on() {
    for steps in [0, 1, 2, 5, 10, 20, 40, 60, 70, 80, 90, 100] {
        let mut world = cluster(&[2, 2, 2]);
        run_all(&mut world, &["a", "b"]);
        let first = coordinator(&world);
        let host = *busy(&world).iter().find(|host| **host != first).expect("one job is on another node");
        let number = world.change(first, drain(host));
        (0..steps).for_each(|_| world.step());
        world.kill(first);
        until(&mut world, "the next coordinator", |world| coordinator(world) != first);
        world.start(first);
        if !matches!(world.answers.get(&number), Some(Ok(()))) {
            world.run_for(2000);
            assert_eq!(change(&mut world, drain(host)), Ok(()), "after {steps} steps");
        }
        until(&mut world, "it is drained", |world| !busy(world).contains(&host));
        until(&mut world, "both run", |world| ["a", "b"].iter().all(|name| runs(world, name).is_some()));
        world.run_for(30_000);
        // The loss of the coordinator may have interrupted one, and the drain the other.
        assert!(
            ["a", "b"].iter().all(|name| attempts_of(&world, name) <= 2),
            "after {steps} steps: {:?}",
            world.started
        );
    }
}

#[test]
fn a_node_that_is_not_there_is_not_drained_and_one_that_was_is_undrained() {
    let mut world = cluster(&[2, 2]);
    let unknown = Change::Drain { node: "host-7".to_owned() };
    assert_eq!(change(&mut world, unknown), Err(Refusal::UnknownNode("host-7".to_owned())));
    assert_eq!(change(&mut world, drain(1)), Ok(()));
    world.kill(1);
    world.run_for(20_000);
    assert_eq!(change(&mut world, drain(1)), Ok(()), "it is drained already");
    assert_eq!(change(&mut world, undrain(1)), Ok(()));
    assert!(world.newest().is_some_and(|record| record.draining.is_empty()));
}

#[test]
fn a_job_is_placed_only_on_nodes_with_the_labels_that_it_requires_and_spread_over_zones() {
    let mut world = World::of_cluster(7, &[2, 2, 2, 2]);
    world.tells = true;
    for (host, zone) in ["x", "x", "y", "y"].into_iter().enumerate() {
        world.hosts[host].offer.labels.insert("zone".to_owned(), zone.to_owned());
    }
    [0, 1, 3].iter().for_each(|host| world.hosts[*host].offer.labels.extend(ssd()));
    world.start_all();
    world.run_for(20_000);
    let wanted = Change::Submit { job: "orders".to_owned(), version: "v1".to_owned(), workers: 4, require: ssd() };
    assert_eq!(change(&mut world, wanted), Ok(()));
    until(&mut world, "it runs", |world| runs(world, "orders").is_some());
    assert!([BTreeSet::from([0, 3]), BTreeSet::from([1, 3])].contains(&hosts_of(&world, "orders")));
    // More than such nodes have leaves it as it is, until that is not required any more.
    assert_eq!(change(&mut world, update("orders", None, Some(8))), Ok(()));
    world.run_for(20_000);
    assert_eq!((runs(&world, "orders"), world.started.len()), (Some(("v1", 4)), 1));
    let anywhere = Change::Update {
        job: "orders".to_owned(),
        version: None,
        workers: None,
        require: Some(none()),
        of: None,
        back: None,
    };
    assert_eq!(change(&mut world, anywhere), Ok(()));
    until(&mut world, "it runs on all", |world| runs(world, "orders") == Some(("v1", 8)));
}

#[test]
fn a_node_on_which_a_job_died_three_times_is_avoided_also_by_the_next_coordinator() {
    let mut world = cluster(&[0, 2, 2]);
    submit(&mut world, "dying", DYING, 1);
    let mut hosts = Vec::new();
    for attempt in 1..=6 {
        until(&mut world, "an attempt", |world| world.started.len() >= attempt);
        until(&mut world, "its processes", |world| !hosts_of(world, "dying").is_empty());
        hosts.extend(hosts_of(&world, "dying"));
        if attempt == 2 && coordinator(&world) == 0 {
            world.kill(0);
            until(&mut world, "another one", |world| coordinator(world) != 0);
        }
    }
    let first = hosts[0];
    let on_first: Vec<_> = hosts.iter().map(|host| *host == first).collect();
    assert_eq!(on_first, [true, true, true, false, false, false], "{hosts:?}");
    // It is preferred only, and forgotten after ten minutes.
    assert_eq!(job(&world, "dying").deaths.iter().filter(|death| death.node == format!("host-{first}")).count(), 3);
    assert_eq!(change(&mut world, update("dying", Some("v1"), None)), Ok(()));
    until(&mut world, "it runs", |world| runs(world, "dying").is_some());
    world.run_for(700_000);
    let second = *hosts_of(&world, "dying").first().expect("a host");
    world.kill(second);
    until(&mut world, "it runs on the first", |world| hosts_of(world, "dying") == BTreeSet::from([first]));
    assert!(job(&world, "dying").deaths.is_empty(), "they count no more");
}
