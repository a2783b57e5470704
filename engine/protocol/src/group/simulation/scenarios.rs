//! Histories of one kind.

use super::world::{BAD, JOB, World, offer};
use crate::Exit;
use crate::group::{Term, Workers};

/// A group of hosts with these slots that has run for a while.
fn running(slots: &[u32]) -> World {
    running_from(7, slots)
}

/// The same from a seed.
fn running_from(seed: u64, slots: &[u32]) -> World {
    let mut world = World::new(seed, slots);
    world.tells = true;
    world.start_all();
    world.run_for(20_000);
    settled(&world);
    world
}

#[track_caller]
fn settled(world: &World) {
    assert_eq!(world.unsettled(), None);
}

fn coordinator(world: &World) -> usize {
    let record = world.newest().expect("there is a record");
    record.coordinator.address["host-".len()..].parse().expect("a host's number")
}

fn term(world: &World) -> Term {
    world.newest().map_or(Term(0), |record| record.term)
}

/// How long it takes until the group has settled, at most a minute.
fn time_until_settled(world: &mut World) -> u64 {
    let since_ms = world.now_ms;
    while world.unsettled().is_some() && world.now_ms < since_ms + 60_000 {
        world.step();
    }
    settled(world);
    world.now_ms - since_ms
}

#[test]
fn copies_that_start_together_are_one_attempt() {
    let mut world = World::new(7, &[2, 2, 2]);
    world.start_all();
    assert!(time_until_settled(&mut world) < 5000);
    world.run_for(60_000);
    settled(&world);
    assert_eq!((world.started.len(), term(&world)), (1, Term(1)));
}

#[test]
fn copies_that_join_within_seconds_are_one_change() {
    let mut world = World::new(7, &[2, 2, 2]);
    world.start(0);
    world.run_for(10_000);
    world.start(1);
    world.run_for(1500);
    world.start(2);
    world.run_for(20_000);
    settled(&world);
    assert_eq!((world.started.len(), term(&world)), (2, Term(1)));
}

#[test]
fn a_process_that_dies_is_followed_by_the_next_attempt_at_once() {
    let mut world = running(&[2, 2, 2]);
    world.kill_a_process();
    world.step();
    assert!(time_until_settled(&mut world) < 3000);
    assert_eq!((world.started.len(), term(&world)), (2, Term(1)));
}

#[test]
fn a_host_without_power_is_lost_and_its_return_is_a_change() {
    let mut world = running(&[2, 2, 2]);
    let host = (coordinator(&world) + 1) % 3;
    world.power_cut(host);
    world.step();
    assert!(time_until_settled(&mut world) < 8000);
    world.hosts[host].dark = false;
    world.start(host);
    world.run_for(20_000);
    settled(&world);
    assert_eq!((world.started.len(), term(&world)), (3, Term(1)));
}

#[test]
fn another_node_coordinates_when_the_coordinators_host_is_without_power() {
    let mut world = running(&[2, 2, 2]);
    let host = coordinator(&world);
    world.power_cut(host);
    world.step();
    let took_ms = time_until_settled(&mut world);
    // A silence of 5 s, which is counted once, until the others are asked; their answers, the store, and a start.
    assert!(took_ms < 9000, "{took_ms}");
    assert_eq!((world.started.len(), term(&world)), (2, Term(2)));
}

#[test]
fn a_new_coordinator_plans_with_a_spare_that_it_hears_later_than_the_nodes_of_the_attempt() {
    let mut replaced = 0;
    for seed in 0..40 {
        let mut world = World::new(seed, &[2, 2, 2, 2]);
        world.hosts.iter_mut().for_each(|host| host.offer.workers = Workers::Fixed(6));
        world.start_all();
        world.run_for(20_000);
        let attempt = world.job().and_then(|job| job.attempt.clone()).expect("an attempt");
        let attempts = world.started.len();
        if attempt.placement.has(&world.newest().expect("a record").coordinator) {
            world.power_cut(coordinator(&world));
            world.run_for(30_000);
            let attempt = world.job().and_then(|job| job.attempt.clone()).expect("an attempt");
            assert_eq!((world.started.len(), attempt.layout().workers), (attempts + 1, 6), "seed {seed}");
            assert!(world.runs(JOB, &attempt));
            replaced += 1;
        }
    }
    assert!(replaced > 0);
}

