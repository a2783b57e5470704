//! How long a group takes to notice, to move its work and to say something again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{GROUP_MOST, Group, INPUT_PARTITIONS, Kafka, Record, Store};
use crate::campaign::Feeder;
use crate::client::{Isolation, Message};
use crate::hosts::Place;
use crate::stage::Stage;
use crate::subject::Subject;

/// How many copies run the job, with two workers each.
const HOSTS: u8 = 3;
const WORKERS: &str = "--workers 6";
/// How often a process is killed.
const KILLS: usize = 10;
/// How often each other thing is done.
const REPEATS: usize = 5;

/// One figure: how long something took each time.
#[derive(Debug)]
pub struct Figure {
    /// From what to what.
    pub name: &'static str,
    /// How long it is to take at most.
    pub aim: Duration,
    /// How long it took.
    pub times: Vec<Duration>,
}

impl Figure {
    fn new(name: &'static str, aim_s: u64) -> Self {
        Self { name, aim: Duration::from_secs(aim_s), times: Vec::new() }
    }
}

/// Measures all of them with a job that holds so many orders, on Apache Kafka and a folder: three copies with two workers
/// each. The pause of the output is what a consumer sees.
///
/// # Errors
/// The group does not do what it must.
pub fn measure(keys: u64) -> Result<Vec<Figure>> {
    let group = Group::new(HOSTS + 1, Subject::Orders, &Kafka::Apache, Store::Folder)?;
    fill(group.stage(), INPUT_PARTITIONS, keys)?;
    let copies: Vec<u8> = (0..HOSTS).collect();
    // One more copy coordinates, and its one slot is of no use: all workers of the others make larger processes.
    group.start(HOSTS, &format!("--slots 1 {WORKERS}"))?;
    wait_for(&group, "coordinator", |record| group.host_at(&record.coordinator) == Some(HOSTS))?;
    for host in &copies {
        group.start(*host, WORKERS)?;
    }
    wait_until_all_is_read(&group)?;
    let stage = group.stage();
    let feeder = Feeder::start(stage.endpoint(), &stage.input(), INPUT_PARTITIONS, Subject::Orders, 1)?;
    group.wait_until_on(&copies)?;

    let mut spare = Figure::new("power cut of a coordinator without workers → next coordinator", 10);
    let mut untouched = Figure::new("… the longest pause of the output meanwhile", 1);
    let (before, start) = begin(&group)?;
    group.network().cut_power(Place::Host(HOSTS))?;
    let after = wait_for(&group, "next term", |record| record.term > before.term)?;
    spare.times.push(start.elapsed());
    group.wait_for_more("after the takeover")?;
    untouched.times.push(group.output().longest());
    ensure!(after.attempt == before.attempt, "the job was interrupted: {before:?}, then {after:?}");

    let mut kill = Figure::new("kill -9 of a process of the job → new output", 2);
    for number in 0..KILLS {
        let (before, start) = begin(&group)?;
        let host = copies[number % copies.len()];
        ensure!(group.copy(host)?.job().kill_peer(0)?, "no process of the job runs on host {host}");
        kill.times.push(output_of_next(&group, &before, start)?);
    }

    let (mut detection, mut moved) =
        (Figure::new("power cut of a host → next attempt decided", 5), Figure::new("… → new output", 7));
    let mut takeover = Figure::new("power cut of the coordinator's host → next coordinator", 10);
    let mut after_takeover = Figure::new("… → new output", 12);
    let (mut joined, mut left) = (Figure::new("pause at a join", 2), Figure::new("pause at a leave", 2));
    for _ in 0..REPEATS {
        for coordinates in [false, true] {
            let coordinator = group.coordinator()?;
            let host = copies.iter().copied().find(|host| (*host == coordinator) == coordinates).context("a host")?;
            let (before, start) = begin(&group)?;
            group.network().cut_power(Place::Host(host))?;
            if coordinates {
                wait_for(&group, "next term", |record| record.term > before.term)?;
                takeover.times.push(start.elapsed());
                after_takeover.times.push(output_of_next(&group, &before, start)?);
            } else {
                wait_for(&group, "next attempt", |record| record.attempt > before.attempt)?;
                detection.times.push(start.elapsed());
                moved.times.push(output_of_next(&group, &before, start)?);
            }
            group.network().restore_power(Place::Host(host))?;
            begin(&group)?;
            group.start(host, WORKERS)?;
            group.wait_until_on(&copies)?;
            joined.times.push(group.output().longest());
        }
        begin(&group)?;
        let host = copies[0];
        group.copy(host)?.terminate(GROUP_MOST)?;
        group.wait_until_on(&copies[1..])?;
        left.times.push(group.output().longest());
        group.start(host, WORKERS)?;
        group.wait_until_on(&copies)?;
    }
    feeder.stop()?;
    group.stop_all()?;
    Ok(vec![spare, untouched, kill, detection, moved, takeover, after_takeover, joined, left])
}

/// The newest record and the time before something happens; the output's pauses count from now on.
fn begin(group: &Group) -> Result<(Record, Instant)> {
    group.wait_for_more("before the next measurement")?;
    group.output().reset();
    Ok((group.record().context("the group has a record")?, Instant::now()))
}

fn wait_for(group: &Group, what: &str, mut holds: impl FnMut(&Record) -> bool) -> Result<Record> {
    let mut found = None;
    group.wait_until(what, || {
        found = group.record().filter(|record| holds(record));
        Ok(found.is_some())
    })?;
    found.context("it was found")
}

/// How long it took until the next attempt has said something.
fn output_of_next(group: &Group, before: &Record, start: Instant) -> Result<Duration> {
    wait_for(group, "next attempt", |record| record.attempt > before.attempt)?;
    group.wait_for_more("of the next attempt")?;
    Ok(start.elapsed())
}

/// Writes so many orders, and after them one in each partition whose row shows that all before it were read.
pub(crate) fn fill(stage: &Stage, partitions: i32, keys: u64) -> Result<()> {
    let (writer, topic) = (stage.endpoint().writer(&[])?, stage.input());
    let order = |id: u64, product: &str| {
        format!(
            r#"{{"order_id":{id},"customer":"c{}","region":"eu","product":"{product}","quantity":1,"price_cents":{},"at":1790000000000}}"#,
            id % 50,
            1 + id % 1000
        )
    };
    let write = |id: u64, partition: i32, product: &str| {
        let (key, value) = (format!("order-{id}"), order(id, product));
        let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
        writer.send(&Message { topic: &topic, partition: Some(partition), key, value, ..Message::default() })
    };
    for id in 0..keys {
        write(id, (id % u64::from(partitions.unsigned_abs())) as i32, "p1")?;
    }
    for partition in 0..partitions {
        write(keys + partition.unsigned_abs() as u64, partition, &last_of(partition))?;
    }
    for delivered in writer.flush()? {
        delivered.map_err(|code| anyhow::anyhow!("an order was refused: {code}"))?;
    }
    Ok(())
}

fn last_of(partition: i32) -> String {
    format!("last-of-{partition}")
}

fn wait_until_all_is_read(group: &Group) -> Result<()> {
    group.wait_until("the last order of each partition", || is_all_read(group.stage(), INPUT_PARTITIONS))
}

/// Whether the output shows that what [`fill`] has written was read.
pub(crate) fn is_all_read(stage: &Stage, partitions: i32) -> Result<bool> {
    let output = stage.outputs().swap_remove(0);
    let rows = stage.endpoint().lines(&output, Isolation::Committed)?;
    Ok((0..partitions).all(|partition| rows.iter().any(|row| row.contains(&last_of(partition)))))
}
