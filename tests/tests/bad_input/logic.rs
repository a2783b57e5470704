//! A program that computes other output than the one before it does not go on with the job unless it is told to, however
//! that one ended; the same program built again needs no flag.

use std::collections::BTreeMap;
use std::path::Path;

use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;
use rdkafka::Offset;

use super::code::rows;
use super::{assert_refused, built_again, faulty};

const FAULTY: &str = env!("CARGO_BIN_EXE_faulty");
const SAYS_IT_IS_EQUAL: &str = "the outputs hold what this program computes, though another one wrote them";

/// How a run ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Terminated,
    AtTheEnd,
    Killed,
}

const ENDINGS: [Ending; 3] = [Ending::Terminated, Ending::AtTheEnd, Ending::Killed];

/// A job with some input, which has begun with these options.
fn begun(options: &str) -> Stage {
    let stage = faulty(Stage::new(Subject::Orders, 2).unwrap());
    stage.feed(0..60).unwrap();
    stage.complete(&format!("--stop-at-end {options}")).unwrap();
    stage
}

/// Runs the job over some more input until that is visible, and ends the run.
fn runs_and_ends(stage: &Stage, options: &str, more: std::ops::Range<u64>, ending: Ending) {
    let options = format!("--processes 2 --workers 4 {options}");
    if matches!(ending, Ending::AtTheEnd) {
        stage.feed(more).unwrap();
        stage.complete(&format!("--stop-at-end {options}")).unwrap();
        return;
    }
    let before = stage.visible().unwrap();
    let job = stage.start(&options).unwrap();
    stage.feed(more).unwrap();
    stage.wait_for_more_than(before, &job).unwrap();
    match ending {
        Ending::Killed => job.job().kill_all().unwrap(),
        _ => assert_eq!(job.terminate(MOST).unwrap().code, Some(0)),
    }
}

/// The rows that the job should have with this logic, for the input as it is.
fn expected(stage: &Stage, logic: impl Fn(i64) -> Option<i64>) -> BTreeMap<String, String> {
    let by = |(id, revenue): (String, String)| Some((id, logic(revenue.parse().unwrap())?.to_string()));
    rows(stage).0.into_iter().filter_map(by).collect()
}

/// Begun with `first`, the job is refused with `then` after each way of ending and goes on with `first`. Told to, it goes on
/// with `then`, whose rows are `logic`'s.
fn is_refused(first: &str, then: &str, logic: fn(i64) -> Option<i64>) {
    let stage = begun(first);
    let output = stage.outputs().swap_remove(0);
    for (number, ending) in (1..).zip(ENDINGS) {
        runs_and_ends(&stage, first, 60 * number..60 * (number + 1), ending);
        let refused = stage.start(&format!("--stop-at-end {then}")).unwrap().finish(MOST).unwrap();
        let before = stage.table().unwrap();
        let parts = [&*format!("output {output}/"), "is not what this program computes", "`run --reconcile`"];
        assert_refused(&refused, 2, &parts);
        let again = stage.start(&format!("--stop-at-end --workers 3 {then}")).unwrap().finish(MOST).unwrap();
        assert_refused(&again, 2, &parts);
        assert_eq!(stage.table().unwrap(), before, "after {ending:?}: a run that was refused has written something");
    }
    stage.complete(&format!("--stop-at-end {first}")).unwrap();
    stage.complete(&format!("--stop-at-end {then} --reconcile")).unwrap();
    assert_eq!(rows(&stage).1, expected(&stage, logic));
    // From then on it is a job like any other.
    stage.feed(300..330).unwrap();
    stage.complete(&format!("--stop-at-end {then}")).unwrap();
    assert_eq!(rows(&stage).1, expected(&stage, logic));
}

#[test]
fn a_changed_map_is_refused_however_the_run_before_ended() {
    is_refused("", "--logic doubled", |revenue| Some(2 * revenue));
}

/// Rows of the first logic would stay for ever that the second does not write.
#[test]
fn a_changed_join_is_refused_however_the_run_before_ended() {
    is_refused("--logic even", "--logic odd", |revenue| Some(revenue).filter(|revenue| revenue % 2 == 1));
}