#[test]
fn nobody_waits_for_a_coordinator_that_is_known_to_have_ended() {
    let mut world = running(&[2, 2, 2]);
    let host = coordinator(&world);
    world.kill(host);
    world.step();
    let took_ms = time_until_settled(&mut world);
    assert!(took_ms < 5000, "{took_ms}");
    assert_eq!((world.started.len(), term(&world)), (2, Term(2)));
}

#[test]
fn a_coordinator_that_leaves_begins_the_attempt_that_follows_before_it_ends() {
    for seed in 0..40 {
        let mut world = running_from(seed, &[2, 2, 2]);
        let (host, began) = (coordinator(&world), term(&world));
        world.leave(host);
        while world.hosts[host].exited.is_none() {
            world.step();
        }
        let attempt = world.job().and_then(|job| job.attempt.as_ref());
        assert!(attempt.is_some_and(|attempt| world.started.len() == 2 && world.runs(JOB, attempt)), "seed {seed}");
        assert_eq!(term(&world), began, "seed {seed}");
        time_until_settled(&mut world);
        assert_eq!(world.started.len(), 2, "seed {seed}");
    }
}

#[test]
fn the_next_term_begins_soon_after_the_coordinator_was_missed() {
    for seed in 0..40 {
        let mut world = running_from(seed, &[2, 2, 2]);
        let (host, began) = (coordinator(&world), term(&world));
        world.power_cut(host);
        world.run_for(8000);
        assert!(term(&world) > began, "seed {seed}");
    }
}

#[test]
fn the_job_runs_on_when_a_coordinator_without_workers_is_lost() {
    let mut world = World::new(7, &[0, 2, 2]);
    world.start(0);
    world.run_for(3000);
    world.start_all();
    world.run_for(20_000);
    settled(&world);
    let host = coordinator(&world);
    let attempts = world.started.len();
    if world.hosts[host].offer.slots == 0 {
        world.power_cut(host);
        world.step();
        assert!(time_until_settled(&mut world) < 10_000);
        world.run_for(30_000);
        settled(&world);
    }
    assert_eq!((world.started.len(), world.hosts[host].offer.slots), (attempts, 0));
}

#[test]
fn a_cut_between_the_coordinator_and_one_node_ends_no_term() {
    let mut world = running(&[2, 2, 2]);
    let (host, began) = (coordinator(&world), term(&world));
    let other = (host + 1) % 3;
    world.cut(host, other);
    world.cut(other, host);
    world.run_for(120_000);
    assert_eq!(term(&world), began);
    // The group went on without the isolated node.
    let attempt = world.job().and_then(|job| job.attempt.clone()).expect("an attempt");
    assert_eq!(attempt.layout().workers, 4);
    world.cuts.clear();
    world.run_for(20_000);
    settled(&world);
    assert_eq!(term(&world), began);
}

/// Cuts every connection between these hosts and the others for ten minutes. Returns how many terms began.
fn terms_in_a_split(world: &mut World, part: &[usize]) -> u64 {
    let began = term(world);
    for other in (0..world.hosts.len()).filter(|other| !part.contains(other)) {
        for host in part {
            world.cut(*host, other);
            world.cut(other, *host);
        }
    }
    world.run_for(600_000);
    let terms = term(world).0 - began.0;
    world.cuts.clear();
    world.run_for(200_000);
    settled(world);
    terms
}

/// Nobody can be asked by a node that reaches only the store, so one of two copies began a term each eight seconds.
#[test]
fn nodes_that_reach_only_the_store_end_each_others_terms_ever_more_seldom() {
    for seed in 0..10 {
        for (hosts, part) in [(2, &[0][..]), (3, &[0]), (4, &[0, 1])] {
            let terms = terms_in_a_split(&mut running_from(seed, &vec![2; hosts]), part);
            assert!((1..=20).contains(&terms), "seed {seed}, {part:?} of {hosts} hosts: {terms} terms");
        }
    }
}

/// Lets a group of three go on for a while with these cuts, in which it leaves a host out, and then without.
fn leaves_one_out(world: &mut World, cuts: &[(usize, usize)]) {
    let (began, attempts) = (term(world), world.started.len());
    cuts.iter().for_each(|(from, to)| world.cut(*from, *to));
    world.run_for(25_000);
    let attempt = world.job().and_then(|job| job.attempt.clone()).expect("an attempt");
    assert_eq!((term(world), attempt.layout().workers), (began, 4));
    let started = world.started.len();
    // One may begin before it is known who does not hear whom.
    assert!(started <= attempts + 2, "{:?}", world.started);
    world.run_for(120_000);
    assert_eq!(world.started.len(), started);
    assert!(world.runs(JOB, &attempt));
    world.cuts.clear();
    world.run_for(20_000);
    settled(world);
    assert_eq!((term(world), world.started.len()), (began, started + 1));
}

