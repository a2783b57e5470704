//! A changelog says which keys are deleted: its values are options.
use fluvial::{Collection, Stream};

fn prices(changes: Stream<'_, (String, i64)>) -> Collection<'_, (String, i64)> {
    changes.latest("prices")
}

fn main() {}
