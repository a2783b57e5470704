//! The clock of a host.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What shifts the clock.
const LIBRARY: &str = include_str!("clock.c");

/// What shifts the clock of the processes that are started with its environment, by a preloaded library. The monotonic clock, by
/// which timeouts are kept, stays as it is.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    /// Holds the shift, and is in the memory of all processes that have this clock.
    file: PathBuf,
}

impl Clock {
    pub(super) fn new(file: PathBuf) -> Result<Self> {
        let (source, library) = (file.with_extension("c"), file.with_extension("so"));
        fs::write(&source, LIBRARY)?;
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let output = compile.output().context("run cc, which compiles what shifts a clock")?;
        ensure!(output.status.success(), "{compile:?}: {}", String::from_utf8_lossy(&output.stderr));
        let clock = Self { library, file };
        clock.shift(0)?;
        Ok(clock)
    }

    /// From now on the clock is ahead of the machine's by so many seconds, or behind.
    ///
    /// # Errors
    /// The file that tells the library cannot be written.
    pub fn shift(&self, seconds: i64) -> Result<()> {
        let file = File::options().create(true).write(true).truncate(false).open(&self.file);
        file.and_then(|file| file.write_all_at(&seconds.to_ne_bytes(), 0)).context("set the clock of a host")
    }

    /// The environment of the processes that have this clock.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let pairs = [("LD_PRELOAD", &self.library), ("FLUVIAL_TEST_CLOCK", &self.file)];
        pairs.map(|(name, path)| (name.to_owned(), path.display().to_string())).into()
    }
}
