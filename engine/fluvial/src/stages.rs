//! Trace events that show where time is spent: at the stages of an opening, of a checkpoint, and of a tick.
//!
//! All events have the target [`STAGES`]. Rare ones have the level DEBUG, those of every tick the level TRACE. Switch them on
//! with `RUST_LOG=info,fluvial::stages=trace`, and compare their times. They cost almost nothing when they are off.
//!
//! | event | with | says |
//! | --- | --- | --- |
//! | `opened`, `all fenced`, `input flows` | | how far the leader's opening is |
//! | `joined`, `found`, `restored`, `fenced`, `ready` | | how far a process or a worker is |
//! | `checkpoint complete` | | the journal names it |
//! | `minted`, `sealed` | tick | the leader's part |
//! | `encode`, `encoded` | tick, output | an output's part, from the end of the tick |
//! | `complete` | tick | the dataflow is through with it on this worker |
//! | `prepare`, `prepared`, `commit`, `committed` | tick | the transaction that ends with it |
//! | `acknowledged`, `written` | | the sink's part of it: the records, and then the progress, where it writes one after the other |

/// The target of the events.
pub(crate) const STAGES: &str = "fluvial::stages";
