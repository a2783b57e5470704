//! Jamie Brandon's bank: is every output the right answer for some prefix of the input?
//!
//! ```text
//!              ┌─sum by `to`───► credits ─┐
//!  transfers ──┤                          ├─full outer join──► balances ──sum──► total
//!              └─sum by `from`─► debits ──┘
//! ```
//!
//! Money only moves, so `total` is 0 at each tick; an engine that joins credits of one moment with debits of another
//! says something else.

use fluvial::connector::format::Json;
use fluvial::{Job, OnMalformed, Sum, Table};
use fluvial_kafka::KafkaOptions;
use serde::{Deserialize, Serialize};

/// The job's own options.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BankOptions {
    /// The broker, and what to tell librdkafka.
    #[command(flatten)]
    pub(crate) kafka: KafkaOptions,

    /// The topic of transfers, each {"id":1,"from":7,"to":3,"amount":100}
    #[arg(long, default_value = "transfers", value_name = "TOPIC")]
    pub(crate) input: String,

    /// What the names of the output topics begin with: credits, debits, balances, total
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(crate) prefix: String,

    /// What to do with a record of the input that cannot be decoded
    #[arg(long, value_enum, default_value = "fail", value_name = "WHAT")]
    pub(crate) on_malformed: OnMalformed,
}

/// A transfer, as a record of the input topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// Its number.
    pub(crate) id: u64,
    /// The account that pays.
    pub(crate) from: u64,
    /// The account that is paid.
    pub(crate) to: u64,
    /// How much.
    pub(crate) amount: i64,
}

/// The key of the outputs by account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Account {
    /// The account.
    pub(crate) account: u64,
}

/// What an account has been paid, or has paid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Amount {
    /// The account.
    pub(crate) account: u64,
    /// How much.
    pub(crate) amount: i64,
}

/// What an account has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Balance {
    /// The account.
    pub(crate) account: u64,
    /// How much.
    pub(crate) balance: i64,
}

/// What all accounts have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Total {
    /// Which accounts.
    pub(crate) accounts: Accounts,
    /// How much.
    pub(crate) total: i64,
}

/// The key of the one row of `total`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct All {
    /// Which accounts: a key needs a column for those who read the topic as a table by the columns of its key.
    pub(crate) accounts: Accounts,
}

/// Which accounts a total is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Accounts {
    /// Every account.
    All,
}

/// Builds the job.
///
/// # Errors
/// The options are wrong.
pub(crate) fn build(job: &mut Job<'_>, options: &BankOptions) -> anyhow::Result<()> {
    let kafka = options.kafka.connect()?;
    let output = |name: &str| kafka.upsert(format!("{}{name}", options.prefix));
    let transfers = job
        .source("transfers", kafka.source(&options.input))
        .format(Json)
        .on_malformed(options.on_malformed)
        .stream::<Transfer>();
    let credits = transfers.clone().key_by(|t| t.to).aggregate("credits", Sum(|t: &Transfer| t.amount));
    let debits = transfers.key_by(|t| t.from).aggregate("debits", Sum(|t: &Transfer| t.amount));
    let balances = credits.clone().full_join(debits.clone());
    let balances = balances.try_map("balances", |_, (credit, debit)| {
        let (credit, debit) = (credit.unwrap_or(0), debit.unwrap_or(0));
        credit.checked_sub(debit).ok_or_else(|| format!("{credit} minus {debit} does not fit 64 bits"))
    });
    let total = balances.clone().map(|(_, balance)| (Accounts::All, balance)).aggregate("total", Sum(|b: &i64| *b));
    let total = total.map(|(accounts, total)| (All { accounts }, Total { accounts, total }));
    let amounts = |(account, amount)| (Account { account }, Amount { account, amount });
    job.output(output("credits")).format(Json).write(credits.map(amounts));
    job.output(output("debits")).format(Json).write(debits.map(amounts));
    let balances = balances.map(|(account, balance)| (Account { account }, Balance { account, balance }));
    job.output(output("balances")).format(Json).write(balances);
    job.output(output("total")).format(Json).write(total);
    Ok(())
}