/// As when a job that showed the first three of each group is to show the first alone.
#[test]
fn logic_that_writes_fewer_rows_is_refused_however_the_run_before_ended() {
    is_refused("", "--logic even", |revenue| Some(revenue).filter(|revenue| revenue % 2 == 0));
}

#[test]
fn a_removed_output_is_refused_however_the_run_before_ended() {
    let stage = begun("--copy removed");
    for (number, ending) in (1..).zip(ENDINGS) {
        runs_and_ends(&stage, "--copy removed", 60 * number..60 * (number + 1), ending);
        let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
        assert_refused(&refused, 2, &["the job writes the output 'removed', which this binary lacks"]);
    }
    stage.complete("--stop-at-end --copy removed").unwrap();
    assert_eq!(rows(&stage).0, rows(&stage).1);
}

#[test]
fn the_same_logic_built_again_needs_no_flag_however_the_run_before_ended() {
    let mut stage = begun("");
    let programs = [built_again(&stage, FAULTY), Path::new(FAULTY).to_owned()];
    for (number, ending) in (1..).zip(ENDINGS) {
        runs_and_ends(&stage, "", 60 * number..60 * (number + 1), ending);
        stage = stage.with_program(&programs[(number as usize - 1) % 2]);
        let said = stage.complete("--stop-at-end --workers 3").unwrap().said;
        assert!(said.contains(SAYS_IT_IS_EQUAL), "after {ending:?}: {said}");
        assert_eq!(rows(&stage).0, rows(&stage).1);
        // Nothing is compared where nothing has changed.
        let said = stage.complete("--stop-at-end").unwrap().said;
        assert!(!said.contains(SAYS_IT_IS_EQUAL), "after {ending:?}: {said}");
    }
}

/// An append output has no table. What is read again is compared; where nothing is, a person is told.
#[test]
fn of_an_append_output_what_is_read_again_is_compared_and_a_warning_says_where_nothing_is() {
    const WARNS: &str = "nothing of it could be compared with what this program computes";
    let mut stage = begun("--append");
    let again = built_again(&stage, FAULTY);
    let output = stage.outputs().swap_remove(0);
    let warnings = |said: &str| {
        let warns = said.lines().filter(|line| line.contains("WARN") && line.contains(WARNS));
        warns.inspect(|line| assert!(line.contains(&output), "{line}")).count()
    };
    stage = stage.with_program(&again);
    let said = stage.complete("--stop-at-end --append").unwrap().said;
    assert_eq!(warnings(&said), 1, "{said}");
    runs_and_ends(&stage, "--append --checkpoint-every 1h", 60..120, Ending::Killed);
    stage = stage.with_program(FAULTY);
    let said = stage.complete("--stop-at-end --append").unwrap().said;
    assert_eq!(warnings(&said), 0, "{said}");
}

/// The hash of the program that a run or a check was refused with.
fn hash_in(said: &str) -> String {
    let (_, hash) = said.split_once("`run --upgrade ").expect(said);
    hash.chars().take_while(char::is_ascii_hexdigit).collect()
}

