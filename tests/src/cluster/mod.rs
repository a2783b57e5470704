//! A cluster: nodes of the command `fluvial` on several hosts, with a broker and a store on hosts of their own, and many jobs.
//!
//! ```text
//!   feeders ──► broker ◄──► jobs on the nodes of hosts 0, 1, 2, … ◄──► store (a bucket)
//!                 │                 ▲ fluvial submit, rescale, upgrade, drain, …: any node that answers
//!                 └──► committed output of each job ──► replay of its kept journal, model
//! ```

mod blow;
mod change;
pub mod figures;
mod jobs;
mod nodes;
mod siege;

pub use blow::Blow;
pub use change::{Change, Prepared};
pub use jobs::{Fleet, Tenant, built_again, own_args, submission};
pub use nodes::{Asked, Cluster, ClusterOptions, SMALL_PARTITIONS, WITHIN};
pub use siege::{campaign, check_logs, fail_points, strike, strike_at};
