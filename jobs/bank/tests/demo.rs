//! `bank demo` in a pipe.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn the_total_is_0_in_every_record_and_in_every_cut() {
    let temp = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_bank"));
    let output = demo.args(["demo", "--for", "2s", "--rate", "5000"]).env("TMPDIR", temp.path()).output().unwrap();
    let (summary, rest) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{summary}\n{rest}");
    let figure = |label: &str| {
        let line = summary.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_else(|| panic!("{summary}"));
        line.trim().replace(',', "").parse::<u64>().unwrap()
    };
    assert!(figure("consistent cuts") > 1, "{summary}");
    assert_eq!(figure("cuts with a sum or total other than 0"), 0);
    assert!(figure("records of 'total' ") >= 1, "{summary}");
    assert_eq!(figure("records of 'total' other than 0"), 0);
    assert!(summary.contains("equal to the recomputation"), "{summary}");
    assert!(std::fs::read_dir(temp.path()).unwrap().next().is_none(), "something is left behind");
}
