//! A checkpoint that is not this job's, or not for this binary, is refused, and says which.

use std::collections::BTreeMap;

use fluvial_tests::client::Isolation;
use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;

use super::code::rows;
use super::{KEPT, assert_refused, completed, faulty, name_of, objects};

#[test]
fn a_checkpoint_of_another_job_is_refused() {
    let (stage, other) = (completed(100), completed(50));
    let manifest = objects(&stage, "checkpoints").pop().unwrap();
    let kept = std::fs::read(&manifest).unwrap();
    std::fs::copy(objects(&other, "checkpoints").pop().unwrap(), &manifest).unwrap();
    let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
    let name = manifest.file_name().unwrap().to_str().unwrap();
    assert_refused(&refused, 11, &[name, "of incarnation", "names it as the checkpoint of tick"]);
    std::fs::write(&manifest, kept).unwrap();
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    stage.check().unwrap();
}

#[test]
fn objects_of_a_newer_format_are_refused() {
    for folder in ["journal", "checkpoints"] {
        let stage = completed(100);
        let object = objects(&stage, folder).pop().unwrap();
        let kept = std::fs::read_to_string(&object).unwrap();
        let newer = kept.replacen(" 1 ", " 2 ", 1);
        assert_ne!(kept, newer);
        std::fs::write(&object, newer).unwrap();
        let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
        let parts = [&*name_of(&stage, &object), "format is version 2, this binary knows up to 1", "run the binary"];
        assert_refused(&refused, 11, &parts);
        std::fs::write(&object, kept).unwrap();
        stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
        stage.check().unwrap();
    }
}

#[test]
fn a_durable_operator_that_is_missing_or_of_another_type_is_refused_by_name() {
    let stage = faulty(Stage::new(Subject::Orders, 2).unwrap());
    stage.feed(0..100).unwrap();
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    let before = stage.visible().unwrap();
    for (wrong, parts) in [
        ("renamed", ["durable operator 'rows'", "this binary does not have", "bring the operator back"]),
        ("retyped", ["durable operator 'rows' is latest", "in the checkpoint and latest", "another --name"]),
        (
            "panics-in-aggregate",
            ["durable operator 'rows' is latest", "in the checkpoint and aggregate", "another --name"],
        ),
    ] {
        let options = format!("{KEPT} --stop-at-end --workers 2 --wrong {wrong}");
        assert_refused(&stage.start(&options).unwrap().finish(MOST).unwrap(), 2, &parts);
    }
    assert_eq!(stage.visible().unwrap(), before);
    stage.feed(100..150).unwrap();
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    assert_eq!(rows(&stage).0, rows(&stage).1);
}

/// Changes alone would be no right answer for any prefix of the input.
#[test]
fn an_output_that_the_job_did_not_have_is_refused_or_begins_with_its_whole_table() {
    let stage = faulty(Stage::new(Subject::Orders, 2).unwrap());
    stage.feed(0..100).unwrap();
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    let copy = format!("{}-copy", stage.input());
    let both = format!("{KEPT} --stop-at-end --copy {copy}");
    let refused = stage.start(&both).unwrap().finish(MOST).unwrap();
    assert_refused(&refused, 2, &[&copy, "is new", "run --reconcile"]);
    stage.complete(&format!("{both} --reconcile")).unwrap();
    stage.feed(100..150).unwrap();
    stage.complete(&format!("{both} --workers 3")).unwrap();
    let mut seen = BTreeMap::new();
    for record in stage.endpoint().read(&copy, Isolation::Committed).unwrap() {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        match record.value {
            Some(value) => seen.insert(text(record.key.unwrap()), text(value)),
            None => seen.remove(&text(record.key.unwrap())),
        };
    }
    assert_eq!(rows(&stage), (seen.clone(), seen));
    // And the other way: an output that the binary lacks would stay as it is for ever.
    let refused = stage.start(&format!("{KEPT} --stop-at-end")).unwrap().finish(MOST).unwrap();
    assert_refused(&refused, 2, &[&copy, "which this binary lacks", "the binary that has it"]);
}
