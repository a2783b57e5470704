//! Each rule against the history that it prevents: with the rule taken out, the simulation finds one.

use super::number;
use super::world::run;
use crate::rules::{Rule, Rules};

/// The first history that is tried: from here on each rule is missed within half a minute.
const FIRST_SEED: u64 = 100_000;
/// How many histories are tried at the most.
const SEEDS: u64 = 120_000;

/// Some history goes wrong without `rule`.
fn check(rule: Rule) {
    check_from(FIRST_SEED, rule);
}

/// As [`check`], for a rule that is missed in one of some ten thousand histories: the first that is tried is another.
fn check_from(first: u64, rule: Rule) {
    let from = number("FLUVIAL_SEED").unwrap_or(first);
    let found = (from..from + SEEDS).find_map(|seed| Some((seed, run(seed, Rules::without(rule), false).err()?)));
    match found {
        Some((seed, violation)) => println!("without {rule:?}, seed {seed}: {violation}"),
        None => panic!("without {rule:?}, nothing went wrong in {SEEDS} histories"),
    }
}

/// Object stores retry inside and report one's own write as a conflict.
#[test]
fn without_reading_what_is_there_a_generation_is_fenced_by_its_own_append() {
    check(Rule::ReadBeforeJudging);
}

/// The first put may have been stored: what has gathered since is then in no record, and is called durable.
#[test]
fn without_the_same_bytes_again_a_sealed_tick_is_not_in_the_journal() {
    check(Rule::SameBytesAgain);
}

/// A busy older generation appends in the gap, after the newer one has read the journal.
#[test]
fn without_no_ops_in_the_gap_an_older_generation_goes_on_appending() {
    check(Rule::FillTheGap);
}

/// A paused leader's append at a pruned position would succeed.
#[test]
fn without_opened_records_kept_a_zombie_appends_before_the_floor() {
    check(Rule::KeepOpenedRecords);
}

/// Writers of a generation with more workers are never fenced, and write beside the new owners.
#[test]
fn without_fencing_every_slot_a_wider_generation_goes_on_writing() {
    check(Rule::FenceEverySlot);
}

/// A writer that has not been fenced yet commits after progress was read.
#[test]
fn without_waiting_for_every_fence_an_earlier_generation_goes_on_writing() {
    check(Rule::WaitForEveryFence);
}

/// A program with other logic continues from a checkpoint, and the rows that it would not write stay in the output.
#[test]
fn without_comparing_the_outputs_first_other_logic_goes_on_with_them() {
    check(Rule::CompareOutputsFirst);
}

/// Output of a later tick is committed before the corrections of an earlier one.
#[test]
fn without_the_corrections_first_they_come_after_later_output() {
    check(Rule::CorrectionsFirst);
}

/// A paused older generation that initialises late gets a fresh epoch.
#[test]
fn without_the_second_tail_read_a_paused_generation_commits() {
    check(Rule::SecondTailRead);
}

/// A generation that creates a new writer after a failure gets a fresh epoch, even if a newer generation has opened.
#[test]
fn without_asking_the_journal_after_fencing_a_zombie_commits() {
    check(Rule::AskTheJournalAfterFencing);
}

/// A delayed EndTxn hits the next transaction of the same epoch.
#[test]
fn without_a_new_epoch_a_delayed_commit_hits_the_next_transaction() {
    check_from(173_000, Rule::NewEpochAfterUnknown);
}

/// A tick is visible that the journal never had, and is bound otherwise by the next generation.
#[test]
fn without_waiting_for_the_seal_output_is_visible_that_never_was() {
    check(Rule::SealedBeforeVisible);
}

/// Part of a transaction is committed without its progress, and is written again.
#[test]
fn without_leaving_out_what_is_torn_records_are_doubled() {
    check(Rule::LeaveOutUncovered);
}

/// Part of a large tick is committed, and nobody knows which.
#[test]
fn without_the_position_within_a_tick_a_large_one_cannot_be_gone_on_from() {
    check(Rule::PositionWithinTick);
}

/// The journal is pruned behind a checkpoint whose output is not out.
#[test]
fn without_waiting_for_the_sinks_a_checkpoint_skips_output() {
    check(Rule::CheckpointAfterSinks);
}

/// A crash between deleting and recording leaves a checkpoint that names what is gone.
#[test]
fn without_waiting_for_the_record_a_restore_misses_a_run() {
    check(Rule::DeleteAfterRecord);
}

/// The second of two transactions is committed with progress that covers the first, which is not.
#[test]
fn without_commits_in_order_progress_runs_ahead_of_the_records() {
    check(Rule::CommitInOrder);
}

/// Progress before data loses records when a transaction is committed partially.
#[test]
fn without_the_records_first_progress_tells_of_records_that_never_came() {
    check(Rule::ProgressAfterRecords);
}

/// A last stable offset held back by another transaction hides committed progress.
#[test]
fn without_reading_to_the_high_watermark_committed_progress_is_hidden() {
    check(Rule::ProgressToHighWatermark);
}

/// A job goes back to a savepoint whose state files were deleted.
#[test]
fn without_looking_for_pins_a_savepoint_loses_its_state_files() {
    check(Rule::LookForPins);
}

/// A leader has looked for pins just before the savepoint was pinned.
#[test]
fn without_looking_again_a_savepoint_of_an_older_checkpoint_loses_its_state_files() {
    check(Rule::LookAgainAfterPinning);
}

/// The next generation meets the same, as does the one after it.
#[test]
fn without_journaling_what_was_compacted_no_generation_gets_past_it() {
    check(Rule::JournalWhatWasCompacted);
}

/// Each generation compares again what only a correction can do without.
#[test]
fn without_reconciling_until_a_checkpoint_covers_it_no_correction_is_ever_made() {
    check(Rule::ReconcileUntilCovered);
}
