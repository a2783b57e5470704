//! Why a generation is over.

use fluvial_connector::{Envelope, ErrorKind, Generation, Incarnation, Offset, OutputPartition, Tick};

use crate::journal::Seq;
use crate::{Approval, Exit};

/// The end of a generation, as a state machine of the protocol decided it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Asked to stop: everything is committed and the checkpoint is complete.
    #[error("committed and checkpointed through tick {0}")]
    Done(Tick),
    /// The journal has a newer generation. This one must never be started again by itself.
    #[error("superseded by generation {by} of this job: another run was started with the same --store and --name")]
    Fenced {
        /// The generation that has.
        by: Generation,
    },
    /// Another generation opened the journal at the same time, and was faster.
    #[error(
        "position {at} of the journal was claimed by a generation that opened at the same time; the next generation \
         can continue"
    )]
    LostRace {
        /// The position.
        at: Seq,
    },
    /// A sink fenced a writer, though the journal has no newer generation.
    #[error(
        "a writer was fenced although no newer generation exists, which happens when a transaction takes longer than \
         the transaction timeout: {why}; the next generation can continue"
    )]
    WriterFenced {
        /// What the sink said.
        why: String,
    },
    /// Every transaction has failed for too long.
    #[error("no transaction has been committed for {} s; the last one failed: {why}; the next generation can \
         continue", .for_ms / 1000)]
    CommitsNothing {
        /// For how long, in milliseconds.
        for_ms: u64,
        /// Why the last one failed.
        why: String,
    },
    /// No checkpoint has been completed for too long.
    #[error("no checkpoint has been completed for {age_ms} ms; is the store full or too slow?")]
    CheckpointTooOld {
        /// The time since the last one, in milliseconds.
        age_ms: u64,
    },
    /// The clock made a leap, or the process was stopped for that long.
    #[error("the clock advanced by {by_ms} ms in one step: it was set, or this process was paused")]
    ClockJumped {
        /// The size of the step, in milliseconds.
        by_ms: u64,
    },
    /// Records that have to be read again were compacted. The journal says so now: the next generation goes on without them
    /// and corrects the outputs.
    #[error("{what}; the next generation goes on with what is left, and corrects the outputs")]
    Compacted {
        /// Which records, for people.
        what: String,
    },
    /// The journal, or a manifest that it names, is not whole.
    #[error(transparent)]
    Journal(#[from] JournalFault),
    /// An output or its progress is not what the job has committed.
    #[error(transparent)]
    Output(#[from] OutputFault),
    /// An input is not what the job has read.
    #[error(transparent)]
    Input(#[from] InputFault),
    /// The job, as it is built and started now, does not fit its state or its outputs.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The same input gave other output than before.
    #[error(
        "output {at} is not what it was when tick {tick} was first committed: either the code is not deterministic (a \
         clock, a random number, the order of a hash map) or it has changed; `run --reconcile` goes on from here, and, if it has \
         changed, so does `run --upgrade` with the version that `check` prints"
    )]
    Diverged {
        /// The output partition.
        at: OutputPartition,
        /// The tick at which the digests were compared.
        tick: Tick,
    },
    /// A sink refuses what this job writes, and would refuse it again.
    #[error("{why}")]
    NotWritable {
        /// What a person can do: change a setting, or the data.
        kind: ErrorKind,
        /// The whole reason.
        why: String,
    },
    /// A fault in the engine.
    #[error("a fault in the engine: {0}")]
    Bug(String),
}

