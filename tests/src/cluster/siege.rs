//! A cluster with many jobs that is struck while users change it, and then compared with what must be there.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fluvial_node::fail_point::FailPoint;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::change::Prepared;
use super::{Blow, Change, Cluster, ClusterOptions, Fleet};
use crate::group::{Kafka, Store, seed_after_seed};

/// How many small jobs a siege of a campaign begins with, beside bank and orders, and how many blows it has.
const SMALL: usize = 8;
const BLOWS: usize = 8;
const SMALL_ON_A_BUCKET: usize = 2;
/// The slots of a node: two nodes have room for all jobs, also for those that are submitted.
const SLOTS: u32 = 12;
/// How long a fault lasts where nothing says when it has taken effect: longer than every time by which nodes notice.
const MISSED: Duration = Duration::from_secs(12);
/// A change has been under way for at most so long when the blow comes.
const LATEST_MS: u64 = 2_500;

/// Has a user make a change, strikes `after` it has begun, and waits until all is as it was wanted.
///
/// # Errors
/// The cluster does not do what it must.
pub fn strike(fleet: &mut Fleet<'_>, change: Change, number: usize, blow: Blow, after: Duration) -> Result<()> {
    let start = Instant::now();
    let cluster = fleet.cluster();
    let prepared = Prepared::new(fleet, change, number, true)?;
    let coordinator = cluster.coordinator()?;
    for tenant in fleet.tenants() {
        tenant.output().reset();
    }
    let fleet = &*fleet;
    let struck = || {
        std::thread::scope(|scope| {
            let user = scope.spawn(|| prepared.make(cluster));
            // A moment within the change: there is no event to wait for.
            std::thread::sleep(after);
            let struck = blow.strike(cluster, coordinator, || match change {
                // The nodes that are left have no room for all jobs, or the user stops one just now.
                Change::Drain | Change::StopAndStart | Change::Submit => {
                    std::thread::sleep(MISSED);
                    Ok(())
                }
                _ => fleet.wait_until_all_run(),
            });
            let made = user.join().map_err(|_| anyhow::anyhow!("the user panicked"))?;
            struck.and(made)
        })?;
        cluster.wait_for_nodes()?;
        prepared.verify(cluster)?;
        fleet.wait_until_all_run()
    };
    struck().with_context(|| format!("{blow:?} during {change:?}, after {after:?}"))?;
    let longest = fleet.tenants().iter().map(|tenant| tenant.output().longest()).max().unwrap_or_default();
    eprintln!(
        "{blow:?} {} ms after {change:?} began: {:.1} s, the longest pause of an output was {:.1} s",
        after.as_millis(),
        start.elapsed().as_secs_f64(),
        longest.as_secs_f64()
    );
    Ok(())
}

/// Checks that no node has panicked.
///
/// # Errors
/// One has.
pub fn check_logs(cluster: &Cluster) -> Result<()> {
    for host in cluster.hosts() {
        let log = std::fs::read_to_string(cluster.node(host)?.log())?;
        let panic = log.lines().find(|line| line.contains("panicked"));
        ensure!(panic.is_none(), "the node on host {host}: {panic:?}\n{}", cluster.logs());
    }
    Ok(())
}

/// Sieges of clusters by random blows during random changes, until no more begin after `time`. Says of each what came of it;
/// whether all was right.
pub fn campaign(hosts: u8, seed: u64, time: Duration) -> bool {
    seed_after_seed(seed, time, |seed, goes_on| {
        let blows = one_of_a_campaign(hosts, seed, goes_on)?;
        Ok((format!("nothing lost, nothing twice after {blows} blows"), true))
    })
}

