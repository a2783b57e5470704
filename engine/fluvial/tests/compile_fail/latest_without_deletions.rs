//! A changelog says which keys are deleted: its values are options.
//~ no method named `latest` found for struct `Stream
//~ `Stream<'s, (K, Option<V>)>`
use fluvial::{Collection, Stream};

pub fn prices(changes: Stream<'_, (String, i64)>) -> Collection<'_, (String, i64)> {
    changes.latest("prices")
}
