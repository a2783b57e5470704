//! What a cluster costs, and how long its changes and its failures take.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fluvial_s3::Requests;

use super::{Cluster, ClusterOptions, Fleet, SMALL_PARTITIONS, WITHIN, built_again, submission};
use crate::group::figures::{fill, is_all_read};
use crate::group::{Kafka, Store};
use crate::hosts::Place;
use crate::http;
use crate::job::binary;
use crate::processes::{cpu_of, resident_of};
use crate::stage::Stage;
use crate::subject::Subject;

/// How many nodes there are.
const HOSTS: u8 = 3;
/// How long an idle cluster is measured.
const MEASURED: Duration = Duration::from_secs(60);
/// How long it is left alone before that: the nodes have read the journal, and the last changes are long done.
const SETTLES: Duration = Duration::from_secs(20);
/// How often the API is asked.
const REQUESTS: usize = 500;
/// How many jobs run on the host that loses its power.
const JOBS_OF_A_NODE: usize = 20;
/// How often a job with much state is changed in each way.
const REPEATS: usize = 5;
/// The partitions of its input.
const PARTITIONS: i32 = 6;

/// What an idle cluster costs.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// How many jobs run.
    pub jobs: usize,
    /// The share of a core that the coordinator takes.
    pub coordinator_share: f64,
    /// The resident memory of the coordinator, bytes.
    pub coordinator_bytes: u64,
    /// The resident memory of a process of a job, bytes; 0 without jobs.
    pub process_bytes: u64,
    /// The share of a core that all processes of jobs take.
    pub processes_share: f64,
    /// The requests to the store, an hour: PUT and LIST, GET, and DELETE.
    pub requests: [f64; 3],
}

/// A cluster with many small jobs.
#[derive(Clone, Debug)]
pub struct ManyJobs {
    /// From the submission of each job, by the command, until it ran. The binary is in the store.
    pub submitted: Vec<Duration>,
    /// The cluster before that.
    pub without: Idle,
    /// The cluster after that; nothing is written to the jobs' input.
    pub with: Idle,
    /// How long the API took to answer: all jobs, and one of them.
    pub answered: [Vec<Duration>; 2],
}

/// What a power cut takes.
#[derive(Clone, Copy, Debug)]
pub struct PowerCut {
    /// How many jobs ran on the host.
    pub jobs: usize,
    /// Until the next attempt of the first of them was decided.
    pub detected: Duration,
    /// Until all of them committed again.
    pub all_commit: Duration,
}

/// The pauses of the output of a job with much state.
#[derive(Clone, Debug)]
pub struct Pauses {
    /// When it got another number of workers.
    pub rescaled: Vec<Duration>,
    /// When it got another build of its binary.
    pub upgraded: Vec<Duration>,
}

fn cluster(slots: u32, store: Store) -> Result<Cluster> {
    Cluster::prepare(ClusterOptions { hosts: HOSTS, slots, kafka: Kafka::Apache, store, key: false })
}

/// Measures a cluster with so many small jobs, each of one worker.
///
/// # Errors
/// The cluster does not do what it must.
pub fn many_jobs(jobs: usize) -> Result<ManyJobs> {
    let slots = u32::try_from(jobs.div_ceil(usize::from(HOSTS)) + 2)?;
    let cluster = cluster(slots, Store::Bucket)?;
    cluster.hosts().try_for_each(|host| cluster.start_node(host))?;
    cluster.wait_for_nodes()?;
    let without = idle(&cluster, 0)?;
    let program = binary("orders")?;
    // The first one uploads the binary, and has the nodes fetch it.
    let mut stages = vec![submitted(&cluster, &program)?.0];
    let mut times = Vec::new();
    while stages.len() < jobs {
        let (stage, took) = submitted(&cluster, &program)?;
        stages.push(stage);
        times.push(took);
    }
    let with = idle(&cluster, jobs)?;
    let one = format!("/v1/jobs/{}", stages[0].name());
    let answered = [answers(&cluster, "/v1/jobs")?, answers(&cluster, &one)?];
    Ok(ManyJobs { submitted: times, without, with, answered })
}

/// Submits a small job, and waits until it runs.
fn submitted(cluster: &Cluster, program: &std::path::Path) -> Result<(Stage, Duration)> {
    let stage = cluster.stage(Subject::Orders, SMALL_PARTITIONS)?;
    stage.feed(0..20)?;
    let words = submission(&stage, program, 1).into_iter().filter(|word| word != "--detach");
    let start = Instant::now();
    let asked = cluster.ask(words)?;
    ensure!(asked.succeeded && asked.printed.contains(" runs"), "{}\n{}", asked.printed, cluster.logs());
    Ok((stage, start.elapsed()))
}

fn idle(cluster: &Cluster, jobs: usize) -> Result<Idle> {
    std::thread::sleep(SETTLES);
    let node = cluster.node(cluster.coordinator()?)?.pid();
    let processes = || -> Result<Vec<u32>> {
        let mut all = Vec::new();
        for host in cluster.hosts() {
            let node = cluster.node(host)?.pid();
            all.extend(cluster.network().pids(Place::Host(host))?.into_iter().filter(|pid| *pid != node));
        }
        Ok(all)
    };
    let of_jobs = processes()?;
    let of_node = || cpu_of(node).context("the node has ended").map(|cpu| cpu.as_secs_f64());
    let seconds = || of_jobs.iter().filter_map(|pid| cpu_of(*pid)).sum::<Duration>().as_secs_f64();
    let (start, before, before_jobs, asked) = (Instant::now(), of_node()?, seconds(), cluster.front().requests());
    std::thread::sleep(MEASURED);
    let (after, after_jobs, took) = (of_node()?, seconds(), start.elapsed().as_secs_f64());
    let Requests { writes, reads, deletes } = cluster.front().requests();
    let an_hour = |after: u64, before: u64| (after - before) as f64 / took * 3600.0;
    let resident: Vec<_> = of_jobs.iter().filter_map(|pid| resident_of(*pid)).collect();
    Ok(Idle {
        jobs,
        coordinator_share: (after - before) / took,
        coordinator_bytes: resident_of(node).context("the node has ended")?,
        process_bytes: resident.iter().sum::<u64>() / (resident.len() as u64).max(1),
        processes_share: (after_jobs - before_jobs) / took,
        requests: [an_hour(writes, asked.writes), an_hour(reads, asked.reads), an_hour(deletes, asked.deletes)],
    })
}

