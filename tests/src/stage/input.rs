//! Input that is the same each time.

use std::sync::PoisonError;

use anyhow::{Context as _, Result};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::Stage;
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

    /// Writes the input's records of these numbers into these partitions, whatever their keys, and waits until they are
    /// there.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn feed_into(&self, partitions: &[i32], numbers: std::ops::Range<u64>) -> Result<()> {
        let writer = self.endpoint.writer(&[])?;
        self.write_to(&writer, numbers, |number| {
            let place = usize::try_from(number).unwrap_or(0) % partitions.len();
            Some(partitions[place])
        })
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
        self.write_to(writer, numbers, |_| None)
    }

    fn write_to(
        &self,
        writer: &Writer,
        numbers: std::ops::Range<u64>,
        partition: impl Fn(u64) -> Option<i32>,
    ) -> Result<()> {
        let topic = self.input();
        for number in numbers {
            // Of as many orders as there are records so far.
            let mut random = ChaCha8Rng::seed_from_u64(number);
            let (key, value) = self.subject.record(&mut random, number, number + 1);
            let (key, value) = (key.as_deref().map(str::as_bytes), value.as_deref().map(str::as_bytes));
            let partition = partition(number);
            writer.send(&Message { topic: &topic, partition, key, value, ..Message::default() })?;
        }
        for delivered in writer.flush()? {
            delivered.map_err(|code| anyhow::anyhow!("a record of the input was refused: {code}"))?;
        }
        Ok(())
    }
}