/// What is wrong with the journal or a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalFault {
    /// A record between others is not there.
    #[error("the journal's record {at} is missing")]
    RecordMissing {
        /// The record's position.
        at: Seq,
    },
    /// A record is another job's.
    #[error("the journal's record {at} belongs to incarnation {is}, not to {own}: it is another job's")]
    RecordOfAnother {
        /// The record's position.
        at: Seq,
        /// The incarnation that wrote it.
        is: Incarnation,
        /// The job's own.
        own: Incarnation,
    },
    /// A generation has written after a newer one had opened.
    #[error("the journal's record {at} is of generation {generation}, which had been fenced before")]
    RecordOfFenced {
        /// The record's position.
        at: Seq,
        /// The generation that wrote it.
        generation: Generation,
    },
    /// Ticks do not grow.
    #[error("the journal's record {at} binds tick {tick} after tick {sealed}")]
    TickOutOfOrder {
        /// The record's position.
        at: Seq,
        /// The tick that it binds.
        tick: Tick,
        /// The last one before.
        sealed: Tick,
    },
    /// The ranges of a split do not follow each other.
    #[error("the journal's record {at} {what}")]
    RangeOutOfOrder {
        /// The record's position.
        at: Seq,
        /// Which range, and what it should have followed.
        what: String,
    },
    /// A manifest that the journal names is not there.
    #[error(
        "the manifest {manifest} is missing, which the journal's record {at} names as the checkpoint of tick {tick}"
    )]
    ManifestMissing {
        /// The manifest's object.
        manifest: String,
        /// The record that names it.
        at: Seq,
        /// The checkpoint's tick.
        tick: Tick,
    },
    /// A manifest is not that of the checkpoint which names it.
    #[error(
        "the manifest {manifest} is of tick {is} of incarnation {incarnation}; the journal's record {at} names it as the \
         checkpoint of tick {tick} of {own}"
    )]
    ManifestOfAnother {
        /// The manifest's object.
        manifest: String,
        /// The tick that it is of.
        is: Tick,
        /// The incarnation that it is of.
        incarnation: Incarnation,
        /// The record that names it.
        at: Seq,
        /// The checkpoint's tick.
        tick: Tick,
        /// The job's incarnation.
        own: Incarnation,
    },
}

/// What is wrong with an output or with its progress.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputFault {
    /// It has no progress, and should have some.
    #[error(
        "output {at} has no progress, although the journal is sealed through tick {sealed}: was the progress topic \
         deleted, or does the job's name belong to another store? Without its progress the job can only start anew, \
         under another --name"
    )]
    NoProgress {
        /// The output partition.
        at: OutputPartition,
        /// The last sealed tick.
        sealed: Tick,
    },
    /// Its progress is another job's.
    #[error(
        "the progress of output {at} is of incarnation {is}, and this job's journal of {own}: a job of the same name \
         has written it from another store; use that store, give this job another --name, or, if that store is lost, \
         start a new job under another --name with --reconcile, which adopts an upsert output"
    )]
    ProgressOfAnother {
        /// The output partition.
        at: OutputPartition,
        /// The incarnation that wrote it.
        is: Incarnation,
        /// The job's own.
        own: Incarnation,
    },
    /// It is committed beyond what the journal has sealed.
    #[error(
        "output {at} is committed through tick {tick}, and the journal is sealed only through {sealed}: was the \
         store restored to an older state?"
    )]
    ProgressAhead {
        /// The output partition.
        at: OutputPartition,
        /// The tick of the progress.
        tick: Tick,
        /// The last sealed tick.
        sealed: Tick,
    },
    /// It is committed less far than before.
    #[error(
        "output {at} is committed only through tick {tick}, and everything through tick {committed} was committed \
         before: was the progress topic restored to an older state?"
    )]
    ProgressBehind {
        /// The output partition.
        at: OutputPartition,
        /// The tick of the progress.
        tick: Tick,
        /// The tick that was committed.
        committed: Tick,
    },
    /// Later records have smaller offsets.
    #[error(
        "output {at} was written up to offset {written}, and the records after that have lower offsets, up to {since}: it \
         was deleted and recreated, or has lost records; {}", way_out(*.envelope)
    )]
    WentBack {
        /// The output partition.
        at: OutputPartition,
        /// The end of the earlier records.
        written: Offset,
        /// The end of the later ones.
        since: Offset,
        /// How its records become messages.
        envelope: Envelope,
    },
    /// It ends before its progress.
    #[error(
        "output {at} ends at offset {end}, and was written up to {written}: it was deleted and recreated, or has lost \
         records; {}", way_out(*.envelope)
    )]
    EndsEarly {
        /// The output partition.
        at: OutputPartition,
        /// The end of the partition now.
        end: Offset,
        /// The end by its progress.
        written: Offset,
        /// How its records become messages.
        envelope: Envelope,
    },
    /// A committed record was aborted afterwards.
    #[error(
        "output {at}: the record at offset {offset}, which this job had committed, was aborted; {}", way_out(*.envelope)
    )]
    Aborted {
        /// The output partition.
        at: OutputPartition,
        /// The record's offset.
        offset: Offset,
        /// How its records become messages.
        envelope: Envelope,
    },
    /// It was deleted and recreated under its name.
    #[error("output '{output}' was deleted and recreated (it has the id {is} and had {was}): {}", lost(*.envelope))]
    Recreated {
        /// The output.
        output: String,
        /// Its identity when the job began to write it.
        was: String,
        /// Its identity now.
        is: String,
        /// How its records become messages.
        envelope: Envelope,
    },
    /// The place where progress is kept was deleted and recreated.
    #[error(
        "{name} is not the one that this job has written (it has the id {is} and had {was}): it was deleted and \
         recreated, or the store is a copy of another job's; without it nothing says what each output has received, \
         so start a new job under another --name, with --reconcile if it is to adopt upsert outputs"
    )]
    ProgressRecreated {
        /// What the place is called.
        name: String,
        /// Its identity when the job began.
        was: String,
        /// Its identity now.
        is: String,
    },
    /// It holds a record that this job does not make at that place.
    #[error(
        "output {at} holds a committed record at offset {offset}, after this job's last one, that this job does not \
         write there: stop the other writer of this output, then start the job once with --reconcile, which makes an \
         upsert output this job's table again"
    )]
    ForeignRecord {
        /// The output partition.
        at: OutputPartition,
        /// The record's offset.
        offset: Offset,
    },
}

