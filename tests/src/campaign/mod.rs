//! Jobs under fire: run, killed, run again, and then compared with what must be there.
//!
//! ```text
//!   plan (from the seed) ──► feeder ──► input topic ──► proxy ──► job, struck as the plan says ──► output topics
//!                                           │                      │ kept journal                     │ read_committed
//!                                           └────────► model ◄─────┴──► replay                        ▼
//!                                                        └──────────────┴──────────compare────────────┘
//! ```
//!
//! What happens is given by the seed; when exactly it meets the job is not, which is the point.

mod comparison;
mod feeder;
mod gauge;
mod ground;
mod plan;
mod report;
mod siege;
mod witness;

pub use crate::subject::Subject;
pub use comparison::Comparison;
pub use feeder::Feeder;
pub use gauge::Gauge;
pub use ground::Ground;
pub use plan::{Blow, Plan, Round, Whom};
pub use report::{Ledger, Outcome, Pauses, Report, Struck};
pub use siege::Siege;
pub use witness::{Sightings, Witness};
