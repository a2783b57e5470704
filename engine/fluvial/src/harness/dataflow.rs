//! A typed dataflow in a test: streams in, collections out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::ExchangeData;
use differential_dataflow::consolidation::consolidate;
use fluvial_connector::Offset;
use fluvial_protocol::journal::SplitNumber;
use timely::dataflow::operators::probe::Probe;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::{InputHandleVec, ProbeHandle, Scope};
use timely::worker::Worker;

use super::test::Test;
use super::workers::{Fed, Site};
use crate::durable::Durables;
use crate::stream::{Collection, Origin, Stream};

/// A dataflow under test, with typed inputs and outputs by name, for testing a job's logic without its sources and outputs.
///
/// The test feeds records at ticks. They are distributed over four splits in the order in which they are fed, so that their
/// order is the same whatever the number of workers. Each tick that is passed is a checkpoint, from which the dataflow can be
/// restarted with any number of workers.
///
/// ```
/// use fluvial::durable::Count;
/// use fluvial::harness::Dataflow;
///
/// let mut test = Dataflow::new(2, |scope| {
///     let visits = scope.input::<(String, i32)>("visits");
///     scope.output("visits", visits.aggregate("visits", Count));
/// });
/// test.feed("visits", 1, [("home".to_owned(), 1), ("shop".to_owned(), 2)]);
/// test.feed("visits", 5, [("home".to_owned(), 3)]);
/// test.advance_past(3);
/// test.restart(1); // from the checkpoint of tick 3, on one worker
/// test.advance_past(5);
/// assert_eq!(test.table::<(String, u64)>("visits"), [("home".to_owned(), 2), ("shop".to_owned(), 1)]);
/// assert_eq!(test.updates_at::<(String, u64)>("visits", 5), [(("home".to_owned(), 1), -1), (("home".to_owned(), 2), 1)]);
/// ```
pub type Dataflow = Test<Update>;

/// A row as it was written, tick, and difference. Rows of all types are kept as bytes, so that outputs of any type
/// can stand beside each other; equal rows have equal bytes.
type Update = (Vec<u8>, u64, isize);

impl Dataflow {
    /// Starts a dataflow on `workers` workers. `build` is called on each of them and must build the same dataflow each time.
    #[must_use]
    pub fn new(workers: usize, build: impl Fn(&mut Builder<'_>) + Send + Sync + 'static) -> Self {
        let build = move |worker: &mut Worker, durables: &Durables| {
            let durables = durables.clone();
            let site = worker.dataflow::<u64, _, _>(|scope| {
                let mut builder = Builder { scope, durables, site: TypedSite::default() };
                build(&mut builder);
                builder.site
            });
            Ok(Box::new(site) as Box<dyn Site<Update>>)
        };
        Self::start(workers, Arc::new(build), |what, before, now, tick| {
            // A restored collection appears as a whole at the checkpoint's tick, so all earlier changes are compared as one
            // change at that tick.
            assert_eq!(as_of(before, tick), as_of(now, tick), "{what}");
        })
    }

    /// Feeds records to an input at a tick that has not been passed. It may be called several times for a tick.
    ///
    /// # Panics
    /// If the tick has been passed.
    pub fn feed<D: ExchangeData + Sync>(&mut self, input: &str, tick: u64, records: impl IntoIterator<Item = D>) {
        self.spread(input, tick, records);
    }

    /// Returns the rows of an output as of the last tick that was passed, sorted. A row that is in the collection several times
    /// is repeated.
    ///
    /// # Panics
    /// If the rows are of another type, or if the collection has a row a negative number of times.
    #[must_use]
    pub fn table<D: ExchangeData>(&self, output: &str) -> Vec<D> {
        let mut rows: Vec<(D, isize)> = self.updates(output).into_iter().map(|(row, _, diff)| (row, diff)).collect();
        consolidate(&mut rows);
        rows.into_iter()
            .flat_map(|(row, diff)| {
                let times = usize::try_from(diff).unwrap_or_else(|_| panic!("{row:?} is there {diff} times"));
                std::iter::repeat_n(row, times)
            })
            .collect()
    }

    /// Returns all changes of an output, as (row, tick, difference), sorted by tick and row.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let counts = scope.input::<(u8, ())>("in").aggregate("counts", fluvial::Count);
    ///     scope.output("counts", counts);
    /// });
    /// test.feed("in", 1, [(7u8, ())]);
    /// test.feed("in", 2, [(7u8, ())]);
    /// test.advance_past(2);
    /// let changes = test.updates::<(u8, u64)>("counts");
    /// assert_eq!(changes, [((7, 1), 1, 1), ((7, 1), 2, -1), ((7, 2), 2, 1)]);
    /// ```
    ///
    /// # Panics
    /// If the rows are of another type.
    #[must_use]
    pub fn updates<D: ExchangeData>(&self, output: &str) -> Vec<(D, u64, isize)> {
        let read = |row: &[u8]| {
            postcard::from_bytes(row).unwrap_or_else(|error| {
                panic!("the rows of output '{output}' are not of type {}: {error}", std::any::type_name::<D>())
            })
        };
        let mut updates: Vec<((u64, D), isize)> =
            self.made(output).iter().map(|(row, tick, diff)| ((*tick, read(row)), *diff)).collect();
        consolidate(&mut updates);
        updates.into_iter().map(|((tick, row), diff)| (row, tick, diff)).collect()
    }

    /// Returns the changes of an output at one tick, as (row, difference), sorted by row. The example of [`Dataflow`] shows it.
    ///
    /// # Panics
    /// If the rows are of another type.
    #[must_use]
    pub fn updates_at<D: ExchangeData>(&self, output: &str, tick: u64) -> Vec<(D, isize)> {
        let updates = self.updates(output).into_iter();
        updates.filter(|(_, at, _)| *at == tick).map(|(row, _, diff)| (row, diff)).collect()
    }
}

/// The updates as seen from `tick` on: those of earlier ticks are moved to `tick` and consolidated.
fn as_of(updates: &[Update], tick: u64) -> Vec<(Vec<u8>, u64, isize)> {
    let mut seen: Vec<_> = updates.iter().map(|(row, at, diff)| ((row.clone(), *at.max(&tick)), *diff)).collect();
    consolidate(&mut seen);
    seen.into_iter().map(|((row, at), diff)| (row, at, diff)).collect()
}

/// The dataflow under construction, as [`Dataflow::new`] passes it to its closure.
pub struct Builder<'s> {
    scope: Scope<'s, u64>,
    durables: Durables,
    site: TypedSite,
}

