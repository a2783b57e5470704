//! Deletions of a compacted input that a job may never see: it stood still, or lagged, for longer than they are kept.
//!
//! Nothing tells them afterwards, as nothing is left of the key; every consumer of a compacted topic is in this position.
//! So it is said when the job opens.

use std::sync::Arc;
use std::time::Duration;

use fluvial_connector::Source;
use fluvial_protocol::manifest::SplitState;

use super::ambient;
use super::failure::chain;

/// How long ago the checkpoint last held all of a source, where that is known.
fn behind(splits: &[SplitState], source: &str, now_ms: u64) -> Option<Duration> {
    let caught_up = splits.iter().filter(|split| split.start.source == source && split.caught_up_ms > 0);
    let oldest_ms = caught_up.map(|split| split.caught_up_ms).min()?;
    Some(Duration::from_millis(now_ms.saturating_sub(oldest_ms)))
}

/// Asks the sources how long they keep deletions, and warns where that was not long enough for splits as they stand in the
/// checkpoint. Blocks.
pub(super) fn warn_of_deletions(splits: &[SplitState], sources: &[(String, Arc<dyn Source>)], patience: Duration) {
    for (name, source) in sources {
        let Some(behind) = behind(splits, name, ambient::now_ms()) else { continue };
        match source.compaction(patience) {
            Ok(Some(compaction)) if behind > compaction.deletions_kept => tracing::warn!(
                "{} keeps deletions for {} s, and the job last held all of it {} s ago: deletions that it has not read since \
                 may be gone, and their rows would then stay in its state; a new job under another --name, with \
                 --reconcile, begins without them",
                source.describe(),
                compaction.deletions_kept.as_secs(),
                behind.as_secs()
            ),
            Ok(_) => {}
            Err(error) => tracing::debug!(error = chain(error), "no settings"),
        }
    }
}
