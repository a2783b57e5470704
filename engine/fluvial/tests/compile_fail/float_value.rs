//! Floats have no total order, so they cannot be kept as they are.
//~ `f64: Ord`
use fluvial::{Collection, Stream};

pub fn prices(prices: Stream<'_, (String, f64)>) -> Collection<'_, (String, f64)> {
    prices.keep_all("prices")
}
