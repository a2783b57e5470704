//! Apache Kafka's jars, fetched once into the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The version of Apache Kafka that is started unless another is asked for.
pub const VERSION: &str = "4.3.1";
/// The newest that does not forget a transaction when a partition's only broker is killed (KAFKA-20734).
pub const SURVIVES_A_KILL: &str = "4.2.0";
/// The oldest that Fluvial supports.
pub const OLDEST: &str = "3.6.2";

/// The folder that the jars come into.
pub const LIBRARIES: &str = "libs";

const CURE: &str = "install Java 17 and Maven, which start Apache Kafka: \
                    apt-get install -y openjdk-17-jre-headless maven (the script tests/run does it)";

/// The folder that holds the jars of a version.
///
/// # Errors
/// Java or Maven is missing (the error says what to install), or Maven cannot fetch.
pub(crate) fn folder(version: &str) -> Result<PathBuf> {
    for program in ["java", "mvn"] {
        if !on_the_path(program) {
            bail!("{program} is missing; {CURE}");
        }
    }
    let made = workspace::made_once(&format!("kafka-{version}"), |folder| {
        fetch(folder, include_str!("pom.xml"), &[format!("-Dkafka.version={version}")])
            .with_context(|| format!("fetch Apache Kafka {version}"))
    })?;
    Ok(made.join(LIBRARIES))
}

/// Fetches the jars that a project of Maven depends on into the folder [`LIBRARIES`] of `folder`.
///
/// # Errors
/// Maven cannot be started, or cannot fetch.
pub fn fetch(folder: &Path, project: &str, defines: &[String]) -> Result<()> {
    fs::write(folder.join("pom.xml"), project)?;
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "dependency:copy-dependencies"]).arg(format!("-DoutputDirectory={LIBRARIES}"));
    let output = maven.args(defines).current_dir(folder).output().context("run mvn")?;
    if !output.status.success() {
        bail!("mvn could not fetch ({}):\n{}", output.status, String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

/// Whether a shell would find the program.
#[must_use]
pub fn on_the_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder: PathBuf| Path::is_file(&folder.join(program)))
}
