//! State that is not durable does not compile, and the compiler says why.
//!
//! Each file in `compile_fail/` is given to rustc by itself, with the crate as cargo has built it for this test. A
//! line `//~ text` in it says what an error must hold; a file without such lines must compile.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn state_that_is_not_durable_does_not_compile() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_fail");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for case in std::fs::read_dir(cases).unwrap() {
        let case = case.unwrap().path();
        seen += 1;
        if let Err(why) = check(&case) {
            wrong.push(format!("{}: {why}", case.display()));
        }
    }
    assert!(seen >= 8, "only {seen} cases were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn check(case: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(case).unwrap();
    let expected: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("//~ ")).collect();
    let (compiled, messages) = compile(case);
    if compiled != expected.is_empty() {
        return Err(format!("it {}:\n{messages}", if compiled { "compiles" } else { "does not compile" }));
    }
    match expected.iter().find(|part| !messages.contains(**part)) {
        Some(part) => Err(format!("the compiler does not say '{part}' but\n{messages}")),
        None => Ok(()),
    }
}

/// Whether the compiler takes a case, and what it says.
fn compile(case: &Path) -> (bool, String) {
    let (fluvial, dependencies) = built_crate();
    let out = tempfile::tempdir().unwrap();
    let result = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "lib",
            "--crate-name",
            "case",
            "--emit",
            "metadata",
            "-A",
            "dead_code",
        ])
        .arg("--out-dir")
        .arg(out.path())
        .arg("-L")
        .arg(format!("dependency={}", dependencies.display()))
        .arg("--extern")
        .arg(format!("fluvial={}", fluvial.display()))
        .arg(case)
        .output()
        .unwrap();
    (result.status.success(), String::from_utf8_lossy(&result.stderr).into_owned())
}

/// The newest build of the crate that lies beside this test, and the folder of what it depends on.
fn built_crate() -> (PathBuf, PathBuf) {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let builds = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("libfluvial-") && name.ends_with(".rlib")
    });
    let newest = builds.max_by_key(|path| path.metadata().unwrap().modified().unwrap());
    (newest.expect("cargo has built the crate for this test"), folder)
}