/// What a person can do where an output has lost records.
fn way_out(envelope: Envelope) -> &'static str {
    match envelope {
        Envelope::Upsert => "`run --reconcile` writes the whole table to it again",
        Envelope::Append => {
            "an append output cannot be written again: `run --reconcile --leave-append-outputs` goes on with the \
             records to come"
        }
        Envelope::StreamWritten => {
            "it is written from a stream, so the job keeps no table from which its rows could be written again: \
             `run --reconcile --leave-append-outputs` goes on with the records to come"
        }
    }
}

/// What an output has lost that was recreated, and what a person can do.
fn lost(envelope: Envelope) -> &'static str {
    match envelope {
        Envelope::Upsert => "the rows that it held are gone; `run --reconcile` writes the whole table to it again",
        Envelope::Append => {
            "the records that it held are gone, and an append output cannot be written again; `run --reconcile \
             --leave-append-outputs` goes on with the records to come"
        }
        Envelope::StreamWritten => {
            "the rows that it held are gone, and it is written from a stream, so the job keeps no table from which they could \
             be written again; `run --reconcile --leave-append-outputs` goes on with the records to come"
        }
    }
}

/// What is wrong with an input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputFault {
    /// Records that have to be read again are gone.
    #[error(
        "{described} begins at offset {begins} now, and the savepoint has read it up to {read}: the records between are lost \
         (retention, or a topic that was truncated), so the job cannot go back to it"
    )]
    Lost {
        /// The split, for people.
        described: String,
        /// The offset up to which it was read.
        read: Offset,
        /// Its first offset now.
        begins: Offset,
    },
    /// It was deleted and recreated under its name.
    #[error(
        "{described} was deleted and recreated, or is not the one that the job has read (its id is {is} and was \
         {was}): a job cannot continue with other input; start a new job on it under another --name, with \
         --reconcile if it is to correct the same outputs"
    )]
    Recreated {
        /// The split that was found to be another, as its source describes it.
        described: String,
        /// Its identity when the job met it.
        was: String,
        /// Its identity now.
        is: String,
    },
    /// It ends before the place that it has been read to.
    #[error(
        "{described} ends at offset {end} now, and has been read up to {read}: the records between are gone (the log \
         was truncated, for example by an unclean leader election); `run --reconcile` goes on from the input as it \
         is"
    )]
    Truncated {
        /// Which split, as its source describes it.
        described: String,
        /// The offset after the last that was read of it.
        read: Offset,
        /// The end of the split now.
        end: Offset,
    },
    /// An earlier generation began to correct the outputs after compaction, and this one cannot.
    #[error(
        "input that has to be read again was compacted, and the outputs have yet to be corrected for that, which this run \
         cannot do: {why}; start the job as it was, or go on from the input as it is with `run --reconcile`"
    )]
    CannotCorrect {
        /// The reason.
        why: String,
    },
}

