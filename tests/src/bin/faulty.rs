//! A job with a fault on request: what user code must not do, so that tests see it caught.
//!
//! It keeps the revenue of each order: `orders ──map (the fault)──latest──► rows`.

use fluvial::Job;
use fluvial::connector::format::{json, text};
use fluvial_kafka::KafkaOptions;
use serde::Deserialize;

/// What is wrong with the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Wrong {
    /// Nothing.
    Nothing,
    /// An operator adds a random number.
    Random,
    /// An operator panics at an order that comes to nothing.
    Panics,
}

#[derive(Clone, Debug, clap::Args)]
struct Options {
    #[command(flatten)]
    kafka: KafkaOptions,

    /// The topic of orders
    #[arg(long)]
    input: String,

    /// The topic for each order's revenue
    #[arg(long)]
    output: String,

    /// What is wrong with the code
    #[arg(long, value_enum, default_value = "nothing")]
    wrong: Wrong,
}

#[derive(Clone, Debug, Deserialize)]
struct Order {
    quantity: i64,
    price_cents: i64,
}

fn build(job: &mut Job<'_>, options: &Options) -> anyhow::Result<()> {
    let kafka = options.kafka.connect()?;
    let orders = job.source("orders", kafka.source(&options.input), |record: &fluvial::connector::Record<'_>| {
        Ok((text::decode_key(record)?, json::decode_value::<Order>(record)?))
    });
    let wrong = options.wrong;
    let rows = orders.map(move |(id, order): (String, Option<Order>)| {
        let revenue = order.map(|order| order.quantity * order.price_cents);
        let revenue = match (wrong, revenue) {
            (Wrong::Random, Some(revenue)) => Some(revenue + i64::from(rand::random::<u32>())),
            (Wrong::Panics, Some(0)) => panic!("order {id} comes to nothing"),
            (_, revenue) => revenue,
        };
        (id, revenue)
    });
    job.write(&kafka.upsert(&options.output), json::Json, rows.latest("rows"))?;
    Ok(())
}

fn main() -> std::process::ExitCode {
    fluvial::App::new("faulty", build).about("A job with a fault on request").main()
}