#[test]
fn of_two_nodes_that_do_not_hear_each_other_one_is_left_out() {
    let mut world = running(&[2, 2, 2]);
    let host = coordinator(&world);
    let (one, other) = ((host + 1) % 3, (host + 2) % 3);
    leaves_one_out(&mut world, &[(one, other), (other, one)]);
    leaves_one_out(&mut world, &[(one, other)]);
}

#[test]
fn a_node_that_does_not_hear_the_coordinator_is_left_out() {
    let mut world = running(&[2, 2, 2]);
    let host = coordinator(&world);
    leaves_one_out(&mut world, &[(host, (host + 1) % 3)]);
}

#[test]
fn a_coordinator_that_cannot_reach_the_store_stands_back_and_the_job_runs_on() {
    let mut world = running(&[2, 2, 2]);
    let (host, attempts) = (coordinator(&world), world.started.len());
    world.storeless.insert(host);
    world.run_for(40_000);
    assert_eq!((term(&world), world.started.len()), (Term(2), attempts));
    assert_ne!(coordinator(&world), host);
    settled(&world);
}

#[test]
fn a_store_that_is_away_for_all_interrupts_nothing() {
    let mut world = running(&[2, 2, 2]);
    let attempts = world.started.len();
    world.storeless.extend([0, 1, 2]);
    world.run_for(60_000);
    world.storeless.clear();
    world.run_for(20_000);
    settled(&world);
    assert_eq!((world.started.len(), term(&world)), (attempts, Term(1)));
}

#[test]
fn a_new_coordinator_plans_only_when_it_has_heard_every_node_of_the_attempt() {
    let mut world = World::new(7, &[0, 2, 2]);
    world.start(0);
    world.run_for(3000);
    world.start(1);
    world.start(2);
    world.run_for(20_000);
    settled(&world);
    let attempts = world.started.len();
    world.kill(0);
    // It says nothing until some time after the other has begun its term.
    world.hosts[2].paused_until_ms = world.now_ms + 4500;
    world.run_for(20_000);
    settled(&world);
    assert_eq!((world.started.len(), coordinator(&world)), (attempts, 1));
}

#[test]
fn a_coordinator_that_was_paused_orders_nothing_when_it_wakes_up() {
    let mut world = running(&[2, 2, 2]);
    let host = coordinator(&world);
    world.hosts[host].paused_until_ms = world.now_ms + 60_000;
    world.run_for(60_000);
    let (attempts, newest) = (world.started.len(), term(&world));
    assert!(newest > Term(1) && coordinator(&world) != host);
    world.run_for(30_000);
    settled(&world);
    // It joins with its slots, which is one change, and begins no term.
    assert_eq!((world.started.len(), term(&world)), (attempts + 1, newest));
}

#[test]
fn a_rolling_update_changes_the_version_once() {
    let mut world = running(&[2, 2, 2]);
    for host in 0..3 {
        world.leave(host);
        world.run_for(10_000);
        assert!(world.hosts[host].exited.is_some());
        world.hosts[host].offer = offer("2", 2);
        world.start(host);
        world.run_for(10_000);
    }
    settled(&world);
    assert_eq!(world.versions(), ["1", "2"]);
}

#[test]
fn a_tie_keeps_the_version_that_runs() {
    for seed in 0..20 {
        for host in 0..2 {
            let mut world = running_from(seed, &[2, 2]);
            assert_eq!(world.started.len(), 1, "seed {seed}");
            world.leave(host);
            world.run_for(20_000);
            assert!(world.hosts[host].exited.is_some(), "seed {seed}");
            world.hosts[host].offer = offer("2", 2);
            world.start(host);
            world.run_for(60_000);
            settled(&world);
            let attempt = world.job().and_then(|job| job.attempt.as_ref()).expect("an attempt");
            assert_eq!((attempt.version.as_str(), attempt.layout().workers), ("1", 2), "seed {seed}, host {host}");
            // The host that leaves needs an attempt without it; the one that joins with another version needs none.
            assert_eq!((world.started.len(), world.versions()), (2, vec!["1"]), "seed {seed}, host {host}");
        }
    }
}

