//! The one place where the engine reads clocks and creates random names; what needs them is given them from here.
//!
//! Clippy bans them everywhere else in this crate: whatever can reach an output must be a function of the journal.
#![expect(clippy::disallowed_methods, reason = "this is the place")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// Milliseconds since the Unix epoch, of which ticks are minted.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A moment to measure from, for time limits and pauses.
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// A name that no other object has.
pub(crate) fn uuid() -> Uuid {
    Uuid::new_v4()
}

/// Waits before a call that failed is made again. The thread has nothing else to do.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
