//! Compares upsert outputs that another program wrote with what this program computes, before it continues them.
//!
//! ```text
//!   restored state ─────────┐
//!   replayed ticks up to ───┴─apply──► computed table ─┐
//!   the partition's progress                           ├─► equal: go on; different: the generation ends
//!   the output up to there, read back ──► held table ──┘
//! ```
//!
//! Replay alone compares only the ticks after the checkpoint, and after a clean stop there are none. A job whose logic has
//! changed would then go on from the restored state, and every row that the new logic computes differently, or not at all,
//! would stay in the output until its key comes up again, which may be never.
//!
//! All processes compare before any of them commits: a process whose partitions happen to be equal must not write
//! output while another process finds that its partitions were computed by different logic. So a process is ready only
//! when it has compared, and the output that it has computed stays here until the first tick is minted: the leader
//! mints it when all processes are ready.
//!
//! Until all have compared, memory holds the table that is computed, the table that the output holds, and the output of the
//! replayed ticks, which are those since the last checkpoint. A reconciliation needs as much.
//!
//! Rows that retention has removed from an output are no difference: the comparison says how many rows it could not
//! compare. Append outputs, and outputs that are written from a stream, have no table: only their replayed ticks are compared, by
//! the committer.

use std::collections::BTreeMap;

use fluvial_connector::{Offset, OutputPartition, OutputRecordRef, Position, Tick};

use super::corrections::{PartitionOutput, Table, apply};
use crate::committer::HeldRecords;
use crate::{Approval, Mismatch, TickRecords};

/// How many characters of a key or a value are shown.
const SHOWN: usize = 100;

/// The result of a comparison that found no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// How many rows the outputs hold.
    pub rows: u64,
    /// How many rows this program computes that are missing in partitions whose first records are gone.
    pub gone: u64,
}

/// An output partition and how far it is committed. Its records are compared up to there.
#[derive(Clone, Debug)]
pub(crate) struct CommittedPartition {
    pub(crate) at: OutputPartition,
    pub(crate) tick: Tick,
    pub(crate) position: Position,
    /// The offset after the last committed record.
    pub(crate) end: Offset,
}

/// A comparison under way in one process.
#[derive(Debug)]
pub(super) struct Comparing {
    /// The tick of the restored state.
    as_of: Tick,
    /// The last tick that may be committed already.
    through: Tick,
    /// How a person approves this program if a partition differs.
    approval: Approval,
    /// The restored tables.
    restored: BTreeMap<OutputPartition, Table>,
    /// The output of ticks after `as_of`, ascending. It is handed over to the committer when all processes have
    /// compared.
    replayed: Vec<(Tick, Vec<PartitionOutput>)>,
    stage: Stage,
    all_have_compared: bool,
}

#[derive(Debug)]
enum Stage {
    /// Output through the last committed tick is still being computed.
    Computing,
    /// The partitions are being read back.
    Reading(BTreeMap<OutputPartition, (CommittedPartition, Option<Held>)>),
    /// A partition differs.
    Different,
    /// None does.
    Equal(Compared),
}

/// What a partition holds through its progress.
#[derive(Debug)]
struct Held {
    table: Table,
    /// The first offset that the partition still has.
    earliest: Offset,
}

impl Comparing {
    /// A comparison of everything that is committed through the sealed tick `through`, with the state as of `as_of` and
    /// the ticks after it.
    pub(super) fn new(as_of: Tick, through: Tick, approval: Approval) -> Self {
        Self {
            as_of,
            through,
            approval,
            restored: BTreeMap::new(),
            replayed: Vec::new(),
            stage: Stage::Computing,
            all_have_compared: false,
        }
    }

    /// The last tick that may be committed already.
    pub(super) fn through(&self) -> Tick {
        self.through
    }

    /// Takes the output of a tick; ticks ascend.
    pub(super) fn take(&mut self, tick: Tick, output: Vec<PartitionOutput>) {
        if tick > self.as_of {
            self.replayed.push((tick, output));
            return;
        }
        for (at, records) in output {
            apply(self.restored.entry(at).or_default(), records.block().iter());
        }
    }

    /// Whether the records of the partitions have been asked for.
    pub(super) fn is_asked(&self) -> bool {
        !matches!(self.stage, Stage::Computing)
    }

    /// Takes note that these partitions are being read back.
    pub(super) fn ask(&mut self, partitions: Vec<CommittedPartition>) {
        self.stage = Stage::Reading(partitions.into_iter().map(|of| (of.at.clone(), (of, None))).collect());
    }

