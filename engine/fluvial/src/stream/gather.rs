//! The operator that brings together what one input record became, after an operator has distributed it by key.
//!
//! ```text
//!   records on the workers of their keys ──exchange by split and offset──► wait for the tick's end ──in order of origin──►
//! ```

use std::collections::BTreeMap;

use differential_dataflow::ExchangeData;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;

use super::{Origin, Stream};

/// The records so far of ticks that are not complete.
type OpenTicks<D> = BTreeMap<u64, (Capability<u64>, Vec<(D, Origin)>)>;

impl<D: ExchangeData> Stream<'_, D> {
    /// Brings the records of each input record to one worker, one after the other in the order of their origins. Records of
    /// the same origin must come from one worker; they keep their order.
    pub(super) fn gathered(self) -> Self {
        let by_input = Exchange::new(|(_, origin): &(D, Origin)| origin.offset.0.wrapping_add(origin.split.0.into()));
        let mut open = OpenTicks::new();
        let inner = self.inner.unary_frontier::<CapacityContainerBuilder<Vec<(D, Origin)>>, _, _, _>(
            by_input,
            "gather",
            |_, _| {
                move |(input, frontier), output| {
                    input.for_each(|capability, batch| {
                        let Some(held) = capability.retain_least(0) else { return };
                        let (_, records) = open.entry(*held.time()).or_insert_with(|| (held, Vec::new()));
                        records.append(batch);
                    });
                    while let Some(tick) = open.first_entry().filter(|tick| !frontier.less_equal(tick.key())) {
                        let (capability, mut records) = tick.remove();
                        // The sort is stable, so records of one origin stay in the order in which their worker sent them.
                        records.sort_by_key(|(_, origin)| *origin);
                        output.session(&capability).give_container(&mut records);
                    }
                }
            },
        );
        Stream { inner, ..self }
    }
}
