//! The engine's side of each comparison: two jobs with the engine's own command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use compact_str::CompactString;
use fluvial::connector::format::{DecodeError, Json, Part, Text};
use fluvial::{App, Count, Job, Sum, Table};
use fluvial_kafka::KafkaOptions;
use fluvial_memory::Memory;

use super::meter::Meter;
use super::metered::{Metered, Pace};
use crate::kafka::order::{Order, Revenue};
use crate::kafka::payment::{Payment, Total};
use crate::kafka::sale::{self, Sale};
use crate::kafka::{INPUT, PARTITIONS};

/// The name of the job that counts records from memory by key.
pub(crate) const COUNT: &str = "counts";
/// How many records a second go through ticks of the least time between them, at the most.
const FASTEST: u64 = 10_000_000;

/// The name of the job that counts and sums payments from Kafka by key.
pub(crate) const TOTALS: &str = "totals";

/// The name of the job that counts and sums sales from Kafka by a text.
pub(crate) const SALES: &str = "sales";

/// The name of the job that counts and sums sales from memory by a text.
pub(crate) const SALES_FROM_MEMORY: &str = "sales-from-memory";

/// The name of the job that keeps orders from Kafka, and counts and sums them by group.
pub(crate) const ORDERS: &str = "rows";

/// Runs the command line of the job from memory.
pub(crate) fn count(arguments: Vec<OsString>) -> ExitCode {
    App::new(COUNT, build_count).main_with(arguments)
}

/// Runs the command line of the job on Kafka.
pub(crate) fn totals(arguments: Vec<OsString>) -> ExitCode {
    App::new(TOTALS, build_totals).main_with(arguments)
}

/// Runs the command line of the job on Kafka whose keys are texts.
pub(crate) fn sales(arguments: Vec<OsString>) -> ExitCode {
    App::new(SALES, build_sales).main_with(arguments)
}

/// Runs the command line of the job from memory whose keys are texts.
pub(crate) fn sales_from_memory(arguments: Vec<OsString>) -> ExitCode {
    App::new(SALES_FROM_MEMORY, build_sales_from_memory).main_with(arguments)
}

/// Runs the command line of the job on Kafka that keeps rows of ten fields.
pub(crate) fn orders(arguments: Vec<OsString>) -> ExitCode {
    App::new(ORDERS, build_orders).main_with(arguments)
}

#[derive(Clone, Debug, clap::Args)]
struct CountOptions {
    /// How many keys there are
    #[arg(long)]
    keys: u64,

    /// How many records become available at each beat
    #[arg(long)]
    beat_records: u64,

    /// The time between two beats
    #[arg(long, value_parser = humantime::parse_duration)]
    beat: Duration,

    #[command(flatten)]
    metering: Metering,
}

#[derive(Clone, Debug, clap::Args)]
struct SalesFromMemoryOptions {
    #[command(flatten)]
    count: CountOptions,

    /// How long each key is
    #[arg(long)]
    key_bytes: usize,

    /// How many splits the source has
    #[arg(long)]
    splits: u32,

    /// Write each key's total to memory, instead of nothing
    #[arg(long)]
    written: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct TotalsOptions {
    #[command(flatten)]
    kafka: KafkaOptions,

    /// The topic of payments
    #[arg(long)]
    input: String,

    /// The topic for each key's count and sum
    #[arg(long)]
    output: String,

    #[command(flatten)]
    metering: Metering,
}

/// Where and how often marks are written. The group's id says that this decides nothing of what the job computes, so that
/// each start may write its marks elsewhere and is the same program.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "meter-connection")]
struct Metering {
    /// Where to write marks
    #[arg(long)]
    marks: PathBuf,

    /// How many records there are from mark to mark
    #[arg(long)]
    step: u64,
}

/// The key of the record at an offset: first each key once, in their order, then any.
pub(crate) fn key_at(offset: u64, keys: u64) -> u64 {
    if offset < keys {
        return offset;
    }
    // The finaliser of splitmix64: neighbouring offsets have unrelated keys.
    let mut bits = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ bits >> 31) % keys
}

