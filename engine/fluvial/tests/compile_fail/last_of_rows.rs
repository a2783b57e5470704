//! Rows of a collection have no order, so none of them is the last.
//~ Last<
//~ is not an aggregate of `u64` values that supports retraction
//~ so it has no `First` and no `Last`: use `MinBy` or `MaxBy`
use fluvial::{Collection, Last, Table};

pub fn newest(rows: Collection<'_, (String, u64)>) -> Collection<'_, (String, u64)> {
    rows.aggregate("newest", Last(|value: &u64| *value))
}
