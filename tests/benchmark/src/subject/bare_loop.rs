//! A loop over librdkafka without an engine: consume in batches, decode, encode, produce, in a transaction each 10 ms.
//!
//! It keeps no journal and no offsets. It writes payments as it reads them; for sales and orders it keeps the same tables as the jobs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use compact_str::CompactString;
use fluvial_kafka::partition_of;
use hashbrown::{HashMap, HashSet};

use super::exit;
use super::librdkafka::{Consumer, Producer};
use super::meter::Meter;
use crate::kafka::order::{Group, Order, Revenue};
use crate::kafka::payment::{Payment, Total};
use crate::kafka::sale::Sale;
use crate::kafka::{INPUT, PARTITIONS};

/// The first word of its command line.
pub(crate) const NAME: &str = "bare-loop";

/// The time between two transactions.
const EVERY: Duration = Duration::from_millis(10);

#[derive(Debug, Parser)]
struct Options {
    #[arg(long)]
    brokers: String,

    #[arg(long)]
    input: String,

    #[arg(long)]
    output: String,

    /// How many partitions each topic has
    #[arg(long)]
    partitions: u32,

    /// What to do with the records
    #[arg(long, value_enum)]
    work: Work,

    /// Where to write marks
    #[arg(long)]
    marks: PathBuf,

    /// How many records there are from mark to mark
    #[arg(long)]
    step: u64,
}

/// What is done with the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Work {
    /// Payments: each is written as a total of its own
    Pass,
    /// Sales: each is written as a total of its own
    PassSales,
    /// Sales: counted and summed by account, each change written
    Sum,
    /// Orders: kept as they are now, and counted and summed by group; each changed group is written once, at the end of the transaction
    Keep,
}

/// What is known of the records.
#[derive(Default)]
struct Tables {
    accounts: HashMap<CompactString, Total>,
    orders: HashMap<CompactString, Order>,
    groups: HashMap<Group, Revenue>,
    /// The groups that have changed in this transaction.
    changed: HashSet<Group>,
}

/// The key and the value of an output record.
type Encoded = (Vec<u8>, Vec<u8>);

impl Tables {
    /// Takes a record. Returns what is to be written of it.
    fn take(&mut self, work: Work, value: &[u8]) -> serde_json::Result<Option<Encoded>> {
        match work {
            Work::Pass => {
                let payment: Payment = serde_json::from_slice(value)?;
                let total = Total { count: 1, sum: payment.amount };
                Ok(Some((serde_json::to_vec(&payment.key)?, serde_json::to_vec(&total)?)))
            }
            Work::PassSales => {
                let sale: Sale = serde_json::from_slice(value)?;
                let total = Total { count: 1, sum: sale.amount };
                Ok(Some((serde_json::to_vec(&sale.account)?, serde_json::to_vec(&total)?)))
            }
            Work::Sum => {
                let sale: Sale = serde_json::from_slice(value)?;
                let key = serde_json::to_vec(&sale.account)?;
                let total = self.accounts.entry(sale.account).or_insert(Total { count: 0, sum: 0 });
                (total.count, total.sum) = (total.count + 1, total.sum + sale.amount);
                Ok(Some((key, serde_json::to_vec(total)?)))
            }
            Work::Keep => {
                let order: Order = serde_json::from_slice(value)?;
                let (group, cents) = (order.group(), order.cents());
                if let Some(before) = self.orders.insert(order.order.clone(), order) {
                    let revenue = self.groups.entry(before.group()).or_default();
                    revenue.orders -= 1;
                    revenue.revenue_cents -= before.cents();
                    self.changed.insert(before.group());
                }
                let revenue = self.groups.entry(group.clone()).or_default();
                revenue.orders += 1;
                revenue.revenue_cents += cents;
                self.changed.insert(group);
                Ok(None)
            }
        }
    }

    /// What is to be written at the end of a transaction.
    fn changed(&mut self) -> serde_json::Result<Vec<Encoded>> {
        let groups = &self.groups;
        let encoded = |group: Group| Ok((serde_json::to_vec(&group)?, serde_json::to_vec(&groups[&group])?));
        self.changed.drain().map(encoded).collect()
    }
}

/// Records that are about to be produced, by partition.
struct Partitions(Vec<Vec<Encoded>>);

impl Partitions {
    fn extend(&mut self, records: impl IntoIterator<Item = Encoded>) {
        for (key, value) in records {
            let partition = partition_of(&key, self.0.len() as u32);
            self.0[partition as usize].push((key, value));
        }
    }

    fn produce(&mut self, producer: &mut Producer) -> anyhow::Result<()> {
        for (partition, records) in (0..).zip(&mut self.0) {
            producer.produce(partition, records)?;
            records.clear();
        }
        Ok(())
    }
}

/// Runs its command line.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    exit(run(&Options::parse_from(arguments)))
}

fn run(options: &Options) -> anyhow::Result<()> {
    let meter = Meter::new(&options.marks, options.step)?;
    // What can be set in both is as the engine sets it.
    let consumer_settings = [
        ("bootstrap.servers", options.brokers.as_str()),
        ("group.id", "bare"),
        ("enable.auto.commit", "false"),
        ("isolation.level", "read_committed"),
        ("fetch.queue.backoff.ms", "5"),
        ("fetch.wait.max.ms", "100"),
        ("queued.min.messages", "100000"),
        ("queued.max.messages.kbytes", "32768"),
    ];
    let producer_settings = [
        ("bootstrap.servers", options.brokers.as_str()),
        ("transactional.id", &options.output),
        ("linger.ms", "0"),
        ("queue.buffering.max.messages", "100000"),
        ("delivery.report.only.error", "true"),
    ];
    let mut producer = Producer::new(&producer_settings, &options.output)?;
    let mut consumer = Consumer::new(&consumer_settings, &options.input, i32::try_from(options.partitions)?)?;
    let mut partitions = Partitions((0..options.partitions).map(|_| Vec::new()).collect());
    let mut tables = Tables::default();
    loop {
        let (mut began, mut malformed) = (None, None);
        while began.is_none_or(|began: Instant| began.elapsed() < EVERY) {
            let wait = began.map_or(Duration::from_secs(1), |began: Instant| EVERY.saturating_sub(began.elapsed()));
            let (count, first) = consumer.poll(wait, |value| match tables.take(options.work, value) {
                Ok(written) => partitions.extend(written),
                Err(error) => malformed = malformed.take().or(Some(error)),
            });
            if count == 0 {
                continue;
            }
            meter.read(count, first);
            if began.is_none() {
                began = Some(Instant::now());
                producer.begin()?;
            }
            partitions.produce(&mut producer)?;
        }
        malformed.map_or(Ok(()), Err)?;
        partitions.extend(tables.changed()?);
        partitions.produce(&mut producer)?;
        producer.flush()?;
        producer.commit()?;
    }
}

/// Its command line; a mark is written each `step` records.
pub(crate) fn arguments(work: Work, brokers: &str, output: &str, step: u64) -> Vec<String> {
    let (partitions, step) = (PARTITIONS.to_string(), step.to_string());
    let work = clap::ValueEnum::to_possible_value(&work).map(|value| value.get_name().to_owned()).unwrap_or_default();
    let arguments = [NAME, "--brokers", brokers, "--input", INPUT, "--output", output, "--partitions", &partitions];
    arguments.into_iter().chain(["--step", &step, "--work", &work]).map(str::to_owned).collect()
}