/// One meter for all workers and both times that a job is built.
fn meter(marks: &Path, step: u64) -> anyhow::Result<Arc<Meter>> {
    static METER: OnceLock<Option<Arc<Meter>>> = OnceLock::new();
    let meter = METER.get_or_init(|| Meter::new(marks, step).ok().map(Arc::new));
    meter.clone().with_context(|| format!("write {}", marks.display()))
}

fn build_count(job: &mut Job<'_>, options: &CountOptions) -> anyhow::Result<()> {
    static MEMORY: OnceLock<Memory> = OnceLock::new();
    let keys = options.keys;
    let memory = MEMORY.get_or_init(|| {
        let memory = Memory::new();
        memory.generate("records", 1, u64::MAX, move |_, offset, record| {
            record.value.extend_from_slice(&key_at(offset.0, keys).to_le_bytes());
        });
        memory
    });
    let pace = Pace { records: options.beat_records, every: options.beat };
    let source =
        Metered::new(memory.source("records"), meter(&options.metering.marks, options.metering.step)?, Some(pace));
    let records = job.source("records", source).stream_with(|record| {
        let bytes = record.value.and_then(|value| value.try_into().ok()).ok_or(DecodeError::Missing(Part::Value))?;
        Ok(u64::from_le_bytes(bytes))
    });
    let counts = records.map(|key| (key, ())).aggregate("counts", Count);
    // What writing costs is not asked here: the changes are made, and none of them is written.
    job.output(memory.upsert("none", 1)).format(Json).write(counts.filter(|_| false));
    Ok(())
}

fn build_sales_from_memory(job: &mut Job<'_>, options: &SalesFromMemoryOptions) -> anyhow::Result<()> {
    static MEMORY: OnceLock<Memory> = OnceLock::new();
    let SalesFromMemoryOptions { count, key_bytes, splits, written } = options.clone();
    let CountOptions { keys, beat_records, beat, metering } = count;
    let memory = MEMORY.get_or_init(|| {
        let memory = Memory::new();
        memory.generate("sales", splits, u64::MAX, move |split, offset, record| {
            let at = offset.0 * u64::from(splits) + u64::from(split);
            sale::value(key_at(at, keys), key_bytes, 1, &mut record.value);
        });
        memory
    });
    let pace = Pace { records: beat_records, every: beat };
    let source = Metered::new(memory.source("sales"), meter(&metering.marks, metering.step)?, Some(pace));
    let sales = job.source("sales", source).format(Json).stream::<Sale>().map(|sale| (sale.account, sale.amount));
    let totals = (Count, Sum(|amount: &i64| *amount));
    let output = job.output(memory.upsert("totals", PARTITIONS)).format(Json);
    if written {
        output.write_changes(sales.aggregate_changes("totals", totals).map_values(|(count, sum)| Total { count, sum }));
    } else {
        output.write(sales.aggregate("totals", totals).filter(|_| false));
    }
    Ok(())
}

fn build_totals(job: &mut Job<'_>, options: &TotalsOptions) -> anyhow::Result<()> {
    let kafka = options.kafka.connect()?;
    let source =
        Metered::new(kafka.source(&options.input), meter(&options.metering.marks, options.metering.step)?, None);
    let payments = job.source("payments", source).format(Json).stream::<Payment>();
    let totals = payments
        .map(|payment| (payment.key, payment.amount))
        .aggregate("totals", (Count, Sum(|amount: &i64| *amount)))
        .map(|(key, (count, sum))| (key, Total { count, sum }));
    job.output(kafka.upsert(&options.output)).format(Json).write(totals);
    Ok(())
}

fn build_sales(job: &mut Job<'_>, options: &TotalsOptions) -> anyhow::Result<()> {
    let kafka = options.kafka.connect()?;
    let source =
        Metered::new(kafka.source(&options.input), meter(&options.metering.marks, options.metering.step)?, None);
    let sales = job.source("sales", source).format(Json).stream::<Sale>();
    let totals = sales
        .map(|sale| (sale.account, sale.amount))
        .aggregate_changes("totals", (Count, Sum(|amount: &i64| *amount)))
        .map_values(|(count, sum)| Total { count, sum });
    job.output(kafka.upsert(&options.output)).format(Json).write_changes(totals);
    Ok(())
}

