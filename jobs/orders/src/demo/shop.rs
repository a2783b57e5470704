//! Orders as a shop might get them: new ones, amendments of recent ones, cancellations.

use fluvial_demo::{Generate, InputRecord};
use fluvial_kafka::partition_of;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::PROBE;
use crate::job::Order;

/// The regions, and their parts of a hundred orders.
const REGIONS: [(&str, u32); 3] = [("eu", 45), ("us", 35), ("asia", 20)];
/// The products, and their prices in cents.
const PRODUCTS: [(&str, i64); 8] = [
    ("lamp", 2_499),
    ("chair", 8_900),
    ("desk", 24_900),
    ("mug", 799),
    ("pen", 149),
    ("clock", 3_450),
    ("shelf", 11_900),
    ("kettle", 4_299),
];
/// How many orders can still be amended or cancelled.
const RECENT: usize = 20_000;
/// How many of a hundred records amend an order, and how many cancel one.
const AMENDMENTS: u32 = 12;
const CANCELLATIONS: u32 = 4;
/// Orders that measure latency are numbered from here.
const FIRST_PROBE: u64 = 1 << 60;

/// The generator.
pub(super) struct Shop {
    random: ChaCha8Rng,
    partitions: u32,
    next_id: u64,
    recent: Vec<Order>,
}

impl Shop {
    pub(super) fn new(seed: u64, partitions: u32) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(seed), partitions, next_id: 1, recent: Vec::with_capacity(RECENT) }
    }

    fn order(&mut self, at: i64) -> Order {
        let order_id = self.next_id;
        self.next_id += 1;
        let (product, price_cents) = PRODUCTS[self.random.random_range(0..PRODUCTS.len())];
        Order {
            order_id,
            customer: format!("c{}", self.random.random_range(1..=10_000)),
            region: self.region().to_owned(),
            product: product.to_owned(),
            quantity: self.random.random_range(1..=5),
            price_cents,
            at,
        }
    }

    fn region(&mut self) -> &'static str {
        let mut part = self.random.random_range(0..100);
        for (region, parts) in REGIONS {
            if part < parts {
                return region;
            }
            part -= parts;
        }
        REGIONS[0].0
    }

    /// A record of the order `order_id`, in the partition that Kafka's clients choose for its key.
    fn record(&self, order_id: u64, order: Option<&Order>) -> InputRecord {
        let key = order_id.to_string().into_bytes();
        InputRecord { partition: partition_of(&key, self.partitions), key: Some(key), value: order.map(json) }
    }
}

impl Generate for Shop {
    fn next(&mut self, now_ms: i64) -> InputRecord {
        let dice = self.random.random_range(0..100);
        if dice < AMENDMENTS + CANCELLATIONS && !self.recent.is_empty() {
            let which = self.random.random_range(0..self.recent.len());
            if dice < CANCELLATIONS {
                let order = self.recent.swap_remove(which);
                return self.record(order.order_id, None);
            }
            let (quantity, moves) = (self.random.random_range(1..=9), self.random.random_ratio(1, 4));
            let (product, price_cents) = PRODUCTS[self.random.random_range(0..PRODUCTS.len())];
            let order = &mut self.recent[which];
            (order.quantity, order.at) = (quantity, now_ms);
            if moves {
                (order.product, order.price_cents) = (product.to_owned(), price_cents);
            }
            let order = self.recent[which].clone();
            return self.record(order.order_id, Some(&order));
        }
        let order = self.order(now_ms);
        let record = self.record(order.order_id, Some(&order));
        if self.recent.len() < RECENT {
            self.recent.push(order);
        } else {
            let which = self.random.random_range(0..RECENT);
            self.recent[which] = order;
        }
        record
    }

    fn probe(&mut self, partition: u32, number: u64, now_ms: i64) -> InputRecord {
        let order_id = FIRST_PROBE + number * u64::from(self.partitions) + u64::from(partition);
        let order = Order {
            order_id,
            customer: PROBE.to_owned(),
            region: PROBE.to_owned(),
            product: partition.to_string(),
            quantity: 1,
            price_cents: 1,
            at: now_ms,
        };
        let key = order_id.to_string().into_bytes();
        InputRecord { partition, key: Some(key), value: Some(json(&order)) }
    }
}

fn json(order: &Order) -> Vec<u8> {
    serde_json::to_vec(order).expect("numbers and texts can be written as JSON")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_orders() {
        let records = |seed| {
            let mut shop = Shop::new(seed, 4);
            (0..1000).map(|_| shop.next(7)).collect::<Vec<_>>()
        };
        assert_eq!(records(1), records(1));
        assert_ne!(records(1), records(2));
    }

    #[test]
    fn orders_are_amended_and_cancelled_in_the_partition_where_they_began() {
        let mut shop = Shop::new(3, 4);
        let mut where_begun = HashMap::new();
        let (mut amended, mut cancelled) = (0, 0);
        for _ in 0..10_000 {
            let record = shop.next(0);
            let key = record.key.unwrap();
            let begun = where_begun.entry(key).or_insert_with(|| {
                assert!(record.value.is_some(), "an order that is not there is cancelled");
                (record.partition, record.value.clone())
            });
            assert_eq!(begun.0, record.partition);
            cancelled += u32::from(record.value.is_none());
            amended += u32::from(record.value.is_some() && record.value != begun.1);
        }
        assert!((1000..1400).contains(&amended) && (300..500).contains(&cancelled), "{amended}, {cancelled}");
    }
}
