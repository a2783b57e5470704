//! Credits, debits and balances recomputed from the input topic, and the check of every record of `total`.

use std::collections::BTreeMap;

use anyhow::Context;
use fluvial_demo::{Audit, Rows, grouped};

use crate::job::{Account, Accounts, All, Amount, Balance, Total, Transfer};

/// What `total` must always say.
const NOTHING: Total = Total { accounts: Accounts::All, total: 0 };

/// What the input says, and what `total` has said.
#[derive(Default)]
pub(super) struct Ledger {
    credits: BTreeMap<u64, i64>,
    debits: BTreeMap<u64, i64>,
    transfers: u64,
    totals: u64,
    wrong_totals: u64,
}

impl Audit for Ledger {
    fn input(&mut self, _key: Option<&[u8]>, value: Option<&[u8]>) -> anyhow::Result<()> {
        let transfer: Transfer =
            serde_json::from_slice(value.unwrap_or_default()).context("a record of the input is not a transfer")?;
        *self.credits.entry(transfer.to).or_default() += transfer.amount;
        *self.debits.entry(transfer.from).or_default() += transfer.amount;
        self.transfers += 1;
        Ok(())
    }

    fn output(&mut self, topic: &str, value: Option<&[u8]>) {
        if topic == "total" {
            self.totals += 1;
            let total = value.and_then(|value| serde_json::from_slice::<Total>(value).ok());
            self.wrong_totals += u64::from(total != Some(NOTHING));
        }
    }

    fn expected(&self) -> anyhow::Result<Rows> {
        let mut rows = Rows::default();
        let mut balances: BTreeMap<u64, i64> = BTreeMap::new();
        for (topic, amounts, sign) in [("credits", &self.credits, 1), ("debits", &self.debits, -1)] {
            for (&account, &amount) in amounts {
                let key = serde_json::to_vec(&Account { account })?;
                rows.upsert(topic, &key, Some(&serde_json::to_vec(&Amount { account, amount })?));
                *balances.entry(account).or_default() += sign * amount;
            }
        }
        for (account, balance) in balances {
            let key = serde_json::to_vec(&Account { account })?;
            rows.upsert("balances", &key, Some(&serde_json::to_vec(&Balance { account, balance })?));
        }
        if self.transfers > 0 {
            let key = serde_json::to_vec(&All { accounts: NOTHING.accounts })?;
            rows.upsert("total", &key, Some(&serde_json::to_vec(&NOTHING)?));
        }
        Ok(rows)
    }

    fn figures(&self) -> Vec<(&'static str, String)> {
        let count = |number| grouped(i64::try_from(number).unwrap_or(i64::MAX));
        vec![("records of 'total'", count(self.totals)), ("records of 'total' other than 0", count(self.wrong_totals))]
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.wrong_totals > 0 {
            faults.push(format!("{} of {} records of 'total' do not say 0", self.wrong_totals, self.totals));
        }
        if self.totals == 0 && self.transfers > 0 {
            faults.push("'total' has no record".to_owned());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn feed(ledger: &mut Ledger, from: u64, to: u64, amount: i64) {
        let transfer = Transfer { id: 0, from, to, amount };
        ledger.input(None, Some(&serde_json::to_vec(&transfer).unwrap())).unwrap();
    }

    #[test]
    fn balances_are_credits_minus_debits_of_either_side() {
        let mut ledger = Ledger::default();
        feed(&mut ledger, 1, 2, 10);
        feed(&mut ledger, 2, 2, 3);
        feed(&mut ledger, 2, 1, 4);
        let mut rows = Rows::default();
        for (topic, account, figure) in [
            ("credits", 1, 4),
            ("credits", 2, 13),
            ("debits", 1, 10),
            ("debits", 2, 7),
            ("balances", 1, -6),
            ("balances", 2, 6),
        ] {
            let name = if topic == "balances" { "balance" } else { "amount" };
            let key = format!(r#"{{"account":{account}}}"#);
            let value = format!(r#"{{"account":{account},"{name}":{figure}}}"#);
            rows.upsert(topic, key.as_bytes(), Some(value.as_bytes()));
        }
        rows.upsert("total", br#"{"accounts":"all"}"#, Some(br#"{"accounts":"all","total":0}"#));
        assert_eq!(ledger.expected().unwrap(), rows);
    }

    #[test]
    fn every_record_of_total_counts() {
        let mut ledger = Ledger::default();
        feed(&mut ledger, 1, 2, 10);
        assert_eq!(ledger.faults().len(), 1, "no record of total at all");
        ledger.output("balances", Some(br#"{"account":1,"balance":7}"#));
        ledger.output("total", Some(br#"{"accounts":"all","total":0}"#));
        assert!(ledger.faults().is_empty());
        ledger.output("total", Some(br#"{"accounts":"all","total":1}"#));
        ledger.output("total", None);
        ledger.output("total", Some(br#"{"accounts":"all","total":0}"#));
        assert_eq!(ledger.wrong_totals, 2);
        assert_eq!(ledger.faults().len(), 1);
    }
}
