//! Operators whose closure may refuse a row: the job then ends with an error that names operator and key.
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
    /// Makes another value of each record's, or refuses it: the first error ends the job, and its message names the
    /// operator, as `name`, and the key. For arithmetic that must not overflow without a word:
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

/// As [`Stream::try_map`], on what the collection has become by the end of a tick: differential dataflow's operators
/// make rows on the way to that which cancel out, and of which nothing needs to be right.
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

/// Why a row was refused.
pub(super) struct Refusal {
    tick: u64,
    key: String,
    reason: String,
    input: Option<String>,
}

impl Refusal {
    /// What the operator works on has been noted.
    pub(super) fn new(tick: u64, key: &impl std::fmt::Debug, error: impl Into<BoxError>) -> Self {
        let reason = format!("{:#}", anyhow::Error::from_boxed(error.into()));
        Self { tick, key: format!("{key:?}"), reason, input: context::described() }
    }

    /// The end of the job that it is, when it was `operator` that refused.
    pub(super) fn by(self, operator: &str) -> DataflowError {
        let Self { tick, key, reason, input } = self;
        DataflowError::Refused { operator: operator.to_owned(), tick, key, reason, input }
    }
}

/// Makes another record of each until one is refused. `logic` is told the tick of the record's batch.
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
