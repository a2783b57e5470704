//! `bank demo`: transfers among accounts, made up; see [`fluvial_demo`] for how it runs.

mod books;
mod ledger;
mod tellers;

use fluvial_demo::{Audit, Demo, Generate, View};

use crate::job::Amount;

/// How many accounts there are.
const ACCOUNTS: u64 = 100;
/// Transfers that measure latency are paid to accounts from this one on, one for each input partition.
const FIRST_PROBE: u64 = 1_000_000;
/// The account that pays them.
const PROBE_PAYER: u64 = 0;

/// What the demo of this job has of its own.
pub(crate) struct BankDemo;

impl Demo for BankDemo {
    fn job(&self) -> &'static str {
        "bank"
    }

    fn records(&self) -> &'static str {
        "transfers"
    }

    fn input(&self) -> &'static str {
        "transfers"
    }

    fn outputs(&self) -> &'static [&'static str] {
        &["credits", "debits", "balances", "total"]
    }

    fn probed(&self) -> &'static str {
        "credits"
    }

    fn probes_in(&self, _key: &[u8], value: &[u8]) -> Option<(u32, u64)> {
        let row: Amount = serde_json::from_slice(value).ok()?;
        let partition = row.account.checked_sub(FIRST_PROBE)?;
        Some((u32::try_from(partition).ok()?, u64::try_from(row.amount).ok()?))
    }

    fn generator(&self, seed: u64, partitions: u32) -> Box<dyn Generate> {
        Box::new(tellers::Tellers::new(seed, partitions))
    }

    fn view(&self) -> Box<dyn View> {
        Box::new(books::Books::default())
    }

    fn audit(&self) -> Box<dyn Audit> {
        Box::new(ledger::Ledger::default())
    }
}
