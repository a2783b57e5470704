//! Between opening the journal and minting: what this generation adds to the journal, and the plan for its workers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use fluvial_connector::{SinkStatus, Tick, describe_offsets};

use super::Ended;
use super::appender::Appender;
use super::checkpointer::Checkpointer;
use super::cleaner::Cleaner;
use super::compaction::{Compare, cannot_correct};
use super::history::History;
use super::leader::LeaderConfig;
use super::messages::{Approval, FoundOutput, HeldOutput, Plan};
use super::opening::{GoesBack, Opened};
use super::recreated::recreated;
use super::rules::{Rule, Rules};
use super::running::Running;
use super::savepoint::has_gone_back;
use super::sequencer::Sequencer;
use super::splits::Splits;
use super::store::Identity;
use crate::journal::{Entry, Recreated, Rewound, Seq, SinkStart, SplitNumber};
use crate::manifest::SplitState;
use crate::{InputFault, Mismatch};

/// A generation that has opened the journal and does not mint yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What the workers start from. It holds only once the appender is idle.
    pub plan: Plan,
    pub appender: Appender,
    pub cleaner: Cleaner,
    pub checkpointer: Checkpointer,
    /// This generation's newest record.
    pub tail: Seq,
    history: History,
    rules: Rules,
}

impl Prepared {
    /// Appends what this generation begins: new outputs, a reconciliation. Returns warnings for people as well.
    ///
    /// # Errors
    /// [`Ended::Mismatch`] for outputs that this binary and this system do not have as the journal does.
    pub(crate) fn new(
        config: &LeaderConfig,
        opened: Opened,
        compare: Compare,
        splits: &Splits,
        now_ms: u64,
        rules: Rules,
    ) -> Result<(Self, Vec<String>), Ended> {
        let Opened { me, at, mut history, manifest, records, below, goes_back } = opened;
        let mut appender = Appender::new(me, at.next(), config.append_every_ms, rules);
        let cannot_correct = cannot_correct(config, &history);
        let reconcile = compare == Compare::Nothing;
        let approval = approval(config, &history);
        let approved = is_approved(config, &approval);
        let of_another = history.programs.iter().any(|program| *program != config.program);
        // A job that has bound no tick has committed no output.
        let wrote = history.sealed() > Tick(0);
        let is_begun = history.reconciliation.is_some();
        let upgrade = compare == Compare::All
            && (is_begun || of_another && wrote && approved || goes_back.as_ref().is_some_and(|back| back.corrects));
        let corrects = reconcile || upgrade;
        let (new, mut warnings) = new_outputs(&config.outputs, &config.sink, corrects, &history, &approval)?;
        let recreated = accepted(config, reconcile, &history)?;
        if corrects {
            warnings.extend(left_as_they_are(&history, &recreated));
        }
        if let Some(GoesBack { entry, .. }) = &goes_back {
            // What follows is in the same record.
            appender.push(entry.clone());
        }
        if let (true, Some(tick)) = (goes_back.is_some(), has_gone_back(history.checkpoint.as_ref())) {
            warnings.push(format!(
                "the job goes back to the savepoint of tick {tick}: input is read again from there, and the outputs are corrected"
            ));
        }
        for start in new {
            appender.push(Entry::SinkStarted(start.clone()));
            history.sinks.push(start);
        }
        let tick = Tick(now_ms).max(history.sealed().next());
        if compare == Compare::AllButCompacted {
            if let Some(why) = cannot_correct {
                return Err(InputFault::CannotCorrect { why }.into());
            }
            history.compacted(tick);
            appender.push(Entry::Compacted { tick });
        }
        let compares = of_another && compare == Compare::All && wrote && !upgrade;
        if compares {
            warnings.extend(not_compared(&history));
        }
        if corrects && is_begun && !config.reconcile {
            if history.reconciled_by.as_ref().is_some_and(|by| *by != config.program) && !approved {
                return Err(Mismatch::ReconciliationOfAnother { approval }.into());
            }
            warnings
                .push("no checkpoint covers an earlier generation's reconciliation yet, so it begins again".to_owned());
        }
        if upgrade {
            if !is_begun && goes_back.is_none() {
                warnings.push(format!("{approval} approves this program, which corrects what another one wrote"));
            }
            history.upgraded(tick);
            appender.push(Entry::Upgraded { tick });
        }
        if reconcile {
            if config.reconcile && !config.leave_append_outputs {
                refuse_append_outputs(&history)?;
            }
            let rewound = rewound(splits, &history, &mut warnings);
            history.reconciled(tick, &rewound, &recreated);
            appender.push(Entry::Reconciled { tick, rewound, recreated });
        }
        let mut cleaner = Cleaner::new(me, config.keep_journal, config.grace_ms, below, rules);
        for (seq, record) in &records {
            cleaner.knows(*seq, record);
        }
        let newest = manifest.zip(history.checkpoint.clone()).map(|(name, manifest)| (name, Arc::new(manifest)));
        if let Some((name, manifest)) = &newest {
            cleaner.restored(name, manifest);
        }
        let most = (history.most_slots.max(config.layout.processes), history.most_turns.max(config.turns));
        let checkpointer =
            Checkpointer::new(me, config.program.clone(), config.layout, history.sinks.clone(), most, newest, rules);
        let fenced = if rules.has(Rule::FenceEverySlot) { most } else { (config.layout.processes, config.turns) };
        let compare_outputs = compares.then_some(approval);
        let plan = Plan { cannot_correct, compare_outputs, ..plan(me, &history, fenced) };
        Ok((Self { plan, appender, cleaner, checkpointer, tail: at, history, rules }, warnings))
    }