#[test]
fn a_version_that_fails_leaves_the_job_to_the_nodes_of_another() {
    let mut world = running(&[2, 2, 2]);
    for host in [0, 1] {
        world.kill(host);
        world.hosts[host].offer = offer(BAD, 2);
        world.start(host);
    }
    world.run_for(40_000);
    settled(&world);
    let job = world.job().expect("a record");
    assert_eq!(job.failed.len(), 2);
    assert_eq!(
        job.attempt.as_ref().map(|attempt| (attempt.version.as_str(), attempt.layout().workers)),
        Some(("1", 2))
    );
}

#[test]
fn a_node_whose_processes_are_refused_leaves_the_job_to_the_others() {
    for seed in 0..40 {
        let mut world = running_from(seed, &[2, 2, 2]);
        let attempts = world.started.len();
        world.refuse(seed as usize % 3);
        world.run_for(20_000);
        settled(&world);
        let job = world.job().expect("a record");
        let workers = job.attempt.as_ref().map(|attempt| attempt.layout().workers);
        assert_eq!((job.failed.len(), workers), (1, Some(4)), "seed {seed}");
        world.run_for(60_000);
        assert_eq!(world.started.len(), attempts + 1, "seed {seed}: it joined again");
    }
}

/// The group waits for a copy that is not ready, and lets the one leave whose host is at fault.
#[test]
fn a_job_whose_only_ready_node_is_refused_waits_for_the_other() {
    for leaves in [false, true] {
        let mut world = World::new(7, &[2, 2]);
        world.set_unready(1, true);
        world.start_all();
        world.run_for(15_000);
        world.refuse(0);
        world.run_for(20_000);
        let job = world.job().expect("a record");
        assert_eq!((job.failed.len(), &job.outcome), (1, &None));
        if leaves {
            world.leave(0);
            world.run_for(10_000);
            assert_eq!(world.hosts[0].exited.as_ref().map(|outcome| outcome.exit), Some(Exit::Done));
        }
        world.set_unready(1, false);
        world.run_for(20_000);
        settled(&world);
    }
}

#[test]
fn a_job_that_is_refused_on_every_node_ends() {
    let mut world = running(&[2, 2, 2]);
    (0..3).for_each(|host| world.refuse(host));
    world.run_for(60_000);
    for host in &world.hosts {
        assert_eq!(host.exited.as_ref().map(|outcome| outcome.exit), Some(Exit::Misconfigured));
    }
}

#[test]
fn a_job_that_fails_for_good_ends_every_copy_with_its_reason() {
    let mut world = World::new(7, &[2, 2, 2]);
    world.hosts.iter_mut().for_each(|host| host.offer = offer(BAD, 2));
    world.start_all();
    world.run_for(30_000);
    for host in &world.hosts {
        assert_eq!(host.exited.as_ref().map(|outcome| outcome.exit), Some(Exit::Failed));
    }
    assert_eq!(world.started.len(), 1);
    // Copies that are started again begin a new attempt.
    world.hosts.iter_mut().for_each(|host| host.offer = offer("2", 2));
    world.start_all();
    assert!(time_until_settled(&mut world) < 5000);
}

#[test]
fn who_does_not_hear_how_the_job_ended_reads_it() {
    let mut world = World::new(7, &[2, 2, 2]);
    world.hosts.iter_mut().for_each(|host| host.offer = offer(BAD, 2));
    world.start_all();
    while world.job().is_none_or(|job| job.outcome.is_none()) {
        world.step();
    }
    let host = coordinator(&world);
    world.kill(host);
    world.run_for(30_000);
    for other in (0..3).filter(|other| *other != host) {
        assert_eq!(world.hosts[other].exited.as_ref().map(|outcome| outcome.exit), Some(Exit::Failed));
    }
    assert_eq!(world.started.len(), 1);
}

#[test]
fn when_all_copies_leave_the_job_commits_and_every_copy_ends_well() {
    let mut world = running(&[2, 2, 2]);
    (0..3).for_each(|host| world.leave(host));
    world.run_for(30_000);
    for host in &world.hosts {
        assert_eq!(host.exited.as_ref().map(|outcome| outcome.exit), Some(Exit::Done));
    }
    assert_eq!(world.started.len(), 1);
}
