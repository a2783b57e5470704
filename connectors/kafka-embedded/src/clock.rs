//! The time, as it is handed to everything that decides by it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// For deadlines.
    pub(crate) instant: Instant,
    /// For timestamps in records: milliseconds since the Unix epoch.
    pub(crate) wall_ms: i64,
}

impl Now {
    /// Reads the clocks.
    pub(crate) fn read() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), wall_ms: since.as_millis().try_into().unwrap_or(i64::MAX) }
    }

    /// The same moment by a wall clock that is so many milliseconds ahead.
    pub(crate) fn ahead(self, ms: i64) -> Self {
        Self { wall_ms: self.wall_ms.saturating_add(ms), ..self }
    }
}