    /// Takes what a partition holds. Only its table is kept: a log may be many times as large.
    pub(super) fn found(&mut self, HeldRecords { at, earliest, records }: HeldRecords) {
        if let Stage::Reading(reading) = &mut self.stage
            && let Some((committed, held)) = reading.get_mut(&at)
        {
            // What stands after the progress is a partially committed transaction's, which the committer compares.
            let through_progress = records.iter().filter(|(offset, _)| *offset < committed.end);
            let mut table = Table::default();
            apply(&mut table, through_progress.map(|(_, record)| record.borrowed()));
            *held = Some(Held { table, earliest });
        }
    }

    /// Compares once everything has been read, and returns what it found then; does nothing before that, and after it.
    ///
    /// # Errors
    /// [`Mismatch::OutputDiffers`] with the first partition that differs.
    pub(super) fn compare(&mut self) -> Result<Option<Compared>, Mismatch> {
        let Stage::Reading(reading) = &mut self.stage else { return Ok(None) };
        if reading.values().any(|(_, held)| held.is_none()) {
            return Ok(None);
        }
        let reading = std::mem::take(reading);
        self.stage = Stage::Different;
        let mut compared = Compared::default();
        for (at, (committed, held)) in reading {
            let mut computed = self.restored.remove(&at).unwrap_or_default();
            for (tick, output) in &self.replayed {
                let of_partition = output.iter().filter(|(of, _)| *of == at);
                of_partition.for_each(|(_, records)| apply(&mut computed, committed.first_of(*tick, records)));
            }
            let difference = |held: Held| difference(&committed, &held, &computed, &self.approval);
            let of_partition = held.map_or(Ok(Compared::default()), difference)?;
            compared.rows += of_partition.rows;
            compared.gone += of_partition.gone;
        }
        self.restored.clear();
        self.stage = Stage::Equal(compared);
        Ok(Some(compared))
    }

    /// The result of the comparison; `None` until it is done.
    pub(super) fn compared(&self) -> Option<Compared> {
        match self.stage {
            Stage::Equal(compared) => Some(compared),
            Stage::Computing | Stage::Reading(_) | Stage::Different => None,
        }
    }

    /// Takes note that every process has compared.
    pub(super) fn all_have_compared(&mut self) {
        self.all_have_compared = true;
    }

    /// The replayed output, to be handed over to the committer; `None` until this process and all others have compared.
    pub(super) fn finish(&mut self) -> Option<Vec<(Tick, Vec<PartitionOutput>)>> {
        (self.all_have_compared && self.compared().is_some()).then(|| std::mem::take(&mut self.replayed))
    }
}

impl CommittedPartition {
    /// The records of a tick that are committed.
    fn first_of<'a>(&self, tick: Tick, records: &'a TickRecords) -> impl Iterator<Item = OutputRecordRef<'a>> {
        let count = match self.position {
            _ if tick < self.tick => usize::MAX,
            _ if tick > self.tick => 0,
            Position::Complete => usize::MAX,
            Position::Records(count) => usize::try_from(count).unwrap_or(usize::MAX),
        };
        records.block().iter().take(count)
    }
}

/// Compares what a partition holds with what is computed for it.
fn difference(
    committed: &CommittedPartition,
    held: &Held,
    computed: &Table,
    approval: &Approval,
) -> Result<Compared, Mismatch> {
    let Held { table, earliest } = held;
    let other: Vec<_> = table.iter().filter(|(key, value)| computed.get(*key) != Some(value)).collect();
    let missing: Vec<_> = computed.iter().filter(|(key, _)| !table.contains_key(*key)).collect();
    if other.is_empty() && (missing.is_empty() || *earliest > Offset(0)) {
        return Ok(Compared { rows: table.len() as u64, gone: missing.len() as u64 });
    }
    // Of all rows that differ, a person is shown the one with the smallest key.
    let key = other.iter().min().or(missing.iter().min()).map(|(key, _)| (*key).clone()).unwrap_or_default();
    Err(Mismatch::OutputDiffers {
        at: committed.at.clone(),
        rows: (other.len() + missing.len()) as u64,
        holds: shown(table.get(&key)),
        computes: shown(computed.get(&key)),
        key: shown(Some(&key)),
        approval: Box::new(approval.clone()),
    })
}

