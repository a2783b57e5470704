//! Input that is the same each time.

use std::sync::PoisonError;

use anyhow::{Context as _, Result};
use rand::RngExt as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::Stage;
use crate::campaign::Subject;
use crate::client::{Message, Writer, unique};

impl Stage {
    /// Writes the input's records of these numbers, over all partitions, and waits until they are there.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn feed(&self, numbers: std::ops::Range<u64>) -> Result<()> {
        // A producer takes half a second to begin, so one serves the whole test.
        if self.writer.get().is_none() {
            let _ = self.writer.set(self.endpoint.writer(&[])?);
        }
        let writer = self.writer.get().context("the writer has just been made")?;
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(writer, numbers)
    }

    /// Writes them in one transaction, which commits or aborts.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn feed_in_a_transaction(&self, numbers: std::ops::Range<u64>, commit: bool) -> Result<()> {
        let writer = self.endpoint.transactional(&unique("feeder"), &[])?;
        writer.begin()?;
        self.write(&writer, numbers)?;
        if commit {
            writer.commit()?
        } else {
            writer.abort()?
        }
        self.endpoint.settle(&self.input())
    }

    fn write(&self, writer: &Writer, numbers: std::ops::Range<u64>) -> Result<()> {
        let topic = self.input();
        for number in numbers {
            let (key, value) = record(self.subject, number);
            let (key, value) = (key.as_deref().map(str::as_bytes), value.as_deref().map(str::as_bytes));
            writer.send(&Message { topic: &topic, key, value, ..Message::default() })?;
        }
        for delivered in writer.flush()? {
            delivered.map_err(|code| anyhow::anyhow!("a record of the input was refused: {code}"))?;
        }
        Ok(())
    }
}

/// The key and the value of a record.
fn record(subject: Subject, number: u64) -> (Option<String>, Option<String>) {
    let mut random = ChaCha8Rng::seed_from_u64(number);
    match subject {
        Subject::Orders => {
            // Orders come again, so that they are amended and cancelled.
            let order = random.random_range(0..=number);
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
        Subject::Bank => {
            let (from, to) = (random.random_range(0..30), random.random_range(0..30));
            let amount = random.random_range(1..1_000);
            // A key that the job does not look at spreads transfers over partitions always in the same way.
            let value = format!(r#"{{"id":{number},"from":{from},"to":{to},"amount":{amount}}}"#);
            (Some(number.to_string()), Some(value))
        }
    }
}
