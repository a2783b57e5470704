//! SIGTERM and SIGINT, by which a person or a platform asks a copy to stop.

use std::time::Duration;

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A signal that arrives within this time after the first is the same one: programs such as `timeout` signal both a process and
/// its process group.
pub(crate) const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// Calls `tell` for each signal, until it returns that nobody listens any more.
///
/// # Errors
/// The signals cannot be watched.
pub(crate) fn watch(tell: impl Fn() -> bool + Send + 'static) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot watch for signals")?;
    let watch = move || while signals.forever().next().is_some() && tell() {};
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch).map(drop).context("cannot watch for signals")
}
