//! Naive models of the jobs: whole state, no increments, one record after the other.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::client::Seen;

/// What a job is, said again as simply as can be.
pub trait Model {
    /// Takes a record of the input.
    ///
    /// # Errors
    /// It is not what the job takes.
    fn take(&mut self, record: &Seen) -> Result<()>;

    /// Ends a tick: what has changed since the last one, as (output, key, value).
    fn end_tick(&mut self) -> Vec<(String, String, Option<String>)>;
}

/// The rows of an output, and what they were at the end of the last tick.
#[derive(Debug, Default)]
struct Table {
    before: BTreeMap<String, String>,
}

impl Table {
    fn changes(&mut self, output: &str, now: BTreeMap<String, String>) -> Vec<(String, String, Option<String>)> {
        let keys: BTreeSet<&String> = self.before.keys().chain(now.keys()).collect();
        let changed = keys.into_iter().filter(|key| self.before.get(*key) != now.get(*key));
        let changes = changed.map(|key| (output.to_owned(), key.clone(), now.get(key).cloned())).collect();
        self.before = now;
        changes
    }
}

/// `jobs/orders`.
#[derive(Debug)]
pub struct Orders {
    output: String,
    orders: BTreeMap<String, Order>,
    table: Table,
}

#[derive(Debug, Deserialize)]
struct Order {
    region: String,
    product: String,
    quantity: i64,
    price_cents: i64,
}

impl Orders {
    /// The model, writing to this topic.
    pub fn new(output: impl Into<String>) -> Self {
        Self { output: output.into(), orders: BTreeMap::new(), table: Table::default() }
    }
}

impl Model for Orders {
    fn take(&mut self, record: &Seen) -> Result<()> {
        let key = String::from_utf8(record.key.clone().context("an order has a key")?)?;
        match &record.value {
            Some(value) => self.orders.insert(key, serde_json::from_slice(value)?),
            None => self.orders.remove(&key),
        };
        Ok(())
    }

    fn end_tick(&mut self) -> Vec<(String, String, Option<String>)> {
        let mut groups: BTreeMap<(&str, &str), (u64, i64)> = BTreeMap::new();
        for order in self.orders.values() {
            let group = groups.entry((&order.region, &order.product)).or_default();
            group.0 += 1;
            group.1 += order.quantity * order.price_cents;
        }
        let row = |((region, product), (orders, revenue)): ((&str, &str), (u64, i64))| {
            let group = format!(r#""region":"{region}","product":"{product}""#);
            (format!("{{{group}}}"), format!(r#"{{{group},"orders":{orders},"revenue_cents":{revenue}}}"#))
        };
        let now = groups.into_iter().map(row).collect();
        self.table.changes(&self.output, now)
    }
}

/// `jobs/bank`.
#[derive(Debug)]
pub struct Bank {
    prefix: String,
    credits: BTreeMap<u64, i64>,
    debits: BTreeMap<u64, i64>,
    tables: [Table; 4],
}

#[derive(Debug, Deserialize)]
struct Transfer {
    from: u64,
    to: u64,
    amount: i64,
}

impl Bank {
    /// The names of the outputs, each behind the prefix.
    pub const OUTPUTS: [&str; 4] = ["credits", "debits", "balances", "total"];

    /// The model, writing to topics that begin so.
    pub fn new(prefix: impl Into<String>) -> Self {
        let (credits, debits) = (BTreeMap::new(), BTreeMap::new());
        Self { prefix: prefix.into(), credits, debits, tables: Default::default() }
    }

    /// What each account has after what was taken so far.
    #[must_use]
    pub fn balances(&self) -> BTreeMap<u64, i64> {
        let accounts: BTreeSet<_> = self.credits.keys().chain(self.debits.keys()).collect();
        let of = |side: &BTreeMap<u64, i64>, account: &u64| side.get(account).copied().unwrap_or(0);
        accounts.into_iter().map(|account| (*account, of(&self.credits, account) - of(&self.debits, account))).collect()
    }
}

impl Model for Bank {
    fn take(&mut self, record: &Seen) -> Result<()> {
        let transfer: Transfer = serde_json::from_slice(record.value.as_ref().context("a transfer has a value")?)?;
        *self.credits.entry(transfer.to).or_default() += transfer.amount;
        *self.debits.entry(transfer.from).or_default() += transfer.amount;
        Ok(())
    }

    fn end_tick(&mut self) -> Vec<(String, String, Option<String>)> {
        let rows = |of: &BTreeMap<u64, i64>, what: &str| -> BTreeMap<String, String> {
            let row = |(account, amount): (&u64, &i64)| {
                (format!(r#"{{"account":{account}}}"#), format!(r#"{{"account":{account},"{what}":{amount}}}"#))
            };
            of.iter().map(row).collect()
        };
        let balances = self.balances();
        let total: i64 = balances.values().sum();
        let total = (!balances.is_empty()).then(|| {
            let all = r#""accounts":"all""#;
            (format!("{{{all}}}"), format!(r#"{{{all},"total":{total}}}"#))
        });
        let now = [
            rows(&self.credits, "amount"),
            rows(&self.debits, "amount"),
            rows(&balances, "balance"),
            total.into_iter().collect(),
        ];
        let mut changes = Vec::new();
        for ((table, name), now) in self.tables.iter_mut().zip(Self::OUTPUTS).zip(now) {
            changes.extend(table.changes(&format!("{}{name}", self.prefix), now));
        }
        changes
    }
}
