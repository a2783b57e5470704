//! A cluster: nodes of the command `fluvial`, to which jobs are submitted.
#![allow(clippy::unwrap_used)]

mod life;
mod limits;
mod nodes;
