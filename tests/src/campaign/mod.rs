//! Jobs under fire: run, killed, run again, and then compared with what must be there.
//!
//! ```text
//!   plan (from the seed) ──► feeder ──► input topic ──► job, killed as the plan says ──► output topics
//!                                           │              │ kept journal                     │ read_committed
//!                                           └──► model ◄───┴──► replay                        ▼
//!                                                  └──────────────┴────────compare────────────┘
//! ```
//!
//! What happens is given by the seed; when exactly it meets the job is not, which is the point.

mod feeder;
mod plan;
mod siege;

pub use feeder::Feeder;
pub use plan::{Blow, Plan, Round, Subject};
pub use siege::{Report, Siege};
