//! `orders demo`: a shop's orders, made up; see [`fluvial_demo`] for how it runs.

mod recomputation;
mod shop;
mod table;

use fluvial_demo::{Audit, Demo, Generate, View};

use crate::job::Revenue;

/// The region of the orders that measure latency; their product is the input partition, in figures.
const PROBE: &str = "probe";

/// What the demo of this job has of its own.
pub(crate) struct OrdersDemo;

impl Demo for OrdersDemo {
    fn job(&self) -> &'static str {
        "orders"
    }

    fn records(&self) -> &'static str {
        "orders, amendments and cancellations"
    }

    fn input(&self) -> &'static str {
        "orders"
    }

    fn outputs(&self) -> &'static [&'static str] {
        &["revenue"]
    }

    fn probed(&self) -> &'static str {
        "revenue"
    }

    fn probes_in(&self, key: &[u8], value: &[u8]) -> Option<(u32, u64)> {
        // Parsing each record would take time from those that are waited for.
        if !key.starts_with(br#"{"region":"probe""#) {
            return None;
        }
        let row: Revenue = serde_json::from_slice(value).ok()?;
        Some((row.product.parse().ok()?, row.orders))
    }

    fn generator(&self, seed: u64, partitions: u32) -> Box<dyn Generate> {
        Box::new(shop::Shop::new(seed, partitions))
    }

    fn view(&self) -> Box<dyn View> {
        Box::new(table::RevenueTable::default())
    }

    fn audit(&self) -> Box<dyn Audit> {
        Box::new(recomputation::Recomputation::default())
    }
}
