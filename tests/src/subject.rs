//! The two jobs that the tests run: what they read, what they write, how they are called.

use std::ffi::OsString;
use std::path::Path;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use crate::history::{Bank, Model, Orders};

/// Which job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// `jobs/orders`.
    Orders,
    /// `jobs/bank`.
    Bank,
}

impl Subject {
    /// The binary's name.
    #[must_use]
    pub fn binary(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Bank => "bank",
        }
    }

    /// The input topic of a job of this name.
    #[must_use]
    pub fn input(self, job: &str) -> String {
        format!("{job}.input")
    }

    /// The output topics of a job of this name.
    #[must_use]
    pub fn outputs(self, job: &str) -> Vec<String> {
        match self {
            Self::Orders => vec![format!("{job}.revenue")],
            Self::Bank => Bank::OUTPUTS.iter().map(|output| format!("{job}.{output}")).collect(),
        }
    }

    /// What every command of the binary is told.
    #[must_use]
    pub fn args(self, brokers: &str, job: &str, store: &Path) -> Vec<OsString> {
        let input = self.input(job);
        let mut args: Vec<OsString> = ["--brokers", brokers, "--name", job, "--input", &input].map(Into::into).into();
        args.extend(["--store".into(), store.into()]);
        args.extend(match self {
            Self::Orders => ["--output".into(), self.outputs(job).swap_remove(0).into()],
            Self::Bank => ["--prefix".into(), format!("{job}.").into()],
        });
        args
    }

    /// The model of a job of this name.
    #[must_use]
    pub fn model(self, job: &str) -> Box<dyn Model> {
        match self {
            Self::Orders => Box::new(Orders::new(self.outputs(job).swap_remove(0))),
            Self::Bank => Box::new(Bank::new(format!("{job}."))),
        }
    }

    /// The key and the value of the input's record `number`. Orders are among `orders` of them, so that they are amended
    /// and cancelled.
    pub fn record(self, random: &mut ChaCha8Rng, number: u64, orders: u64) -> (Option<String>, Option<String>) {
        match self {
            Self::Orders => {
                let order = random.random_range(0..orders);
                let cancelled = random.random_range(0..8) == 0;
                let (region, product) = (["eu", "us", "apac"][random.random_range(0..3)], random.random_range(0..6));
                let (quantity, price) = (random.random_range(1..10), random.random_range(1..5_000));
                let value = format!(
                    r#"{{"order_id":{order},"customer":"c{}","region":"{region}","product":"p{product}","quantity":{quantity},"price_cents":{price},"at":{}}}"#,
                    order % 50,
                    1_790_000_000_000_u64 + number
                );
                (Some(order.to_string()), (!cancelled).then_some(value))
            }
            Self::Bank => {
                let (from, to) = (random.random_range(0..30), random.random_range(0..30));
                let amount = random.random_range(1..1_000);
                // A key that the job does not look at spreads transfers over partitions always in the same way.
                let value = format!(r#"{{"id":{number},"from":{from},"to":{to},"amount":{amount}}}"#);
                (Some(number.to_string()), Some(value))
            }
        }
    }
}
