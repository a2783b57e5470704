//! How many records there were.

use super::sealed::Linear;
use super::{Aggregate, Overflow};

/// Counts records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count;

impl Linear for Count {}

impl<V> Aggregate<V> for Count {
    type Total = u64;
    type State = u64;
    type Out = u64;

    fn describe(&self) -> String {
        "count".to_owned()
    }

    #[inline]
    fn add(&self, total: &mut u64, _: &V) {
        *total += 1;
    }

    #[inline]
    fn settle(&self, state: &mut u64, total: u64) -> Result<(), Overflow> {
        let overflow = || Overflow { values: "1".into(), into: "u64", cure: "count fewer records to a key" };
        *state = state.checked_add(total).ok_or_else(overflow)?;
        Ok(())
    }

    #[inline]
    fn output(&self, state: &u64) -> u64 {
        *state
    }
}
