//! Revenue recomputed from the input topic by the simplest means: the newest record of each order, then sums.

use std::collections::HashMap;

use anyhow::Context;
use fluvial_demo::{Audit, Rows, grouped};

use super::PROBE;
use crate::job::{Group, Order, Revenue};

/// What the input says.
#[derive(Default)]
pub(super) struct Recomputation {
    /// The newest record of each order. A key is always in one partition, so its records come in their order.
    orders: HashMap<String, Order>,
}

impl Recomputation {
    fn groups(&self) -> HashMap<(&str, &str), (u64, i64)> {
        let mut groups = HashMap::new();
        for order in self.orders.values() {
            let group: &mut (u64, i64) = groups.entry((order.region.as_str(), order.product.as_str())).or_default();
            group.0 += 1;
            group.1 += order.quantity * order.price_cents;
        }
        groups
    }
}

impl Audit for Recomputation {
    fn input(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> anyhow::Result<()> {
        let key =
            String::from_utf8(key.context("an order has no key")?.to_vec()).context("an order's key is not text")?;
        match value {
            Some(value) => {
                let order = serde_json::from_slice(value).with_context(|| format!("order {key} cannot be read"))?;
                self.orders.insert(key, order);
            }
            None => {
                self.orders.remove(&key);
            }
        }
        Ok(())
    }

    fn expected(&self) -> anyhow::Result<Rows> {
        let mut rows = Rows::default();
        for ((region, product), (orders, revenue_cents)) in self.groups() {
            let (region, product) = (region.to_owned(), product.to_owned());
            let key = serde_json::to_vec(&Group { region: region.clone(), product: product.clone() })?;
            let value = serde_json::to_vec(&Revenue { region, product, orders, revenue_cents })?;
            rows.upsert("revenue", &key, Some(&value));
        }
        Ok(rows)
    }

    fn figures(&self) -> Vec<(&'static str, String)> {
        let shown = || self.orders.values().filter(|order| order.region != PROBE);
        let cents: i64 = shown().map(|order| order.quantity * order.price_cents).sum();
        let orders = grouped(i64::try_from(shown().count()).unwrap_or(i64::MAX));
        vec![
            ("orders in the end", orders),
            ("revenue in the end", format!("{}.{:02}", grouped(cents / 100), cents % 100)),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_demo::differences;

    use super::*;

    fn order(id: u64, region: &str, quantity: i64) -> Vec<u8> {
        let (customer, product) = ("c".to_owned(), "pen".to_owned());
        let order =
            Order { order_id: id, customer, region: region.to_owned(), product, quantity, price_cents: 10, at: 0 };
        serde_json::to_vec(&order).unwrap()
    }

    fn expected(rows: &[(&str, i64, i64)]) -> Rows {
        let mut expected = Rows::default();
        for (region, orders, cents) in rows {
            let key = format!(r#"{{"region":"{region}","product":"pen"}}"#);
            let value = format!(r#"{{"region":"{region}","product":"pen","orders":{orders},"revenue_cents":{cents}}}"#);
            expected.upsert("revenue", key.as_bytes(), Some(value.as_bytes()));
        }
        expected
    }

    #[test]
    fn the_newest_record_of_an_order_counts_and_a_cancelled_one_does_not() {
        let mut it = Recomputation::default();
        let mut feed = |key: &str, value: Option<Vec<u8>>| it.input(Some(key.as_bytes()), value.as_deref()).unwrap();
        feed("1", Some(order(1, "eu", 1)));
        feed("2", Some(order(2, "eu", 2)));
        feed("3", Some(order(3, "us", 3)));
        feed("1", Some(order(1, "eu", 5)));
        feed("2", Some(order(2, "us", 2)));
        feed("3", None);
        let rows = it.expected().unwrap();
        assert_eq!(rows, expected(&[("eu", 1, 50), ("us", 1, 20)]));
        assert_eq!(differences(&rows, &expected(&[("eu", 2, 50), ("us", 1, 20)])).len(), 1);
    }
}
