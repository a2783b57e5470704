//! The live table: order count and revenue, a row for each product, two columns for each region.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use comfy_table::{Cell, CellAlignment, Table};
use fluvial_demo::{View, grouped};
use fluvial_kafka::Cut;

use super::PROBE;
use crate::job::{Group, Revenue};

/// Revenue as of a tick.
#[derive(Default)]
pub(super) struct RevenueTable {
    groups: BTreeMap<Group, Revenue>,
}

impl View for RevenueTable {
    fn apply(&mut self, cut: &Cut) -> anyhow::Result<()> {
        for record in &cut.records {
            let key = record.key.as_deref().context("a record of the output has no key")?;
            let group: Group = serde_json::from_slice(key).context("a record's key in the output is not a group")?;
            match &record.value {
                Some(value) => {
                    let revenue = serde_json::from_slice(value).context(
                        "a record's value in the output is not a \
                         revenue",
                    )?;
                    self.groups.insert(group, revenue);
                }
                None => {
                    self.groups.remove(&group);
                }
            }
        }
        Ok(())
    }

    fn table(&self) -> Table {
        let shown = || self.groups.values().filter(|row| row.region != PROBE);
        let regions: BTreeSet<_> = shown().map(|row| row.region.as_str()).collect();
        let products: BTreeSet<_> = shown().map(|row| row.product.as_str()).collect();
        let mut table = fluvial_demo::table();
        let heads = regions.iter().flat_map(|region| [format!("{region}\norders"), "\nrevenue".to_owned()]);
        table.set_header(std::iter::once("\nproduct".to_owned()).chain(heads));
        for product in products {
            let of =
                |region: &str| shown().filter(|row| row.region == region && row.product == product).map(figures).next();
            table.add_row(row(product, regions.iter().map(|region| of(region).unwrap_or_default())));
        }
        let sum = |region: &&str| {
            let rows = shown().filter(|row| row.region == **region).map(figures);
            rows.fold((0, 0), |(orders, cents), row| (orders + row.0, cents + row.1))
        };
        table.add_row(row("all", regions.iter().map(sum)));
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

fn figures(row: &Revenue) -> (i64, i64) {
    (row.orders as i64, row.revenue_cents)
}

fn row(name: &str, figures: impl Iterator<Item = (i64, i64)>) -> Vec<Cell> {
    let cells = figures.flat_map(|(orders, cents)| [Cell::new(grouped(orders)), Cell::new(grouped(cents / 100))]);
    std::iter::once(Cell::new(name)).chain(cells).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_kafka::CutRecord;

    use super::*;

    fn record(region: &str, product: &str, figures: Option<(i64, i64)>) -> CutRecord {
        let value = figures.map(|(orders, cents)| {
            format!(r#"{{"region":"{region}","product":"{product}","orders":{orders},"revenue_cents":{cents}}}"#)
        });
        CutRecord {
            topic: "revenue".into(),
            partition: 0,
            offset: Default::default(),
            tick: Default::default(),
            key: Some(format!(r#"{{"region":"{region}","product":"{product}"}}"#).into_bytes()),
            value: value.map(String::into_bytes),
        }
    }

    #[test]
    fn the_table_holds_the_newest_figures_and_no_probes() {
        let mut view = RevenueTable::default();
        let records = vec![
            record("eu", "pen", Some((1, 100))),
            record("eu", "pen", Some((1234, 567_800))),
            record("us", "mug", Some((2, 900))),
            record("us", "pen", Some((3, 300))),
            record("us", "mug", None),
            record("probe", "1", Some((9, 9))),
        ];
        view.apply(&Cut { tick: Default::default(), records }).unwrap();
        let text = view.table().to_string();
        assert!(text.contains("1,234") && text.contains("5,678"), "{text}");
        assert!(!text.contains("mug") && !text.contains("probe"), "{text}");
    }
}