/// As a rollout does it: the option stays in the manifest, whatever is started next.
#[test]
fn a_program_is_approved_by_its_hash_which_approves_no_other_and_is_needed_once() {
    let stage = begun("--keep-journal");
    let refused = stage.start("--stop-at-end --keep-journal --logic doubled").unwrap().finish(MOST).unwrap();
    assert_refused(&refused, 2, &["is not what this program computes", "`run --upgrade "]);
    let hash = hash_in(&refused.said);
    let checked = stage.ask("check", "--logic doubled").unwrap();
    assert!(checked.contains(&format!("version {hash}\n")), "{checked}");
    let doubled = |revenue: i64| Some(2 * revenue);
    let before = stage.visible().unwrap();
    let of_another = "0123456789abcdef0123456789abcdef";
    for options in [&format!("--logic doubled --upgrade {of_another}"), &format!("--logic even --upgrade {hash}")] {
        let refused = stage.start(&format!("--stop-at-end --keep-journal {options}")).unwrap().finish(MOST).unwrap();
        assert_refused(&refused, 2, &["is not what this program computes"]);
    }
    assert_eq!(stage.visible().unwrap(), before);
    // The program that wrote the outputs needs no approval, and gets none.
    let approved = format!("--keep-journal --stop-at-end --upgrade {hash}");
    stage.complete(&approved).unwrap();
    assert_eq!(stage.journal().unwrap().reconciliations, 0);
    // Killed when the manifest exists that does not count yet, it is gone on with: with the option, and without it.
    for options in ["", &format!("--upgrade {hash}")] {
        let dies =
            format!("--keep-journal --logic doubled --upgrade {hash} --no-restart --fail-point after-manifest=kill");
        assert_eq!(stage.start(&dies).unwrap().finish(MOST).unwrap().code, Some(4), "it has not been killed");
        let refused = stage.start("--stop-at-end --keep-journal --logic odd").unwrap().finish(MOST).unwrap();
        assert_refused(&refused, 2, &["another program", "has begun to correct the outputs", "`run --upgrade "]);
        stage.complete(&format!("--keep-journal --stop-at-end --logic doubled {options}")).unwrap();
        assert_eq!(rows(&stage).1, expected(&stage, doubled));
        // Back, for the next round, and approved in its turn.
        let back = stage.start("--stop-at-end --keep-journal").unwrap().finish(MOST).unwrap();
        stage.complete(&format!("--keep-journal --stop-at-end --upgrade {}", hash_in(&back.said))).unwrap();
        assert_eq!(rows(&stage).0, rows(&stage).1);
    }
    // After a checkpoint the option has no effect.
    stage.complete(&format!("{approved} --logic doubled")).unwrap();
    let reconciliations = stage.journal().unwrap().reconciliations;
    stage.feed(60..90).unwrap();
    stage.complete(&format!("{approved} --logic doubled --workers 3")).unwrap();
    assert_eq!(stage.journal().unwrap().reconciliations, reconciliations);
    assert_eq!(rows(&stage).1, expected(&stage, doubled));
}

/// The input that is read again is compared, unlike with `--reconcile`.
#[test]
fn an_approval_is_of_the_logic_and_not_of_other_input() {
    let stage = begun("");
    runs_and_ends(&stage, "--checkpoint-every 1h", 60..120, Ending::Killed);
    let refused = stage.start("--stop-at-end --logic doubled").unwrap().finish(MOST).unwrap();
    let approved = format!("--stop-at-end --logic doubled --upgrade {}", hash_in(&refused.said));
    let input = stage.input();
    for (partition, end) in (0..).zip(stage.broker().end_offsets(&input)) {
        stage.endpoint().delete_records(&input, partition, Offset::Offset(end)).unwrap();
    }
    let refused = stage.start(&approved).unwrap().finish(MOST).unwrap();
    assert_refused(&refused, 11, &["which have to be read again, are gone", "`run --reconcile`"]);
}

/// A reconciliation that was begun is gone on with by the program that began it.
#[test]
fn a_reconciliation_that_another_program_began_is_refused() {
    let stage = begun("");
    let dies = "--logic doubled --reconcile --no-restart --fail-point after-manifest=kill";
    assert_eq!(stage.start(dies).unwrap().finish(MOST).unwrap().code, Some(4), "it has not been killed");
    let refused = stage.start("--stop-at-end --logic even").unwrap().finish(MOST).unwrap();
    assert_refused(&refused, 2, &["another program", "has begun to correct the outputs", "run --reconcile"]);
    stage.complete("--stop-at-end --logic doubled").unwrap();
    assert_eq!(rows(&stage).1, expected(&stage, |revenue| Some(2 * revenue)));
}

/// Rows that retention has removed differ from no row that is computed.
#[test]
fn rows_that_retention_removed_are_no_other_logic() {
    let mut stage = begun("");
    let output = stage.outputs().swap_remove(0);
    let end = stage.broker().end_offsets(&output)[0];
    assert!(end > 2, "partition 0 has no rows that could be removed");
    stage.endpoint().delete_records(&output, 0, Offset::Offset(2)).unwrap();
    let again = built_again(&stage, FAULTY);
    stage = stage.with_program(again);
    let said = stage.complete("--stop-at-end").unwrap().said;
    assert!(said.contains(SAYS_IT_IS_EQUAL) && said.contains("whose first records are gone"), "{said}");
    let refused = stage.start("--stop-at-end --logic doubled").unwrap().finish(MOST).unwrap();
    assert_refused(&refused, 2, &["is not what this program computes"]);
}
