//! The order of records by what a closure returns for them. Records for which it returns the same are in their own order.

use std::cmp::Ordering;

/// Compares two records.
#[inline]
pub(crate) fn compare<V: Ord, B: Ord>(by: &impl Fn(&V) -> B, one: &V, other: &V) -> Ordering {
    by(one).cmp(&by(other)).then_with(|| one.cmp(other))
}

/// Returns the place of another record among the `n` greatest, which are sorted, the greatest first; `None` if it is not one of
/// them. A record that equals the last of them is not.
#[inline]
pub(crate) fn place<V: Ord, B: Ord>(greatest: &[V], n: usize, by: &impl Fn(&V) -> B, record: &V) -> Option<usize> {
    let rank = by(record);
    let is_above = |kept: &V| rank.cmp(&by(kept)).then_with(|| record.cmp(kept)).is_gt();
    // Most records do not get in where keys have many: one comparison tells.
    if greatest.len() >= n && !greatest.last().is_some_and(is_above) {
        return None;
    }
    Some(greatest.partition_point(|kept| !is_above(kept)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_placed_by_rank_and_then_by_its_own_order() {
        let tens = |value: &i32| value / 10;
        let check = |greatest: &[i32], record, expected| {
            assert_eq!(place(greatest, 3, &tens, &record), expected, "{record} among {greatest:?}");
        };
        check(&[], 5, Some(0));
        check(&[25, 23], 24, Some(1));
        check(&[25, 23], 11, Some(2));
        check(&[25, 23, 17], 17, None);
        check(&[25, 23, 17], 16, None);
        check(&[25, 23, 17], 18, Some(2));
        assert_eq!(compare(&tens, &19, &20), Ordering::Less);
        assert_eq!(compare(&tens, &21, &20), Ordering::Greater);
    }
}
