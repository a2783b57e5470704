//! The sum of plain floats depends on their order.
use fluvial::{Collection, Stream, Sum};

fn revenue(sales: Stream<'_, (String, f64)>) -> Collection<'_, (String, i64)> {
    sales.aggregate("revenue", Sum(|euros: &f64| *euros))
}

fn main() {}
