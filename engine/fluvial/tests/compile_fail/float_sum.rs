//! The sum of plain floats depends on their order.
//~ values of type `f64` cannot be summed exactly
//~ floats as `ExactFloat::from(value)`
use fluvial::{Collection, Stream, Sum};

pub fn revenue<'s>(sales: Stream<'s, (String, i64)>) -> Collection<'s, (String, i64)> {
    let all = sales.aggregate("revenue", Sum(|cents: &i64| *cents as f64 / 100.0));
    all
}
