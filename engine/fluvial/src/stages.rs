//! Where time goes: events at the stages of an opening, of a checkpoint, and of a tick.
//!
//! All have the target [`STAGES`]: at DEBUG what happens now and then, at TRACE what happens at every tick. Whoever
//! measures asks for them with `RUST_LOG=info,fluvial::stages=trace` and reads their times; nobody else pays for them.
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
