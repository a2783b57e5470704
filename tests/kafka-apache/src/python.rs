//! Python with packages of PyPI's, in an environment of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The interpreter of an environment that has these packages, which are installed into the target folder once. `name` is the
/// environment's name there, and tells it from those with other packages or versions.
///
/// # Errors
/// Python is missing, or a package cannot be installed.
pub fn with(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = workspace::made_once(name, |folder| {
        let cure = "install Python with venv: apt-get install -y python3-venv (the script tests/run does it)";
        run(Command::new("python3").args(["-m", "venv"]).arg(folder)).context(cure)?;
        let mut pip = Command::new(interpreter(folder));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
        run(pip.args(packages))
    })?;
    Ok(interpreter(&folder))
}

fn interpreter(folder: &Path) -> PathBuf {
    folder.join("bin").join("python")
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{command:?} ended with {}:\n{out}{err}", output.status);
    }
    Ok(())
}