/// How the job, as it is built and started now, does not fit its state or its outputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The state has an operator that the binary lacks.
    #[error("the checkpoint has the durable operator '{operator}', which this binary lacks; was it renamed?")]
    OperatorMissing {
        /// The operator.
        operator: String,
    },
    /// There is no savepoint of the name to go back to.
    #[error("there is no savepoint '{name}' of this job: `savepoints` lists those that there are")]
    SavepointMissing {
        /// The name.
        name: String,
    },
    /// The savepoint is of another job.
    #[error("the savepoint '{name}' was taken of another job that had the same name")]
    SavepointOfAnother {
        /// The name.
        name: String,
    },
    /// The outputs have moved on since the savepoint, and one of them cannot be corrected.
    #[error(
        "the output '{output}', which is {}, has records from after the savepoint '{name}', which cannot be taken back and would \
         be written again: start the savepoint's program under another --name, with another output",
        cannot_correct(*.envelope)
    )]
    SavepointBeforeAppended {
        /// The name.
        name: String,
        /// The output.
        output: String,
        /// How its records become messages.
        envelope: Envelope,
    },
    /// The outputs have moved on since the savepoint, and nobody has said that they may be corrected.
    #[error(
        "the outputs have moved on since the savepoint '{name}' (of tick {tick}; they may have what was computed through tick \
         {sealed}): to read the input since then again and correct the upsert outputs, add --correct-outputs; to leave them as they \
         are, start the job under another --name, with other outputs"
    )]
    SavepointBeforeOutputs {
        /// The name.
        name: String,
        /// The tick of the savepoint.
        tick: Tick,
        /// The last sealed tick.
        sealed: Tick,
    },
    /// The job has read a source that the binary lacks.
    #[error(
        "the job has read the source '{source_name}', which this binary lacks: start it with the binary that has it, or begin a \
         new job under another --name"
    )]
    SourceMissing {
        /// The source's name in the job.
        source_name: String,
    },
    /// The job writes an output that the binary lacks.
    #[error(
        "the job writes the output '{output}', which this binary lacks: start it with the binary that has it, and with the \
         options that name it"
    )]
    OutputMissing {
        /// The output.
        output: String,
    },
    /// A job that has state gets another output.
    #[error(
        "output '{output}' is new, and the job has state already: `run --reconcile`, or `run {approval}` for this program \
         alone, begins the output with {}", begins_with(*.envelope)
    )]
    OutputNew {
        /// The output.
        output: String,
        /// How its records become messages.
        envelope: Envelope,
        /// How a person approves the program.
        approval: Approval,
    },
    /// An output is to be written in another way.
    #[error(
        "output '{output}' was written as an output of the kind '{was}' and is now to be written as one of the kind '{is}': \
         write it as before, or write another output"
    )]
    EnvelopeChanged {
        /// The output.
        output: String,
        /// How it was written.
        was: Envelope,
        /// How it is to be written.
        is: Envelope,
    },
    /// An output has lost partitions.
    #[error(
        "output '{output}' has {partitions} partitions and had {pinned} when the job began: was it deleted and recreated? \
         Give it {pinned} partitions"
    )]
    PartitionsMissing {
        /// The output.
        output: String,
        /// How many it has.
        partitions: u32,
        /// How many it had.
        pinned: u32,
    },
    /// A program that is not the one that wrote an output computes other rows for it.
    #[error(
        "output {at} is not what this program computes: {rows} rows differ; it holds \"{holds}\" for the key \"{key}\", and \
         this program computes \"{computes}\". Another program wrote it (another binary, or other options of the job), or \
         somebody else has written to the topic: start the program that wrote it, or let this one correct its outputs with \
         `run --reconcile`, or with `run {approval}`, which approves this program alone"
    )]
    OutputDiffers {
        /// The output partition.
        at: OutputPartition,
        /// How many of its rows differ.
        rows: u64,
        /// The key of one of them.
        key: String,
        /// What the output holds for the key.
        holds: String,
        /// What this program computes for it.
        computes: String,
        /// How a person approves this program. In a box, as this is by far the largest variant.
        approval: Box<Approval>,
    },
    /// Another program has begun to correct the outputs, and no checkpoint covers that yet.
    #[error(
        "a run of another program (another binary, or other options of the job) has begun to correct the outputs and has not \
         finished: start that program again, or let this one correct them with `run --reconcile`, or with `run {approval}`, \
         which approves this program alone"
    )]
    ReconciliationOfAnother {
        /// How a person approves this program.
        approval: Approval,
    },
    /// A reconciliation of a job with an output that cannot be corrected.
    #[error(
        "output '{output}' is {}, which --reconcile cannot correct: its records would stay as they \
         are; add --leave-append-outputs to accept that", cannot_correct(*.envelope)
    )]
    AppendOutput {
        /// The output.
        output: String,
        /// How its records become messages.
        envelope: Envelope,
    },
    /// An output of a job that has written nothing yet holds rows already.
    #[error(
        "output '{output}' holds {rows} rows that this job has not written{}, and they would be mixed with its own: \
         give the job an output of its own, or adopt this one with `run --reconcile`, which deletes all rows that \
         this job does not compute", in_brackets(.writers)
    )]
    OutputHeld {
        /// The output.
        output: String,
        /// How many rows it holds.
        rows: u64,
        /// The jobs that write it, in a few words each, as far as the sink tells.
        writers: Vec<String>,
    },
}