    /// Where each split stands that this generation goes on with.
    pub(crate) fn splits(&self) -> &BTreeMap<SplitNumber, SplitState> {
        &self.history.splits
    }

    pub(crate) fn identity(&self) -> Identity {
        let Plan { incarnation, generation, nonce, .. } = self.plan;
        Identity { incarnation, generation, nonce }
    }

    /// All workers are ready: minting begins.
    pub(crate) fn run(self, config: &LeaderConfig, now_ms: u64, stopping: bool) -> Running {
        let sealed = self.history.sealed();
        let replayed = self.history.replay.last().map(|binding| binding.tick);
        let mut sequencer = Sequencer::new(config.pace, sealed, self.history.splits);
        let mut next_checkpoint_ms = now_ms + config.checkpoint_every_ms;
        let corrects_at = self.history.reconciliation.map(|reconciliation| reconciliation.tick);
        if let Some(tick) = corrects_at {
            // Until a checkpoint covers it, every generation has to reconcile again.
            next_checkpoint_ms = now_ms;
            sequencer.begin_at(tick);
        }
        Running {
            sequencer,
            appender: self.appender,
            checkpointer: self.checkpointer,
            cleaner: self.cleaner,
            layout: config.layout,
            committed: vec![Tick(0); config.layout.processes as usize],
            sealed,
            next_checkpoint_ms,
            next_idle_checkpoint_ms: now_ms + config.idle_checkpoint_every_ms,
            last_checkpoint_ms: now_ms,
            // The first checkpoint of a generation covers what it has replayed or corrected.
            changed: true,
            replays_through: replayed.max(corrects_at),
            last: None,
            ends: BTreeMap::new(),
            passed: BTreeMap::new(),
            compacted: None,
            stopping,
            rules: self.rules,
        }
    }
}

fn plan(me: Identity, history: &History, (most_slots, most_turns): (u32, u32)) -> Plan {
    Plan {
        incarnation: me.incarnation,
        generation: me.generation,
        nonce: me.nonce,
        most_slots,
        most_turns,
        checkpoint: history.checkpoint.clone(),
        splits: history.new_splits.iter().map(|number| history.splits[number].start.clone()).collect(),
        replay: history.replay.clone(),
        sinks: history.sinks.clone(),
        reconciliation: history.reconciliation,
        compare_outputs: None,
        cannot_correct: None,
    }
}

