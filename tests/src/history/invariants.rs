//! Jamie Brandon's test of internal consistency (2021) on the bank's whole output: not only the last record of a key, but
//! every record, and every tick.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{Bank, Emitted, Model as _};
use crate::client::Seen;
use crate::journal::Journal;

/// Accounts and what they have.
pub type Balances = BTreeMap<u64, i64>;

#[derive(Deserialize)]
struct Row {
    account: u64,
    balance: i64,
}

/// Brings balances forward by records of the topic `balances`, by tick, and calls `look` at the end of each tick.
///
/// # Errors
/// A record is not what it should be, or `look` fails.
pub fn cut_at_each_tick<'a>(
    records: impl IntoIterator<Item = &'a Emitted>,
    mut look: impl FnMut(u64, &Balances) -> Result<()>,
) -> Result<usize> {
    let mut ticks: BTreeMap<u64, Vec<&Emitted>> = BTreeMap::new();
    for record in records {
        ticks.entry(record.tick).or_default().push(record);
    }
    let mut balances = Balances::new();
    for (tick, records) in &ticks {
        for record in records {
            let value = record.value.as_ref().with_context(|| format!("an account is deleted: {record:?}"))?;
            let row: Row = serde_json::from_str(value).with_context(|| format!("read {record:?}"))?;
            balances.insert(row.account, row.balance);
        }
        look(*tick, &balances)?;
    }
    Ok(ticks.len())
}

/// Checks that every `total` is 0, and that at each tick the balances, over all partitions, sum to 0 and are what the
/// input through that tick gives. Returns how many ticks were looked at.
///
/// # Errors
/// The first thing that is not so.
pub fn bank_is_consistent(prefix: &str, journal: &Journal, input: &[Seen], seen: &[Emitted]) -> Result<usize> {
    let total = format!("{prefix}total");
    for record in seen.iter().filter(|record| record.output == total) {
        if record.value.as_deref() != Some(r#"{"accounts":"all","total":0}"#) {
            bail!("a total that is not 0: {record:?}");
        }
    }
    let by_place: BTreeMap<_, _> = input.iter().map(|record| ((record.partition, record.offset), record)).collect();
    let mut bank = Bank::new(prefix);
    let mut ticks = journal.ticks.iter().peekable();
    let balances = format!("{prefix}balances");
    let records = seen.iter().filter(|record| record.output == balances);
    cut_at_each_tick(records, |tick, balances| {
        let sum: i64 = balances.values().sum();
        ensure!(sum == 0, "at tick {tick} the balances sum to {sum}: {balances:?}");
        while let Some(input) = ticks.next_if(|input| input.tick <= tick) {
            for range in &input.ranges {
                let records = by_place.range((range.partition, range.from)..(range.partition, range.to));
                records.into_iter().try_for_each(|(_, record)| bank.take(record))?;
            }
        }
        let expected = bank.balances();
        ensure!(
            *balances == expected,
            "at tick {tick} the balances are\n{balances:?}, and the input gives\n{expected:?}"
        );
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::journal::{InputRange, TickInput};

    fn transfer(offset: i64, from: u64, to: u64, amount: i64) -> Seen {
        let value = format!(r#"{{"id":{offset},"from":{from},"to":{to},"amount":{amount}}}"#).into_bytes();
        Seen { partition: 0, offset, key: None, value: Some(value), headers: Vec::new(), timestamp_ms: None }
    }

    fn balance(partition: i32, tick: u64, account: u64, balance: i64) -> Emitted {
        Emitted {
            output: "balances".to_owned(),
            partition,
            tick,
            key: format!(r#"{{"account":{account}}}"#),
            value: Some(format!(r#"{{"account":{account},"balance":{balance}}}"#)),
        }
    }

    fn total(tick: u64, total: i64) -> Emitted {
        let value = Some(format!(r#"{{"accounts":"all","total":{total}}}"#));
        Emitted { output: "total".to_owned(), partition: 0, tick, key: r#"{"accounts":"all"}"#.to_owned(), value }
    }

    /// Two ticks of one transfer each: 7 pays 3, then 3 pays 4.
    fn check(change: impl FnOnce(&mut Vec<Emitted>)) -> Result<usize> {
        let input = [transfer(0, 7, 3, 100), transfer(1, 3, 4, 30)];
        let range = |from| vec![InputRange { partition: 0, from, to: from + 1, count: 1 }];
        let ticks = vec![TickInput { tick: 5, ranges: range(0) }, TickInput { tick: 9, ranges: range(1) }];
        let mut seen = vec![
            balance(0, 5, 7, -100),
            balance(1, 5, 3, 100),
            balance(0, 9, 4, 30),
            balance(1, 9, 3, 70),
            total(5, 0),
        ];
        change(&mut seen);
        bank_is_consistent("", &Journal { ticks, ..Journal::default() }, &input, &seen)
    }

    #[test]
    fn a_consistent_bank_passes() {
        assert_eq!(check(|_| {}).unwrap(), 2);
    }

    #[test]
    fn a_total_other_than_0_is_found() {
        assert!(check(|seen| seen.push(total(9, 1))).unwrap_err().to_string().contains("total"));
    }

    #[test]
    fn a_lost_side_of_a_transfer_is_found() {
        assert!(check(|seen| drop(seen.remove(1))).unwrap_err().to_string().contains("sum to -100"));
    }

    #[test]
    fn a_mixture_of_two_moments_is_found_even_where_it_sums_to_0() {
        // Both sides of the second transfer are seen at the first tick.
        let error = check(|seen| seen[2..4].iter_mut().for_each(|record| record.tick = 5)).unwrap_err();
        assert!(error.to_string().contains("the input gives"), "{error}");
    }
}
