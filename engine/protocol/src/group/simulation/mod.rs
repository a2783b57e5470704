//! Seeded histories of whole groups: nodes crash, stop, and are isolated from each other and from the store, while processes
//! come and go; and histories of one kind, told step by step. The same for clusters, whose users want changes meanwhile.
//!
//! [`world`] holds hosts, network, store and the processes of the job; everything about the group itself is the real
//! [`Node`](super::Node). What the processes do is a model of the job's protocol: an attempt that opens fences all earlier
//! ones, and one whose processes lose each other ends.

mod cluster;
mod drains;
mod histories;
mod scenarios;
mod upgrades;
mod world;
