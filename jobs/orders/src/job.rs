//! Order count and revenue per region and product.
//!
//! ```text
//!  orders ──latest by order id──► current orders ──sum per (region, product)──► revenue
//! ```
//!
//! A later record of an order amends it, a null value cancels it.

use fluvial::connector::format::{Json, Text};
use fluvial::{Count, Job, OnMalformed, Sum, Table};
use fluvial_kafka::KafkaOptions;
use serde::{Deserialize, Serialize};

/// The job's own options.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OrdersOptions {
    /// The broker, and what to tell librdkafka.
    #[command(flatten)]
    pub(crate) kafka: KafkaOptions,

    /// The topic of orders: the key is the order's id, the value
    /// {"order_id":1,"customer":"c1","region":"eu","product":"p1","quantity":2,"price_cents":499,"at":1790000000000};
    /// a later record of the key amends the order, a null value cancels it
    #[arg(long, default_value = "orders", value_name = "TOPIC")]
    pub(crate) input: String,

    /// The topic for count and revenue per region and product
    #[arg(long, default_value = "revenue", value_name = "TOPIC")]
    pub(crate) output: String,

    /// What to do with a record of the input that cannot be decoded
    #[arg(long, value_enum, default_value = "fail", value_name = "WHAT")]
    pub(crate) on_malformed: OnMalformed,
}

/// An order, as a record of the input topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The order's number; the record's key is the same as text.
    pub(crate) order_id: u64,
    /// Who ordered.
    pub(crate) customer: String,
    /// The region that the order came from.
    pub(crate) region: String,
    /// The product that was ordered.
    pub(crate) product: String,
    /// How many pieces were ordered.
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

impl Sale {
    fn of(order: Order) -> Result<Self, String> {
        let Order { quantity, price_cents, region, product, .. } = order;
        let revenue_cents = quantity
            .checked_mul(price_cents)
            .ok_or_else(|| format!("{quantity} times {price_cents} cents does not fit 64 bits"))?;
        Ok(Self { region, product, revenue_cents })
    }
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
    pub(crate) orders: u64,
    /// What they come to.
    pub(crate) revenue_cents: i64,
}

/// Builds the job.
///
/// # Errors
/// The options are wrong.
pub(crate) fn build(job: &mut Job<'_>, options: &OrdersOptions) -> anyhow::Result<()> {
    let kafka = options.kafka.connect()?;
    let orders = job
        .source("orders", kafka.source(&options.input))
        .format((Text, Json))
        .on_malformed(options.on_malformed)
        .changelog::<String, Order>();
    let sales = orders.try_map_values("sales", |_, order| Sale::of(order));
    let revenue = sales
        .latest("orders")
        .map(|(_, Sale { region, product, revenue_cents })| (Group { region, product }, revenue_cents))
        .aggregate("revenue", (Count, Sum(|cents: &i64| *cents)))
        .map(|(group, (orders, revenue_cents))| {
            let Group { region, product } = group.clone();
            (group, Revenue { region, product, orders, revenue_cents })
        });
    job.output(kafka.upsert(&options.output)).format(Json).write(revenue);
    Ok(())
}

#[cfg(test)]
mod tests {
    use fluvial::harness::JobTest;

    use super::*;

    fn order(id: u64, product: &str, quantity: i64) -> String {
        format!(
            r#"{{"order_id":{id},"customer":"c1","region":"eu","product":"{product}","quantity":{quantity},"price_cents":499,"at":0}}"#
        )
    }

    fn job() -> JobTest {
        let options = OrdersOptions {
            kafka: KafkaOptions::new("127.0.0.1:1"),
            input: "orders".to_owned(),
            output: "revenue".to_owned(),
            on_malformed: OnMalformed::Fail,
        };
        JobTest::new(2, move |job| build(job, &options))
    }

    /// Two orders of i64::MAX cents were a revenue of -2.
    #[test]
    fn a_sum_that_does_not_fit_is_an_error_that_names_operator_and_key() {
        let mut test = job();
        let order = |id: u64| {
            let order = order(id, "pen", 1).replace("499", &i64::MAX.to_string());
            (Some(id.to_string()), Some(order))
        };
        test.feed("orders", 1, [order(1)]);
        test.advance_past(1);
        test.feed("orders", 2, [order(2)]);
        let error = test.try_advance_past(2).expect_err("the sum needs 65 bits");
        let expected = "operator 'revenue' cannot go on at tick 2, key Group { region: \"eu\", product: \"pen\" }: the sum \
                        of i64 values does not fit i64";
        assert!(error.contains(expected), "{error}");
    }

    /// 2^62 times 4 cents were no cents.
    #[test]
    fn a_product_that_does_not_fit_is_an_error_that_names_operator_and_key() {
        let mut test = job();
        let order = order(1, "pen", 1 << 62).replace("499", "4");
        test.feed("orders", 1, [(Some("1".to_owned()), Some(order))]);
        let error = test.try_advance_past(1).expect_err("the product needs 65 bits");
        let expected =
            "operator 'sales' cannot go on at tick 1, key \"1\": 4611686018427387904 times 4 cents does not fit";
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_later_record_amends_an_order_and_a_null_cancels_it() {
        let mut test = job();
        let (one, two) = ("1".to_owned(), "2".to_owned());
        test.feed("orders", 1, [(Some(one.clone()), Some(order(1, "pen", 2))), (Some(two), Some(order(2, "pen", 1)))]);
        test.feed("orders", 2, [(Some(one.clone()), Some(order(1, "mug", 1)))]);
        test.advance_past(2);
        test.restart_at(1, 3);
        test.restart(1);
        let row = |product: &str, orders: u64, cents: u64| {
            let key = format!(r#"{{"region":"eu","product":"{product}"}}"#);
            let value = format!(r#"{{"region":"eu","product":"{product}","orders":{orders},"revenue_cents":{cents}}}"#);
            (key, value)
        };
        assert_eq!(test.table("revenue"), [row("mug", 1, 499), row("pen", 1, 499)]);
        test.feed("orders", 3, [(Some(one), None)]);
        test.advance_past(3);
        assert_eq!(test.table("revenue"), [row("pen", 1, 499)]);
        assert_eq!(test.updates_at("revenue", 3), [(row("mug", 0, 0).0, None)]);
    }
}
