//! A small system in memory whose connector breaks one contract on request. Its offsets grow as those of bytes do, and a
//! transaction that ends takes an offset which no record has.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use fluvial_connector::{OutputPartition, Progress, Waker, WriterId};

/// A contract that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    // Of a source.
    DescribesNoSplit,
    MissingInputIsRetried,
    EndIsTheLastRecord,
    StatusCountsEverything,
    AbsentValueIsEmpty,
    TextOnly,
    OffsetsCountFromTheStart,
    SourceOfItsOwn,
    NewestFirst,
    IgnoresMost,
    CountsTooMany,
    PollWaits,
    NoWaker,
    WakesForTheFirstSplitOnly,
    WakesOnce,
    NoWakerOnCommit,
    DeliversOpen,
    DeliversAborted,
    OpenMovesTheEnd,
    DeliversParts,
    SkipsParts,
    SkipsWhatIsGone,
    GoneIsRetried,
    GoneNamesNothing,
    WaitsBeyondTheEnd,
    PositionIsTheLastRecord,
    PositionAheadOfDelivery,
    PositionStopsAtMarkers,
    IgnoresPause,
    DropsWhatIsPaused,
    StartsOnce,
    OneSlotForAll,
    AnySplitExists,
    OnlyTheNewestReaderIsWoken,
    UnavailableIsAnError,
    UnavailableHoldsUpOthers,
    InputKeepsItsIdentity,
    ReportsAcknowledge,
    // Of a sink.
    PartitionOutOfRange,
    PartitionOfCalls,
    IdentityOfEachValue,
    ConnectCreatesNothing,
    LookCreates,
    ConnectEmpties,
    ProgressOfTheSession,
    OneProgressForAllJobs,
    ProgressOfTheProcess,
    WaitsStay,
    NamesNoOutput,
    LosesUpdates,
    OutputKeepsItsIdentity,
    NamesItself,
    FenceLeavesOpen,
    FenceCommits,
    OldWriterPrepares,
    OldWriterCommits,
    FencedIsUnknown,
    FencesTheSessionOnly,
    FencesAllWriters,
    ProgressWaitsForEver,
    ProgressAsOfTheOpenTransaction,
    ProgressOfTheGreatestSlot,
    ReadStopsAtOpen,
    ReadWaitsForEver,
    PartitionsInTheirOwnOrder,
    SkipsTheFirstRecord,
    ReadsNothingFromTheMiddle,
    AbortedIsNotTold,
    EndIsTheLastOutputRecord,
    BeginsAtItsEnd,
    EndBeforeOpen,
    RecordsBeforeTheCommit,
    ProgressBeforeTheCommit,
    ProgressOfTheFirstWrite,
    ProgressAfterTheRecords,
    EndsInOrderOfPartitions,
    DeletionIsEmpty,
    FirstPartOnly,
    LargeTransactionsInDisorder,
    OneGeneration,
    DigestOf64Bits,
    OneEndForAllTicks,
    TicksAreComplete,
    NoProgressWithoutRecords,
    EarlierTicksAreDropped,
    BeginsWhereItEnds,
    OneTurn,
    DropWaits,
    CrashBetweenRecordsAndProgress,
    PreparedIsCommittedByReopening,
    CommitForgottenByReopening,
}

pub(crate) type TransactionId = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Open,
    Committed,
    Aborted,
}

pub(crate) struct Entry {
    pub(crate) offset: u64,
    pub(crate) end: u64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) transaction: Option<TransactionId>,
    pub(crate) is_whole: bool,
}

pub(crate) struct Partition {
    pub(crate) entries: Vec<Entry>,
    pub(crate) first: u64,
    pub(crate) next: u64,
    pub(crate) is_available: bool,
}

pub(crate) struct Topic {
    pub(crate) identity: u64,
    pub(crate) partitions: Vec<Partition>,
}

/// A transaction that is prepared.
pub(crate) struct Open {
    pub(crate) id: TransactionId,
    pub(crate) progress: Vec<(OutputPartition, Progress)>,
    pub(crate) job: String,
    pub(crate) slot: u32,
}

