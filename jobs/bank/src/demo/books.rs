//! The live table, and the check of every consistent cut: the balances sum to 0, and `total` says so.

use std::collections::BTreeMap;

use anyhow::Context;
use comfy_table::Table;
use fluvial_demo::{View, grouped};
use fluvial_kafka::Cut;

use crate::job::{Account, Balance, Total};

/// Balances and total as of a tick, and what was found in the ticks before.
#[derive(Default)]
pub(super) struct Books {
    balances: BTreeMap<u64, i64>,
    sum: i64,
    total: Option<i64>,
    cuts: u64,
    /// Cuts in which the balances or the total were something else than 0.
    wrong: u64,
    first_wrong: Option<String>,
}

impl View for Books {
    fn apply(&mut self, cut: &Cut) -> anyhow::Result<()> {
        for record in &cut.records {
            match (&*record.topic, &record.value) {
                ("balances", Some(value)) => {
                    let row: Balance = serde_json::from_slice(value).context(
                        "a record's value in 'balances' is not \
                         a balance",
                    )?;
                    self.sum += row.balance - self.balances.insert(row.account, row.balance).unwrap_or(0);
                }
                ("balances", None) => {
                    let key = record.key.as_deref().unwrap_or_default();
                    let account: Account = serde_json::from_slice(key).context(
                        "a record's key in 'balances' is not \
                         an account",
                    )?;
                    self.sum -= self.balances.remove(&account.account).unwrap_or(0);
                }
                ("total", value) => {
                    let row = value.as_ref().map(|value| serde_json::from_slice::<Total>(value)).transpose();
                    self.total = row.context("a record's value in 'total' is not a total")?.map(|row| row.total);
                }
                _ => {}
            }
        }
        self.cuts += 1;
        if self.sum != 0 || self.total != Some(0) {
            self.wrong += 1;
            self.first_wrong.get_or_insert_with(|| {
                let total = self.total.map_or("nothing".to_owned(), |total| total.to_string());
                format!(
                    "at tick {} the balances sum to {}, and 'total' says {total}: both must be 0",
                    cut.tick, self.sum
                )
            });
        }
        Ok(())
    }

    fn table(&self) -> Table {
        let mut table = fluvial_demo::table();
        let count = |number: usize| grouped(i64::try_from(number).unwrap_or(i64::MAX));
        let positive = self.balances.values().filter(|balance| **balance > 0);
        let (above, held) = positive.fold((0, 0), |(rows, sum), balance| (rows + 1, sum + balance));
        table.set_header(["balances", "above zero", "they hold", "sum of all", "total"]);
        let total = self.total.map_or_else(|| "-".to_owned(), grouped);
        table.add_row([count(self.balances.len()), count(above), grouped(held), grouped(self.sum), total]);
        table
    }

    fn figures(&self) -> Vec<(&'static str, String)> {
        let wrong = grouped(i64::try_from(self.wrong).unwrap_or(i64::MAX));
        vec![("cuts with a sum or total other than 0", wrong)]
    }

    fn faults(&self) -> Vec<String> {
        self.first_wrong.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_kafka::CutRecord;

    use super::*;

    fn cut(records: &[(&str, &str, Option<&str>)]) -> Cut {
        let record = |(topic, key, value): &(&str, &str, Option<&str>)| CutRecord {
            topic: (*topic).into(),
            partition: 0,
            offset: Default::default(),
            tick: Default::default(),
            key: Some(key.as_bytes().to_vec()),
            value: value.map(|value| value.as_bytes().to_vec()),
        };
        Cut { tick: Default::default(), records: records.iter().map(record).collect() }
    }

    const TOTAL: (&str, &str, Option<&str>) =
        ("total", r#"{"accounts":"all"}"#, Some(r#"{"accounts":"all","total":0}"#));

    #[test]
    fn cuts_whose_balances_sum_to_zero_are_right() {
        let mut books = Books::default();
        let one = ("balances", r#"{"account":1}"#, Some(r#"{"account":1,"balance":-5}"#));
        let two = ("balances", r#"{"account":2}"#, Some(r#"{"account":2,"balance":5}"#));
        books.apply(&cut(&[one, two, TOTAL])).unwrap();
        books.apply(&cut(&[("balances", one.1, None), ("balances", two.1, None)])).unwrap();
        assert_eq!((books.cuts, books.wrong, books.faults().len()), (2, 0, 0));
    }

    #[test]
    fn a_mixture_of_two_moments_is_found() {
        let mut books = Books::default();
        books.apply(&cut(&[("balances", "", Some(r#"{"account":1,"balance":-5}"#)), TOTAL])).unwrap();
        books.apply(&cut(&[("balances", "", Some(r#"{"account":2,"balance":5}"#))])).unwrap();
        assert_eq!((books.wrong, books.faults().len()), (1, 1));
        books.apply(&cut(&[("total", TOTAL.1, Some(r#"{"accounts":"all","total":5}"#))])).unwrap();
        assert_eq!(books.wrong, 2);
    }
}
