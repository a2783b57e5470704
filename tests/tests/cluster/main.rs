//! A cluster: nodes of the command `fluvial`, to which jobs are submitted.
#![allow(clippy::unwrap_used)]

mod console;
mod front;
mod life;
mod nodes;
