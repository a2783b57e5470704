//! The rows of a key of a collection, in order: what aggregates keep that are not sums.

use std::collections::BTreeMap;

use fluvial_connector::BoxError;

use super::overflow::TOO_MANY_ROWS;

/// Values with the number of times that each of them is there, in ascending order. A change costs the logarithm of the number
/// of distinct values, and so does the least and the greatest value.
#[derive(PartialEq)]
#[allow(unreachable_pub)]
pub struct Multiset<T>(BTreeMap<T, i64>);

impl<T> Default for Multiset<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord> Multiset<T> {
    /// Applies the changes of a tick. A value may be retracted before it is added.
    ///
    /// # Errors
    /// A value is retracted more often than it has been added.
    pub(super) fn apply(&mut self, mut changes: Vec<(T, i64)>) -> Result<(), BoxError> {
        changes.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let mut changes = changes.into_iter().peekable();
        while let Some((value, mut times)) = changes.next() {
            while let Some((_, more)) = changes.next_if(|next| next.0 == value) {
                times = times.checked_add(more).ok_or(TOO_MANY_ROWS)?;
            }
            self.change(value, times)?;
        }
        Ok(())
    }

    fn change(&mut self, value: T, times: i64) -> Result<(), BoxError> {
        let sum = self.0.get(&value).copied().unwrap_or(0).checked_add(times);
        match sum.ok_or(TOO_MANY_ROWS)? {
            0 => {
                self.0.remove(&value);
            }
            sum if sum > 0 => {
                self.0.insert(value, sum);
            }
            _ => {
                return Err("a row was retracted more often than it had been added; make the job retract each row \
                            exactly as it added it"
                    .into());
            }
        }
        Ok(())
    }

    /// The number of distinct values.
    pub(super) fn distinct(&self) -> usize {
        self.0.len()
    }

    /// The least value. There must be one.
    pub(super) fn least(&self) -> &T {
        self.0.first_key_value().expect("an aggregate has a result only while it has rows").0
    }

    /// The greatest value. There must be one.
    pub(super) fn greatest(&self) -> &T {
        self.0.last_key_value().expect("an aggregate has a result only while it has rows").0
    }

    /// The values in ascending order, each as often as it is there.
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.0.iter().flat_map(|(value, times)| std::iter::repeat_n(value, *times as usize))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_that_come_and_go_within_a_tick_leave_nothing() {
        let mut values = Multiset::default();
        values.apply(vec![(3, -1), (5, 2), (3, 1), (4, 1)]).unwrap();
        assert_eq!(values.all().collect::<Vec<_>>(), [&4, &5, &5]);
        values.apply(vec![(5, -2), (4, -1)]).unwrap();
        assert!(values == Multiset::default());
    }

    #[test]
    fn a_value_that_is_not_there_cannot_be_retracted() {
        let mut values = Multiset::default();
        let error = values.apply(vec![(3, 1), (4, -1)]).unwrap_err();
        assert!(error.to_string().contains("retracted more often than it had been added"), "{error}");
    }
}
