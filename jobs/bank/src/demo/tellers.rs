//! Transfers between accounts, in any partition of the input.

use fluvial_demo::{Generate, InputRecord};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{ACCOUNTS, FIRST_PROBE, PROBE_PAYER};
use crate::job::Transfer;

/// The generator.
pub(super) struct Tellers {
    random: ChaCha8Rng,
    partitions: u32,
    next_id: u64,
}

impl Tellers {
    pub(super) fn new(seed: u64, partitions: u32) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(seed), partitions, next_id: 1 }
    }

    fn transfer(&mut self, partition: u32, from: u64, to: u64, amount: i64) -> InputRecord {
        let transfer = Transfer { id: self.next_id, from, to, amount };
        self.next_id += 1;
        let value = serde_json::to_vec(&transfer).expect("numbers can be written as JSON");
        InputRecord { partition, key: None, value: Some(value) }
    }
}

impl Generate for Tellers {
    fn next(&mut self, _now_ms: i64) -> InputRecord {
        let partition = self.random.random_range(0..self.partitions);
        let (from, to) = (self.random.random_range(1..=ACCOUNTS), self.random.random_range(1..=ACCOUNTS));
        let amount = self.random.random_range(1..=1_000);
        self.transfer(partition, from, to, amount)
    }

    fn probe(&mut self, partition: u32, _number: u64, _now_ms: i64) -> InputRecord {
        self.transfer(partition, PROBE_PAYER, FIRST_PROBE + u64::from(partition), 1)
    }
}
