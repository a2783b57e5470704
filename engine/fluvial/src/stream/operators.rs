//! The operators that make one record of one record, or none.

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::generic::operator::Operator;

use super::context::{at_record, in_operator};
use super::origin::MOST_BRANCHES;
use super::{Origin, Stream};

type Batch<D> = Vec<(D, Origin)>;

impl<'s, D: 'static> Stream<'s, D> {
    /// Makes another record of each.
    #[must_use]
    pub fn map<E: 'static>(self, logic: impl Fn(D) -> E + 'static) -> Stream<'s, E> {
        let inner = self.inner.unary::<CapacityContainerBuilder<Batch<E>>, _, _, _>(Pipeline, "map", |_, _| {
            move |input, output| {
                input.for_each(|capability, batch| {
                    // Of the batch itself, not drained: where the sizes allow, the result lies where the batch lay.
                    let batch = std::mem::take(batch).into_iter();
                    let each = batch.map(|(record, origin)| {
                        at_record(origin);
                        (logic(record), origin)
                    });
                    let mut mapped = in_operator("map", || each.collect());
                    output.session(&capability).give_container(&mut mapped);
                });
            }
        });
        Stream { inner, branches: self.branches, durables: self.durables }
    }

    /// Puts a key before each record: what keyed durable operators ask for.
    #[must_use]
    pub fn key_by<K: 'static>(self, key: impl Fn(&D) -> K + 'static) -> Stream<'s, (K, D)> {
        self.map(move |record| (key(&record), record))
    }

    /// Keeps the records that `logic` says yes to.
    #[must_use]
    pub fn filter(self, logic: impl Fn(&D) -> bool + 'static) -> Self {
        self.in_place("filter", move |batch| {
            batch.retain(|(record, origin)| {
                at_record(*origin);
                logic(record)
            });
        })
    }

    /// Looks at each record in passing: for logging and measuring. Records are seen again at each replay.
    #[must_use]
    pub fn inspect(self, logic: impl Fn(&D) + 'static) -> Self {
        self.in_place("inspect", move |batch| {
            batch.iter().for_each(|(record, origin)| {
                at_record(*origin);
                logic(record);
            });
        })
    }

    /// The records of both streams. Where both made records of the same input record, those of `self` come first.
    ///
    /// # Panics
    /// When more than 256 streams are joined into one.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        let (shift, branches) = (self.branches, self.branches + other.branches);
        assert!(branches <= MOST_BRANCHES, "a stream is a union of at most {MOST_BRANCHES} others");
        let other = other.in_place("union", move |batch| {
            batch.iter_mut().for_each(|(_, origin)| *origin = origin.shifted(shift));
        });
        Stream { inner: self.inner.concat(other.inner), branches, durables: self.durables }
    }

    fn in_place(self, name: &'static str, logic: impl Fn(&mut Batch<D>) + 'static) -> Self {
        let inner = self.inner.unary::<CapacityContainerBuilder<Batch<D>>, _, _, _>(Pipeline, name, |_, _| {
            move |input, output| {
                input.for_each(|capability, batch| {
                    in_operator(name, || logic(batch));
                    if !batch.is_empty() {
                        output.session(&capability).give_container(batch);
                    }
                });
            }
        });
        Stream { inner, ..self }
    }
}
