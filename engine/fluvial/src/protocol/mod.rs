//! The part of Fluvial that must be right before anything else is, as state machines without I/O.

mod messages;

pub use messages::{FoundOutput, FoundSplit, Order, Plan, Report, owner, split_owner};
