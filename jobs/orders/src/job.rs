//! Order count and revenue per region and product.
//!
//! ```text
//!  orders ──latest by order id──► current orders ──sum per (region, product)──► revenue
//! ```
//!
//! A later record of an order amends it, a null value cancels it.

use differential_dataflow::operators::CountTotal;
use fluvial::Job;
use fluvial::connector::format::{json, text};
use fluvial_kafka::KafkaOptions;
use serde::{Deserialize, Serialize};

/// The job's own options.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OrdersOptions {
    /// The broker, and what to tell librdkafka.
    #[command(flatten)]
    pub(crate) kafka: KafkaOptions,

    /// The topic of orders
    #[arg(long, default_value = "orders", value_name = "TOPIC")]
    pub(crate) input: String,

    /// The topic for count and revenue per region and product
    #[arg(long, default_value = "revenue", value_name = "TOPIC")]
    pub(crate) output: String,
}

/// An order as it stands in the input topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The order's number; the record's key is the same as text.
    pub(crate) order_id: u64,
    /// Who ordered.
    pub(crate) customer: String,
    /// Where.
    pub(crate) region: String,
    /// What.
    pub(crate) product: String,
    /// How many.
    pub(crate) quantity: i64,
    /// The price of one.
    pub(crate) price_cents: i64,
    /// When, in milliseconds since the Unix epoch.
    pub(crate) at: i64,
}

/// What the job keeps of an order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Sale {
    region: String,
    product: String,
    revenue_cents: i64,
}

/// A group, and the key of an output record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Group {
    /// The region.
    pub(crate) region: String,
    /// The product.
    pub(crate) product: String,
}

/// The value of an output record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Revenue {
    /// The region.
    pub(crate) region: String,
    /// The product.
    pub(crate) product: String,
    /// How many orders there are.
    pub(crate) orders: i64,
    /// What they come to.
    pub(crate) revenue_cents: i64,
}

/// Builds the job.
///
/// # Errors
/// The options are wrong.
pub(crate) fn build(job: &mut Job<'_>, options: &OrdersOptions) -> anyhow::Result<()> {
    let kafka = options.kafka.connect()?;
    let orders = job.source("orders", kafka.source(&options.input), |record: &fluvial::connector::Record<'_>| {
        Ok((text::decode_key(record)?, json::decode_value::<Order>(record)?))
    });
    let sales = orders.map(|(id, order)| {
        let sale = order.map(|order| Sale {
            revenue_cents: order.quantity * order.price_cents,
            region: order.region,
            product: order.product,
        });
        (id, sale)
    });
    let revenue = sales
        .latest("orders")
        .explode(|(_, sale)| {
            Some((Group { region: sale.region, product: sale.product }, (1, sale.revenue_cents as isize)))
        })
        .count_total()
        .map(|(group, (orders, revenue_cents)): (Group, (isize, isize))| {
            let value = Revenue {
                region: group.region.clone(),
                product: group.product.clone(),
                orders: orders as i64,
                revenue_cents: revenue_cents as i64,
            };
            (group, value)
        });
    job.write(&kafka.upsert(&options.output), json::Json, revenue)?;
    Ok(())
}