/// What a new output of a job that has state begins with.
fn begins_with(envelope: Envelope) -> &'static str {
    match envelope {
        Envelope::Upsert => "the whole of its table",
        Envelope::Append | Envelope::StreamWritten => {
            "the records to come (nothing of what the job has processed before is written to it)"
        }
    }
}

/// The kind of an output that cannot be corrected, for the messages that say so.
pub(crate) fn cannot_correct(envelope: Envelope) -> &'static str {
    match envelope {
        Envelope::StreamWritten => "written from a stream, of which the job keeps no table",
        Envelope::Append | Envelope::Upsert => "an append output",
    }
}

fn in_brackets(writers: &[String]) -> String {
    if writers.is_empty() { String::new() } else { format!(" ({})", writers.join("; ")) }
}

impl Ended {
    /// How the process ends with it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Done(_) => Exit::Done,
            Self::Fenced { .. } => Exit::Fenced,
            Self::LostRace { .. } | Self::ClockJumped { .. } => Exit::GenerationLost,
            Self::WriterFenced { .. } | Self::CommitsNothing { .. } => Exit::SinkFailed,
            Self::CheckpointTooOld { .. } => Exit::StoreFailed,
            Self::Compacted { .. } => Exit::SourceFailed,
            Self::Journal(_) | Self::Output(_) | Self::Input(_) => Exit::StateRefused,
            Self::Mismatch(_) => Exit::Misconfigured,
            Self::Diverged { .. } => Exit::Failed,
            Self::NotWritable { kind, .. } => match kind {
                ErrorKind::Configuration | ErrorKind::Host => Exit::Misconfigured,
                ErrorKind::Bug => Exit::EngineFault,
                ErrorKind::Data => Exit::Failed,
                ErrorKind::Retry | ErrorKind::Restart | ErrorKind::Fenced => Exit::SinkFailed,
            },
            Self::Bug(_) => Exit::EngineFault,
        }
    }

    /// Whether a newer generation may be the reason: what it has written looks wrong to one that does not know of it yet.
    #[must_use]
    pub(crate) fn may_be_a_newer_generations(&self) -> bool {
        matches!(self, Self::Journal(_) | Self::Output(_) | Self::Mismatch(_) | Self::Diverged { .. })
    }
}