/// How long the API of one node after the other takes to answer, a connection included.
fn answers(cluster: &Cluster, path: &str) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for (_, host) in (0..REQUESTS).zip(cluster.hosts().cycle()) {
        let api = cluster.api(host);
        let start = Instant::now();
        let connection = cluster.network().within(Place::Host(host), || TcpStream::connect(api))??;
        let (status, body) = http::get_over(connection, path)?;
        times.push(start.elapsed());
        ensure!(status == 200, "{path}: {status} {body}");
    }
    Ok(times)
}

/// Measures the power cut of a host that runs jobs and does not coordinate.
///
/// # Errors
/// The cluster does not do what it must.
pub fn power_cut() -> Result<PowerCut> {
    let cluster = cluster(u32::try_from(JOBS_OF_A_NODE)?, Store::Folder)?;
    // Host 1 coordinates; all jobs are on host 0, because nothing else is there for them.
    cluster.start_node(1)?;
    cluster.tell(&format!("drain {}", cluster.address(1)))?;
    cluster.start_node(0)?;
    let mut fleet = Fleet::new(&cluster);
    for _ in 0..JOBS_OF_A_NODE {
        let tenant = fleet.add_small()?;
        fleet.submit(tenant, &binary("orders")?, 1)?;
    }
    fleet.wait_until_all_run()?;
    cluster.tell(&format!("undrain {}", cluster.address(1)))?;
    cluster.start_node(2)?;
    cluster.wait_for_nodes()?;
    // The new nodes have fetched and checked the programs, and the jobs have settled.
    std::thread::sleep(SETTLES);
    fleet.wait_until_all_run()?;
    ensure!(cluster.coordinator()? == 1, "host 1 does not coordinate");
    let before = fleet.generations()?;
    let start = Instant::now();
    cluster.network().cut_power(Place::Host(0))?;
    let mut detected = None;
    // What was committed last is on its way to the consumers for a moment.
    let seen: Vec<_> = loop {
        let jobs = cluster.jobs()?;
        let moved = fleet.tenants().iter().filter_map(|tenant| jobs.get(tenant.name())).any(|job| {
            let node = job["attempt"]["processes"][0]["node"].as_str();
            node.is_some_and(|node| cluster.host_of(node) != Some(0))
        });
        if moved {
            detected = detected.or_else(|| Some(start.elapsed()));
            break fleet.tenants().iter().map(|tenant| tenant.output().records()).collect();
        }
        ensure!(start.elapsed() < WITHIN, "the jobs do not move\n{}", cluster.logs());
    };
    for (tenant, seen) in fleet.tenants().iter().zip(seen) {
        cluster.wait_until("new output", || Ok(tenant.output().records() > seen))?;
    }
    let all_commit = start.elapsed();
    let after = fleet.generations()?;
    ensure!(before.iter().zip(&after).all(|(before, after)| before < after), "{before:?} {after:?}");
    Ok(PowerCut { jobs: JOBS_OF_A_NODE, detected: detected.context("it was detected")?, all_commit })
}

/// Measures changes of a job that holds so many orders.
///
/// # Errors
/// The cluster does not do what it must.
pub fn pauses(keys: u64) -> Result<Pauses> {
    let cluster = cluster(4, Store::Folder)?;
    cluster.hosts().try_for_each(|host| cluster.start_node(host))?;
    cluster.wait_for_nodes()?;
    let mut fleet = Fleet::new(&cluster);
    let job = fleet.add_filled(PARTITIONS, |stage| fill(stage, PARTITIONS, keys))?;
    let program = binary("orders")?;
    fleet.submit(job, &program, 2)?;
    let tenant = &fleet.tenants()[job];
    cluster.wait_until("all orders are read", || is_all_read(tenant.stage(), PARTITIONS))?;
    let name = tenant.name();
    let mut pauses = Pauses { rescaled: Vec::new(), upgraded: Vec::new() };
    for turn in 0..REPEATS {
        for upgrade in [false, true] {
            fleet.wait_until_all_run()?;
            let words = if upgrade {
                let again = built_again(&cluster, &program, &format!("built-{turn}"))?;
                format!("upgrade {name} {} --yes --same-output", again.display())
            } else {
                format!("rescale {name} --workers {}", if turn % 2 == 0 { 4 } else { 2 })
            };
            let before = fleet.generations()?;
            tenant.output().reset();
            cluster.tell(&words)?;
            cluster.wait_until("the next generation", || Ok(fleet.generations()?[job] > before[job]))?;
            fleet.wait_until_all_run()?;
            let pauses = if upgrade { &mut pauses.upgraded } else { &mut pauses.rescaled };
            pauses.push(tenant.output().longest());
        }
    }
    Ok(pauses)
}
