//! The clock of a host.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// What shifts the clock of the processes that are started with its environment, by the preloaded library libfaketime. The
/// monotonic clock, by which timeouts are kept, stays as it is.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    /// Holds the shift; the library reads it every second.
    file: PathBuf,
}

impl Clock {
    pub(super) fn new(file: PathBuf) -> Result<Self> {
        let folders = fs::read_dir("/usr/lib").context("list /usr/lib")?.flatten();
        let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
        let library = libraries.find(|library| library.exists());
        let library =
            library.context("libfaketime is needed: install Debian's package (the script tests/prepare does it)")?;
        let clock = Self { library, file };
        clock.shift(0)?;
        Ok(clock)
    }

    /// From now on, within a second, the clock is ahead of the machine's by so many seconds, or behind.
    ///
    /// # Errors
    /// The file that tells the library cannot be written.
    pub fn shift(&self, seconds: i64) -> Result<()> {
        // The library must not see half of it.
        let whole = self.file.with_extension("new");
        fs::write(&whole, format!("{seconds:+}\n"))?;
        fs::rename(&whole, &self.file).context("set the clock of a host")
    }

    /// The environment of the processes that have this clock.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let pairs = [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }
}