/// How a person approves the program of this generation.
fn approval(config: &LeaderConfig, history: &History) -> Approval {
    let now = config.outputs.iter().map(|output| output.envelope);
    let mut envelopes = history.sinks.iter().map(|sink| sink.envelope).chain(now);
    let leave_append_outputs = envelopes.any(|envelope| !envelope.can_be_corrected());
    Approval { program: config.program.clone(), leave_append_outputs }
}

/// Whether a person has approved it. What is approved of another program, or of upsert outputs alone, does not count.
fn is_approved(config: &LeaderConfig, Approval { program, leave_append_outputs }: &Approval) -> bool {
    config.upgrade.as_ref() == Some(program) && (config.leave_append_outputs || !leave_append_outputs)
}

/// Warns of the outputs of which nothing can be compared with what another program computes: the job has no table of them,
/// and no input is read again.
fn not_compared(history: &History) -> Option<String> {
    let appends = history.sinks.iter().filter(|sink| !sink.envelope.can_be_corrected());
    let appends: Vec<_> = appends.map(|sink| format!("{} output '{}'", sink.envelope, sink.output)).collect();
    let replays = history.replay.iter().any(|binding| !binding.ranges.is_empty());
    (!appends.is_empty() && !replays).then(|| {
        format!(
            "another program (another binary, or other options of the job) wrote the {}, and no input is read \
             again, so nothing of it could be compared with what this program computes: if its logic is other, the records \
             from here on do not fit those before",
            appends.join(", ")
        )
    })
}

/// Says of each output that a correction leaves as it is what it does not do there.
fn left_as_they_are(history: &History, recreated: &[Recreated]) -> Vec<String> {
    let left = history.sinks.iter().filter(|sink| !sink.envelope.can_be_corrected());
    let said = left.map(|SinkStart { output, envelope, .. }| {
        let what = if recreated.iter().any(|recreated| recreated.output == *output) {
            "was recreated, and what it held before cannot be written again"
        } else {
            "is not corrected: what it holds stays as it is, and nothing that it lacks is written again"
        };
        format!("the {envelope} output '{output}' {what}; it goes on with the records to come")
    });
    said.collect()
}

/// The splits that end before the place that they have been read to: they go on from their end. Says so, and what that
/// does not mend.
fn rewound(splits: &Splits, history: &History, warnings: &mut Vec<String>) -> Vec<Rewound> {
    let of_checkpoint = |number| {
        let splits = history.checkpoint.iter().flat_map(|manifest| &manifest.splits);
        splits.filter(move |state| state.start.number == number).map(|state| state.position).next()
    };
    splits
        .truncated()
        .map(|(start, described, end)| {
            let number = start.number;
            let position = history.splits[&number].position;
            let mut warning = format!(
                "{described} ends at offset {end} and has been read up to {position}: the job goes on from its end"
            );
            if let Some(kept) = of_checkpoint(number).filter(|kept| end < *kept) {
                let _ = write!(
                    warning,
                    "; the state keeps the effect of {}: to start without it, run a new job under another --name with \
                     --reconcile",
                    describe_offsets(end, kept)
                );
            }
            warnings.push(warning);
            Rewound { split: number, to: end }
        })
        .collect()
}

/// Refuses to begin a job in upsert outputs that hold other rows: two tables would be mixed in them.
///
/// # Errors
/// [`Ended::Mismatch`] with the first output that holds any.
pub(crate) fn refuse_held(held: &[HeldOutput]) -> Result<(), Ended> {
    match held.iter().find(|held| held.rows > 0).cloned() {
        Some(HeldOutput { output, rows, writers }) => Err(Mismatch::OutputHeld { output, rows, writers }.into()),
        None => Ok(()),
    }
}