#[cfg(test)]
mod tests {
    use fluvial::harness::JobTest;

    use super::*;

    fn job() -> JobTest {
        let options = BankOptions {
            kafka: KafkaOptions::new("127.0.0.1:1"),
            input: "transfers".to_owned(),
            prefix: String::new(),
            on_malformed: OnMalformed::Fail,
        };
        JobTest::new(2, move |job| build(job, &options))
    }

    /// Feeds transfers from account to account, a tick each, and says how the last tick ended.
    fn transferred(transfers: &[(u64, u64, i64)]) -> Result<(), String> {
        let mut test = job();
        let mut ended = Ok(());
        for (tick, (from, to, amount)) in (1..).zip(transfers) {
            ended?;
            let transfer = format!(r#"{{"id":1,"from":{from},"to":{to},"amount":{amount}}}"#);
            test.feed("transfers", tick, [(None, Some(transfer))]);
            ended = test.try_advance_past(tick);
        }
        ended
    }

    #[test]
    fn figures_that_do_not_fit_are_errors_that_name_operator_and_key() {
        for (transfers, expected) in [
            // 1 pays MAX to 2, and is paid MIN by 2: what it has would be MIN - MAX.
            (&[(1, 2, i64::MAX), (2, 1, i64::MIN)][..], "operator 'balances' cannot go on at tick 2, key "),
            (&[(1, 2, i64::MAX), (3, 2, 1)], "the durable operator 'credits' cannot go on at tick 2, key 2: "),
            (&[(2, 1, i64::MAX), (2, 3, 1)], "the durable operator 'debits' cannot go on at tick 2, key 2: "),
        ] {
            let error = transferred(transfers).expect_err(expected);
            assert!(error.contains(expected) && error.contains("does not fit"), "{error}");
        }
    }

    /// What an account has is said of both sides of a transfer, not of one beside what the other was before.
    #[test]
    fn only_what_a_tick_comes_to_has_to_fit() {
        let mut test = job();
        let transfer = |from: u64, to: u64, amount: i64| {
            (None::<String>, Some(format!(r#"{{"id":1,"from":{from},"to":{to},"amount":{amount}}}"#)))
        };
        test.feed("transfers", 1, [transfer(1, 1, i64::MIN + 1)]);
        test.advance_past(1);
        test.feed("transfers", 2, [transfer(1, 1, i64::MAX), transfer(1, 1, i64::MAX)]);
        test.advance_past(2);
        assert_eq!(test.table("balances"), [(r#"{"account":1}"#.into(), r#"{"account":1,"balance":0}"#.into())]);
    }

    #[test]
    fn every_tick_moves_money_and_makes_none() {
        let mut test = job();
        for tick in 1..=20 {
            let transfers = (0..10u64).map(|n| {
                let (id, from, to) = (tick * 10 + n, (tick + n) % 7, (tick * n + 3) % 7);
                let value = format!(r#"{{"id":{id},"from":{from},"to":{to},"amount":{}}}"#, 1 + n * tick);
                (None, Some(value))
            });
            test.feed("transfers", tick, transfers);
        }
        test.advance_past(20);
        test.restart_at(7, 3);
        let total = |text: &str| text.to_owned();
        assert_eq!(test.table("total"), [(total(r#"{"accounts":"all"}"#), total(r#"{"accounts":"all","total":0}"#))]);
        let said: usize = (1..=20).map(|tick| test.updates_at("total", tick).len()).sum();
        assert_eq!(said, 1, "the total is said once, and never changes");
        let balances = test.table("balances");
        let sum: i64 = balances
            .iter()
            .map(|(_, value)| serde_json::from_str::<Balance>(value).expect("it is a balance").balance)
            .sum();
        assert_eq!((balances.len(), sum), (7, 0));
    }
}
