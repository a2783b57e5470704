//! The deployment files, as the systems that read them see them.
//!
//! Kubernetes' objects are checked against its published OpenAPI documents and KEDA's definition of its resources, a Nomad job
//! against the struct tags from which Nomad's parser takes the names of blocks and attributes. All of these come from Go
//! modules, of which nothing is built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::apache::python;
use crate::workspace;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/deployment/check.py");
const PACKAGES: [&str; 3] = ["jsonschema==4.26.0", "pyyaml==6.0.3", "python-hcl2==8.1.4"];
/// Holds the documents of several versions of Kubernetes.
const OPENAPI: (&str, &str) = ("sigs.k8s.io/kubectl-validate@v0.0.4", "pkg/openapiclient/builtins/1.30");
const KEDA: (&str, &str) = ("github.com/kedacore/keda/v2@v2.21.0", "config/crd/bases");
const NOMAD: (&str, &str) = ("github.com/hashicorp/nomad/api@v0.0.0-20261016150620-df630b26e78a", "");

/// A task or container that runs a copy of the job.
#[derive(Debug, Deserialize)]
pub struct Copy {
    /// The job's arguments, with the platform's variables.
    pub args: Vec<String>,
    /// The path that is asked for each kind of probe.
    pub probes: std::collections::BTreeMap<String, String>,
    /// How long it may take to end, in seconds.
    pub grace: u64,
}

/// The folder of the deployment files.
#[must_use]
pub fn folder() -> PathBuf {
    workspace::root().join("engine/deploy")
}

/// Checks Kubernetes' objects in these files, alone and together; returns the copies that they run.
///
/// # Errors
/// An object is wrong, or what checks it cannot be installed.
pub fn kubernetes(files: &[PathBuf]) -> Result<Vec<Copy>> {
    let mut command = checker("kubernetes")?;
    command.args([module(OPENAPI)?, module(KEDA)?]).args(files);
    output_of(command)
}

/// Checks the Nomad job in a file; returns the copies that it runs.
///
/// # Errors
/// As [`kubernetes`].
pub fn nomad(file: &Path) -> Result<Vec<Copy>> {
    let mut command = checker("nomad")?;
    command.args([&module(NOMAD)?, file]);
    output_of(command)
}

fn checker(what: &str) -> Result<Command> {
    let mut command = Command::new(python::with("deployment-1", &PACKAGES)?);
    command.args([SCRIPT, what]);
    Ok(command)
}

/// A folder of a Go module, which is downloaded once.
fn module((module, folder): (&str, &str)) -> Result<PathBuf> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Downloaded {
        #[serde(default)]
        dir: PathBuf,
        #[serde(default)]
        error: String,
    }
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", module]).env("GOFLAGS", "").current_dir(std::env::temp_dir());
    let output = go.output().context("run go: apt-get install -y golang-go (the script tests/prepare does it)")?;
    let downloaded: Downloaded = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("go mod download {module}: {}", String::from_utf8_lossy(&output.stderr)))?;
    ensure!(downloaded.error.is_empty(), "go mod download {module}: {}", downloaded.error);
    Ok(downloaded.dir.join(folder))
}

fn output_of(mut command: Command) -> Result<Vec<Copy>> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&said).with_context(|| format!("read {said}"))
}
