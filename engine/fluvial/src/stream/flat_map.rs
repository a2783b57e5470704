//! The operator whose output has any number of records for each record of its input.

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use super::Stream;
use super::origin::{Numbering, Origin};
use crate::durable::DataflowError;
use crate::stream::context::at_record;
use crate::stream::context::in_operator;

impl<'s, D: 'static> Stream<'s, D> {
    /// Turns each record into any number of records, in the order in which the iterator returns them.
    ///
    /// A record may become at most 16,777,216 records. If it becomes more, the job ends with an error that names its split and
    /// offset.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let lines = scope.input::<String>("lines");
    ///     let words = lines.flat_map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    ///     scope.output("words", words.keep_all("words"));
    /// });
    /// test.feed("lines", 1, ["to be".to_owned(), String::new(), "or not".to_owned()]);
    /// test.advance_past(1);
    /// assert_eq!(test.table::<String>("words"), ["be", "not", "or", "to"]);
    /// ```
    #[must_use]
    pub fn flat_map<I>(self, logic: impl Fn(D) -> I + 'static) -> Stream<'s, I::Item>
    where
        I: IntoIterator,
        I::Item: 'static,
    {
        let durables = self.durables.clone();
        let mut numberings = vec![Numbering::default(); self.branches.count as usize];
        // Once it has failed, the operator holds the capability of the batch that it failed at, so that no frontier
        // says that the batch's tick is complete.
        let mut held = None;
        let inner = self.inner.unary::<CapacityContainerBuilder<Vec<(I::Item, Origin)>>, _, _, _>(
            Pipeline,
            "flat_map",
            |_, _| {
                move |input, output| {
                    input.for_each(|capability, batch| {
                        if held.is_some() {
                            return;
                        }
                        let mut made = Vec::with_capacity(batch.len());
                        // The iterator is consumed inside `in_operator`, because its code is the job's code too and may panic.
                        let whole = in_operator("flat_map", || {
                            batch.drain(..).all(|(record, parent)| {
                                at_record(parent);
                                let numbering = &mut numberings[parent.branch() as usize];
                                let numbered = logic(record).into_iter().try_for_each(|child| {
                                    made.push((child, numbering.next(parent)?));
                                    Some(())
                                });
                                if numbered.is_none() {
                                    let (split, offset) = (parent.split, parent.offset);
                                    durables.fail(DataflowError::TooManyRecords { split, offset });
                                }
                                numbered.is_some()
                            })
                        });
                        if !whole {
                            held = capability.retain_least(0);
                            return;
                        }
                        if !made.is_empty() {
                            output.session(&capability).give_container(&mut made);
                        }
                    });
                }
            },
        );
        Stream { inner, branches: self.branches.several(), durables: self.durables }
    }
}
