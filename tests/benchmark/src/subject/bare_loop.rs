//! A loop over librdkafka without an engine: consume in batches, decode, encode, produce, in a transaction each 10 ms.
//!
//! It keeps no journal and no offsets; what it reads is what it writes. With texts as keys it has the table that the job has.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use compact_str::CompactString;
use fluvial_kafka::partition_of;
use hashbrown::HashMap;

use super::exit;
use super::librdkafka::{Consumer, Producer};
use super::meter::Meter;
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

    /// Whether the records are sales, which are counted and summed in a table
    #[arg(long)]
    sales: bool,

    /// Where to write marks
    #[arg(long)]
    marks: PathBuf,

    /// How many records there are from mark to mark
    #[arg(long)]
    step: u64,
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
    let mut partitions: Vec<Vec<(Vec<u8>, Vec<u8>)>> = (0..options.partitions).map(|_| Vec::new()).collect();
    let mut table: HashMap<CompactString, Total> = HashMap::new();
    let mut passed = |value: &[u8]| {
        if !options.sales {
            let payment: Payment = serde_json::from_slice(value)?;
            let total = Total { count: 1, sum: payment.amount };
            return serde_json::Result::Ok((serde_json::to_vec(&payment.key)?, serde_json::to_vec(&total)?));
        }
        let sale: Sale = serde_json::from_slice(value)?;
        let key = serde_json::to_vec(&sale.account)?;
        let total = table.entry(sale.account).or_insert(Total { count: 0, sum: 0 });
        (total.count, total.sum) = (total.count + 1, total.sum + sale.amount);
        Ok((key, serde_json::to_vec(total)?))
    };
    loop {
        let (mut began, mut malformed) = (None, None);
        while began.is_none_or(|began: Instant| began.elapsed() < EVERY) {
            let wait = began.map_or(Duration::from_secs(1), |began: Instant| EVERY.saturating_sub(began.elapsed()));
            let (count, first) = consumer.poll(wait, |value| {
                let result = passed(value).map(|(key, value)| {
                    let partition = partition_of(&key, options.partitions);
                    partitions[partition as usize].push((key, value));
                });
                malformed = malformed.take().or(result.err());
            });
            if count == 0 {
                continue;
            }
            meter.read(count, first);
            if began.is_none() {
                began = Some(Instant::now());
                producer.begin()?;
            }
            for (partition, records) in (0..).zip(&mut partitions) {
                producer.produce(partition, records)?;
                records.clear();
            }
        }
        malformed.map_or(Ok(()), Err)?;
        producer.flush()?;
        producer.commit()?;
    }
}

/// Its command line; a mark is written each `step` records.
pub(crate) fn arguments(brokers: &str, output: &str, step: u64) -> Vec<String> {
    let (partitions, step) = (PARTITIONS.to_string(), step.to_string());
    let arguments = [NAME, "--brokers", brokers, "--input", INPUT, "--output", output, "--partitions", &partitions];
    arguments.into_iter().chain(["--step", &step]).map(str::to_owned).collect()
}