fn build_orders(job: &mut Job<'_>, options: &TotalsOptions) -> anyhow::Result<()> {
    let kafka = options.kafka.connect()?;
    let source =
        Metered::new(kafka.source(&options.input), meter(&options.metering.marks, options.metering.step)?, None);
    let orders = job.source("orders", source).format((Text, Json)).changelog::<CompactString, Order>();
    let revenue = orders
        .latest_map("orders", |order| (order.group(), order.cents()))
        .map(|(_, sale)| sale)
        .aggregate("revenue", (Count, Sum(|cents: &i64| *cents)))
        .map(|(group, (orders, revenue_cents))| (group, Revenue { orders, revenue_cents }));
    job.output(kafka.upsert(&options.output)).format(Json).write(revenue);
    Ok(())
}

/// The command line of the job from memory, with its store in `folder`: `tick_records` records become available at each
/// beat, or as fast as they are read if the beat is zero, and a tick is minted of them.
pub(crate) fn count_arguments(folder: &Path, keys: u64, tick_records: u64, beat: Duration) -> Vec<String> {
    let mut arguments = engine_arguments(COUNT, folder);
    let numbers =
        [("--keys", keys), ("--beat-records", tick_records), ("--tick-records", tick_records), ("--step", 1_000_000)];
    arguments.extend(numbers.into_iter().flat_map(|(name, number)| [name.to_owned(), number.to_string()]));
    // So that a tick has as many records as it may have, where records come as fast as they are read.
    let tick = Duration::from_millis(tick_records * 1000 / FASTEST);
    let times = [("--beat", beat), ("--tick", beat.max(tick))];
    let times = times.map(|(name, time)| [name.to_owned(), humantime::format_duration(time).to_string()]);
    arguments.extend(times.into_iter().flatten());
    arguments
}

/// The command line of the job from memory whose keys are texts of so many bytes, with a checkpoint each second.
pub(crate) fn sales_from_memory_arguments(
    folder: &Path,
    key_bytes: usize,
    keys: u64,
    tick_records: u64,
    beat: Duration,
) -> Vec<String> {
    let mut arguments = count_arguments(folder, keys, tick_records, beat);
    arguments[0] = SALES_FROM_MEMORY.to_owned();
    let more = [("--key-bytes", key_bytes.to_string()), ("--splits", PARTITIONS.to_string())];
    let more = more.into_iter().chain([("--checkpoint-every", "1s".to_owned())]);
    arguments.extend(more.flat_map(|(name, value)| [name.to_owned(), value]));
    arguments
}

/// The command line of the job on Kafka, with its store in `folder`; a mark is written each `step` records.
pub(crate) fn totals_arguments(folder: &Path, brokers: &str, output: &str, step: u64) -> Vec<String> {
    on_kafka(TOTALS, folder, brokers, output, step)
}

/// The same for a job whose keys are texts, with a checkpoint so often.
pub(crate) fn arguments_of(
    job: &str,
    folder: &Path,
    brokers: &str,
    output: &str,
    step: u64,
    checkpoint_every: &str,
) -> Vec<String> {
    let mut arguments = on_kafka(job, folder, brokers, output, step);
    arguments.extend(["--checkpoint-every", checkpoint_every].map(str::to_owned));
    arguments
}

/// Sets an option of a command line, or replaces it.
pub(crate) fn set(arguments: &mut Vec<String>, option: &str, value: &str) {
    match arguments.iter().position(|argument| argument == option) {
        Some(at) => arguments[at + 1] = value.to_owned(),
        None => arguments.extend([option.to_owned(), value.to_owned()]),
    }
}

fn on_kafka(job: &str, folder: &Path, brokers: &str, output: &str, step: u64) -> Vec<String> {
    let mut arguments = engine_arguments(job, folder);
    for (name, value) in [("--brokers", brokers), ("--input", INPUT), ("--output", output)] {
        arguments.extend([name.to_owned(), value.to_owned()]);
    }
    arguments.extend(["--output-partitions".to_owned(), PARTITIONS.to_string()]);
    arguments.extend(["--step".to_owned(), step.to_string()]);
    arguments
}

fn engine_arguments(job: &str, folder: &Path) -> Vec<String> {
    let store = folder.join("store").display().to_string();
    [job, "run", "--store", &store, "--log-format", "json"].map(str::to_owned).to_vec()
}
