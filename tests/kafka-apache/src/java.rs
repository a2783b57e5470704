//! The command lines of Apache Kafka's programs: how the Java virtual machine runs them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{ApacheKafka, Options, jars, workspace};

/// Has the virtual machine compile code once, with its quick compiler: most of the processor time of a short run is saved.
const QUICK: &str = "-XX:TieredStopAtLevel=1";

#[derive(Clone, Debug)]
pub(crate) struct Java {
    jars: PathBuf,
    log4j: PathBuf,
    archive: Archive,
}

/// The archive of loaded classes: a server that starts with it takes half the processor time.
#[derive(Clone, Debug)]
pub(crate) enum Archive {
    Read(PathBuf),
    /// It is written when the server ends.
    Written(PathBuf),
}

impl Archive {
    /// The archive of this version, written by the first server that is ever started.
    ///
    /// # Errors
    /// That server cannot be started.
    pub(crate) fn of(version: &str) -> Result<Self> {
        const NAME: &str = "classes.jsa";
        let folder = workspace::made_once(&format!("kafka-{version}-classes"), |folder| {
            let options = Options { version: version.to_owned(), ..Options::default() };
            ApacheKafka::start_with(&options, &Self::Written(folder.join(NAME)))?.stop()
        })?;
        Ok(Self::Read(folder.join(NAME)))
    }
}

impl Java {
    /// For the programs of a version, which keep what they need in `folder`.
    ///
    /// # Errors
    /// Java or Maven is missing, or the folder cannot be written.
    pub(crate) fn new(version: &str, folder: &Path, archive: Archive) -> Result<Self> {
        let log4j = folder.join("log4j2.properties");
        fs::write(&log4j, include_str!("log4j2.properties"))?;
        Ok(Self { jars: jars::folder(version)?, log4j, archive })
    }

    /// The command line of a server with these settings.
    pub(crate) fn server(&self, options: &Options, settings: &Path) -> Vec<OsString> {
        let mut line = vec!["java".into()];
        line.push(match &self.archive {
            Archive::Read(file) => option("-XX:SharedArchiveFile=", file),
            Archive::Written(file) => option("-XX:ArchiveClassesAtExit=", file),
        });
        if !options.fast {
            line.push(QUICK.into());
        }
        line.extend(self.virtual_machine(options.heap_mib));
        line.extend(["kafka.Kafka".into(), settings.into()]);
        line
    }

    /// Runs one of Kafka's command line tools to its end.
    ///
    /// # Errors
    /// It cannot be started, or fails: the error is what it said.
    pub(crate) fn run_tool(&self, class: &str, arguments: impl IntoIterator<Item = OsString>) -> Result<()> {
        let mut tool = Command::new("java");
        if let Archive::Read(file) = &self.archive {
            tool.arg(option("-XX:SharedArchiveFile=", file));
        }
        tool.arg(QUICK).args(self.virtual_machine(128)).arg(class).args(arguments);
        let output = tool.output().context("run java")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            bail!("{class}: {said}{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn virtual_machine(&self, heap_mib: u32) -> [OsString; 6] {
        let mut classpath = self.jars.as_os_str().to_owned();
        classpath.push("/*");
        let log4j = option("-Dlog4j2.configurationFile=", &self.log4j);
        let heap = format!("-Xmx{heap_mib}m").into();
        [heap, "-XX:+UseSerialGC".into(), "-XX:-UsePerfData".into(), log4j, "-cp".into(), classpath]
    }
}

fn option(name: &str, file: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(file);
    option
}
