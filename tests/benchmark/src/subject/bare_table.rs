//! The same count without an engine: a hash table in a timely operator, and differential's `count_total`.
//!
//! Nothing of it is durable: no journal, no checkpoints, no sink. The records are made in the same way, come in batches
//! of one tick, and the changes go where the engine's go.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use compact_str::CompactString;
use differential_dataflow::AsCollection;
use differential_dataflow::operators::CountTotal;
use fluvial::durable::routing_hash;
use hashbrown::hash_table::Entry;
use hashbrown::{HashMap, HashTable};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::{InputHandleVec, ProbeHandle, StreamVec};

use super::exit;
use super::job::key_at;
use super::meter::Meter;
use crate::kafka::sale;

/// The first word of its command line.
pub(crate) const NAME: &str = "bare-table";

#[derive(Debug, Parser)]
struct Options {
    /// What to count with
    #[arg(long, value_enum)]
    by: By,

    /// How many keys there are
    #[arg(long)]
    keys: u64,

    /// How long each key is, if keys are texts
    #[arg(long, default_value_t = 7)]
    key_bytes: usize,

    /// How many records a tick has
    #[arg(long)]
    tick_records: u64,

    /// How many records there are
    #[arg(long)]
    records: u64,

    /// Where to write marks
    #[arg(long)]
    marks: PathBuf,
}

/// What counts.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum By {
    /// A hash table that emits its changes as differential updates
    Table,
    /// A hash table that emits nothing
    SilentTable,
    /// Differential's operator
    CountTotal,
    /// A hash map from texts to a count and a sum, without timely
    Texts,
}

/// Runs its command line.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    let options = Options::parse_from(arguments);
    exit(Meter::new(&options.marks, 1_000_000).map(|meter| run(options, meter)))
}

fn run(options: Options, meter: Meter) {
    if matches!(options.by, By::Texts) {
        return texts(&options, &meter);
    }
    timely::execute_directly(move |worker| {
        let mut input = InputHandleVec::<u64, u64>::new();
        let probe = ProbeHandle::new();
        worker.dataflow(|scope| {
            let keys = input.to_stream(scope);
            let counts = match options.by {
                By::Table => table(keys, true).as_collection(),
                By::SilentTable => table(keys, false).as_collection(),
                By::Texts => unreachable!("it has no dataflow"),
                By::CountTotal => ones(keys).as_collection().count_total(),
            };
            counts.filter(|_| false).probe_with(&probe);
        });
        let (mut offset, mut tick) = (0, 1);
        let mut bytes = Vec::new();
        while offset < options.records {
            let mut batch = Vec::with_capacity(options.tick_records as usize);
            for at in offset..offset + options.tick_records {
                bytes.clear();
                bytes.extend_from_slice(&key_at(at, options.keys).to_le_bytes());
                batch.push(u64::from_le_bytes(bytes.as_slice().try_into().unwrap_or_default()));
            }
            offset += options.tick_records;
            input.send_batch(&mut batch);
            tick += 1;
            input.advance_to(tick);
            worker.step_while(|| probe.less_than(&tick));
            meter.read(options.tick_records as usize, None);
        }
        stay();
    });
}

/// What it costs, and what it holds, is looked at from outside.
fn stay() {
    loop {
        std::thread::park();
    }
}

fn texts(options: &Options, meter: &Meter) {
    let mut totals = HashMap::<CompactString, (u64, i64)>::new();
    for offset in (0..options.records).step_by(options.tick_records as usize) {
        for at in offset..offset + options.tick_records {
            let account = sale::account(key_at(at, options.keys), options.key_bytes);
            let total = totals.entry(account.into()).or_default();
            *total = (total.0 + 1, total.1 + 1);
        }
        meter.read(options.tick_records as usize, None);
    }
    stay();
}

/// A key and its count, at a tick.
type Updates = Vec<((u64, isize), u64, isize)>;

/// Each key once, at the tick of its batch.
fn ones(keys: StreamVec<'_, u64, u64>) -> StreamVec<'_, u64, (u64, u64, isize)> {
    keys.unary::<CapacityContainerBuilder<Vec<_>>, _, _, _>(Pipeline, "Ones", |_, _| {
        |input, output| {
            input.for_each(|capability, batch| {
                let Some(tick) = capability.least().copied() else { return };
                output.session(&capability).give_iterator(batch.drain(..).map(|key| (key, tick, 1)));
            });
        }
    })
}

/// Counts in a hash table. It is told of every record at once, and says what became of the key at once.
fn table(keys: StreamVec<'_, u64, u64>, emits: bool) -> StreamVec<'_, u64, ((u64, isize), u64, isize)> {
    let pact = Exchange::new(|key: &u64| routing_hash(key));
    keys.unary::<CapacityContainerBuilder<Updates>, _, _, _>(pact, "Count", |_, _| {
        let mut counts = HashTable::<(u64, isize)>::new();
        move |input, output| {
            input.for_each(|capability, batch| {
                let Some(tick) = capability.least().copied() else { return };
                let mut session = output.session(&capability);
                for key in batch.drain(..) {
                    let hash = routing_hash(&key);
                    match counts.entry(hash, |row| row.0 == key, |row| routing_hash(&row.0)) {
                        Entry::Occupied(mut found) => {
                            let count = &mut found.get_mut().1;
                            *count += 1;
                            if emits {
                                session.give(((key, *count - 1), tick, -1));
                                session.give(((key, *count), tick, 1));
                            }
                        }
                        Entry::Vacant(vacant) => {
                            vacant.insert((key, 1));
                            if emits {
                                session.give(((key, 1), tick, 1));
                            }
                        }
                    }
                }
            });
        }
    })
}

/// Its command line. It stays when it has counted so many records, until it is killed.
pub(crate) fn arguments(by: &str, keys: u64, tick_records: u64, records: u64) -> Vec<String> {
    let numbers = [("--keys", keys), ("--tick-records", tick_records), ("--records", records)];
    let numbers = numbers.into_iter().flat_map(|(name, number)| [name.to_owned(), number.to_string()]);
    [NAME, "--by", by].map(str::to_owned).into_iter().chain(numbers).collect()
}
