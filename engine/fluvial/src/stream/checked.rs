//! Operators whose closure may refuse a row. The job then ends with an error that names the operator and the key.
//!
//! ```text
//!   Stream<(K, V)>     ──each record──────────────────► logic ──► Stream<(K, W)>
//!   Collection<(K, V)> ──what a tick comes to, once───► logic ──► Collection<(K, W)>
//! ```

use std::hash::Hash;

use differential_dataflow::{AsCollection, ExchangeData};
use fluvial_connector::BoxError;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use super::{Collection, Stream};
use crate::durable::{DataflowError, Durables};
use crate::stream::context;
use crate::stream::context::{in_operator, lasting};

impl<'s, K: ExchangeData, V: 'static> Stream<'s, (K, V)> {
    /// Turns the value of each record into another value, or refuses it. The first refusal ends the job with an error that
    /// names the operator, as `name`, and the key. Use it for arithmetic whose overflow must not go unnoticed:
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let orders = scope.input::<(u64, (i64, i64))>("orders");
    ///     let revenue = orders.try_map("price", |_, (quantity, price): (i64, i64)| {
    ///         quantity.checked_mul(price).ok_or("quantity times price does not fit 64 bits")
    ///     });
    ///     scope.output("revenue", revenue.aggregate("revenue", fluvial::Sum(|revenue: &i64| *revenue)));
    /// });
    /// test.feed("orders", 1, [(7u64, (i64::MAX, 2i64))]);
    /// let error = test.try_advance_past(1).unwrap_err();
    /// assert!(error.contains("operator 'price' cannot go on at tick 1, key 7: quantity times price"), "{error}");
    /// ```
    #[must_use]
    pub fn try_map<W: 'static, E: Into<BoxError>>(
        self,
        name: &str,
        logic: impl Fn(&K, V) -> Result<W, E> + 'static,
    ) -> Stream<'s, (K, W)> {
        let inner =
            checked(self.inner, name, &self.durables, move |tick, ((key, value), origin)| match logic(&key, value) {
                Ok(value) => Ok(((key, value), origin)),
                Err(error) => {
                    context::at_record(origin);
                    Err(Refusal::new(tick, &key, error))
                }
            });
        Stream { inner, branches: self.branches, durables: self.durables }
    }
}

/// Like [`Stream::try_map`], applied to the net changes of a collection at the end of a tick. Differential dataflow's
/// operators also emit intermediate rows that cancel out within the tick; `logic` must not refuse a job because of those.
pub(super) fn try_map<'s, K, V, W, E>(
    collection: Collection<'s, (K, V)>,
    name: &str,
    durables: &Durables,
    logic: impl Fn(&K, V) -> Result<W, E> + 'static,
) -> Collection<'s, (K, W)>
where
    K: ExchangeData + Hash,
    V: ExchangeData + Hash,
    W: Clone + 'static,
    E: Into<BoxError>,
{
    let changes = collection.consolidate().inner;
    checked(changes, name, durables, move |_, ((key, value), tick, diff)| match logic(&key, value) {
        Ok(value) => Ok(((key, value), tick, diff)),
        Err(error) => {
            context::at_tick(tick);
            Err(Refusal::new(tick, &key, error))
        }
    })
    .as_collection()
}

/// The refusal of a row, with what an error message says about it.
pub(super) struct Refusal {
    tick: u64,
    key: String,
    reason: String,
    input: Option<String>,
}

impl Refusal {
    /// Creates the refusal. The operator must have noted what it works on (`context::at_record` or `context::at_tick`).
    pub(super) fn new(tick: u64, key: &impl std::fmt::Debug, error: impl Into<BoxError>) -> Self {
        let reason = format!("{:#}", anyhow::Error::from_boxed(error.into()));
        Self { tick, key: format!("{key:?}"), reason, input: context::described() }
    }

    /// The error with which the job ends because `operator` refused the row.
    pub(super) fn by(self, operator: &str) -> DataflowError {
        let Self { tick, key, reason, input } = self;
        DataflowError::Refused { operator: operator.to_owned(), tick, key, reason, input }
    }
}

/// Applies `logic`, with the tick of the record's batch, to each record until it refuses one.
fn checked<'s, A: 'static, B: 'static>(
    stream: StreamVec<'s, u64, A>,
    name: &str,
    durables: &Durables,
    logic: impl Fn(u64, A) -> Result<B, Refusal> + 'static,
) -> StreamVec<'s, u64, B> {
    let called = lasting(name.to_owned());
    let durables = durables.clone();
    // Once it has failed, the operator holds the capability of the batch that it failed at, so that no frontier says
    // that the batch's tick is complete.
    let mut held = None;
    stream.unary::<CapacityContainerBuilder<Vec<B>>, _, _, _>(Pipeline, name, |_, _| {
        move |input, output| {
            input.for_each(|capability, batch| {
                if held.is_some() {
                    return;
                }
                let tick = capability.least().copied().unwrap_or_default();
                let batch = std::mem::take(batch).into_iter();
                let made: Result<Vec<B>, Refusal> =
                    in_operator(called, || batch.map(|record| logic(tick, record)).collect());
                match made {
                    Ok(mut made) => output.session(&capability).give_container(&mut made),
                    Err(refusal) => {
                        durables.fail(refusal.by(called));
                        held = capability.retain_least(0);
                    }
                }
            });
        }
    })
}
