//! What is shown while the demo runs: redrawn in place on a terminal, a few plain lines elsewhere. On stderr: the
//! results are what is printed in the end.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Where progress is shown.
pub(crate) struct Screen {
    live: Option<Live>,
}

struct Live {
    all: MultiProgress,
    table: ProgressBar,
    bar: ProgressBar,
}

impl Screen {
    /// A screen for a demo that lasts so long. It is live where both outputs are terminals: with one of them in a file or
    /// a pipe, somebody wants to read it there.
    pub(crate) fn new(lasting: Duration) -> anyhow::Result<Self> {
        if !(std::io::stderr().is_terminal() && std::io::stdout().is_terminal()) {
            return Ok(Self { live: None });
        }
        let all = MultiProgress::new();
        let table = all.add(ProgressBar::no_length().with_style(ProgressStyle::with_template("{msg}")?));
        let style = ProgressStyle::with_template("[{bar:40}] {msg}")?.progress_chars("=> ");
        let length = u64::try_from(lasting.as_millis()).unwrap_or(u64::MAX);
        let bar = all.add(ProgressBar::new(length).with_style(style));
        Ok(Self { live: Some(Live { all, table, bar }) })
    }

    /// Whether the table is looked at.
    pub(crate) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Says what happens now.
    pub(crate) fn say(&self, what: &str) {
        match &self.live {
            Some(live) => live.bar.set_message(what.to_owned()),
            // The reader of the output may have ended; the demo continues without it.
            None => drop(writeln!(std::io::stderr(), "{what}")),
        }
    }

    /// Shows the table, and how much of the time has passed.
    pub(crate) fn show(&self, table: String, passed: Duration, what: String) {
        if let Some(live) = &self.live {
            live.table.set_message(table);
            live.bar.set_position(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
            live.bar.set_message(what);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(live) = &self.live {
            live.table.finish_and_clear();
            live.bar.finish_and_clear();
            // An error means that the terminal is gone.
            let _ = live.all.clear();
        }
    }
}