/// The progress of one job, with the slot that wrote it.
pub(crate) type JobProgress = BTreeMap<OutputPartition, (u32, Progress)>;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) topics: BTreeMap<String, Topic>,
    pub(crate) fates: BTreeMap<TransactionId, Fate>,
    pub(crate) open: BTreeMap<WriterId, Open>,
    pub(crate) epochs: BTreeMap<WriterId, u64>,
    pub(crate) progress: BTreeMap<String, JobProgress>,
    pub(crate) wakers: BTreeMap<u64, Waker>,
    /// Numbers transactions, topics, readers and sessions.
    pub(crate) numbers: u64,
    /// The next commit ends as a crash before this step of it would.
    pub(crate) crash: Option<usize>,
    /// How many commits and how many questions for progress there were, for bugs that need another thread in between.
    pub(crate) commits: u64,
    pub(crate) questions: u64,
}

impl State {
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) fn create(&mut self, topic: &str) {
        let partition = || Partition { entries: Vec::new(), first: 0, next: 0, is_available: true };
        let identity = self.number();
        self.topics.insert(topic.to_owned(), Topic { identity, partitions: vec![partition(), partition()] });
    }

    pub(crate) fn partition(&mut self, topic: &str, partition: u32) -> &mut Partition {
        &mut self.topics.get_mut(topic).unwrap().partitions[partition as usize]
    }

    pub(crate) fn fate(&self, entry: &Entry) -> Fate {
        match entry.transaction {
            _ if !entry.is_whole => Fate::Open,
            None => Fate::Committed,
            Some(id) => self.fates[&id],
        }
    }

    /// The offset up to which everything is decided.
    pub(crate) fn stable(&self, partition: &Partition) -> u64 {
        let open = partition.entries.iter().find(|entry| self.fate(entry) == Fate::Open);
        open.map_or(partition.next, |entry| entry.offset)
    }

    /// Appends a record, and returns the offset after it.
    pub(crate) fn append(
        &mut self,
        topic: &str,
        partition: u32,
        (key, value): (Option<&[u8]>, Option<&[u8]>),
        transaction: Option<TransactionId>,
    ) -> u64 {
        let partition = self.partition(topic, partition);
        let offset = partition.next;
        let end = offset + 2 + key.map_or(0, <[u8]>::len) as u64 + value.map_or(0, <[u8]>::len) as u64;
        let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
        partition.entries.push(Entry { offset, end, key, value, transaction, is_whole: true });
        partition.next = end;
        end
    }

    pub(crate) fn finish(&mut self, id: TransactionId, fate: Fate) {
        self.fates.insert(id, fate);
        let partitions = self.topics.values_mut().flat_map(|topic| &mut topic.partitions);
        for partition in partitions.filter(|partition| partition.entries.iter().any(|e| e.transaction == Some(id))) {
            partition.next += 1;
        }
    }
}

/// The system. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Model(Arc<Inner>);

struct Inner {
    bug: Option<Bug>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Model {
    pub(crate) fn new(bug: Option<Bug>) -> Self {
        Self(Arc::new(Inner { bug, state: Mutex::default(), changed: Condvar::new() }))
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.0.bug == Some(bug)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A check that failed may have panicked in the middle.
        self.0.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits while something is so, no longer than the patience; whether that was long enough.
    pub(crate) fn wait_while<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        patience: Duration,
        is_so: impl FnMut(&mut State) -> bool,
    ) -> (MutexGuard<'a, State>, bool) {
        let waited = self.0.changed.wait_timeout_while(state, patience, is_so);
        let (state, timeout) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        (state, !timeout.timed_out())
    }

    pub(crate) fn has_changed(&self) {
        self.0.changed.notify_all();
    }

    /// Tells the readers that there may be more, after a change to these partitions, by a transaction or without one.
    pub(crate) fn wake(&self, mut partitions: impl Iterator<Item = u32>, by_transaction: bool) {
        self.has_changed();
        let only_second = partitions.all(|partition| partition > 0);
        let is_silent = self.has(Bug::NoWaker)
            || self.has(Bug::WakesForTheFirstSplitOnly) && only_second
            || self.has(Bug::NoWakerOnCommit) && by_transaction;
        if is_silent {
            return;
        }
        let mut state = self.state();
        let newest = state.wakers.keys().last().copied();
        let woken = state
            .wakers
            .iter()
            .filter(|(number, _)| !self.has(Bug::OnlyTheNewestReaderIsWoken) || Some(**number) == newest);
        let woken: Vec<_> = woken.map(|(_, waker)| waker.clone()).collect();
        if self.has(Bug::WakesOnce) {
            state.wakers.clear();
        }
        drop(state);
        woken.iter().for_each(Waker::wake);
    }
}
