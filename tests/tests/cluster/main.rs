//! A cluster: nodes of the command `fluvial`, to which jobs are submitted.
#![allow(clippy::unwrap_used)]

mod access;
mod collection;
mod console;
mod console_job;
mod console_log;
mod drain;
mod ending;
mod front;
mod guards;
mod keys;
mod life;
mod limits;
mod logs;
mod metrics;
mod nodes;
mod returning;
mod savepoints;
mod strangers;
mod uploads;
