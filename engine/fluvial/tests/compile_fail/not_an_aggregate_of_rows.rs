//! An aggregate of a collection supports retraction.
//~ is not an aggregate of `u64` values that supports retraction
//~ rows of a collection can be retracted
use fluvial::{Collection, Table};

pub fn greatest(rows: Collection<'_, (String, u64)>) -> Collection<'_, (String, u64)> {
    rows.aggregate("greatest", |a: &u64, b: &u64| *a.max(b))
}
