//! A cluster: nodes of the command `fluvial`, to which jobs are submitted.
#![allow(clippy::unwrap_used)]

mod access;
mod console;
mod drain;
mod front;
mod guards;
mod keys;
mod life;
mod limits;
mod logs;
mod metrics;
mod nodes;
mod savepoints;
mod uploads;