impl<'s> Builder<'s> {
    /// Adds the input `name`, and returns the stream of the records that the test feeds to it.
    pub fn input<D: ExchangeData + Sync>(&mut self, name: &str) -> Stream<'s, D> {
        let mut handle = InputHandleVec::new();
        let stream = handle.to_stream(self.scope);
        self.site.inputs.insert(name.to_owned(), Box::new(TypedInput::<D> { handle }));
        Stream::from_source(stream, &self.durables)
    }

    /// Makes a collection readable for the test as the output `name`.
    pub fn output<D: ExchangeData>(&mut self, name: &str, collection: Collection<'s, D>) {
        let updates = Rc::new(RefCell::new(Vec::new()));
        let into = Rc::clone(&updates);
        collection
            .inner
            .map(move |(row, tick, diff)| {
                let row =
                    postcard::to_stdvec(&row).unwrap_or_else(|error| panic!("{row:?} cannot be serialised: {error}"));
                into.borrow_mut().push((row, tick, diff));
            })
            .probe_with(&self.site.probe);
        self.site.outputs.push((name.to_owned(), updates));
    }
}

/// The inputs and outputs of the dataflow on one worker.
#[derive(Default)]
struct TypedSite {
    inputs: BTreeMap<String, Box<dyn Input>>,
    outputs: Vec<(String, Rc<RefCell<Vec<Update>>>)>,
    probe: ProbeHandle<u64>,
}

impl Site<Update> for TypedSite {
    fn feed(&mut self, tick: u64, fed: &Fed) {
        let found = self.inputs.get_mut(&fed.input);
        found.unwrap_or_else(|| panic!("there is no input '{}'", fed.input)).feed(tick, fed);
    }

    fn close(&mut self, tick: u64) {
        self.inputs.values_mut().for_each(|input| input.close(tick));
    }

    fn is_past(&self, tick: u64) -> bool {
        !self.probe.less_equal(&tick)
    }

    fn take(&mut self) -> anyhow::Result<Vec<(String, Vec<Update>)>> {
        Ok(self.outputs.iter().map(|(name, updates)| (name.clone(), updates.take())).collect())
    }
}

/// An input of any type.
trait Input {
    fn feed(&mut self, tick: u64, fed: &Fed);
    fn close(&mut self, tick: u64);
}

struct TypedInput<D: ExchangeData> {
    handle: InputHandleVec<u64, (D, Origin)>,
}

impl<D: ExchangeData + Sync> Input for TypedInput<D> {
    fn feed(&mut self, tick: u64, Fed { input, split, records }: &Fed) {
        let Some(records) = records.downcast_ref::<Vec<(Offset, D)>>() else {
            panic!(
                "the records that were fed to input '{input}' are not of type {}; give numbers their type, as in 1u32",
                std::any::type_name::<D>(),
            );
        };
        self.handle.advance_to(tick);
        let with_origin = |(offset, record): &(Offset, D)| (record.clone(), Origin::read(SplitNumber(*split), *offset));
        self.handle.send_batch(&mut records.iter().map(with_origin).collect());
    }

    fn close(&mut self, tick: u64) {
        self.handle.advance_to(tick + 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[test]
    #[should_panic(expected = "output 'latest', restored as of tick 1 on 2 workers, is not what it was")]
    fn a_dataflow_that_is_not_deterministic_fails_the_test_when_it_is_started_again() {
        let read = Arc::new(AtomicI64::new(0));
        let mut test = Dataflow::new(1, move |scope| {
            let read = Arc::clone(&read);
            let numbered = scope.input::<u32>("rows").map(move |key| (key, Some(read.fetch_add(1, Ordering::Relaxed))));
            scope.output("latest", numbered.latest("rows"));
        });
        test.feed("rows", 1, [1u32]);
        test.feed("rows", 2, [1u32]);
        test.advance_past(2);
        test.restart_at(1, 2);
    }
}