/// A key or a value as text for people.
fn shown(bytes: Option<&Vec<u8>>) -> String {
    let Some(bytes) = bytes else { return "no row".to_owned() };
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_connector::OutputRecord;

    use super::*;

    fn approval() -> Approval {
        Approval { program: "7e57".to_owned(), leave_append_outputs: false }
    }

    /// `a1` is a row, `a-` a deletion.
    fn record(text: &str) -> OutputRecord {
        let (key, value) = text.split_at(1);
        let value = (value != "-").then(|| value.as_bytes().to_vec());
        OutputRecord { key: key.as_bytes().to_vec(), value }
    }

    fn records(text: &str) -> Vec<OutputRecord> {
        text.split_whitespace().map(record).collect()
    }

    fn at() -> OutputPartition {
        OutputPartition { output: "out".to_owned(), partition: 0 }
    }

    fn output(text: &str) -> Vec<PartitionOutput> {
        vec![(at(), TickRecords::new(records(text)))]
    }

    /// The output holds `held` from offset `earliest` on and is committed through tick 7 up to `position`; the state as of
    /// tick 5 and the ticks 6, 7 and 8 are computed as given.
    fn compare(held: &str, earliest: u64, position: Position, computed: [&str; 4]) -> Result<Compared, Mismatch> {
        let mut comparing = Comparing::new(Tick(5), Tick(8), approval());
        for (tick, text) in (5..).zip(computed) {
            comparing.take(Tick(tick), output(text));
        }
        assert!(comparing.compare().is_ok() && comparing.compared().is_none(), "nothing is known yet");
        let held: Vec<_> = (earliest..).map(Offset).zip(records(held)).collect();
        let end = held.last().map_or(Offset(0), |(offset, _)| Offset(offset.0 + 1));
        comparing.ask(vec![CommittedPartition { at: at(), tick: Tick(7), position, end }]);
        assert!(comparing.compare().is_ok() && comparing.compared().is_none(), "it is not read back yet");
        let uncovered = (end, record("x9"));
        let records = held.into_iter().chain([uncovered]).collect();
        comparing.found(HeldRecords { at: at(), earliest: Offset(earliest), records });
        comparing.compare()?;
        assert_eq!(comparing.finish().map(|replayed| replayed.len()), None, "the others have not compared");
        comparing.all_have_compared();
        let replayed: Vec<_> = comparing.finish().unwrap().into_iter().map(|(tick, _)| tick.0).collect();
        assert_eq!(replayed, [6, 7, 8]);
        Ok(comparing.compared().unwrap())
    }

    #[test]
    fn a_table_is_compared_as_of_the_progress_of_its_partition() {
        let check = |held: &str, position: Position, computed: [&str; 4], expected: Result<u64, (u64, &str)>| {
            let found = compare(held, 0, position, computed);
            match (&found, expected) {
                (Ok(compared), Ok(rows)) => assert_eq!(*compared, Compared { rows, gone: 0 }, "{held}"),
                (Err(Mismatch::OutputDiffers { rows, .. }), Err((different, text))) => {
                    assert_eq!(*rows, different, "{held}");
                    assert!(found.as_ref().unwrap_err().to_string().contains(text), "{found:?}");
                }
                _ => panic!("{held}: {found:?}"),
            }
        };
        let whole = Position::Complete;
        check("a1 b2 b3 c4", whole, ["a1 b2", "b3", "c4", "d5"], Ok(3));
        check("a1 b2 a-", whole, ["a1 b2", "", "a-", ""], Ok(1));
        check("", whole, ["", "", "", "a1"], Ok(0));
        // Two of the three records of tick 7 are committed.
        check("a1 b2 c3", Position::Records(2), ["a1", "", "b2 c3 d4", ""], Ok(3));
        check("a1 b2 c3 d4", Position::Records(2), ["a1", "", "b2 c3 d4", ""], Err((1, "key \"d\"")));
        check("a1", whole, ["a2", "", "", ""], Err((1, "`run --upgrade 7e57`")));
        let text = "it holds \"2\" for the key \"b\", and this program computes \"9\"";
        check("a1 b2", whole, ["a1 b9", "", "", ""], Err((1, text)));
        check("a1 b2 c3", whole, ["a1", "", "", ""], Err((2, "and this program computes \"no row\"")));
        check("a1", whole, ["a1 b2", "", "", ""], Err((1, "it holds \"no row\" for the key \"b\"")));
    }

    #[test]
    fn rows_that_retention_removed_are_no_difference() {
        let whole = Position::Complete;
        assert_eq!(compare("b2", 7, whole, ["a1 b2", "", "", ""]), Ok(Compared { rows: 1, gone: 1 }));
        assert!(compare("b2", 7, whole, ["a1 b3", "", "", ""]).is_err());
    }

    #[test]
    fn long_values_are_shown_in_part() {
        assert_eq!(shown(Some(&"ä".repeat(101).into_bytes())), format!("{}…", "ä".repeat(100)));
    }
}