/// Has a node killed at every place that each kind of change passes, until no more begin after `time`. Returns whether all was right.
pub fn fail_points(hosts: u8, time: Duration) -> bool {
    let start = Instant::now();
    let mut clean = true;
    let mut report = |what: &str, outcome: Result<()>| match outcome {
        Ok(()) => println!("{what}: nothing lost, nothing twice"),
        Err(error) => {
            println!("{what} FAILED: {error:#}\n");
            clean = false;
        }
    };
    for change in Change::ALL {
        let places = FailPoint::ALL.iter().filter(|point| change.passes(**point));
        let one = || {
            let cluster = Cluster::start(ClusterOptions {
                hosts,
                slots: SLOTS,
                kafka: Kafka::Apache,
                store: Store::Folder,
                key: true,
            })?;
            let mut fleet = Fleet::start(&cluster, 2, 1)?;
            for (number, point) in places.enumerate().take_while(|_| start.elapsed() < time) {
                strike_at(&mut fleet, change, number, *point)?;
            }
            fleet.finish()?;
            check_logs(&cluster)
        };
        report(&format!("kills during {change:?}"), one());
    }
    clean
}

fn one_of_a_campaign(hosts: u8, seed: u64, goes_on: impl Fn() -> bool) -> Result<usize> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let store = if random.random() { Store::Folder } else { Store::Bucket };
    let cluster = Cluster::start(ClusterOptions { hosts, slots: SLOTS, kafka: Kafka::Apache, store, key: true })?;
    // The server of S3's protocol is slow where the journals of many jobs are kept.
    let small = if store == Store::Folder { SMALL } else { SMALL_ON_A_BUCKET };
    let mut fleet = Fleet::start(&cluster, small, seed)?;
    let mut blows = 0;
    while blows < BLOWS && goes_on() {
        let (change, blow) = (Change::random(&mut random), Blow::random(&mut random, store));
        let after = Duration::from_millis(random.random_range(0..LATEST_MS));
        strike(&mut fleet, change, random.random_range(0..1000), blow, after)?;
        blows += 1;
    }
    fleet.finish()?;
    check_logs(&cluster)?;
    Ok(blows)
}

/// Has a user make a change while one node, the first that gets there, kills itself at this place. The node is started again.
///
/// # Errors
/// No node gets there, or the cluster does not do what it must.
pub fn strike_at(fleet: &mut Fleet<'_>, change: Change, number: usize, point: FailPoint) -> Result<()> {
    let start = Instant::now();
    let cluster = fleet.cluster();
    let number = match change {
        // A host that runs a job, so that it has something to move.
        Change::Drain => {
            let name = fleet.tenants()[number % fleet.tenants().len()].name().to_owned();
            usize::from(*fleet.hosts_of(&name)?.first().context("the job runs somewhere")?)
        }
        _ => number,
    };
    let fresh = matches!(
        point,
        FailPoint::BeforeBinary
            | FailPoint::AfterBinary
            | FailPoint::BeforeFetch
            | FailPoint::AfterFetch
            | FailPoint::AfterCheck
    );
    let prepared = Prepared::new(fleet, change, number, fresh)?;
    let fleet = &*fleet;
    let armed = cluster.fail_points().join(point.name());
    std::fs::write(&armed, "")?;
    let struck = std::thread::scope(|scope| {
        let user = scope.spawn(|| prepared.make(cluster));
        let mut killed = None;
        let reached = cluster.wait_until(&format!("a node at {}", point.name()), || {
            killed = cluster.hosts().find(|host| !cluster.lives(*host));
            Ok(killed.is_some())
        });
        let started = reached.and_then(|()| cluster.start_node(killed.context("a node was killed")?));
        let made = user.join().map_err(|_| anyhow::anyhow!("the user panicked"))?;
        started.and(made)
    });
    let judged = struck.and_then(|()| {
        ensure!(!armed.exists(), "a node ended, and not at {}", point.name());
        cluster.wait_for_nodes()?;
        prepared.verify(cluster)?;
        fleet.wait_until_all_run()
    });
    judged.with_context(|| format!("a node was killed at {} during {change:?}", point.name()))?;
    eprintln!("killed at {} during {change:?}: {:.1} s", point.name(), start.elapsed().as_secs_f64());
    Ok(())
}