/// The outputs that were recreated, and that a person wants gone on with as they are.
///
/// # Errors
/// [`Ended::Output`] for what was recreated and cannot be gone on with so.
fn accepted(config: &LeaderConfig, reconcile: bool, history: &History) -> Result<Vec<Recreated>, Ended> {
    // A reconciliation that is only gone on with was asked for before: whoever asked knew of no other output.
    let asked = reconcile && config.reconcile;
    let accept = |recreated: super::recreated::IsRecreated<'_>| match recreated
        .can_be_accepted(config.leave_append_outputs)
        .filter(|_| asked)
    {
        Some((output, identity)) => Ok(Recreated { output: output.to_owned(), identity: identity.to_owned() }),
        None => Err(recreated.refuse()),
    };
    recreated(&history.sinks, &config.sink).map(accept).collect()
}

/// Refuses a reconciliation of a job with an output that cannot be corrected.
fn refuse_append_outputs(history: &History) -> Result<(), Ended> {
    match history.sinks.iter().find(|sink| !sink.envelope.can_be_corrected()) {
        None => Ok(()),
        Some(append) => Err(Mismatch::AppendOutput { output: append.output.clone(), envelope: append.envelope }.into()),
    }
}

/// The outputs that the journal does not know yet, and what to warn of in those that it does. A job that has state gets
/// another output only where its outputs are corrected: the output would otherwise lack what the state holds already.
fn new_outputs(
    outputs: &[FoundOutput],
    status: &SinkStatus,
    corrects: bool,
    history: &History,
    approval: &Approval,
) -> Result<(Vec<SinkStart>, Vec<String>), Ended> {
    if let Some(lost) = history.sinks.iter().find(|sink| !outputs.iter().any(|found| found.output == sink.output)) {
        return Err(Mismatch::OutputMissing { output: lost.output.clone() }.into());
    }
    let sealed = history.sealed();
    // A job that has not begun has its outputs from the beginning.
    let tick = if sealed == Tick(0) { Tick(0) } else { sealed.next() };
    let (mut new, mut warnings) = (Vec::new(), Vec::new());
    for FoundOutput { output, partitions, envelope } in outputs {
        let Some(known) = history.sinks.iter().find(|sink| &sink.output == output) else {
            if sealed > Tick(0) && !corrects {
                let (output, envelope, approval) = (output.clone(), *envelope, approval.clone());
                return Err(Mismatch::OutputNew { output, envelope, approval }.into());
            }
            if sealed > Tick(0) && !envelope.can_be_corrected() {
                warnings.push(format!(
                    "the {envelope} output '{output}' is new: it begins with the records to come, and nothing of what the job has \
                     processed before is written to it"
                ));
            }
            let identity = status.outputs.get(output).map(|output| output.identity.clone()).unwrap_or_default();
            let (output, partitions, envelope) = (output.clone(), *partitions, *envelope);
            let progress = status.progress_identity.clone();
            new.push(SinkStart { output, partitions, envelope, tick, identity, progress });
            continue;
        };
        let pinned = known.partitions;
        if known.envelope != *envelope {
            let (output, was, is) = (output.clone(), known.envelope, *envelope);
            return Err(Mismatch::EnvelopeChanged { output, was, is }.into());
        }
        if *partitions < pinned {
            let (output, partitions) = (output.clone(), *partitions);
            return Err(Mismatch::PartitionsMissing { output, partitions, pinned }.into());
        }
        if *partitions > pinned {
            warnings.push(format!(
                "output '{output}' has {partitions} partitions; the job goes on with the {pinned} that it began with"
            ));
        }
    }
    Ok((new, warnings))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use fluvial_connector::{Envelope, Incarnation};
    use uuid::Uuid;

    use super::*;
    use crate::journal::Binding;

    fn history(sealed: u64, outputs: &[(&str, u32)]) -> History {
        let mut history = History::fold(Incarnation(Uuid::nil()), &BTreeMap::new(), None).unwrap();
        if sealed > 0 {
            history.replay.push(Binding { tick: Tick(sealed), ranges: Vec::new(), checkpoint: false });
        }
        history.sinks = outputs
            .iter()
            .map(|(output, partitions)| SinkStart {
                output: (*output).to_owned(),
                partitions: *partitions,
                envelope: Envelope::Upsert,
                tick: Tick(0),
                identity: "first".to_owned(),
                progress: "progress".to_owned(),
            })
            .collect();
        history
    }

    #[test]
    fn a_new_output_of_which_the_job_has_no_table_begins_with_the_records_to_come_and_says_so() {
        let said = |envelope, corrects| {
            let approval = Approval { program: "7e57".to_owned(), leave_append_outputs: true };
            let found = FoundOutput { output: "copy".to_owned(), partitions: 1, envelope };
            match new_outputs(&[found], &SinkStatus::default(), corrects, &history(7, &[]), &approval) {
                Ok((new, warnings)) => format!("from {}: {}", new[0].tick, warnings.join(", ")),
                Err(ended) => ended.to_string(),
            }
        };
        for envelope in [Envelope::Append, Envelope::StreamWritten] {
            let begun = said(envelope, true);
            assert!(begun.contains(&format!("from 8: the {envelope} output 'copy' is new")), "{begun}");
            let refused = said(envelope, false);
            assert!(refused.contains("begins the output with the records to come (nothing of"), "{refused}");
        }
        assert_eq!(said(Envelope::Upsert, true), "from 8: ");
    }

    #[test]
    fn an_output_of_a_table_does_not_become_one_of_a_stream() {
        let approval = Approval { program: "7e57".to_owned(), leave_append_outputs: false };
        let now = FoundOutput { output: "a".to_owned(), partitions: 1, envelope: Envelope::StreamWritten };
        let refused = new_outputs(&[now], &SinkStatus::default(), true, &history(7, &[("a", 1)]), &approval);
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.contains("of the kind 'upsert' and is now to be written as one of the kind 'stream-written'"),
            "{refused}"
        );
    }

    fn found(outputs: &[(&str, u32)]) -> Vec<FoundOutput> {
        let found = |(output, partitions): &(&str, u32)| FoundOutput {
            output: (*output).to_owned(),
            partitions: *partitions,
            envelope: Envelope::Upsert,
        };
        outputs.iter().map(found).collect()
    }

    #[test]
    fn an_output_begins_after_what_is_sealed_and_keeps_its_partitions() {
        let check = |sealed, reconcile, known: &[(&str, u32)], outputs: &[(&str, u32)], expected: &str| {
            let approval = Approval { program: "7e57".to_owned(), leave_append_outputs: false };
            let (outputs, known) = (found(outputs), history(sealed, known));
            let said = match new_outputs(&outputs, &SinkStatus::default(), reconcile, &known, &approval) {
                Ok((new, warnings)) => {
                    let new: Vec<String> =
                        new.iter().map(|s| format!("{} of {} from {}", s.output, s.partitions, s.tick)).collect();
                    format!("{} {}", new.join(", "), warnings.join(", "))
                }
                Err(ended) => ended.to_string(),
            };
            assert!(said.contains(expected), "{said}");
        };
        check(0, false, &[], &[("a", 3), ("b", 1)], "a of 3 from 0, b of 1 from 0");
        check(7, true, &[("a", 3)], &[("a", 3), ("b", 1)], "b of 1 from 8");
        check(7, false, &[("a", 3)], &[("a", 3), ("b", 1)], "output 'b' is new");
        check(7, false, &[("a", 3)], &[("a", 5)], "output 'a' has 5 partitions; the job goes on with the 3");
        check(7, false, &[("a", 3)], &[("a", 2)], "output 'a' has 2 partitions and had 3");
        check(7, false, &[("a", 3)], &[], "the output 'a', which this binary lacks");
    }
}
