//! A cluster on three hosts with a broker and a store of their own: what happens to hosts, nodes and programs while users change
//! jobs. The output of each job is compared, tick by tick, with what its journal gives by `replay` and by a naive model.
//!
//! The blows are in a fixed order here; `campaign --cluster 3` mixes them for as long as it is told.
#![allow(clippy::unwrap_used)]

mod fail_points;
mod faults;
mod life;
mod programs;
mod rolling;
